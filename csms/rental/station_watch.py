"""Stations as they are this second: asked for over the broker while somebody looks at a page.

`rentals/{charger}/watch` says that somebody looks; whoever connects the charger answers on `…/live`. A station that
has not said anything within 15 seconds of a user's hello does not answer, whatever was known of it before.
"""

import time
from collections.abc import Callable
from typing import Final

import msgspec
from msgspec import Struct, field

from csms.adapter import AdapterHost, BrokerMessage
from csms.core.live_status import LiveStatus
from csms.errors import BrokerAway

ANSWER_S: Final = 15.0
# While somebody looks, a station is asked so long after its last word: well before what it said is too old.
_ASK_AFTER_S: Final = 8.0
# What it said just before it was asked is as good as the answer.
_GRACE_S: Final = 3.0
_AGAIN_S: Final = 4.0
_MOST, _MOST_LOOKING = 50_000, 100


class LiveStation(Struct, frozen=True, kw_only=True):
    """A station for one who looks: its last words, whether they are not older than 15 s, whether it does not answer."""

    figures: LiveStatus | None = None
    fresh: bool = False
    silent: bool = False


class WatchedStation(Struct, kw_only=True):
    """One charger that is being looked at; moments of the monotonic clock. `asked`: by users who still wait."""

    figures: LiveStatus | None = None
    heard_at: float | None = None
    asked: dict[str, float] = field(default_factory=dict)
    hello_at: float = float("-inf")
    told_at: float = float("-inf")


class StationWatcher:
    """One for each node. `run()` until cancelled."""

    def __init__(self, node: AdapterHost, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._node = node
        self._clock = clock
        self._seen: dict[str, WatchedStation] = {}

    async def run(self) -> None:
        async for message in self._node.listen("rentals/+/live"):
            self.heard(message)

    def heard(self, message: BrokerMessage) -> None:
        levels = message.topic.split("/")
        seen = self._seen.get(levels[1]) if len(levels) == 3 else None
        if seen is None or message.retained:
            return
        try:
            figures = msgspec.json.decode(message.body, type=LiveStatus)
        except msgspec.MsgspecError:
            return
        at = self._clock() - max(figures.age_s, 0)
        if seen.heard_at is not None and at < seen.heard_at - _GRACE_S:
            return
        seen.figures, seen.heard_at = figures, at
        seen.asked = {uid: asked_at for uid, asked_at in seen.asked.items() if at < asked_at - _GRACE_S}

    async def look(self, charger_id: str, uid: str, *, anew: bool) -> None:
        """Somebody looks. `anew`: the page was just opened, the station shall be asked (hello) as that user."""
        now = self._clock()
        if len(self._seen) >= _MOST:
            self._seen.pop(next(iter(self._seen)))
        seen = self._seen.setdefault(charger_id, WatchedStation())
        hello = anew or self._to_be_asked(seen, uid, now)
        if hello:
            seen.hello_at = now
            if (anew or uid not in seen.asked) and not _within(seen.heard_at, now, _GRACE_S):
                seen.asked[uid] = now
            while len(seen.asked) > _MOST_LOOKING:
                seen.asked.pop(next(iter(seen.asked)))
        if not hello and now - seen.told_at < _AGAIN_S:
            return
        seen.told_at = now
        body = msgspec.json.encode({"uid": uid, "hello": hello})
        try:
            await self._node.publish(f"rentals/{charger_id}/watch", body, retain=False, expiry_s=5)
        except BrokerAway:
            return

    @staticmethod
    def _to_be_asked(seen: WatchedStation, uid: str, now: float) -> bool:
        if uid in seen.asked:
            return now - seen.hello_at >= ANSWER_S  # a hello, or its answer, can be lost
        return not _within(seen.heard_at, now, _ASK_AFTER_S)

    def sight(self, charger_id: str, uid: str) -> LiveStation:
        now, seen = self._clock(), self._seen.get(charger_id)
        if seen is None:
            return LiveStation()
        asked_at = seen.asked.get(uid)
        return LiveStation(
            figures=seen.figures,
            fresh=_within(seen.heard_at, now, ANSWER_S),
            silent=asked_at is not None and now - asked_at >= ANSWER_S,
        )


def _within(moment: float | None, now: float, seconds: float) -> bool:
    return moment is not None and now - moment <= seconds
