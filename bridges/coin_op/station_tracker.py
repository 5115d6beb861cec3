"""Track one station: what its packets mean, and what its silence means. Pure: the caller gives the time.

The station is the master of state and time; the tracker follows and never predicts. Any status may come at any time:
a transition that is not in `_TRANSITIONS` is applied and counted.
"""

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Final

from bridges.coin_op import packet as wire
from bridges.coin_op import status_mapping
from bridges.coin_op.actions import (
    ReachabilityChange,
    SendHello,
    SendStop,
    StationAction,
    StationAlarm,
    StationAnomaly,
)
from bridges.coin_op.energy import BASELINE_UNCERTAIN, CounterBehaviour
from bridges.coin_op.meter_units import AUTO, Measurements, MeterUnits
from bridges.coin_op.notes import NO_NOTES, StationNotes
from bridges.coin_op.packet import BUSY, CHARGING, COMPLETED, DONE, INIT, READY, StatusPacket
from bridges.coin_op.rental import ORIGIN_DIRECT, StationRental, resume_rental
from bridges.coin_op.settings import CoinOpSettings
from csms.core import reports
from csms.core.currencies import minor_digits
from csms.core.records import Connector, Transaction

_TRANSITIONS: Final = frozenset(
    {
        (INIT, READY),
        (READY, BUSY),
        (BUSY, CHARGING),
        (BUSY, DONE),
        (CHARGING, COMPLETED),
        (COMPLETED, CHARGING),
        (CHARGING, DONE),
        (COMPLETED, DONE),
        (DONE, READY),
    }
)
# A packet whose time lies so far behind the rental's belongs to another rental of the same renter, else it is late.
_NEW_RENTAL_BUSY_S, _NEW_RENTAL_S = 2, 30
_MAX_INFERRED_S: Final = 30
_REBOOT_RETURN: Final = timedelta(seconds=120)
_STOP_IS_REMOTE_FOR: Final = timedelta(seconds=60)
_SILENT_AFTER: Final = timedelta(seconds=95)
_OFFLINE_ALARM_AFTER, _DONE_ALARM_AFTER = timedelta(minutes=30), timedelta(minutes=15)
_OFFLINE_AFTER_HELLOS: Final = 3


class StationTracker:
    """The state of one station. Each method returns actions; reports among them must be recorded in this order."""

    def __init__(
        self,
        charger_id: str,
        settings: CoinOpSettings,
        now: datetime,
        *,
        jitter: float = 0.0,
        blocked: bool = False,
    ) -> None:
        self.charger_id = charger_id
        self.settings = settings
        self.blocked = blocked
        self.units = MeterUnits(settings.power_scale)
        self.counter = CounterBehaviour(settings.energy_mode, settings.rated_power_w)
        self.status: str | None = None
        self.last_packet: StatusPacket | None = None
        self.rental: StationRental | None = None
        self.online = False
        self.last_packet_at: datetime | None = None
        self.connecting_uid: str | None = None  # for whom the bridge has sent `connect`
        self._last_rental: StationRental | None = None
        self._reported_status: status_mapping.StationStatus | None = None
        self._hello_at: datetime | None = None  # of the first hello that has no answer yet
        self._unanswered_hellos = 0
        self._next_hello_at = now + timedelta(seconds=settings.probe_interval_s * jitter)
        self._status_since = now
        self._offline_since = now
        self._raised_alarms: set[str] = set()
        self._recorded_notes = NO_NOTES

    # --- restart of the bridge -------------------------------------------------------------------

    def resume(
        self, transaction: Transaction | None, connector: Connector | None, notes: StationNotes = NO_NOTES
    ) -> None:
        """Go on from what was on record at the start of the bridge, and from its own notes."""
        self.units.restore(notes.power_scale)
        self.counter.restore(notes.resets, notes.last_done_wh)
        if connector is not None:
            if transaction is None and connector.energy_wh is not None and self.counter.last_done_wh is None:
                self.counter.last_done_wh = float(connector.energy_wh)
            if connector.status is not None:
                self._reported_status = status_mapping.StationStatus(
                    connector.status, connector.error_code, connector.info
                )
        if transaction is not None:
            self.rental = resume_rental(transaction, connector, notes.session, self.settings.rated_power_w)
        self._recorded_notes = self.notes()

    def notes(self) -> StationNotes:
        """Return what must survive a restart of the bridge."""
        return StationNotes(
            power_scale=self.units.power_scale if self.settings.power_scale == AUTO else None,
            resets=self.counter.resets,
            last_done_wh=self.counter.last_done_wh,
            session=None if self.rental is None else self.rental.notes(),
        )

    def _noted(self) -> reports.Noted:
        return reports.Noted(charger_id=self.charger_id, notes=self._recorded_notes.to_builtins())

    def _with_notes(self, actions: list[StationAction]) -> list[StationAction]:
        """Add changed notes to what is recorded anyway, since a record for every packet would be too many."""
        recorded = any(isinstance(one, reports.Start | reports.Meter | reports.Stop) for one in actions)
        if not recorded or (notes := self.notes()) == self._recorded_notes:
            return actions
        self._recorded_notes = notes
        return [*actions, self._noted()]

    # --- packets ---------------------------------------------------------------------------------

    def receive(self, packet: StatusPacket, now: datetime, *, retained: bool = False) -> list[StationAction]:
        """Apply a packet. A retained one has no known age: it starts and stops nothing, and leads to a hello."""
        actions = _anomalies(packet.anomalies)
        if retained:
            self.last_packet = self.last_packet or packet
            return [*actions, SendHello()]
        self.last_packet_at, self._hello_at, self._unanswered_hellos = now, None, 0
        self._next_hello_at = now + timedelta(seconds=self.settings.probe_interval_s)
        self._raised_alarms.discard("offline_in_rental")
        if not self.online:
            self.online = True
            actions.append(ReachabilityChange(True))
        if packet.status not in wire.STATION_STATES:
            actions += self._report_status(
                status_mapping.unknown_status(packet.status, self._reported_status), now
            )
            return [*actions, StationAnomaly("unknown_status")]
        if (dropped := self._drop_reason(packet, now)) is not None:
            return [*actions, StationAnomaly(dropped)]
        changed = packet.status != self.status
        if changed and self.status is not None and (self.status, packet.status) not in _TRANSITIONS:
            actions.append(StationAnomaly("unexpected_transition"))
        measurements = self.units.measurements(packet)
        actions += self._apply(packet, measurements, now, changed=changed)
        if changed:
            self._status_since = now
            self._raised_alarms.clear()
        self.status, self.last_packet = packet.status, packet
        actions += self._report_status(status_mapping.station_status(packet, measurements), now)
        return self._with_notes(actions)

    def _drop_reason(self, packet: StatusPacket, now: datetime) -> str | None:
        """Return why a packet must be dropped: `double` or `late`; None: it is new."""
        rental = self.rental
        if rental is None and self._is_of_last_rental(packet, now):
            return "late"
        if rental is None or packet.time_s is None or packet.uid not in {None, rental.uid}:
            last = self.last_packet
            if packet.time_s is None or last is None or self.status != packet.status:
                return None
            return "double" if (last.time_s, last.uid) == (packet.time_s, packet.uid) else None
        if packet.status not in wire.RENTAL_STATES or packet.status != self.status:
            return None
        behind_s = rental.time_s - packet.time_s
        if behind_s == 0:
            return "double"
        return "late" if behind_s > 0 and not self._is_new_rental(packet, rental) else None

    def _is_of_last_rental(self, packet: StatusPacket, now: datetime) -> bool:
        """Return whether a packet belongs to the rental that has ended: the two status topics have no common order."""
        ended = self._last_rental
        if ended is None or packet.time_s is None or packet.uid != ended.uid:
            return False
        if packet.status == DONE:
            return self.status == READY and packet.time_s == ended.time_s
        began_at = now - timedelta(seconds=packet.time_s)
        return packet.status in wire.RENTAL_STATES and began_at < ended.last_packet_at - timedelta(seconds=1)

    @staticmethod
    def _is_new_rental(packet: StatusPacket, rental: StationRental) -> bool:
        """Return whether the count of the same renter has started again."""
        if packet.time_s is None:
            return False
        behind_s = rental.time_s - packet.time_s
        return behind_s > (_NEW_RENTAL_BUSY_S if packet.status == BUSY else _NEW_RENTAL_S)

    def _apply(
        self, packet: StatusPacket, measurements: Measurements, now: datetime, *, changed: bool
    ) -> list[StationAction]:
        rental = self.rental
        if packet.status in wire.RENTAL_STATES:
            actions: list[StationAction] = []
            if rental is not None and (
                packet.uid not in {None, rental.uid} or self._is_new_rental(packet, rental)
            ):
                actions += self._end_rental(rental, "Other", inferred=True)
                rental = None
            if rental is None:
                return actions + self._start_rental(packet, measurements, now)
            return actions + self._update_rental(rental, packet, measurements, now, changed=changed)
        if packet.status == DONE:
            return self._done(rental, packet, measurements, now)
        if rental is None:
            return []
        if packet.status == INIT:
            rental.rebooted_at = rental.rebooted_at or now
            return []
        if rental.rebooted_at is not None:
            return self._end_rental(rental, "Reboot", inferred=True)
        gap_s = min(max((now - rental.last_packet_at).total_seconds(), 0), _MAX_INFERRED_S)
        rental.time_s += int(gap_s)
        return self._end_rental(rental, "Other", inferred=True)

    def _start_rental(
        self, packet: StatusPacket, measurements: Measurements, now: datetime
    ) -> list[StationAction]:
        if packet.uid is None:
            return [StationAnomaly("rental_without_uid")]
        if self.blocked:
            return self._alarm("rented_while_blocked")
        time_s = packet.time_s or 0
        baseline = self.counter.baseline(packet.energy_wh, time_s)
        started_at = now - timedelta(seconds=time_s)
        rental = StationRental(
            packet.uid, started_at, baseline, self.settings.rated_power_w, now=now, time_s=time_s
        )
        if not baseline.certain:
            rental.flag(BASELINE_UNCERTAIN)
        if self.connecting_uid != packet.uid:
            rental.flag(ORIGIN_DIRECT)
        self.connecting_uid = None
        self.rental = rental
        anomalies = rental.update(packet, measurements, now)
        rental.metered_at = now
        return [status_mapping.start_report(self.charger_id, rental), *_anomalies(anomalies)]

    def _update_rental(
        self,
        rental: StationRental,
        packet: StatusPacket,
        measurements: Measurements,
        now: datetime,
        *,
        changed: bool,
    ) -> list[StationAction]:
        actions = _anomalies(rental.update(packet, measurements, now))
        interval_s = self.settings.meter_interval_s
        due = rental.metered_at is None or (now - rental.metered_at).total_seconds() >= interval_s
        if changed or due:
            rental.metered_at = now
            actions.append(status_mapping.meter_report(self.charger_id, rental))
        return actions

    def _done(
        self, rental: StationRental | None, packet: StatusPacket, measurements: Measurements, now: datetime
    ) -> list[StationAction]:
        actions: list[StationAction] = []
        if rental is not None and packet.uid not in {None, rental.uid}:
            actions += self._end_rental(rental, "Other", inferred=True)
        elif rental is not None:
            actions += _anomalies(rental.update(packet, measurements, now))
            asked_at = rental.stop_asked_at
            remote = asked_at is not None and now - asked_at <= _STOP_IS_REMOTE_FOR
            actions += self._end_rental(rental, "Remote" if remote else "Local", inferred=False)
        if packet.energy_wh is not None:
            self.counter.last_done_wh = packet.energy_wh
        return actions

    def _end_rental(self, rental: StationRental, reason: str, *, inferred: bool) -> list[StationAction]:
        self.rental, self._last_rental = None, rental
        return [status_mapping.stop_report(self.charger_id, rental, reason, inferred=inferred)]

    def _report_status(self, status: status_mapping.StationStatus, now: datetime) -> list[StationAction]:
        if status == self._reported_status:
            return []
        self._reported_status = status
        return [status_mapping.status_report(self.charger_id, status, now)]

    # --- commands --------------------------------------------------------------------------------

    def command_seen(self, verb: str, uid: str, now: datetime) -> list[StationAction]:
        """Note a command on the station's command topic, from the bridge or from an app."""
        rental = self.rental
        if rental is None or uid != rental.uid:
            return []
        rental.last_own_command_at = now
        if verb != wire.STOP:
            return []
        rental.stop_asked_at, rental.hello_sent_after_stop = now, False
        self._recorded_notes = self.notes()
        return [self._noted()]

    def hello_sent(self, now: datetime) -> None:
        """Note that the bridge has sent a hello."""
        self._hello_at = self._hello_at or now

    def balance_changed(self, left: reports.BalanceLeft) -> list[StationAction]:
        """Check the renter's debt. A stop opens the door, so it is sent only where a setting says so."""
        rental, debt_minor = self.rental, -left.balance_minor
        max_minor = self.settings.max_debt.scaleb(minor_digits(left.currency))
        if rental is None or rental.debt_raised or debt_minor < max_minor:
            return []
        rental.debt_raised = True
        stop = self.settings.autostop == "at_max_debt" and rental.stop_asked_at is None
        return [StationAlarm("max_debt"), *([SendStop()] if stop else [])]

    # --- silence ---------------------------------------------------------------------------------

    def tick(self, now: datetime) -> list[StationAction]:
        """Apply the passing of time. Must be called about once a second."""
        actions: list[StationAction] = []
        rental = self.rental
        if (
            rental is not None
            and rental.rebooted_at is not None
            and now - rental.rebooted_at >= _REBOOT_RETURN
        ):
            actions += self._end_rental(rental, "Reboot", inferred=True)
            rental = None
        actions += self._check_hello(rental, now)
        if rental is not None:
            actions += self._check_stop(rental, now)
        if self.status == DONE and self.online and now - self._status_since >= _DONE_ALARM_AFTER:
            actions += self._alarm("done_without_ready")
        if rental is not None and not self.online and now - self._offline_since >= _OFFLINE_ALARM_AFTER:
            actions += self._alarm("offline_in_rental")
        if self._hello_at is None and self._is_hello_due(rental, now):
            actions.append(SendHello())
        return actions

    def _is_hello_due(self, rental: StationRental | None, now: datetime) -> bool:
        if rental is not None and self.online:
            last_at = max(rental.last_packet_at, self.last_packet_at or rental.last_packet_at)
            return now - last_at >= _SILENT_AFTER
        return now >= self._next_hello_at

    def _check_hello(self, rental: StationRental | None, now: datetime) -> list[StationAction]:
        """Count a hello without an answer. In a rental one is enough for offline, otherwise three in a row."""
        if self._hello_at is None or (now - self._hello_at).total_seconds() < self.settings.answer_s:
            return []
        self._hello_at = None
        self._unanswered_hellos += 1
        self._next_hello_at = now + timedelta(seconds=self.settings.probe_interval_s)
        silent_in_rental = rental is not None and now - rental.last_packet_at >= _SILENT_AFTER
        if not self.online or not (self._unanswered_hellos >= _OFFLINE_AFTER_HELLOS or silent_in_rental):
            return []
        self.online, self._offline_since = False, now
        return [*self._report_status(status_mapping.STATION_OFFLINE, now), ReachabilityChange(False)]

    def _check_stop(self, rental: StationRental, now: datetime) -> list[StationAction]:
        """Send a hello after a stop without `done`, then raise an alarm. The stop itself is never repeated."""
        asked_at = rental.stop_asked_at
        if asked_at is None:
            return []
        waited_s = (now - asked_at).total_seconds()
        if waited_s >= self.settings.answer_s and not rental.hello_sent_after_stop:
            rental.hello_sent_after_stop = True
            return [SendHello()]
        return self._alarm("stop_without_done") if waited_s >= 2 * self.settings.answer_s else []

    def _alarm(self, kind: str) -> list[StationAction]:
        """Raise an alarm once until the status changes."""
        if kind in self._raised_alarms:
            return []
        self._raised_alarms.add(kind)
        return [StationAlarm(kind)]


def _anomalies(kinds: Iterable[str]) -> list[StationAction]:
    return [StationAnomaly(kind) for kind in kinds]
