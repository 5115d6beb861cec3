"""One station: what its packets mean in our words, and what its silence means. Pure: every moment is given.

The station is the master of state and time; we follow and never predict. Any status may come at any time: what is
not in the table of transitions is applied and counted.
"""

from datetime import datetime, timedelta
from typing import Final

from bridges.coin_op import packet as wire
from bridges.coin_op import status_mapping
from bridges.coin_op.acts import AT_MAX_DEBT, Act, Alarm, EndRental, Odd, Presence, Probe, Rules
from bridges.coin_op.energy import Habits
from bridges.coin_op.notes import NOTHING, Notes
from bridges.coin_op.packet import BUSY, CHARGING, COMPLETED, DONE, INIT, READY, Packet
from bridges.coin_op.scales import AUTO, Scales, Values
from bridges.coin_op.session import DIRECT, Session, resumed
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


class Station:
    """`hear` and `tick` say what is to be done; reports are to be recorded in this order."""

    def __init__(
        self, charger_id: str, rules: Rules, now: datetime, *, jitter: float = 0.0, blocked: bool = False
    ) -> None:
        self.charger_id = charger_id
        self.rules = rules
        self.blocked = blocked
        self.scales = Scales(rules.power_scale)
        self.habits = Habits(rules.energy_mode, rules.rated_power_w)
        self.status: str | None = None
        self.last: Packet | None = None
        self.session: Session | None = None
        self.online = False
        self.heard_at: datetime | None = None
        self.invited: str | None = None  # whom we have sent a connect for
        self._ended: Session | None = None
        self._reported: status_mapping.Word | None = None
        self._asked_at: datetime | None = None
        self._misses = 0
        self._next_probe_at = now + timedelta(seconds=rules.probe_interval_s * jitter)
        self._since = now
        self._offline_since = now
        self._alarmed: set[str] = set()
        self._noted = NOTHING

    def resume(
        self, transaction: Transaction | None, connector: Connector | None, notes: Notes = NOTHING
    ) -> None:
        """Go on with what was on record when we started; `notes` are those that we had kept ourselves."""
        self.scales.learned(notes.power_scale)
        self.habits.learned(notes.resets, notes.last_done_wh)
        if connector is not None:
            if transaction is None and connector.energy_wh is not None and self.habits.last_done_wh is None:
                self.habits.last_done_wh = float(connector.energy_wh)
            if connector.status is not None:
                self._reported = status_mapping.Word(connector.status, connector.error_code, connector.info)
        if transaction is not None:
            self.session = resumed(transaction, connector, notes.session, self.rules.rated_power_w)
        self._noted = self.notes()

    def notes(self) -> Notes:
        """What a restart must not lose."""
        return Notes(
            power_scale=self.scales.power if self.rules.power_scale == AUTO else None,
            resets=self.habits.resets,
            last_done_wh=self.habits.last_done_wh,
            session=None if self.session is None else self.session.notes(),
        )

    def _noting(self, acts: list[Act]) -> list[Act]:
        """With our notes, when something is recorded anyway and they have changed: not for every packet."""
        recorded = any(isinstance(act, reports.Start | reports.Meter | reports.Stop) for act in acts)
        if not recorded or (notes := self.notes()) == self._noted:
            return acts
        self._noted = notes
        return [*acts, reports.Noted(charger_id=self.charger_id, notes=notes.plain())]

    # --- what is heard ---------------------------------------------------------------------------

    def hear(self, packet: Packet, now: datetime, *, retained: bool = False) -> list[Act]:
        """A status packet. A retained one has no known age: it starts and stops nothing, we ask."""
        acts: list[Act] = [Odd(kind) for kind in packet.oddities]
        if retained:
            self.last = self.last or packet
            return [*acts, Probe()]
        self.heard_at, self._asked_at, self._misses = now, None, 0
        self._next_probe_at = now + timedelta(seconds=self.rules.probe_interval_s)
        self._alarmed.discard("offline_in_rental")
        if not self.online:
            self.online = True
            acts.append(Presence(True))
        if packet.status not in wire.STATES:
            acts += self._word(status_mapping.unknown(packet.status, self._reported), now)
            return [*acts, Odd("unknown_status")]
        if (dropped := self._repeats(packet, now)) is not None:
            return [*acts, Odd(dropped)]
        changed = packet.status != self.status
        if changed and self.status is not None and (self.status, packet.status) not in _NORMAL:
            acts.append(Odd("unexpected_transition"))
        values = self.scales.read(packet)
        acts += self._follow(packet, values, now, changed=changed)
        if changed:
            self._since = now
            self._alarmed.clear()
        self.status, self.last = packet.status, packet
        acts += self._word(status_mapping.word(packet, values), now)
        return self._noting(acts)

    def _repeats(self, packet: Packet, now: datetime) -> str | None:
        """Why a packet is not taken: it is there already, or came too late."""
        session = self.session
        if session is None and self._of_the_past(packet, now):
            return "late"
        if session is None or packet.time_s is None or packet.uid not in {None, session.uid}:
            last = self.last
            if packet.time_s is None or last is None or self.status != packet.status:
                return None
            return "double" if (last.time_s, last.uid) == (packet.time_s, packet.uid) else None
        if packet.status not in wire.RENTED or packet.status != self.status:
            return None
        behind_s = session.time_s - packet.time_s
        if behind_s == 0:
            return "double"
        return "late" if behind_s > 0 and not self._anew(packet, session) else None

    def _of_the_past(self, packet: Packet, now: datetime) -> bool:
        """Whether a packet belongs to the rental that is over: the two topics keep no order between them."""
        if self._ended is None or packet.time_s is None or packet.uid != self._ended.uid:
            return False
        if packet.status == DONE:
            return self.status == READY and packet.time_s == self._ended.time_s
        began_at = now - timedelta(seconds=packet.time_s)
        return packet.status in wire.RENTED and began_at < self._ended.heard_at - timedelta(seconds=1)

    @staticmethod
    def _anew(packet: Packet, session: Session) -> bool:
        """Whether the same user's count began again: another rental."""
        if packet.time_s is None:
            return False
        behind_s = session.time_s - packet.time_s
        return behind_s > (_LATE_S if packet.status == BUSY else _FAR_S)

    def _follow(self, packet: Packet, values: Values, now: datetime, *, changed: bool) -> list[Act]:
        session = self.session
        if packet.status in wire.RENTED:
            own = session is not None and packet.uid in {None, session.uid}
            acts: list[Act] = []
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

    def _begin(self, packet: Packet, values: Values, now: datetime) -> list[Act]:
        if packet.uid is None:
            return [Odd("rental_without_uid")]
        if self.blocked:
            return self._alarm("rented_while_blocked")
        time_s = packet.time_s or 0
        baseline = self.habits.begin(packet.energy_wh, time_s)
        started_at = now - timedelta(seconds=time_s)
        session = Session(packet.uid, started_at, baseline, self.rules.rated_power_w, now=now, time_s=time_s)
        if not baseline.certain:
            session.flag("energy_baseline_uncertain")
        if self.invited != packet.uid:
            session.flag(DIRECT)
        self.invited = None
        self.session = session
        odd = session.take(packet, values, now)
        session.metered_at = now
        return [status_mapping.start(self.charger_id, session), *(Odd(kind) for kind in odd)]

    def _go_on(
        self, session: Session, packet: Packet, values: Values, now: datetime, *, changed: bool
    ) -> list[Act]:
        acts: list[Act] = [Odd(kind) for kind in session.take(packet, values, now)]
        due = session.metered_at is None or (now - session.metered_at).total_seconds() >= (
            self.rules.meter_interval_s
        )
        if changed or due:
            session.metered_at = now
            acts.append(status_mapping.meter(self.charger_id, session))
        return acts

    def _done(self, session: Session | None, packet: Packet, values: Values, now: datetime) -> list[Act]:
        acts: list[Act] = []
        if session is not None and packet.uid not in {None, session.uid}:
            acts += self._close(session, "Other", inferred=True)
        elif session is not None:
            acts += [Odd(kind) for kind in session.take(packet, values, now)]
            asked_at = session.stop_asked_at
            remote = asked_at is not None and now - asked_at <= _REMEMBERED_STOP
            acts += self._close(session, "Remote" if remote else "Local", inferred=False)
        if packet.energy_wh is not None:
            self.habits.last_done_wh = packet.energy_wh
        return acts

    def _close(self, session: Session, reason: str, *, inferred: bool) -> list[Act]:
        self.session, self._ended = None, session
        return [status_mapping.stop(self.charger_id, session, reason, inferred=inferred)]

    def _word(self, word: status_mapping.Word, now: datetime) -> list[Act]:
        if word == self._reported:
            return []
        self._reported = word
        return [status_mapping.status(self.charger_id, word, now)]

    # --- what is sent ----------------------------------------------------------------------------

    def commanded(self, verb: str, uid: str, now: datetime) -> list[Act]:
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

    def owes(self, left: reports.BalanceLeft) -> list[Act]:
        """What the rental leaves of its renter's balance. A stop opens the door, so only a setting may have it sent."""
        session, debt_minor = self.session, -left.balance_minor
        most_minor = self.rules.max_debt.scaleb(minor_digits(left.currency))
        if session is None or session.debt_raised or debt_minor < most_minor:
            return []
        session.debt_raised = True
        ended = self.rules.autostop == AT_MAX_DEBT and session.stop_asked_at is None
        return [Alarm("max_debt"), *([EndRental()] if ended else [])]

    def asked(self, now: datetime) -> None:
        """Hello was sent."""
        self._asked_at = self._asked_at or now

    # --- what is not heard -----------------------------------------------------------------------

    def stale(self, now: datetime) -> bool:
        """Whether what we know of a rental is older than it should be."""
        if self.session is None or self.heard_at is None:
            return False
        return now - self.heard_at > (_STALE if self.session.in_window(now) else _STALE_OUTSIDE)

    def tick(self, now: datetime) -> list[Act]:
        """To be called about once a second."""
        acts: list[Act] = []
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
            acts.append(Probe())
        return acts

    def _wants_probe(self, session: Session | None, now: datetime) -> bool:
        if session is not None and self.online:
            return now - max(session.heard_at, self.heard_at or session.heard_at) >= _SILENT
        return now >= self._next_probe_at

    def _unanswered(self, session: Session | None, now: datetime) -> list[Act]:
        if self._asked_at is None or (now - self._asked_at).total_seconds() < self.rules.answer_s:
            return []
        self._asked_at = None
        self._misses += 1
        self._next_probe_at = now + timedelta(seconds=self.rules.probe_interval_s)
        silent_in_rental = session is not None and now - session.heard_at >= _SILENT
        if not self.online or not (self._misses >= _MISSES or silent_in_rental):
            return []
        self.online, self._offline_since = False, now
        return [*self._word(status_mapping.OFFLINE, now), Presence(False)]

    def _stop_without_done(self, session: Session, now: datetime) -> list[Act]:
        asked_at = session.stop_asked_at
        if asked_at is None:
            return []
        waited_s = (now - asked_at).total_seconds()
        if waited_s >= self.rules.answer_s and not session.stop_probed:
            session.stop_probed = True
            return [Probe()]
        return self._alarm("stop_without_done") if waited_s >= 2 * self.rules.answer_s else []

    def _alarm(self, kind: str) -> list[Act]:
        if kind in self._alarmed:
            return []
        self._alarmed.add(kind)
        return [Alarm(kind)]
