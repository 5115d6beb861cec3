"""Charge Amps' weekly schedule: `from` and `to` in seconds since Monday 00:00 local time."""

from collections.abc import Iterable
from datetime import UTC, datetime, time, timedelta, tzinfo
from itertools import pairwise
from typing import Final, Literal

from msgspec import Struct

from csms.scheduling.periods import ChargePeriod, merge_periods, remaining_periods

SECONDS_PER_WEEK: Final = 604_800
WeekEncoding = Literal["elapsed", "wall"]


class HorizonTooLong(ValueError):
    """A week repeats itself: what lies more than seven days apart cannot be told apart."""


class WeeklyPeriod(Struct, frozen=True, order=True):
    """Seconds since the anchor, 0 ≤ from < to ≤ 604800; amperes."""

    from_s: int
    to_s: int
    current_a: float


class WeeklySchedule(Struct, frozen=True):
    """`start` is the anchor, Monday 00:00 local, in UTC. `lost_s`: seconds that the encoding cannot express."""

    start: datetime
    periods: tuple[WeeklyPeriod, ...]
    lost_s: int = 0


def week_start(now: datetime, zone: tzinfo, weeks: int = 0) -> datetime:
    """Monday 00:00 local time of the week that `now` is in, as UTC; `weeks` later if asked."""
    local = now.astimezone(zone).date()
    monday = local - timedelta(days=local.weekday()) + timedelta(weeks=weeks)
    return datetime.combine(monday, time(), zone).astimezone(UTC)


def encode_week(
    periods: Iterable[ChargePeriod], *, now: datetime, zone: tzinfo, encoding: WeekEncoding = "elapsed"
) -> WeeklySchedule:
    """What has not ended, as the week of `now`; what falls into next week stands at its place in the week.

    On the two Sundays when clocks are set, `elapsed` counts seconds that pass and `wall` those a clock on the
    wall shows; both known clients use elapsed, and nobody has documented how the charger reads it. In the
    autumn the last elapsed hour lies beyond 604800: it is left to the push of Monday (`lost_s`).
    Raises HorizonTooLong, PeriodsOverlap.
    """
    left = remaining_periods(merge_periods(periods), now)
    if left and left[-1].end - max(left[0].start, week_start(now, zone)) > timedelta(weeks=1):
        raise HorizonTooLong("the periods lie more than 7 days apart")
    edges = [week_start(now, zone, weeks) for weeks in (0, 1, 2)]
    result: list[WeeklyPeriod] = []
    lost_s = 0
    for start, end in pairwise(edges):
        for period in left:
            first, last = max(period.start, start), min(period.end, end)
            if first >= last:
                continue
            from_s = min(_seconds(first, start, zone, encoding), SECONDS_PER_WEEK)
            to_s = _seconds(last, start, zone, encoding)
            lost_s += max(to_s - max(from_s, SECONDS_PER_WEEK), 0)
            if from_s < min(to_s, SECONDS_PER_WEEK):
                result.append(WeeklyPeriod(from_s, min(to_s, SECONDS_PER_WEEK), float(period.current_a)))
    return WeeklySchedule(edges[0], _joined(result), lost_s)


def _seconds(moment: datetime, start: datetime, zone: tzinfo, encoding: WeekEncoding) -> int:
    if encoding == "elapsed":
        return int((moment - start).total_seconds())
    clock, monday = (t.astimezone(zone).replace(tzinfo=None) for t in (moment, start))
    return int((clock - monday).total_seconds())


def _joined(periods: Iterable[WeeklyPeriod]) -> tuple[WeeklyPeriod, ...]:
    """Next week's periods can touch this week's; in the repeated hour of autumn `wall` lays one on another."""
    result: list[WeeklyPeriod] = []
    for period in sorted(periods):
        last = result[-1] if result else None
        if last is not None and period.from_s <= last.to_s and period.current_a == last.current_a:
            result[-1] = WeeklyPeriod(last.from_s, max(last.to_s, period.to_s), last.current_a)
        elif last is None or period.from_s >= last.to_s:
            result.append(period)
        elif period.to_s > last.to_s:
            result.append(WeeklyPeriod(last.to_s, period.to_s, period.current_a))
    return tuple(result)
