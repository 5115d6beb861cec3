"""The EV-Meter bridge: a poller for each charger, and one connection for all of them. It can only monitor."""

import asyncio
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, Final

import structlog

from bridges.ev_meter.config import EvMeterConfig
from bridges.ev_meter.login import HOST
from bridges.ev_meter.poller import ChargerPoller
from bridges.ev_meter.vendor_broker import VendorBroker
from csms.adapter import AdapterHost, Command
from csms.errors import NotSupported
from csms.mqtt.client.config import LinkConfig

log = structlog.get_logger()
_TRIGGERS: Final = {"StatusNotification", "MeterValues"}


class EvMeterAdapter:
    """Implements `csms.adapter.Adapter`. `link` leads to the vendor's broker, or to one of the tests or the demo."""

    def __init__(
        self,
        config: EvMeterConfig,
        link: LinkConfig,
        *,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._config = config
        self._link = link
        self._clock = clock
        self.pollers: dict[str, ChargerPoller] = {}

    async def run(self, node: AdapterHost) -> None:
        intervals = self._config.intervals
        broker = VendorBroker(self._config.account, self._link, rate_s=intervals.requests_per_s)
        self.pollers = {
            charger.charger_id: ChargerPoller(charger, self._config, broker, node, self, self._clock)
            for charger in self._config.chargers
        }
        # The first polls are spread over one interval, so that the chargers are never all polled at once.
        stagger_s = intervals.idle_s / max(len(self.pollers), 1)
        log.info("ev_meter_started", chargers=len(self.pollers), requests_per_s=intervals.requests_per_s)
        if self._link.host == HOST:
            log.warning("ev_meter_unencrypted", exposed="login, account and readings")
        async with asyncio.TaskGroup() as group:
            group.create_task(broker.run(), name="ev-meter link")
            for number, poller in enumerate(self.pollers.values()):
                group.create_task(poller.run(stagger_s * number), name="ev-meter poller")

    async def perform(self, charger_id: str, command: Command) -> Mapping[str, Any]:
        """Perform TriggerMessage, the only command that these chargers support. Raises NotSupported."""
        poller = self.pollers.get(charger_id)
        requested = command.payload.get("requestedMessage")
        if poller is None or command.action != "TriggerMessage" or requested not in _TRIGGERS:
            raise NotSupported(
                "EV-Meter chargers can only be watched: TriggerMessage for StatusNotification or MeterValues."
            )
        poller.poll_now()
        return {"status": "Accepted"}

    async def hang_up(self, charger_id: str, generation: int) -> None:
        poller = self.pollers.get(charger_id)
        if poller is not None:
            poller.hang_up(generation)
