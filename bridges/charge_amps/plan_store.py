"""Store the schedule state of each connector in retained topics of the main broker, where it survives a restart."""

import asyncio
import contextlib
from typing import Final
from uuid import uuid4

import msgspec
import structlog

from bridges.charge_amps.schedule_sync import SyncState
from csms.adapter import AdapterHost, BrokerMessage
from csms.core.events import topic_level
from csms.errors import BrokerAway
from csms.outside import read_json

log = structlog.get_logger()
_MARKER_INTERVAL_S: Final = 0.5


def plan_topic(charge_point_id: str, connector_id: int) -> str:
    return f"charge-amps/{topic_level(charge_point_id)}/{connector_id}/plan"


def state_topic(charge_point_id: str, connector_id: int) -> str:
    return f"charge-amps/{topic_level(charge_point_id)}/{connector_id}/state"


class PlanStore:
    """The retained plans of all connectors. `load` waits for the broker: only the plans tell whose a schedule is."""

    def __init__(self, node: AdapterHost) -> None:
        self._node = node
        self._unsaved: dict[str, SyncState] = {}

    async def load(self) -> dict[str, SyncState]:
        """Return the stored states by topic."""
        states: dict[str, SyncState] = {}
        # The broker delivers a marker of the bridge's own after the messages that it had retained.
        marker = f"charge-amps/{uuid4().hex}/0/plan"
        complete = asyncio.Event()

        def handle(message: BrokerMessage) -> None:
            if message.topic == marker:
                complete.set()
            elif message.body and not complete.is_set():
                states[message.topic] = read_json(message.body, SyncState)

        async with asyncio.TaskGroup() as tasks:
            listening = tasks.create_task(self._node.listen("charge-amps/+/+/plan", handle))
            publishing = tasks.create_task(self._publish_marker(marker), name="plan marker")
            await complete.wait()
            listening.cancel()
            publishing.cancel()
        return states

    async def _publish_marker(self, marker: str) -> None:
        while True:
            await asyncio.sleep(_MARKER_INTERVAL_S / 2)
            if self._node.broker_connected:
                with contextlib.suppress(BrokerAway):
                    await self._node.publish(marker, b"", retain=False)
            await asyncio.sleep(_MARKER_INTERVAL_S / 2)

    async def save(self, topic: str, state: SyncState) -> None:
        """Store a state now, or at the next `flush` if the broker is unreachable."""
        self._unsaved[topic] = state
        await self.flush()

    async def flush(self) -> None:
        for topic, state in list(self._unsaved.items()):
            try:
                await self._node.publish(topic, msgspec.json.encode(state))
            except BrokerAway as error:
                log.warning("plan_not_saved", topic=topic, error=str(error))
                return
            if self._unsaved.get(topic) is state:
                del self._unsaved[topic]
