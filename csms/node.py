"""A running node as its adapters see it: the ledger, the log of frames, the way to and from the other nodes."""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any, Protocol, TypeVar

import structlog
from prometheus_client import Counter, Gauge

from csms.adapter import Adapter, Admission, Command
from csms.core.records import Frame
from csms.core.reports import Report
from csms.errors import ChargerOffline
from csms.ledger import Ledger

R = TypeVar("R")
log = structlog.get_logger()
_LOST = Counter("csms_posts_dropped_total", "Reports that may be lost and were, under pressure.")
_HELD = Gauge("csms_chargers_held", "Chargers connected to this node.")


class Router(Protocol):
    """Finds the node that holds a charger."""

    async def hold(self, charger_id: str, adapter: Adapter) -> None: ...
    async def release(self, charger_id: str, adapter: Adapter) -> None: ...
    async def send(self, charger_id: str, command: Command) -> Mapping[str, Any]: ...


class Link(Protocol):
    """The way to the broker."""

    async def publish(self, topic: str, body: bytes, *, qos: int = 1, retain: bool = False) -> None: ...
    def listen(self, topic: str) -> AsyncIterator[bytes]: ...


class LocalRouter:
    """Without a broker there is one node, and it holds whatever is held."""

    def __init__(self) -> None:
        self._held: dict[str, Adapter] = {}

    async def hold(self, charger_id: str, adapter: Adapter) -> None:
        self._held[charger_id] = adapter

    async def release(self, charger_id: str, adapter: Adapter) -> None:
        if self._held.get(charger_id) is adapter:
            del self._held[charger_id]

    async def send(self, charger_id: str, command: Command) -> Mapping[str, Any]:
        adapter = self._held.get(charger_id)
        if adapter is None:
            raise ChargerOffline(f"{charger_id} is not connected")
        return await adapter.perform(charger_id, command)


class LocalNode:
    """Implements `csms.adapter.Node`."""

    def __init__(
        self,
        name: str,
        ledger: Ledger,
        router: Router,
        admit: Callable[[str], Awaitable[Admission | None]],
        *,
        link: Link | None = None,
        on_frame: Callable[[Frame], None] | None = None,
        on_presence: Callable[[str, bool], None] | None = None,
        away_limit_s: float = 10,
    ) -> None:
        self.name = name
        self._ledger = ledger
        self._router = router
        self._admit = admit
        self._link = link
        self._on_frame = on_frame
        self._on_presence = on_presence
        self._away_limit_s = away_limit_s
        self._held: set[str] = set()

    async def record(self, report: Report[R]) -> R:
        return await self._ledger.record(report)

    def post(self, report: Report[Any]) -> None:
        if not self._ledger.post(report):
            _LOST.inc()

    def frame(self, frame: Frame) -> None:
        self._ledger.log_frame(frame)
        if self._on_frame is not None:
            self._on_frame(frame)

    async def admission(self, charger_id: str) -> Admission | None:
        return await self._admit(charger_id)

    def accepting(self) -> bool:
        return self._ledger.away_s() < self._away_limit_s

    async def hold(self, charger_id: str, adapter: Adapter) -> None:
        self._held.add(charger_id)
        _HELD.set(len(self._held))
        await self._router.hold(charger_id, adapter)
        if self._on_presence is not None:
            self._on_presence(charger_id, True)

    async def release(self, charger_id: str, adapter: Adapter) -> None:
        self._held.discard(charger_id)
        _HELD.set(len(self._held))
        await self._router.release(charger_id, adapter)
        if self._on_presence is not None:
            self._on_presence(charger_id, False)

    async def publish(self, topic: str, payload: bytes, *, retain: bool = True) -> None:
        """Retained state; nothing happens while there is no broker, the state is published again later."""
        if self._link is not None:
            await self._link.publish(topic, payload, retain=retain)

    async def listen(self, topic: str) -> AsyncIterator[bytes]:
        if self._link is not None:
            async for body in self._link.listen(topic):
                yield body
