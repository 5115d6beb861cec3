"""What a charger does, from what it shows every minute: starts, readings, stops. Pure; the clock is given.

The charger has no word for any of this. Its lifetime register (`total`) is what bills; its session counter
survives the unplugging and may be the last session's, so it only ever confirms.
"""

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Final

from bridges.ev_meter import status_mapping
from bridges.ev_meter.frame import WorkingInfo
from bridges.ev_meter.observations import (
    METER_START_ESTIMATED,
    METER_STOP_ESTIMATED,
    MISSED_SESSION,
    START_KEY,
    TOLERANCE_WH,
    Observation,
    OpenSession,
    OperatorNote,
    RegisterRead,
    SessionBegan,
    SessionEnded,
    SessionRules,
    max_plausible_wh,
    start_key,
    start_time,
)
from bridges.ev_meter.status_mapping import CHARGER_OFFLINE, ConnectorStatus
from csms.adapter import ChargerSnapshot

CHARGER_CONNECTOR_ID: Final = 1
OFFLINE_AFTER_POLLS: Final = 3  # silent polls until a charger counts as offline
_DEFERRED_AFTER_WH: Final = 100
_DEFERRED_AFTER_POLLS: Final = 3
_NEW_METER_AFTER_POLLS: Final = 3
_UNCHANGED: Final = timedelta(seconds=50)


class SessionTracker:
    """One charger. Feed it every valid frame (`hear`) and every poll without one (`silence`); do what it says."""

    def __init__(self, rules: SessionRules, standing: ChargerSnapshot) -> None:
        self._rules = rules
        self.online = False
        self.misses = 0
        self.shown: ConnectorStatus | None = None
        self._before_offline: ConnectorStatus | None = None
        self.running: OpenSession | None = None
        self._had_session = False
        self._register: int | None = None  # what is booked
        self._recorded: int | None = None  # what of that the ledger has as the connector's register
        self._total: int | None = None  # the charger's last believable total; below `_register` where it lags
        self._good_at: datetime | None = None
        self._heard_at: datetime | None = None
        self._last: WorkingInfo | None = None
        self._read_at: datetime | None = None
        self._returned = True
        self._deferred = False
        self._still: tuple[int, int] = (0, 0)  # polls without a change of `total`, the counter at the first
        self._odd: tuple[int, int] = (0, 0)  # polls with an unbelievable total, the last one
        self._told_odd = False
        self._restore(standing)

    def _restore(self, standing: ChargerSnapshot) -> None:
        for connector in standing.connectors:
            if connector.connector_id != CHARGER_CONNECTOR_ID:
                continue
            if connector.status is not None:
                self.shown = ConnectorStatus(
                    connector.status, connector.error_code, connector.info, connector.vendor_error_code
                )
                self._had_session = connector.status == "Finishing"
            self._register = self._recorded = self._total = connector.energy_wh or None
            self._good_at = connector.reading_at
            self._heard_at = max(
                (at for at in (connector.reading_at, connector.status_recorded_at) if at is not None),
                default=None,
            )
        for transaction in standing.transactions:
            if transaction.connector_id != CHARGER_CONNECTOR_ID:
                continue
            key = START_KEY.match(transaction.key)
            self.running = OpenSession(
                meter_start_wh=transaction.meter_start_wh,
                started_at=transaction.started_at,
                start_ms=int(key["start"]) if key is not None and key["start"] != "-" else None,
                session_wh=int(key["session"]) if key is not None else None,
                base_wh=int(key["base"]) if key is not None else transaction.meter_start_wh,
                stale_counter=False,
                anomalies=transaction.anomalies,
            )
            self._register = max(self._register or 0, transaction.meter_start_wh)
            self._total = self._register
            self._good_at = self._good_at or transaction.started_at
            self._heard_at = max(self._heard_at or transaction.started_at, transaction.started_at)

    @property
    def busy(self) -> bool:
        """Whether it is worth looking more often."""
        return self.running is not None

    # --- nothing heard ---------------------------------------------------------------------------

    def silence(self, at: datetime) -> list[Observation]:
        """A poll had no valid answer, or could not be sent."""
        self.misses += 1
        steps: list[Observation] = []
        if self.misses >= OFFLINE_AFTER_POLLS:
            self._returned = True
            if self.shown != CHARGER_OFFLINE:
                self._before_offline, self.shown = self.shown, CHARGER_OFFLINE
                steps.append(CHARGER_OFFLINE)
        running, heard_at = self.running, self._heard_at
        if running is not None and heard_at is not None and at - heard_at > self._rules.give_up_after:
            steps.append(OperatorNote("a session was given up: its charger has been silent for too long"))
            steps += self._end(heard_at, "Other", METER_STOP_ESTIMATED)
        return steps

    # --- a frame ---------------------------------------------------------------------------------

    def hear(self, info: WorkingInfo, at: datetime) -> list[Observation]:
        """A valid frame of this charger, whether or not it was asked for."""
        if self._last == info and self._read_at is not None and at - self._read_at < _UNCHANGED:
            self.misses = 0
            return self._showing(info) if self.shown == CHARGER_OFFLINE else []
        steps: list[Observation] = []
        before = self._register
        good = self._believe(info, at, steps)
        if self.running is not None:
            steps += self._in_session(info, at, good=good)
        elif good or (status_mapping.charging(info) and before is not None):
            steps += self._idle(info, at, good=good)
        if info.ev_status == status_mapping.NOT_CONNECTED:
            self._had_session = False
        self.misses = 0
        self._returned = False
        self._last, self._heard_at, self._read_at = info, at, at
        # A status comes after the start or the stop that explains it, and before the reading it explains.
        if steps and isinstance(steps[-1], RegisterRead) and steps[-1].told:
            return [*steps[:-1], *self._showing(info), steps[-1]]
        return [*steps, *self._showing(info)]

    def _showing(self, info: WorkingInfo) -> list[Observation]:
        known = self._before_offline if self.shown == CHARGER_OFFLINE else self.shown
        now = status_mapping.connector_status(
            info, in_session=self.running is not None, had_session=self._had_session, previous=known
        )
        if now is None or now == self.shown:
            return []
        self.shown = now
        return [now]

    # --- the register ----------------------------------------------------------------------------

    def _believe(self, info: WorkingInfo, at: datetime, steps: list[Observation]) -> bool:
        """Whether this frame may move the meter. A total that stays odd while nothing charges is a new meter."""
        total, known = info.total_wh, self._total
        if self._lags(info):
            self._deferred, self._total = True, total
            known = total
        odd = not status_mapping.measured(info) or total == 0
        if not odd and known is not None and self._good_at is not None:
            odd = total < known or total - known > max_plausible_wh(at - self._good_at)
            running = self.running
            if odd and running is not None and known < total and (self._deferred or self._still[0]):
                # It may have stood still since the session began.
                odd = total - running.meter_start_wh > max_plausible_wh(at - running.started_at)
        if not odd:
            self._odd, self._told_odd = (0, 0), False
            self._total, self._good_at = total, at
            return True
        if not self._told_odd:
            self._told_odd = True
            steps.append(OperatorNote("the register is not believable; the meter stands still for now"))
        count, last = self._odd
        steady = (
            total
            and status_mapping.measured(info)
            and abs(total - last) <= max_plausible_wh(timedelta(minutes=5))
        )
        self._odd = (count + 1 if steady else 1 if total else 0, total)
        if self.running is None and steady and self._odd[0] >= _NEW_METER_AFTER_POLLS:
            steps.append(OperatorNote("the register counts from somewhere else: a new meter, taken as it is"))
            self._odd, self._told_odd = (0, 0), False
            self._total, self._register, self._good_at = total, total, at
            return True
        return False

    def _lags(self, info: WorkingInfo) -> bool:
        """After a restart: whether the session counter was billed by, because `total` stands still meanwhile."""
        running, register = self.running, self._register
        return (
            self._last is None
            and running is not None
            and register is not None
            and running.session_wh is not None
            and running.meter_start_wh <= info.total_wh < register
            and info.session_wh >= register - running.meter_start_wh
        )

    def _advance(self, info: WorkingInfo, at: datetime) -> None:
        """The register after a good frame of a session."""
        running = self.running
        assert running is not None
        register = info.total_wh
        if self._deferred and running.session_wh is not None:
            grown = info.session_wh - running.session_wh
            if grown <= max_plausible_wh(at - running.started_at):
                register = max(register, running.meter_start_wh + grown)
        self._register = max(register, self._register or 0)

    def _watch_for_lag(self, info: WorkingInfo) -> list[Observation]:
        last = self._last
        if last is None or last.total_wh != info.total_wh or info.session_wh < self._still[1]:
            self._still = (0, info.session_wh)
            return []
        polls, counter = self._still
        self._still = (polls + 1, counter)
        if (
            self._deferred
            or polls + 1 < _DEFERRED_AFTER_POLLS
            or info.session_wh - counter <= _DEFERRED_AFTER_WH
        ):
            return []
        self._deferred = True
        return [
            OperatorNote("the register stands still during a session: the session counter is used meanwhile")
        ]

    # --- no session ------------------------------------------------------------------------------

    def _idle(self, info: WorkingInfo, at: datetime, *, good: bool, split: bool = False) -> list[Observation]:
        steps: list[Observation] = []
        total, known = info.total_wh, self._register
        if not status_mapping.charging(info):
            if known is not None and total - known > TOLERANCE_WH:
                steps += self._missed(info, at, known, total)
            self._register = max(total, known or 0) if self._deferred else total
            if self._register != self._recorded and not self._deferred:
                self._recorded = self._register
                steps.append(RegisterRead(info=info, register_wh=self._register, at=at, told=False))
            return steps
        since_counter = total - info.session_wh
        anomalies: tuple[str, ...] = ()
        stale = False
        if known is None:
            known, anomalies = (
                max(since_counter, 0) if info.session_wh <= total else total,
                (METER_START_ESTIMATED,),
            )
        elif good and not split:
            stale = since_counter < known - TOLERANCE_WH
            if since_counter > known + TOLERANCE_WH:
                steps += self._missed(info, at, known, since_counter)
                known = since_counter
        steps += self._begin(info, at, known, anomalies, stale_counter=stale)
        return steps

    def _begin(
        self,
        info: WorkingInfo,
        at: datetime,
        meter_wh: int,
        anomalies: tuple[str, ...],
        *,
        stale_counter: bool,
    ) -> list[Observation]:
        start_ms = info.start_time_ms if start_time(info, at) is not None else None
        moment = self._began_at(info, at)
        uncertain = timedelta(0)
        if moment is None:
            moment, uncertain = at, at - (self._heard_at or at)
        base_wh = max(meter_wh, info.total_wh - info.session_wh)
        self.running = OpenSession(
            meter_start_wh=meter_wh,
            started_at=moment,
            start_ms=start_ms,
            session_wh=info.session_wh,
            base_wh=base_wh,
            stale_counter=stale_counter,
            anomalies=anomalies,
        )
        self._register = meter_wh
        self._still = (0, info.session_wh)
        key = start_key(
            moment, uncertain, meter_wh, start_ms=start_ms, session_wh=info.session_wh, base_wh=base_wh
        )
        return [SessionBegan(key=key, meter_wh=meter_wh, at=moment, anomalies=anomalies)]

    def _began_at(self, info: WorkingInfo, at: datetime) -> datetime | None:
        """The charger's own start, if it lies in the time in which we did not look."""
        began = start_time(info, at)
        if began is None or began > at or (self._heard_at is not None and began < self._heard_at):
            return None
        return began

    def _missed(self, info: WorkingInfo, at: datetime, from_wh: int, to_wh: int) -> list[Observation]:
        """Energy that nobody saw flow: a session that began and ended between two looks."""
        self._register = self._recorded = to_wh
        if self._rules.missed_sessions == "log":
            return [
                OperatorNote(f"{to_wh - from_wh} Wh flowed while nobody looked; not booked"),
                RegisterRead(info=info, register_wh=to_wh, at=at, told=False),
            ]
        self._had_session = True
        began = self._began_at(info, at) or self._heard_at or at
        anomalies = (MISSED_SESSION, METER_START_ESTIMATED, METER_STOP_ESTIMATED)
        key = start_key(
            began, at - began, from_wh, start_ms=None, session_wh=info.session_wh, base_wh=from_wh
        )
        return [
            OperatorNote(f"{to_wh - from_wh} Wh flowed while nobody looked; booked as a session of its own"),
            SessionBegan(key=key, meter_wh=from_wh, at=began, anomalies=anomalies),
            SessionEnded(meter_wh=to_wh, at=at, reason="Other", anomalies=anomalies, closing=True),
        ]

    # --- a session -------------------------------------------------------------------------------

    def _in_session(self, info: WorkingInfo, at: datetime, *, good: bool) -> list[Observation]:
        running = self.running
        assert running is not None
        another = good and self._another_session(info, at)
        if info.ev_status == status_mapping.NOT_CONNECTED:
            if not good:
                return self._end(at, "EVDisconnected", METER_STOP_ESTIMATED)
            self._advance(info, at)
            if another and self._returned:
                return self._end(at, "Other", METER_STOP_ESTIMATED)
            return self._end(at, "EVDisconnected")
        if another and status_mapping.plugged(info):
            return self._split(info, at)
        if not good:
            return []
        steps = self._watch_for_lag(info)
        self._advance(info, at)
        assert self._register is not None
        if info.start_time_ms is not None and start_time(info, at) is not None:
            running.start_ms = info.start_time_ms
        self._recorded = self._register
        steps.append(RegisterRead(info=info, register_wh=self._register, at=at, deferred=self._deferred))
        if status_mapping.flowing(info):
            running.idle_since = None
        else:
            running.idle_since = running.idle_since or at
            patience = self._rules.finish_after
            if patience is not None and at - running.idle_since >= patience:
                steps += self._end(at, "Other")
        return steps

    def _split(self, info: WorkingInfo, at: datetime) -> list[Observation]:
        """Another session runs than the one we have on record: the car was changed, or plugged in again."""
        assert self._register is not None
        anomalies: Iterable[str] = ()
        if self._returned:
            self._register = min(max(info.total_wh - info.session_wh, self._register), info.total_wh)
            anomalies = (METER_STOP_ESTIMATED,)
        ended = self._end(at, "Other", *anomalies)
        self._had_session = False
        return [*ended, *self._idle(info, at, good=True, split=True)]

    def _another_session(self, info: WorkingInfo, at: datetime) -> bool:
        """By the charger's own start time or counter. A counter that was stale when we began may fall once."""
        running, last = self.running, self._last
        assert running is not None
        began = start_time(info, at)
        if began is not None and running.start_ms is not None and info.start_time_ms != running.start_ms:
            return True
        if self._returned and info.total_wh - info.session_wh > running.base_wh + TOLERANCE_WH:
            return True
        if last is not None:
            fell = info.session_wh < last.session_wh
        else:
            fell = info.session_wh < (self._register or 0) - running.meter_start_wh - TOLERANCE_WH
        if fell and running.stale_counter:
            running.stale_counter = False
            running.session_wh = 0
            return False
        return fell

    def _end(self, at: datetime, reason: str, *anomalies: str) -> list[Observation]:
        running, register = self.running, self._register
        assert running is not None
        assert register is not None
        closing = register != self._recorded
        self.running = None
        self._had_session = True
        self._recorded = register
        return [
            SessionEnded(
                meter_wh=register,
                at=at,
                reason=reason,
                anomalies=(*running.anomalies, *anomalies),
                closing=closing,
            )
        ]
