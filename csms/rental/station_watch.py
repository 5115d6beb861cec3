"""The stations whose pages are open, from second to second.

While a page is open, this node publishes `rentals/{charger}/watch`, with or without the request to send the station a
hello; the node of the bridge answers on `rentals/{charger}/live`. A station that has sent nothing within 15 seconds of
a user's hello does not answer, regardless of what was known of it before.
"""

import time
from collections.abc import Callable
from typing import Final

import msgspec
from msgspec import Struct, field

from csms.adapter import AdapterHost, BrokerMessage
from csms.core.live_status import LiveStatus
from csms.errors import BrokerAway
from csms.outside import UnusableDocument, read_json

_WATCH_EVERY_S: Final = 4.0
_WATCH_EXPIRY_S: Final = 5
_MOST_STATIONS, _MOST_WAITING = 50_000, 100


class LiveStation(Struct, frozen=True, kw_only=True):
    """A station for one user: its last status, whether that is recent, and whether the station does not answer."""

    status: LiveStatus | None = None
    fresh: bool = False
    silent: bool = False


class WatchedStation(Struct, kw_only=True):
    """What is known of a station whose page is open. Moments are of the monotonic clock.

    `waiting` holds the users whose hello has not been answered, with its moment.
    """

    status: LiveStatus | None = None
    received_at: float | None = None
    waiting: dict[str, float] = field(default_factory=dict)
    hello_at: float = float("-inf")
    watch_at: float = float("-inf")


class StationWatcher:
    """The watched stations of one node; `run()` receives their status until cancelled."""

    # A station that sends nothing for so long after a hello does not answer.
    answer_s = 15.0
    # While its page is open, a station is asked so long after its last message: well before its status is too old.
    ask_after_s = 8.0
    # A message from just before the hello counts as the answer to it.
    grace_s = 3.0

    def __init__(self, node: AdapterHost, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._node = node
        self._clock = clock
        self._stations: dict[str, WatchedStation] = {}

    async def run(self) -> None:
        await self._node.listen("rentals/+/live", self.receive, signed=True)

    def receive(self, message: BrokerMessage) -> None:
        """Take the status of a watched station; others, retained and malformed messages are ignored."""
        levels = message.topic.split("/")
        station = self._stations.get(levels[1]) if len(levels) == 3 else None
        if station is None or message.retained:
            return
        try:
            status = read_json(message.body, LiveStatus)
        except UnusableDocument:
            return
        at = self._clock() - max(status.age_s, 0)
        if station.received_at is not None and at < station.received_at - self.grace_s:
            return
        station.status, station.received_at = status, at
        station.waiting = {
            uid: asked_at for uid, asked_at in station.waiting.items() if at < asked_at - self.grace_s
        }

    async def watch(self, charger_id: str, uid: str, *, anew: bool) -> None:
        """Note that a user's page is open. `anew`: it was just opened, so the station is sent a hello as that user."""
        now = self._clock()
        if len(self._stations) >= _MOST_STATIONS:
            self._stations.pop(next(iter(self._stations)))
        station = self._stations.setdefault(charger_id, WatchedStation())
        hello = anew or self._needs_hello(station, uid, now)
        if hello:
            station.hello_at = now
            if (anew or uid not in station.waiting) and not _within(station.received_at, now, self.grace_s):
                station.waiting[uid] = now
            while len(station.waiting) > _MOST_WAITING:
                station.waiting.pop(next(iter(station.waiting)))
        if not hello and now - station.watch_at < _WATCH_EVERY_S:
            return
        station.watch_at = now
        body = msgspec.json.encode({"uid": uid, "hello": hello})
        try:
            await self._node.publish(
                f"rentals/{charger_id}/watch", body, retain=False, expiry_s=_WATCH_EXPIRY_S, signed=True
            )
        except BrokerAway:
            return

    def _needs_hello(self, station: WatchedStation, uid: str, now: float) -> bool:
        if uid in station.waiting:
            return now - station.hello_at >= self.answer_s  # a hello, or its answer, can be lost
        return not _within(station.received_at, now, self.ask_after_s)

    def station(self, charger_id: str, uid: str) -> LiveStation:
        """Return what is known of a station, for this user."""
        now, station = self._clock(), self._stations.get(charger_id)
        if station is None:
            return LiveStation()
        asked_at = station.waiting.get(uid)
        return LiveStation(
            status=station.status,
            fresh=_within(station.received_at, now, self.answer_s),
            silent=asked_at is not None and now - asked_at >= self.answer_s,
        )


def _within(moment: float | None, now: float, seconds: float) -> bool:
    return moment is not None and now - moment <= seconds
