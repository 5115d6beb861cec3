"""What a page shows from second to second: published while somebody watches, never kept.

`rentals/{charger}/watch` asks for 60 seconds of it, `rentals/{charger}/live` carries it.
"""

from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final

import msgspec
from msgspec import Struct

from bridges.coin_op import packet as wire
from bridges.coin_op.station_handler import StationHandler
from csms.adapter import BrokerMessage
from csms.errors import BrokerAway

if TYPE_CHECKING:
    from bridges.coin_op.adapter import CoinOpAdapter

_WATCHED: Final = timedelta(seconds=60)
_HELLO_EVERY: Final = timedelta(seconds=1)
_RENEW: Final = timedelta(minutes=9)
_decode = msgspec.json.decode
_encode = msgspec.json.Encoder().encode


class WatchRequest(Struct, frozen=True, kw_only=True):
    """Somebody looks; `uid` as whom the station is asked, in any case with `hello`."""

    uid: str | None = None
    hello: bool = False


class LiveStatus(Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """A station as it was heard `age_s` ago; `uid` is the renter, not to be shown to others."""

    status: str
    age_s: float = 0.0
    uid: str | None = None
    time_s: int | None = None
    energy_wh: float | None = None
    power_w: float | None = None


class LiveStatusPublisher:
    def __init__(self, adapter: "CoinOpAdapter") -> None:
        self._adapter = adapter

    def watched(self, message: BrokerMessage) -> None:
        charger_id = message.topic.split("/")[1]
        line = self._adapter.lines.get(charger_id.removeprefix(self._adapter.settings.id_prefix))
        if line is None or message.retained:
            return
        try:
            watch = _decode(message.body, type=WatchRequest)
        except msgspec.MsgspecError:
            return
        now = self._adapter.now()
        line.watched_until = now + _WATCHED
        self.heard(line, now)
        session = line.station.session
        uid = watch.uid if watch.uid is not None and wire.is_valid_uid(watch.uid) else None
        mine = session is not None and session.uid == uid
        wanes = mine and session is not None and now - session.own_command_at >= _RENEW
        asked_just_now = line.hello_at is not None and now - line.hello_at < _HELLO_EVERY
        if (watch.hello or wanes) and not asked_just_now:
            line.hello_at = now
            self._adapter.start(self._adapter.hello(line, uid or self._adapter.settings.service_uid))

    def heard(self, line: StationHandler, now: datetime) -> None:
        """Pass it on, and how old it is, if somebody watches."""
        station = line.station
        if line.watched_until is None or now > line.watched_until:
            return
        if station.status is None or station.heard_at is None:
            return
        self._adapter.start(self._publish(line.charger_id, self._figures(line, now)))

    def _figures(self, line: StationHandler, now: datetime) -> LiveStatus:
        station = line.station
        session, packet = station.session, station.last
        assert station.status is not None
        assert station.heard_at is not None
        age_s = round((now - station.heard_at).total_seconds(), 3)
        if session is None:
            return LiveStatus(
                status=station.status, age_s=age_s, uid=packet.uid if packet is not None else None
            )
        return LiveStatus(
            status=station.status,
            age_s=age_s,
            uid=session.uid,
            time_s=session.time_s,
            energy_wh=round(session.energy_wh, 1),
            power_w=session.values.power_w,
        )

    async def _publish(self, charger_id: str, figures: LiveStatus) -> None:
        try:
            await self._adapter.node.publish(
                f"rentals/{charger_id}/live", _encode(figures), retain=False, expiry_s=5
            )
        except BrokerAway:
            return
