"""One station: what its packets mean in our words, and what its silence means. Pure: every moment is given.

The station is the master of state and time; we follow and never predict. Any status may come at any time: what is
not in the table of transitions is applied and counted.
"""

from datetime import datetime, timedelta
from typing import Final

from bridges.coin_op import packet as wire
from bridges.coin_op import status_mapping
from bridges.coin_op.actions import (
    AT_MAX_DEBT,
    ReachabilityChange,
    SendHello,
    SendStop,
    StationAction,
    StationAlarm,
    StationAnomaly,
    StationRules,
)
from bridges.coin_op.energy import CounterBehaviour
from bridges.coin_op.meter_units import AUTO, Measurements, MeterUnits
from bridges.coin_op.notes import NO_NOTES, StationNotes
from bridges.coin_op.packet import BUSY, CHARGING, COMPLETED, DONE, INIT, READY, StatusPacket
from bridges.coin_op.rental import ORIGIN_DIRECT, StationRental, resume_rental
from csms.core import reports
from csms.core.currencies import minor_digits
from csms.core.records import Connector, Transaction

_NORMAL: Final = frozenset(
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
_LATE_S, _FAR_S, _LONGEST_GAP_S = 2, 30, 30
_RETURN: Final = timedelta(seconds=120)
_REMEMBERED_STOP: Final = timedelta(seconds=60)
_SILENT: Final = timedelta(seconds=95)
_STALE, _STALE_OUTSIDE = timedelta(seconds=5), timedelta(seconds=65)
_LONG_OFFLINE, _LONG_DONE = timedelta(minutes=30), timedelta(minutes=15)
_MISSES: Final = 3


class StationTracker:
    """`hear` and `tick` say what is to be done; reports are to be recorded in this order."""

    def __init__(
        self,
        charger_id: str,
        rules: StationRules,
        now: datetime,
        *,
        jitter: float = 0.0,
        blocked: bool = False,
    ) -> None:
        self.charger_id = charger_id
        self.rules = rules
        self.blocked = blocked
        self.scales = MeterUnits(rules.power_scale)
        self.habits = CounterBehaviour(rules.energy_mode, rules.rated_power_w)
        self.status: str | None = None
        self.last: StatusPacket | None = None
        self.session: StationRental | None = None
        self.online = False
        self.heard_at: datetime | None = None
        self.invited: str | None = None  # whom we have sent a connect for
        self._ended: StationRental | None = None
        self._reported: status_mapping.StationStatus | None = None
        self._asked_at: datetime | None = None
        self._misses = 0
        self._next_probe_at = now + timedelta(seconds=rules.probe_interval_s * jitter)
        self._since = now
        self._offline_since = now
        self._alarmed: set[str] = set()
        self._noted = NO_NOTES

    def resume(
        self, transaction: Transaction | None, connector: Connector | None, notes: StationNotes = NO_NOTES
    ) -> None:
        """Go on with what was on record when we started; `notes` are those that we had kept ourselves."""
        self.scales.learned(notes.power_scale)
        self.habits.learned(notes.resets, notes.last_done_wh)
        if connector is not None:
            if transaction is None and connector.energy_wh is not None and self.habits.last_done_wh is None:
                self.habits.last_done_wh = float(connector.energy_wh)
            if connector.status is not None:
                self._reported = status_mapping.StationStatus(
                    connector.status, connector.error_code, connector.info
                )
        if transaction is not None:
            self.session = resume_rental(transaction, connector, notes.session, self.rules.rated_power_w)
        self._noted = self.notes()

    def notes(self) -> StationNotes:
        """What a restart must not lose."""
        return StationNotes(
            power_scale=self.scales.power if self.rules.power_scale == AUTO else None,
            resets=self.habits.resets,
            last_done_wh=self.habits.last_done_wh,
            session=None if self.session is None else self.session.notes(),
        )

    def _noting(self, acts: list[StationAction]) -> list[StationAction]:
        """With our notes, when something is recorded anyway and they have changed: not for every packet."""
        recorded = any(isinstance(act, reports.Start | reports.Meter | reports.Stop) for act in acts)
        if not recorded or (notes := self.notes()) == self._noted:
            return acts
        self._noted = notes
        return [*acts, reports.Noted(charger_id=self.charger_id, notes=notes.plain())]

    # --- what is heard ---------------------------------------------------------------------------

    def hear(self, packet: StatusPacket, now: datetime, *, retained: bool = False) -> list[StationAction]:
        """A status packet. A retained one has no known age: it starts and stops nothing, we ask."""
        acts: list[StationAction] = [StationAnomaly(kind) for kind in packet.oddities]
        if retained:
            self.last = self.last or packet
            return [*acts, SendHello()]
        self.heard_at, self._asked_at, self._misses = now, None, 0
        self._next_probe_at = now + timedelta(seconds=self.rules.probe_interval_s)
        self._alarmed.discard("offline_in_rental")
        if not self.online:
            self.online = True
            acts.append(ReachabilityChange(True))
        if packet.status not in wire.STATION_STATES:
            acts += self._word(status_mapping.unknown_status(packet.status, self._reported), now)
            return [*acts, StationAnomaly("unknown_status")]
        if (dropped := self._repeats(packet, now)) is not None:
            return [*acts, StationAnomaly(dropped)]
        changed = packet.status != self.status
        if changed and self.status is not None and (self.status, packet.status) not in _NORMAL:
            acts.append(StationAnomaly("unexpected_transition"))
        values = self.scales.read(packet)
        acts += self._follow(packet, values, now, changed=changed)
        if changed:
            self._since = now
            self._alarmed.clear()
        self.status, self.last = packet.status, packet
        acts += self._word(status_mapping.station_status(packet, values), now)
        return self._noting(acts)

    def _repeats(self, packet: StatusPacket, now: datetime) -> str | None:
        """Why a packet is not taken: it is there already, or came too late."""
        session = self.session
        if session is None and self._of_the_past(packet, now):
            return "late"
        if session is None or packet.time_s is None or packet.uid not in {None, session.uid}:
            last = self.last
            if packet.time_s is None or last is None or self.status != packet.status:
                return None
            return "double" if (last.time_s, last.uid) == (packet.time_s, packet.uid) else None
        if packet.status not in wire.RENTAL_STATES or packet.status != self.status:
            return None
        behind_s = session.time_s - packet.time_s
        if behind_s == 0:
            return "double"
        return "late" if behind_s > 0 and not self._anew(packet, session) else None

    def _of_the_past(self, packet: StatusPacket, now: datetime) -> bool:
        """Whether a packet belongs to the rental that is over: the two topics keep no order between them."""
        if self._ended is None or packet.time_s is None or packet.uid != self._ended.uid:
            return False
        if packet.status == DONE:
            return self.status == READY and packet.time_s == self._ended.time_s
        began_at = now - timedelta(seconds=packet.time_s)
        return packet.status in wire.RENTAL_STATES and began_at < self._ended.heard_at - timedelta(seconds=1)

    @staticmethod
    def _anew(packet: StatusPacket, session: StationRental) -> bool:
        """Whether the same user's count began again: another rental."""
        if packet.time_s is None:
            return False
        behind_s = session.time_s - packet.time_s
        return behind_s > (_LATE_S if packet.status == BUSY else _FAR_S)

    def _follow(
        self, packet: StatusPacket, values: Measurements, now: datetime, *, changed: bool
    ) -> list[StationAction]:
        session = self.session
        if packet.status in wire.RENTAL_STATES:
            own = session is not None and packet.uid in {None, session.uid}
            acts: list[StationAction] = []
            if session is not None and (not own or self._anew(packet, session)):
                acts += self._close(session, "Other", inferred=True)
                session = None
            if session is None:
                return acts + self._begin(packet, values, now)
            return acts + self._go_on(session, packet, values, now, changed=changed)
        if packet.status == INIT:
            if session is not None and session.rebooted_at is None:
                session.rebooted_at = now
            return []
        if packet.status == DONE:
            return self._done(session, packet, values, now)
        if session is None:
            return []
        if session.rebooted_at is not None:
            return self._close(session, "Reboot", inferred=True)
        gap_s = min(max((now - session.heard_at).total_seconds(), 0), _LONGEST_GAP_S)
        session.time_s += int(gap_s)
        return self._close(session, "Other", inferred=True)

    def _begin(self, packet: StatusPacket, values: Measurements, now: datetime) -> list[StationAction]:
        if packet.uid is None:
            return [StationAnomaly("rental_without_uid")]
        if self.blocked:
            return self._alarm("rented_while_blocked")
        time_s = packet.time_s or 0
        baseline = self.habits.begin(packet.energy_wh, time_s)
        started_at = now - timedelta(seconds=time_s)
        session = StationRental(
            packet.uid, started_at, baseline, self.rules.rated_power_w, now=now, time_s=time_s
        )
        if not baseline.certain:
            session.flag("energy_baseline_uncertain")
        if self.invited != packet.uid:
            session.flag(ORIGIN_DIRECT)
        self.invited = None
        self.session = session
        odd = session.take(packet, values, now)
        session.metered_at = now
        return [
            status_mapping.start_report(self.charger_id, session),
            *(StationAnomaly(kind) for kind in odd),
        ]

    def _go_on(
        self,
        session: StationRental,
        packet: StatusPacket,
        values: Measurements,
        now: datetime,
        *,
        changed: bool,
    ) -> list[StationAction]:
        acts: list[StationAction] = [StationAnomaly(kind) for kind in session.take(packet, values, now)]
        due = session.metered_at is None or (now - session.metered_at).total_seconds() >= (
            self.rules.meter_interval_s
        )
        if changed or due:
            session.metered_at = now
            acts.append(status_mapping.meter_report(self.charger_id, session))
        return acts

    def _done(
        self, session: StationRental | None, packet: StatusPacket, values: Measurements, now: datetime
    ) -> list[StationAction]:
        acts: list[StationAction] = []
        if session is not None and packet.uid not in {None, session.uid}:
            acts += self._close(session, "Other", inferred=True)
        elif session is not None:
            acts += [StationAnomaly(kind) for kind in session.take(packet, values, now)]
            asked_at = session.stop_asked_at
            remote = asked_at is not None and now - asked_at <= _REMEMBERED_STOP
            acts += self._close(session, "Remote" if remote else "Local", inferred=False)
        if packet.energy_wh is not None:
            self.habits.last_done_wh = packet.energy_wh
        return acts

    def _close(self, session: StationRental, reason: str, *, inferred: bool) -> list[StationAction]:
        self.session, self._ended = None, session
        return [status_mapping.stop_report(self.charger_id, session, reason, inferred=inferred)]

    def _word(self, word: status_mapping.StationStatus, now: datetime) -> list[StationAction]:
        if word == self._reported:
            return []
        self._reported = word
        return [status_mapping.status_report(self.charger_id, word, now)]

    # --- what is sent ----------------------------------------------------------------------------

    def commanded(self, verb: str, uid: str, now: datetime) -> list[StationAction]:
        """A command passed, ours or an app's."""
        session = self.session
        if session is None or uid != session.uid:
            return []
        session.own_command_at = now
        if verb != wire.STOP:
            return []
        session.stop_asked_at, session.stop_probed = now, False
        self._noted = self.notes()
        return [reports.Noted(charger_id=self.charger_id, notes=self._noted.plain())]

    def owes(self, left: reports.BalanceLeft) -> list[StationAction]:
        """What the rental leaves of its renter's balance. A stop opens the door, so only a setting may have it sent."""
        session, debt_minor = self.session, -left.balance_minor
        most_minor = self.rules.max_debt.scaleb(minor_digits(left.currency))
        if session is None or session.debt_raised or debt_minor < most_minor:
            return []
        session.debt_raised = True
        ended = self.rules.autostop == AT_MAX_DEBT and session.stop_asked_at is None
        return [StationAlarm("max_debt"), *([SendStop()] if ended else [])]

    def asked(self, now: datetime) -> None:
        """Hello was sent."""
        self._asked_at = self._asked_at or now

    # --- what is not heard -----------------------------------------------------------------------

    def stale(self, now: datetime) -> bool:
        """Whether what we know of a rental is older than it should be."""
        if self.session is None or self.heard_at is None:
            return False
        return now - self.heard_at > (_STALE if self.session.in_window(now) else _STALE_OUTSIDE)

    def tick(self, now: datetime) -> list[StationAction]:
        """To be called about once a second."""
        acts: list[StationAction] = []
        session = self.session
        if session is not None and session.rebooted_at is not None and now - session.rebooted_at >= _RETURN:
            acts += self._close(session, "Reboot", inferred=True)
            session = None
        acts += self._unanswered(session, now)
        if session is not None:
            acts += self._stop_without_done(session, now)
        if self.status == DONE and self.online and now - self._since >= _LONG_DONE:
            acts += self._alarm("done_without_ready")
        if session is not None and not self.online and now - self._offline_since >= _LONG_OFFLINE:
            acts += self._alarm("offline_in_rental")
        if self._asked_at is None and self._wants_probe(session, now):
            acts.append(SendHello())
        return acts

    def _wants_probe(self, session: StationRental | None, now: datetime) -> bool:
        if session is not None and self.online:
            return now - max(session.heard_at, self.heard_at or session.heard_at) >= _SILENT
        return now >= self._next_probe_at

    def _unanswered(self, session: StationRental | None, now: datetime) -> list[StationAction]:
        if self._asked_at is None or (now - self._asked_at).total_seconds() < self.rules.answer_s:
            return []
        self._asked_at = None
        self._misses += 1
        self._next_probe_at = now + timedelta(seconds=self.rules.probe_interval_s)
        silent_in_rental = session is not None and now - session.heard_at >= _SILENT
        if not self.online or not (self._misses >= _MISSES or silent_in_rental):
            return []
        self.online, self._offline_since = False, now
        return [*self._word(status_mapping.STATION_OFFLINE, now), ReachabilityChange(False)]

    def _stop_without_done(self, session: StationRental, now: datetime) -> list[StationAction]:
        asked_at = session.stop_asked_at
        if asked_at is None:
            return []
        waited_s = (now - asked_at).total_seconds()
        if waited_s >= self.rules.answer_s and not session.stop_probed:
            session.stop_probed = True
            return [SendHello()]
        return self._alarm("stop_without_done") if waited_s >= 2 * self.rules.answer_s else []

    def _alarm(self, kind: str) -> list[StationAction]:
        if kind in self._alarmed:
            return []
        self._alarmed.add(kind)
        return [StationAlarm(kind)]
