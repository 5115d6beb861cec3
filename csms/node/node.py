"""A running node as its adapters see it: the ledger, the log of frames, the way to and from the other nodes."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any, Protocol, TypeVar

import structlog
from prometheus_client import Counter, Gauge

from csms.adapter import Adapter, Admission, BrokerMessage, ChargerSnapshot
from csms.core.records import Frame
from csms.core.reports import Held, Report
from csms.errors import BrokerAway
from csms.node.command_audit import AuditedAdapter
from csms.node.frame_log import FrameLog
from csms.node.ledger import Ledger
from csms.scheduling.plan_view import PlanView

R = TypeVar("R")
log = structlog.get_logger()
_LOST = Counter("csms_posts_dropped_total", "Reports that may be lost and were, under pressure.")
_HELD = Gauge("csms_chargers_held", "Chargers connected to this node.")


class Router(Protocol):
    """Finds the node that holds a charger."""

    def hold(self, charger_id: str, adapter: Adapter) -> None: ...
    def release(self, charger_id: str, adapter: Adapter) -> None: ...
    async def hang_up(self, node: str, charger_id: str, generation: int) -> None: ...


class Link(Protocol):
    """The way to the broker, for what is no event."""

    @property
    def connected(self) -> bool: ...
    @property
    def prefix(self) -> str: ...
    async def publish(
        self, topic: str, payload: bytes, *, retain: bool, expiry_s: int | None = None, bare: bool = False
    ) -> None: ...
    def listen(self, topic: str, *, bare: bool = False) -> AsyncIterator[BrokerMessage]: ...


class Node:
    """Implements `csms.adapter.Node`."""

    def __init__(
        self,
        name: str,
        ledger: Ledger,
        frames: FrameLog,
        router: Router,
        admit: Callable[[str], Awaitable[Admission | None]],
        stand: Callable[[str], Awaitable[ChargerSnapshot]],
        registered: Callable[[str], Awaitable[list[str]]],
        *,
        link: Link | None = None,
        on_frame: Callable[[Frame], None] | None = None,
        on_presence: Callable[[str], None] | None = None,
        show: Callable[[PlanView, Sequence[int]], Awaitable[bool]] | None = None,
        away_limit_s: float = 10,
    ) -> None:
        self.name = name
        self._ledger = ledger
        self._frames = frames
        self._router = router
        self._admit = admit
        self._stand = stand
        self._registered = registered
        self._link = link
        self._on_frame = on_frame
        self._on_presence = on_presence
        self._show = show
        self._away_limit_s = away_limit_s
        self._held: set[str] = set()
        self._recording: dict[Adapter, AuditedAdapter] = {}

    async def record(self, report: Report[R]) -> R:
        answer = await self._ledger.record(report)
        if isinstance(answer, Held) and answer.previous_node not in {None, self.name}:
            assert answer.previous_node is not None
            await self._router.hang_up(answer.previous_node, report.charger_id, answer.generation)
        return answer

    def post(self, report: Report[Any]) -> None:
        if not self._ledger.post(report):
            _LOST.inc()

    def frame(self, frame: Frame) -> None:
        self._frames.put(frame)
        if self._on_frame is not None:
            self._on_frame(frame)

    async def admission(self, charger_id: str) -> Admission | None:
        return await self._admit(charger_id)

    async def registered(self, prefix: str) -> list[str]:
        return await self._registered(prefix)

    async def standing(self, charger_id: str) -> ChargerSnapshot:
        return await self._stand(charger_id)

    def accepting(self) -> bool:
        return self._ledger.away_s() < self._away_limit_s

    async def hold(self, charger_id: str, adapter: Adapter) -> None:
        self._held.add(charger_id)
        _HELD.set(len(self._held))
        self._router.hold(charger_id, self._recorded(adapter))
        if self._on_presence is not None:
            self._on_presence(charger_id)

    async def release(self, charger_id: str, adapter: Adapter) -> None:
        self._held.discard(charger_id)
        _HELD.set(len(self._held))
        self._router.release(charger_id, self._recorded(adapter))
        if self._on_presence is not None:
            self._on_presence(charger_id)

    async def show_plan(self, shown: PlanView, only: Sequence[int]) -> bool:
        return self._show is not None and await self._show(shown, only)

    def _recorded(self, adapter: Adapter) -> AuditedAdapter:
        if adapter not in self._recording:
            self._recording[adapter] = AuditedAdapter(adapter, self._ledger.record)
        return self._recording[adapter]

    @property
    def broker_connected(self) -> bool:
        return self._link is not None and self._link.connected

    @property
    def topic_prefix(self) -> str:
        return "" if self._link is None else self._link.prefix

    async def publish(
        self,
        topic: str,
        payload: bytes,
        *,
        retain: bool = True,
        expiry_s: int | None = None,
        bare: bool = False,
    ) -> None:
        if self._link is None:
            raise BrokerAway(f"{topic} was not published: MQTT is off (MQTT_ENABLED=false).")
        await self._link.publish(topic, payload, retain=retain, expiry_s=expiry_s, bare=bare)

    async def listen(self, topic: str, *, bare: bool = False) -> AsyncIterator[BrokerMessage]:
        if self._link is None:
            await asyncio.Event().wait()
            return
        async for message in self._link.listen(topic, bare=bare):
            yield message
