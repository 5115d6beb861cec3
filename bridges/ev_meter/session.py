"""What a charger does, from what it shows every minute: starts, readings, stops. Pure; the clock is given.

The charger has no word for any of this. Its lifetime register (`total`) is what bills; its session counter
survives the unplugging and may be the last session's, so it only ever confirms.
"""

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Final

from bridges.ev_meter import status
from bridges.ev_meter.frame import WorkingInfo
from bridges.ev_meter.status import OFFLINE, Shown
from bridges.ev_meter.steps import (
    KEY,
    MISSED,
    NOISE_WH,
    START_ESTIMATED,
    STOP_ESTIMATED,
    Begin,
    End,
    Note,
    Read,
    Rules,
    Running,
    Step,
    most_wh,
    start_key,
    start_time,
)
from csms.adapter import ChargerSnapshot

CONNECTOR: Final = 1
MISSES: Final = 3  # silent polls until a charger counts as offline
_DEFERRED_WH: Final = 100
_STILL_POLLS: Final = 3
_ODD_POLLS: Final = 3
_UNCHANGED: Final = timedelta(seconds=50)


class Session:
    """One charger. Feed it every valid frame (`hear`) and every poll without one (`silence`); do what it says."""

    def __init__(self, rules: Rules, standing: ChargerSnapshot) -> None:
        self._rules = rules
        self.online = False
        self.misses = 0
        self.shown: Shown | None = None
        self._before_offline: Shown | None = None
        self.running: Running | None = None
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
            if connector.connector_id != CONNECTOR:
                continue
            if connector.status is not None:
                self.shown = Shown(
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
            if transaction.connector_id != CONNECTOR:
                continue
            key = KEY.match(transaction.key)
            self.running = Running(
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

    def silence(self, at: datetime) -> list[Step]:
        """A poll had no valid answer, or could not be sent."""
        self.misses += 1
        steps: list[Step] = []
        if self.misses >= MISSES:
            self._returned = True
            if self.shown != OFFLINE:
                self._before_offline, self.shown = self.shown, OFFLINE
                steps.append(OFFLINE)
        running, heard_at = self.running, self._heard_at
        if running is not None and heard_at is not None and at - heard_at > self._rules.give_up_after:
            steps.append(Note("a session was given up: its charger has been silent for too long"))
            steps += self._end(heard_at, "Other", STOP_ESTIMATED)
        return steps

    # --- a frame ---------------------------------------------------------------------------------

    def hear(self, info: WorkingInfo, at: datetime) -> list[Step]:
        """A valid frame of this charger, whether or not it was asked for."""
        if self._last == info and self._read_at is not None and at - self._read_at < _UNCHANGED:
            self.misses = 0
            return self._showing(info) if self.shown == OFFLINE else []
        steps: list[Step] = []
        before = self._register
        good = self._believe(info, at, steps)
        if self.running is not None:
            steps += self._in_session(info, at, good=good)
        elif good or (status.charging(info) and before is not None):
            steps += self._idle(info, at, good=good)
        if info.ev_status == status.NOT_CONNECTED:
            self._had_session = False
        self.misses = 0
        self._returned = False
        self._last, self._heard_at, self._read_at = info, at, at
        # A status comes after the start or the stop that explains it, and before the reading it explains.
        if steps and isinstance(steps[-1], Read) and steps[-1].told:
            return [*steps[:-1], *self._showing(info), steps[-1]]
        return [*steps, *self._showing(info)]

    def _showing(self, info: WorkingInfo) -> list[Step]:
        known = self._before_offline if self.shown == OFFLINE else self.shown
        now = status.shown(
            info, in_session=self.running is not None, had_session=self._had_session, previous=known
        )
        if now is None or now == self.shown:
            return []
        self.shown = now
        return [now]

    # --- the register ----------------------------------------------------------------------------

    def _believe(self, info: WorkingInfo, at: datetime, steps: list[Step]) -> bool:
        """Whether this frame may move the meter. A total that stays odd while nothing charges is a new meter."""
        total, known = info.total_wh, self._total
        if self._lags(info):
            self._deferred, self._total = True, total
            known = total
        odd = not status.measured(info) or total == 0
        if not odd and known is not None and self._good_at is not None:
            odd = total < known or total - known > most_wh(at - self._good_at)
            running = self.running
            if odd and running is not None and known < total and (self._deferred or self._still[0]):
                # It may have stood still since the session began.
                odd = total - running.meter_start_wh > most_wh(at - running.started_at)
        if not odd:
            self._odd, self._told_odd = (0, 0), False
            self._total, self._good_at = total, at
            return True
        if not self._told_odd:
            self._told_odd = True
            steps.append(Note("the register is not believable; the meter stands still for now"))
        count, last = self._odd
        steady = total and status.measured(info) and abs(total - last) <= most_wh(timedelta(minutes=5))
        self._odd = (count + 1 if steady else 1 if total else 0, total)
        if self.running is None and steady and self._odd[0] >= _ODD_POLLS:
            steps.append(Note("the register counts from somewhere else: a new meter, taken as it is"))
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
            if grown <= most_wh(at - running.started_at):
                register = max(register, running.meter_start_wh + grown)
        self._register = max(register, self._register or 0)

    def _watch_for_lag(self, info: WorkingInfo) -> list[Step]:
        last = self._last
        if last is None or last.total_wh != info.total_wh or info.session_wh < self._still[1]:
            self._still = (0, info.session_wh)
            return []
        polls, counter = self._still
        self._still = (polls + 1, counter)
        if self._deferred or polls + 1 < _STILL_POLLS or info.session_wh - counter <= _DEFERRED_WH:
            return []
        self._deferred = True
        return [Note("the register stands still during a session: the session counter is used meanwhile")]

    # --- no session ------------------------------------------------------------------------------

    def _idle(self, info: WorkingInfo, at: datetime, *, good: bool, split: bool = False) -> list[Step]:
        steps: list[Step] = []
        total, known = info.total_wh, self._register
        if not status.charging(info):
            if known is not None and total - known > NOISE_WH:
                steps += self._missed(info, at, known, total)
            self._register = max(total, known or 0) if self._deferred else total
            if self._register != self._recorded and not self._deferred:
                self._recorded = self._register
                steps.append(Read(info=info, register_wh=self._register, at=at, told=False))
            return steps
        since_counter = total - info.session_wh
        anomalies: tuple[str, ...] = ()
        stale = False
        if known is None:
            known, anomalies = (
                max(since_counter, 0) if info.session_wh <= total else total,
                (START_ESTIMATED,),
            )
        elif good and not split:
            stale = since_counter < known - NOISE_WH
            if since_counter > known + NOISE_WH:
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
    ) -> list[Step]:
        start_ms = info.start_time_ms if start_time(info, at) is not None else None
        moment = self._began_at(info, at)
        uncertain = timedelta(0)
        if moment is None:
            moment, uncertain = at, at - (self._heard_at or at)
        base_wh = max(meter_wh, info.total_wh - info.session_wh)
        self.running = Running(
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
        return [Begin(key=key, meter_wh=meter_wh, at=moment, anomalies=anomalies)]

    def _began_at(self, info: WorkingInfo, at: datetime) -> datetime | None:
        """The charger's own start, if it lies in the time in which we did not look."""
        began = start_time(info, at)
        if began is None or began > at or (self._heard_at is not None and began < self._heard_at):
            return None
        return began

    def _missed(self, info: WorkingInfo, at: datetime, from_wh: int, to_wh: int) -> list[Step]:
        """Energy that nobody saw flow: a session that began and ended between two looks."""
        self._register = self._recorded = to_wh
        if self._rules.missed_sessions == "log":
            return [
                Note(f"{to_wh - from_wh} Wh flowed while nobody looked; not booked"),
                Read(info=info, register_wh=to_wh, at=at, told=False),
            ]
        self._had_session = True
        began = self._began_at(info, at) or self._heard_at or at
        anomalies = (MISSED, START_ESTIMATED, STOP_ESTIMATED)
        key = start_key(
            began, at - began, from_wh, start_ms=None, session_wh=info.session_wh, base_wh=from_wh
        )
        return [
            Note(f"{to_wh - from_wh} Wh flowed while nobody looked; booked as a session of its own"),
            Begin(key=key, meter_wh=from_wh, at=began, anomalies=anomalies),
            End(meter_wh=to_wh, at=at, reason="Other", anomalies=anomalies, closing=True),
        ]

    # --- a session -------------------------------------------------------------------------------

    def _in_session(self, info: WorkingInfo, at: datetime, *, good: bool) -> list[Step]:
        running = self.running
        assert running is not None
        another = good and self._another_session(info, at)
        if info.ev_status == status.NOT_CONNECTED:
            if not good:
                return self._end(at, "EVDisconnected", STOP_ESTIMATED)
            self._advance(info, at)
            if another and self._returned:
                return self._end(at, "Other", STOP_ESTIMATED)
            return self._end(at, "EVDisconnected")
        if another and status.plugged(info):
            return self._split(info, at)
        if not good:
            return []
        steps = self._watch_for_lag(info)
        self._advance(info, at)
        assert self._register is not None
        if info.start_time_ms is not None and start_time(info, at) is not None:
            running.start_ms = info.start_time_ms
        self._recorded = self._register
        steps.append(Read(info=info, register_wh=self._register, at=at, deferred=self._deferred))
        if status.flowing(info):
            running.idle_since = None
        else:
            running.idle_since = running.idle_since or at
            patience = self._rules.finish_after
            if patience is not None and at - running.idle_since >= patience:
                steps += self._end(at, "Other")
        return steps

    def _split(self, info: WorkingInfo, at: datetime) -> list[Step]:
        """Another session runs than the one we have on record: the car was changed, or plugged in again."""
        assert self._register is not None
        anomalies: Iterable[str] = ()
        if self._returned:
            self._register = min(max(info.total_wh - info.session_wh, self._register), info.total_wh)
            anomalies = (STOP_ESTIMATED,)
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
        if self._returned and info.total_wh - info.session_wh > running.base_wh + NOISE_WH:
            return True
        if last is not None:
            fell = info.session_wh < last.session_wh
        else:
            fell = info.session_wh < (self._register or 0) - running.meter_start_wh - NOISE_WH
        if fell and running.stale_counter:
            running.stale_counter = False
            running.session_wh = 0
            return False
        return fell

    def _end(self, at: datetime, reason: str, *anomalies: str) -> list[Step]:
        running, register = self.running, self._register
        assert running is not None
        assert register is not None
        closing = register != self._recorded
        self.running = None
        self._had_session = True
        self._recorded = register
        return [
            End(
                meter_wh=register,
                at=at,
                reason=reason,
                anomalies=(*running.anomalies, *anomalies),
                closing=closing,
            )
        ]
