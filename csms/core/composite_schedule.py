"""The composite schedule as csms computes it, for comparison with the charger's (OCPP 1.6, 3.13, 5.7)."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from msgspec import Struct

from csms.core.charging_profiles import DEFAULT_PROFILE, MAX_PROFILE, TX_PROFILE
from csms.core.command_answers import parse_time
from csms.core.device_state import ChargingProfile
from csms.scheduling.rate_units import amperes, watts

_PHASES = 3  # OCPP's default of numberPhases
_RECURRENCE_S = {"Daily": 86_400, "Weekly": 604_800}
_LONGEST_S = 31 * 86_400
_TOLERANCE = 0.1 + 1e-9


class LimitPeriod(Struct, frozen=True):
    """A limit from `start_s` seconds after the begin of the window. `limit` None: unlimited."""

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
    running: RunningTransaction | None = None,
) -> list[LimitPeriod]:
    """Return the limits of a connector (0: of the charger as a whole) over a window, in `unit` (A or W).

    At any time the profile with the highest stack level prevails among the valid ones of a purpose, on equal levels a
    connector's own default before the charger's; a TxProfile before the defaults; then the lower of that limit and
    the ChargePointMaxProfile's applies. `duration_s` is limited to 31 days.
    """
    duration_s = min(max(duration_s, 0), _LONGEST_S)
    applied = [
        _AppliedProfile(p, _origin(p, begin, running))
        for p in profiles
        if p.cleared_at is None and _applies(p, connector_id, running)
    ]
    offsets = {0} | {offset for profile in applied for offset in profile.changes(begin, duration_s)}
    found: list[LimitPeriod] = []
    for offset in sorted(offsets):
        limit = _combined(applied, begin + timedelta(seconds=offset), unit)
        period = LimitPeriod(
            offset, None if limit is None else limit.value, None if limit is None else limit.phases
        )
        if not found or (found[-1].limit, found[-1].phases) != (period.limit, period.phases):
            found.append(period)
    return found


def schedules_agree(
    ours: Sequence[LimitPeriod], answered: Sequence[dict[str, Any]], *, slack_s: int = 0
) -> bool:
    """Return whether a charger's chargingSchedulePeriods agree wherever `ours` have a limit.

    Limits may differ by 0.1 (A or W), and the times at which they change by `slack_s`.
    """
    theirs = sorted(
        (int(p.get("startPeriod", 0)), float(p.get("limit", 0)))
        for p in answered
        if isinstance(p.get("startPeriod"), int) and isinstance(p.get("limit"), int | float)
    )
    changes = sorted({p.start_s for p in ours} | {start for start, _ in theirs})
    offsets = [
        change + slack_s
        for change, following in zip(changes, [*changes[1:], None], strict=False)
        if following is None or following > change + slack_s
    ]
    for offset in offsets:
        our_limit = next((p.limit for p in reversed(ours) if p.start_s <= offset), None)
        limit = next((limit for start, limit in reversed(theirs) if start <= offset), None)
        if our_limit is not None and (limit is None or abs(our_limit - limit) > _TOLERANCE):
            return False
    return True


class _AppliedProfile:
    """A profile with `origin`, the time from which its periods count."""

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
        """Return the limit at a time. None: the profile is not in effect then."""
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
        """Return the seconds after `begin` at which the profile may begin, change or end."""
        starts = [period["startPeriod"] for period in self.periods]
        if self.plan.get("duration") is not None:
            starts.append(self.plan["duration"])
        base_s = (self.origin - begin).total_seconds()
        bases = [base_s]
        if self.every_s:
            first = max(int(-base_s // self.every_s), 0)
            last = max(int((duration_s - base_s) // self.every_s), 0)
            bases = [base_s + number * self.every_s for number in range(first, last + 1)]
        offsets = {base + start for base in bases for start in (0, *starts)}
        offsets |= {(at - begin).total_seconds() for at in (self.valid_from, self.valid_to) if at}
        return {-int(-offset // 1) for offset in offsets if 0 < offset < duration_s}


def _applies(row: ChargingProfile, connector_id: int, running: RunningTransaction | None) -> bool:
    if row.purpose == MAX_PROFILE:
        return True
    if connector_id == 0:
        return False
    if row.purpose == TX_PROFILE:
        return (
            running is not None
            and row.connector_id == connector_id
            and row.transaction_id in {None, running.transaction_id}
        )
    return row.connector_id in {0, connector_id}


def _origin(row: ChargingProfile, begin: datetime, running: RunningTransaction | None) -> datetime:
    """Return the time from which the periods of a profile count.

    Absolute and recurring schedules count from startSchedule, relative ones (and those without it) from the start of
    the transaction or, without one, from the begin of the window.
    """
    start = parse_time((row.profile.get("chargingSchedule") or {}).get("startSchedule"))
    if start is not None and row.profile.get("chargingProfileKind") != "Relative":
        return start
    if row.purpose == MAX_PROFILE:
        return min(row.installed_at, begin)
    return begin if running is None else running.started_at


def _combined(applied: Sequence[_AppliedProfile], at: datetime, unit: str) -> _Limit | None:
    charger = _prevailing(applied, MAX_PROFILE, at, unit)
    connector = _prevailing(applied, TX_PROFILE, at, unit) or _prevailing(applied, DEFAULT_PROFILE, at, unit)
    limits = [limit for limit in (connector, charger) if limit is not None]
    return min(limits, key=lambda limit: limit.value, default=None)


def _prevailing(applied: Sequence[_AppliedProfile], purpose: str, at: datetime, unit: str) -> _Limit | None:
    found = [
        (profile.row.stack_level, profile.row.connector_id != 0, profile.row.id, limit)
        for profile in applied
        if profile.row.purpose == purpose and (limit := profile.limit(at, unit)) is not None
    ]
    return max(found, key=lambda entry: entry[:3])[3] if found else None


def _converted(limit: float, unit: str, to_unit: str, phases: int) -> float:
    if unit == to_unit:
        return limit
    return round(watts(limit, phases) if to_unit == "W" else amperes(limit, phases), 1)
