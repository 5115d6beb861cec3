"""What a page shows from second to second: published while somebody watches, never kept.

`rentals/{charger}/watch` asks for 60 seconds of it, `rentals/{charger}/live` carries it.
"""

from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final

import msgspec
from msgspec import Struct

from bridges.coin_op import packet as wire
from bridges.coin_op.line import Line
from csms.adapter import Heard
from csms.core.events import timestamp
from csms.errors import BrokerAway

if TYPE_CHECKING:
    from bridges.coin_op.adapter import CoinOp

_WATCHED: Final = timedelta(seconds=60)
# In a rental the station speaks up to 30 seconds apart by itself.
_FRESH, _FRESH_RENTED, _HELLO_EVERY = timedelta(seconds=15), timedelta(seconds=35), timedelta(seconds=3)
_RENEW: Final = timedelta(minutes=9)
_decode = msgspec.json.decode
_encode = msgspec.json.Encoder().encode


class Watch(Struct, frozen=True, kw_only=True):
    """Somebody looks; `uid` as whom the station is asked, in any case with `hello`."""

    uid: str | None = None
    hello: bool = False


class Figures(Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """A station as it was just heard; `uid` is the renter, not to be shown to others."""

    status: str
    at: str
    uid: str | None = None
    time_s: int | None = None
    energy_wh: float | None = None
    power_w: float | None = None


class Live:
    def __init__(self, adapter: "CoinOp") -> None:
        self._adapter = adapter

    def watched(self, message: Heard) -> None:
        charger_id = message.topic.split("/")[1]
        line = self._adapter.lines.get(charger_id.removeprefix(self._adapter.settings.id_prefix))
        if line is None or message.retained:
            return
        try:
            watch = _decode(message.body, type=Watch)
        except msgspec.MsgspecError:
            return
        now = self._adapter.now()
        line.watched_until = now + _WATCHED
        heard_at, session = line.station.heard_at, line.station.session
        fresh = heard_at is not None and now - heard_at <= (_FRESH if session is None else _FRESH_RENTED)
        if fresh and not watch.hello:
            self.heard(line, now)
        uid = watch.uid if watch.uid is not None and wire.usable_uid(watch.uid) else None
        mine = session is not None and session.uid == uid
        wanes = mine and session is not None and now - session.own_command_at >= _RENEW
        asked_lately = line.hello_at is not None and now - line.hello_at < _HELLO_EVERY
        if asked_lately and watch.hello and fresh:
            self.heard(line, now)  # its answer to somebody else is ours as well
        if not asked_lately and (watch.hello or wanes or not fresh):
            line.hello_at = now
            self._adapter.start(self._adapter.hello(line, uid or self._adapter.settings.service_uid))

    def heard(self, line: Line, now: datetime) -> None:
        """Pass it on if somebody watches."""
        if line.watched_until is None or now > line.watched_until or line.station.status is None:
            return
        self._adapter.start(self._publish(line.charger_id, self._figures(line)))

    def _figures(self, line: Line) -> Figures:
        station = line.station
        session, packet = station.session, station.last
        at = timestamp(station.heard_at) if station.heard_at is not None else ""
        assert station.status is not None
        if session is None:
            return Figures(status=station.status, at=at, uid=packet.uid if packet is not None else None)
        return Figures(
            status=station.status,
            at=at,
            uid=session.uid,
            time_s=session.time_s,
            energy_wh=round(session.energy_wh, 1),
            power_w=session.values.power_w,
        )

    async def _publish(self, charger_id: str, figures: Figures) -> None:
        try:
            await self._adapter.node.publish(
                f"rentals/{charger_id}/live", _encode(figures), retain=False, expiry_s=5
            )
        except BrokerAway:
            return
