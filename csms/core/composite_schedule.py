"""The composite schedule by our own reckoning, to hold against the charger's answer (OCPP 1.6, 3.13, 5.7)."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from msgspec import Struct

from csms.core.charging_profiles import DEFAULT_PROFILE, MAX_PROFILE, TX_PROFILE
from csms.core.command_answers import parse_time
from csms.core.device_state import ChargingProfile
from csms.scheduling.plan_profile import VOLTS

_PHASES = 3  # OCPP's default of numberPhases
_RECURRENCE_S = {"Daily": 86_400, "Weekly": 604_800}
_LONGEST_S = 31 * 86_400


class LimitPeriod(Struct, frozen=True):
    """From `start_s` (after the window's begin) on. `limit` None: nothing limits."""

    start_s: int
    limit: float | None
    phases: int | None = None


class RunningTransaction(Struct, frozen=True):
    """The transaction that runs on the connector."""

    transaction_id: int
    started_at: datetime


class _Limit(Struct, frozen=True):
    value: float
    phases: int | None


def compute_schedule(
    profiles: Sequence[ChargingProfile],
    connector_id: int,
    begin: datetime,
    duration_s: int,
    unit: str = "A",
    session: RunningTransaction | None = None,
) -> list[LimitPeriod]:
    """What limits a connector (0: the charger's own limit) over a window, in `unit` (A or W).

    Among profiles of a purpose the highest stack level that is valid and running at a moment prevails, a
    connector's own default before the charger's of the same level; a TxProfile before the defaults; then
    the lower of that and ChargePointMaxProfile. `duration_s` is cut at 31 days.
    """
    duration_s = min(max(duration_s, 0), _LONGEST_S)
    applying = [p for p in profiles if p.cleared_at is None and _applies(p, connector_id, session)]
    runs = [_AppliedProfile(p, _origin(p, begin, session)) for p in applying]
    moments = {0} | {offset for run in runs for offset in run.changes(begin, duration_s)}
    found: list[LimitPeriod] = []
    for offset in sorted(moments):
        limit = _combined(runs, begin + timedelta(seconds=offset), unit)
        period = LimitPeriod(
            offset, None if limit is None else limit.value, None if limit is None else limit.phases
        )
        if not found or (found[-1].limit, found[-1].phases) != (period.limit, period.phases):
            found.append(period)
    return found


def schedules_agree(
    ours: Sequence[LimitPeriod],
    answered: Sequence[dict[str, Any]],
    *,
    tolerance: float = 0.1,
    slack_s: int = 0,
) -> bool:
    """Whether a charger's chargingSchedulePeriods say the same, limits within `tolerance`, wherever ours limit.

    `slack_s`: how far the two may be apart in when they change.
    """
    theirs = sorted(
        (int(p.get("startPeriod", 0)), float(p.get("limit", 0)))
        for p in answered
        if isinstance(p.get("startPeriod"), int) and isinstance(p.get("limit"), int | float)
    )
    changes = sorted({p.start_s for p in ours} | {start for start, _ in theirs})
    looks = [
        change + slack_s
        for change, following in zip(changes, [*changes[1:], None], strict=False)
        if following is None or following > change + slack_s
    ]
    for offset in looks:
        own = next((p.limit for p in reversed(ours) if p.start_s <= offset), None)
        other = next((limit for start, limit in reversed(theirs) if start <= offset), None)
        if own is not None and (other is None or abs(own - other) > tolerance + 1e-9):
            return False
    return True


class _AppliedProfile:
    """A profile with the moment that its periods count from."""

    def __init__(self, row: ChargingProfile, origin: datetime) -> None:
        self.row = row
        self.origin = origin
        self.plan: dict[str, Any] = row.profile.get("chargingSchedule") or {}
        self.periods = sorted(
            self.plan.get("chargingSchedulePeriod") or [], key=lambda period: period["startPeriod"]
        )
        self.valid_from = parse_time(row.profile.get("validFrom"))
        self.valid_to = parse_time(row.profile.get("validTo"))
        self.every_s = (
            _RECURRENCE_S.get(row.profile.get("recurrencyKind", ""))
            if row.profile.get("chargingProfileKind") == "Recurring"
            else None
        )

    def limit(self, at: datetime, unit: str) -> _Limit | None:
        """None: the profile does not run at that moment."""
        if (self.valid_from and at < self.valid_from) or (self.valid_to and at >= self.valid_to):
            return None
        elapsed_s = (at - self.origin).total_seconds()
        if elapsed_s < 0:
            return None
        if self.every_s:
            elapsed_s %= self.every_s
        duration = self.plan.get("duration")
        if duration is not None and elapsed_s >= duration:
            return None
        current = [period for period in self.periods if period["startPeriod"] <= elapsed_s]
        if not current:
            return None
        period = current[-1]
        phases = period.get("numberPhases")
        own_unit = self.plan.get("chargingRateUnit", unit)
        return _Limit(_converted(float(period["limit"]), own_unit, unit, phases or _PHASES), phases)

    def changes(self, begin: datetime, duration_s: int) -> set[int]:
        """Seconds after `begin` at which this profile may begin, change or end."""
        edges = [period["startPeriod"] for period in self.periods]
        if self.plan.get("duration") is not None:
            edges.append(self.plan["duration"])
        base_s = (self.origin - begin).total_seconds()
        bases = [base_s]
        if self.every_s:
            first = max(int(-base_s // self.every_s), 0)
            last = max(int((duration_s - base_s) // self.every_s), 0)
            bases = [base_s + turn * self.every_s for turn in range(first, last + 1)]
        offsets = {base + edge for base in bases for edge in (0, *edges)}
        offsets |= {(edge - begin).total_seconds() for edge in (self.valid_from, self.valid_to) if edge}
        return {-int(-offset // 1) for offset in offsets if 0 < offset < duration_s}


def _applies(row: ChargingProfile, connector_id: int, session: RunningTransaction | None) -> bool:
    if row.purpose == MAX_PROFILE:
        return True
    if connector_id == 0:
        return False
    if row.purpose == TX_PROFILE:
        return (
            session is not None
            and row.connector_id == connector_id
            and row.transaction_id in {None, session.transaction_id}
        )
    return row.connector_id in {0, connector_id}


def _origin(row: ChargingProfile, begin: datetime, session: RunningTransaction | None) -> datetime:
    """Absolute and recurring schedules count from startSchedule, relative ones (and those without) from the
    start of the transaction; without one, from the window's begin."""
    start = parse_time((row.profile.get("chargingSchedule") or {}).get("startSchedule"))
    if start is not None and row.profile.get("chargingProfileKind") != "Relative":
        return start
    if row.purpose == MAX_PROFILE:
        return min(row.installed_at, begin)
    return begin if session is None else session.started_at


def _combined(runs: Sequence[_AppliedProfile], at: datetime, unit: str) -> _Limit | None:
    whole = _prevailing(runs, MAX_PROFILE, at, unit)
    own = _prevailing(runs, TX_PROFILE, at, unit) or _prevailing(runs, DEFAULT_PROFILE, at, unit)
    limits = [limit for limit in (own, whole) if limit is not None]
    return min(limits, key=lambda limit: limit.value, default=None)


def _prevailing(runs: Sequence[_AppliedProfile], purpose: str, at: datetime, unit: str) -> _Limit | None:
    found = [
        (run.row.stack_level, run.row.connector_id != 0, run.row.id, limit)
        for run in runs
        if run.row.purpose == purpose and (limit := run.limit(at, unit)) is not None
    ]
    return max(found, key=lambda entry: entry[:3])[3] if found else None


def _converted(limit: float, own: str, wanted: str, phases: int) -> float:
    if own == wanted:
        return limit
    return round(limit * VOLTS * phases if wanted == "W" else limit / (VOLTS * phases), 1)
