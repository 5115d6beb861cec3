"""One rental: its clock and its energy, from the first packet that names a renter to the last. Pure."""

from datetime import datetime, timedelta
from typing import Final

from bridges.coin_op.energy import Baseline, SessionEnergy, whole_wh
from bridges.coin_op.meter_units import Measurements
from bridges.coin_op.notes import RentalNotes
from bridges.coin_op.packet import StatusPacket
from csms.core.records import Connector, Transaction

ORIGIN_DIRECT, CLOCK_DRIFT, BAD_TIME = "origin_direct", "clock_drift", "bad_time"
FREQUENT_PACKETS_FOR: Final = timedelta(minutes=10)


class StationRental:
    """`time_s` is the station's own count, the one that is billed; `started_at` is its zero on our clock."""

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
        self.heard_at = now
        self.values = Measurements()
        self.flags: dict[str, None] = {}
        self.most_current_a = 0.0
        self.own_command_at = started_at
        self.stop_asked_at: datetime | None = None
        self.stop_probed = False
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
    def moment(self) -> datetime:
        """Now by the station's count, so that the two clocks agree in what is kept."""
        return self.started_at + timedelta(seconds=self.time_s)

    def in_window(self, now: datetime) -> bool:
        """Whether the station sends every second."""
        return now - self.own_command_at < FREQUENT_PACKETS_FOR

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

    def take(self, packet: StatusPacket, values: Measurements, now: datetime) -> list[str]:
        """A packet of this session; what was odd about it."""
        odd: list[str] = []
        by_wall_s = int((now - self.started_at).total_seconds())
        if packet.time_s is None:
            self.time_s = max(self.time_s, by_wall_s)
            odd.append(BAD_TIME)
        else:
            self.time_s = max(self.time_s, packet.time_s)
            if abs(by_wall_s - packet.time_s) > 60 + packet.time_s / 100:
                odd.append(CLOCK_DRIFT)
        if packet.energy_wh is not None:
            elapsed_s = max((now - self._energy_at).total_seconds(), self.time_s - self._energy_time_s)
            trouble = self.energy.take(packet.energy_wh, elapsed_s)
            if trouble is not None:
                odd.append(trouble)
            if not self.energy.doubted:
                self._energy_at, self._energy_time_s = now, self.time_s
        self.values = _newest(self.values, values)
        self.most_current_a = max(self.most_current_a, values.current_a or 0)
        self.heard_at = now
        self.rebooted_at = None
        for name in odd:
            self.flag(name)
        return odd


def resume_rental(
    transaction: Transaction, connector: Connector | None, notes: RentalNotes | None, rated_w: float
) -> StationRental:
    """A rental that was on record when we started."""
    last_wh, last_at = transaction.meter_start_wh, transaction.started_at
    if connector is not None and connector.reading_transaction_id == transaction.id:
        last_wh = connector.energy_wh if connector.energy_wh is not None else last_wh
        last_at = connector.reading_at or last_at
    mine = (transaction.id_tag, transaction.started_at)
    if notes is not None and (notes.uid, notes.started_at) != mine:
        notes = None
    session = StationRental(
        transaction.id_tag,
        transaction.started_at,
        Baseline(transaction.meter_start_wh),
        rated_w,
        now=last_at,
        time_s=max(int((last_at - transaction.started_at).total_seconds()), 0),
        energy=SessionEnergy.resumed(
            transaction.meter_start_wh,
            rated_w,
            max(last_wh - transaction.meter_start_wh, 0),
            0.0 if notes is None else notes.shift_wh,
        ),
    )
    if notes is not None:
        session.flags = dict.fromkeys(notes.flags)
        session.stop_asked_at = notes.stop_asked_at
    return session


def _newest(before: Measurements, now: Measurements) -> Measurements:
    """What is not known this time stays as it was; it never counts as 0."""
    return Measurements(
        **{
            name: getattr(before, name) if getattr(now, name) is None else getattr(now, name)
            for name in Measurements.__struct_fields__
        }
    )
