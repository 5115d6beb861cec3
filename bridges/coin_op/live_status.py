"""Publish a station's status every time it changes, to the rental pages that show it. Nothing of it is stored.

`rentals/{charger}/watch` asks for 60 seconds of it, `rentals/{charger}/live` carries it.
"""

from datetime import datetime, timedelta
from typing import Final

import msgspec
from msgspec import Struct

from bridges.coin_op import packet as wire
from bridges.coin_op.station_handler import StationHandler
from csms.core.live_status import LiveStatus
from csms.errors import BrokerAway
from csms.outside import UnusableDocument, read_json

_WATCHED_FOR: Final = timedelta(seconds=60)
_MIN_HELLO_INTERVAL: Final = timedelta(seconds=1)
# The station sends every second for ten minutes after a command of its renter; a hello a minute before prolongs that.
_RENEW_AFTER: Final = timedelta(minutes=9)
_EXPIRY_S: Final = 5


class WatchRequest(Struct, frozen=True, kw_only=True):
    """A page shows the station. `uid`: the renter to send a hello as; `hello`: send one in any case."""

    uid: str | None = None
    hello: bool = False


class LiveStatusPublisher:
    """Publishes the status of one station while a page watches it."""

    def __init__(self, station: StationHandler) -> None:
        self._station = station
        self._watched_until: datetime | None = None
        self._hello_at: datetime | None = None

    def watch(self, body: bytes) -> None:
        """Take a watch request, and send the station a hello where it asks for one or the renter's window ends."""
        try:
            request = read_json(body, WatchRequest)
        except UnusableDocument:
            return
        station, now = self._station, self._station.now()
        self._watched_until = now + _WATCHED_FOR
        self.publish()
        rental = station.tracker.rental
        uid = request.uid if request.uid is not None and wire.is_valid_uid(request.uid) else None
        renew = rental is not None and rental.uid == uid and now - rental.last_own_command_at >= _RENEW_AFTER
        just_sent = self._hello_at is not None and now - self._hello_at < _MIN_HELLO_INTERVAL
        if (request.hello or renew) and not just_sent:
            self._hello_at = now
            station.tasks.spawn(station.hello(uid), "hello")

    def publish(self) -> None:
        """Publish the status and its age, if a page watches."""
        now, received_at = self._station.now(), self._station.tracker.last_packet_at
        status = self._station.tracker.status
        if self._watched_until is None or now > self._watched_until or status is None or received_at is None:
            return
        self._station.tasks.spawn(self._publish(self._live_status(status, now - received_at)), "live status")

    def _live_status(self, status: str, age: timedelta) -> LiveStatus:
        age_s = round(age.total_seconds(), 3)
        rental, packet = self._station.tracker.rental, self._station.tracker.last_packet
        if rental is None:
            return LiveStatus(status=status, age_s=age_s, uid=packet.uid if packet is not None else None)
        return LiveStatus(
            status=status,
            age_s=age_s,
            uid=rental.uid,
            time_s=rental.time_s,
            energy_wh=round(rental.energy_wh, 1),
            power_w=rental.measurements.power_w,
        )

    async def _publish(self, live_status: LiveStatus) -> None:
        try:
            await self._station.node.publish(
                f"rentals/{self._station.charger_id}/live",
                msgspec.json.encode(live_status),
                retain=False,
                expiry_s=_EXPIRY_S,
                signed=True,
            )
        except BrokerAway:
            return
