"""What must survive a restart and is no charger's business: one retained message a connector, on the main broker."""

import asyncio
import contextlib
from uuid import uuid4

import msgspec
import structlog

from bridges.charge_amps.schedule_sync import SyncState
from csms.adapter import AdapterHost
from csms.core.events import topic_level
from csms.errors import BrokerAway

log = structlog.get_logger()
_ASK_EVERY_S = 0.5


def plan_topic(charge_point_id: str, connector_id: int) -> str:
    return f"charge-amps/{topic_level(charge_point_id)}/{connector_id}/plan"


def state_topic(charge_point_id: str, connector_id: int) -> str:
    return f"charge-amps/{topic_level(charge_point_id)}/{connector_id}/state"


class PlanStore:
    """`recall` waits for the broker: without it nobody knows what on a charger is ours."""

    def __init__(self, node: AdapterHost) -> None:
        self._node = node
        self._unsaved: dict[str, SyncState] = {}

    async def recall(self) -> dict[str, SyncState]:
        """All that was remembered, by topic."""
        found: dict[str, SyncState] = {}
        # A message of our own is the end of those that the broker had kept: it comes after them.
        mark = f"charge-amps/{uuid4().hex}/0/plan"
        asking = asyncio.create_task(self._ask(mark), name="recall")
        try:
            async with contextlib.aclosing(self._node.listen("charge-amps/+/+/plan")) as heard:  # type: ignore[type-var]
                async for message in heard:
                    if message.topic == mark:
                        return found
                    if message.body:
                        kept = _read(message.topic, message.body)
                        if kept is not None:
                            found[message.topic] = kept
        finally:
            asking.cancel()
            await asyncio.wait({asking})
        return found

    async def _ask(self, mark: str) -> None:
        while True:
            await asyncio.sleep(_ASK_EVERY_S / 2)
            if self._node.broker_connected:
                with contextlib.suppress(BrokerAway):
                    await self._node.publish(mark, b"", retain=False)
            await asyncio.sleep(_ASK_EVERY_S / 2)

    async def remember(self, topic: str, kept: SyncState) -> None:
        """Now, or once the broker is back (`flush`)."""
        self._unsaved[topic] = kept
        await self.flush()

    async def flush(self) -> None:
        for topic, kept in list(self._unsaved.items()):
            try:
                await self._node.publish(topic, msgspec.json.encode(kept))
            except BrokerAway as away:
                log.warning("plan not remembered yet", error=str(away))
                return
            if self._unsaved.get(topic) is kept:
                del self._unsaved[topic]


def _read(topic: str, body: bytes) -> SyncState | None:
    try:
        return msgspec.json.decode(body, type=SyncState)
    except (msgspec.MsgspecError, ValueError) as error:
        log.error("a remembered plan cannot be read", topic=topic, error=str(error))
        return None
