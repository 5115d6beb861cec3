"""The EV-Meter bridge: an attendant for each charger, one connection for all of them. It can only watch."""

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
_TELLING: Final = {"StatusNotification", "MeterValues"}


class EvMeterAdapter:
    """Implements `csms.adapter.Adapter`. `link` is the vendor's broker; tests and the demo give their own."""

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
        self.attendants: dict[str, ChargerPoller] = {}

    async def run(self, node: AdapterHost) -> None:
        backend = VendorBroker(self._config.account, self._link, rate_s=self._config.pace.requests_per_s)
        self.attendants = {
            device.charger_id: ChargerPoller(device, self._config, backend, node, self, self._clock)
            for device in self._config.devices
        }
        # Spread over one interval, so that they are never all asked at once.
        stagger_s = self._config.pace.idle_s / max(len(self.attendants), 1)
        log.info("ev-meter", chargers=len(self.attendants), requests_per_s=self._config.pace.requests_per_s)
        if self._link.host == HOST:
            log.warning("ev-meter is unencrypted: login, account and readings travel in clear")
        async with asyncio.TaskGroup() as group:
            group.create_task(backend.run(), name="ev-meter link")
            for number, attendant in enumerate(self.attendants.values()):
                group.create_task(attendant.run(stagger_s * number), name="ev-meter attendant")

    async def perform(self, charger_id: str, command: Command) -> Mapping[str, Any]:
        """Only one thing can be asked of these chargers: to tell how they are. Raises NotSupported."""
        attendant = self.attendants.get(charger_id)
        wanted = command.payload.get("requestedMessage")
        if attendant is None or command.action != "TriggerMessage" or wanted not in _TELLING:
            raise NotSupported(
                "EV-Meter chargers can only be watched: TriggerMessage for StatusNotification or MeterValues."
            )
        attendant.look_now()
        return {"status": "Accepted"}

    async def hang_up(self, charger_id: str, generation: int) -> None:
        attendant = self.attendants.get(charger_id)
        if attendant is not None:
            attendant.hang_up(generation)
