"""Periods in which a car may charge, and at how many amperes."""

from collections.abc import Iterable
from datetime import UTC, datetime, tzinfo

from msgspec import Struct


class PeriodsOverlap(ValueError):
    """Two periods claim the same time at different currents."""


class ChargePeriod(Struct, frozen=True, order=True):
    """`start` ≤ t < `end`, aware UTC; at most `current_a` amperes per phase."""

    start: datetime
    end: datetime
    current_a: float


def as_utc(at: datetime, zone: tzinfo) -> datetime:
    """Return a time as aware UTC; one without an offset is local time of `zone`."""
    return (at if at.tzinfo is not None else at.replace(tzinfo=zone)).astimezone(UTC)


def merge_periods(periods: Iterable[ChargePeriod]) -> tuple[ChargePeriod, ...]:
    """Sort periods and join adjacent and overlapping ones of equal current. Raises PeriodsOverlap."""
    result: list[ChargePeriod] = []
    for period in sorted(periods):
        last = result[-1] if result else None
        if last is None or period.start > last.end:
            result.append(period)
        elif period.current_a == last.current_a:
            result[-1] = ChargePeriod(last.start, max(last.end, period.end), last.current_a)
        elif period.start == last.end:
            result.append(period)
        else:
            raise PeriodsOverlap(
                f"{period.start:%Y-%m-%dT%H:%MZ} is claimed at {last.current_a:g} A and at {period.current_a:g} A"
            )
    return tuple(result)


def remaining_periods(periods: Iterable[ChargePeriod], now: datetime) -> tuple[ChargePeriod, ...]:
    """Return the periods that have not ended. The running one stays whole, so that what is derived from it is stable."""
    return tuple(period for period in periods if period.end > now)


def current_or_next(periods: Iterable[ChargePeriod], now: datetime) -> ChargePeriod | None:
    """Return the running period or, if there is none, the next one."""
    return min(remaining_periods(periods, now), default=None)
