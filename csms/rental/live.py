"""Stations as they are this second: asked for over the broker while somebody looks at a page.

`rentals/{charger}/watch` says that somebody looks; whoever connects the charger answers on `…/live`.
"""

import time
from collections.abc import Callable
from typing import Final

import msgspec
from msgspec import Struct

from csms.adapter import Node
from csms.errors import BrokerAway

ANSWER_S: Final = 15.0
_AGAIN_S: Final = 4.0
_MOST: Final = 50_000


class Figures(Struct, frozen=True, kw_only=True, rename="camel"):
    """`uid` is the renter: for comparing, not for showing."""

    status: str
    at: str = ""
    uid: str | None = None
    time_s: int | None = None
    energy_wh: float | None = None
    power_w: float | None = None


class Seen(Struct, kw_only=True):
    """One charger that is being looked at; moments of the monotonic clock."""

    figures: Figures | None = None
    heard_at: float | None = None
    asked_at: float | None = None
    told_at: float | None = None


class Watcher:
    """One for each node. `run()` until cancelled."""

    def __init__(
        self,
        node: Node | None,
        *,
        answer_s: float = ANSWER_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._node = node
        self._answer_s = answer_s
        self._clock = clock
        self._seen: dict[str, Seen] = {}

    async def run(self) -> None:
        if self._node is None:
            return
        async for message in self._node.listen("rentals/+/live"):
            levels = message.topic.split("/")
            seen = self._seen.get(levels[1]) if len(levels) == 3 else None
            if seen is None or message.retained:
                continue
            try:
                seen.figures = msgspec.json.decode(message.body, type=Figures)
            except msgspec.MsgspecError:
                continue
            seen.heard_at, seen.asked_at = self._clock(), None

    async def look(self, charger_id: str, uid: str, *, anew: bool) -> None:
        """Somebody looks. `anew`: the page was just opened, the station shall be asked (hello) as that user."""
        now = self._clock()
        if len(self._seen) >= _MOST:
            self._seen.pop(next(iter(self._seen)))
        seen = self._seen.setdefault(charger_id, Seen())
        if seen.asked_at is None and not self._fresh(seen, now):
            seen.asked_at = now
        if self._node is None or (seen.told_at is not None and not anew and now - seen.told_at < _AGAIN_S):
            return
        seen.told_at = now
        body = msgspec.json.encode({"uid": uid, "hello": anew})
        try:
            await self._node.publish(f"rentals/{charger_id}/watch", body, retain=False, expiry_s=5)
        except BrokerAway:
            return

    def figures(self, charger_id: str) -> Figures | None:
        """What the station said in the last 15 seconds."""
        seen = self._seen.get(charger_id)
        return seen.figures if seen is not None and self._fresh(seen, self._clock()) else None

    def silent(self, charger_id: str) -> bool:
        """Whether it has been asked for 15 seconds without an answer."""
        seen = self._seen.get(charger_id)
        return (
            seen is not None and seen.asked_at is not None and self._clock() - seen.asked_at >= self._answer_s
        )

    def _fresh(self, seen: Seen, now: float) -> bool:
        return seen.heard_at is not None and now - seen.heard_at < self._answer_s
