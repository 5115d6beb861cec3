"""One rental of a station: its time and its energy, from the first packet that names a renter to the last. Pure."""

from datetime import datetime, timedelta
from typing import Final

from bridges.coin_op.energy import Baseline, SessionEnergy, whole_wh
from bridges.coin_op.meter_units import Measurements
from bridges.coin_op.notes import RentalNotes
from bridges.coin_op.packet import StatusPacket
from csms.core.records import Connector, Transaction

ORIGIN_DIRECT, CLOCK_DRIFT, BAD_TIME = "origin_direct", "clock_drift", "bad_time"
_CLOCK_DRIFT_S: Final = 60


class StationRental:
    """A rental. `time_s` is the station's own count, which is billed; `started_at` is its zero on the bridge's clock."""

    def __init__(
        self,
        uid: str,
        started_at: datetime,
        baseline: Baseline,
        rated_w: float,
        *,
        now: datetime,
        time_s: int = 0,
        energy: SessionEnergy | None = None,
    ) -> None:
        self.uid = uid
        self.started_at = started_at
        self.meter_start_wh = whole_wh(baseline.counter_wh)
        self.energy = energy if energy is not None else SessionEnergy(baseline.counter_wh, rated_w)
        self.time_s = time_s
        self.last_packet_at = now
        self.measurements = Measurements()
        self.flags: dict[str, None] = {}
        self.last_own_command_at = started_at
        self.stop_asked_at: datetime | None = None
        self.hello_sent_after_stop = False
        self.rebooted_at: datetime | None = None
        self.debt_raised = False
        self.metered_at: datetime | None = None
        self._energy_at = started_at if energy is None else now
        self._energy_time_s = 0 if energy is None else time_s

    @property
    def energy_wh(self) -> float:
        return self.energy.total_wh

    @property
    def register_wh(self) -> int:
        return self.meter_start_wh + whole_wh(self.energy.total_wh)

    @property
    def station_time(self) -> datetime:
        """The time by the station's count, used in records so that time and energy belong together."""
        return self.started_at + timedelta(seconds=self.time_s)

    def notes(self) -> RentalNotes:
        return RentalNotes(
            uid=self.uid,
            started_at=self.started_at,
            shift_wh=self.energy.shift_wh,
            flags=tuple(self.flags),
            stop_asked_at=self.stop_asked_at,
        )

    def flag(self, name: str) -> None:
        self.flags[name] = None

    def update(self, packet: StatusPacket, measurements: Measurements, now: datetime) -> list[str]:
        """Apply a packet of this rental. Return its anomalies, which are also flagged on the rental."""
        anomalies: list[str] = []
        elapsed_s = int((now - self.started_at).total_seconds())
        if packet.time_s is None:
            self.time_s = max(self.time_s, elapsed_s)
            anomalies.append(BAD_TIME)
        else:
            self.time_s = max(self.time_s, packet.time_s)
            if abs(elapsed_s - packet.time_s) > _CLOCK_DRIFT_S + packet.time_s / 100:
                anomalies.append(CLOCK_DRIFT)
        if packet.energy_wh is not None:
            since_s = max((now - self._energy_at).total_seconds(), self.time_s - self._energy_time_s)
            anomaly = self.energy.add(packet.energy_wh, since_s)
            if anomaly is not None:
                anomalies.append(anomaly)
            if not self.energy.last_reading_rejected:
                self._energy_at, self._energy_time_s = now, self.time_s
        self.measurements = _merged(self.measurements, measurements)
        self.last_packet_at = now
        self.rebooted_at = None
        for name in anomalies:
            self.flag(name)
        return anomalies


def resume_rental(
    transaction: Transaction, connector: Connector | None, notes: RentalNotes | None, rated_w: float
) -> StationRental:
    """Go on with a rental that was on record at the start of the bridge. Notes on another rental are ignored."""
    last_wh, last_at = transaction.meter_start_wh, transaction.started_at
    if connector is not None and connector.reading_transaction_id == transaction.id:
        last_wh = connector.energy_wh if connector.energy_wh is not None else last_wh
        last_at = connector.reading_at or last_at
    if notes is not None and (notes.uid, notes.started_at) != (transaction.id_tag, transaction.started_at):
        notes = None
    rental = StationRental(
        transaction.id_tag,
        transaction.started_at,
        Baseline(transaction.meter_start_wh),
        rated_w,
        now=last_at,
        time_s=max(int((last_at - transaction.started_at).total_seconds()), 0),
        energy=SessionEnergy(
            transaction.meter_start_wh,
            rated_w,
            total_wh=max(last_wh - transaction.meter_start_wh, 0),
            shift_wh=0.0 if notes is None else notes.shift_wh,
        ),
    )
    if notes is not None:
        rental.flags = dict.fromkeys(notes.flags)
        rental.stop_asked_at = notes.stop_asked_at
    return rental


def _merged(before: Measurements, now: Measurements) -> Measurements:
    """Return the newest known value of each measurement: an unknown one never counts as 0."""
    return Measurements(
        **{
            name: getattr(before, name) if getattr(now, name) is None else getattr(now, name)
            for name in Measurements.__struct_fields__
        }
    )
