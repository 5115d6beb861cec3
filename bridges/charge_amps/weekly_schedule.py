"""Encode periods as Charge Amps' weekly schedule: seconds since Monday 00:00 local time. Pure."""

from collections.abc import Iterable
from datetime import UTC, datetime, time, timedelta, tzinfo
from itertools import pairwise
from typing import Final, Literal

from msgspec import Struct

from csms.scheduling.periods import ChargePeriod, merge_periods, remaining_periods

SECONDS_PER_WEEK: Final = 604_800
WeekEncoding = Literal["elapsed", "wall"]


class HorizonTooLong(ValueError):
    """The periods span more than seven days, which a weekly schedule cannot express."""


class WeeklyPeriod(Struct, frozen=True, order=True):
    """Seconds since the start of the week, 0 ≤ from < to ≤ 604800, and amperes."""

    from_s: int
    to_s: int
    current_a: float


class WeeklySchedule(Struct, frozen=True):
    """`start` is Monday 00:00 local time, in UTC. `lost_s`: seconds that the encoding cannot express."""

    start: datetime
    periods: tuple[WeeklyPeriod, ...]
    lost_s: int = 0


def week_start(now: datetime, zone: tzinfo, weeks: int = 0) -> datetime:
    """Return Monday 00:00 local time of the week of `now`, in UTC, or the Monday `weeks` later."""
    local = now.astimezone(zone).date()
    monday = local - timedelta(days=local.weekday()) + timedelta(weeks=weeks)
    return datetime.combine(monday, time(), zone).astimezone(UTC)


def encode_week(
    periods: Iterable[ChargePeriod], *, now: datetime, zone: tzinfo, encoding: WeekEncoding = "elapsed"
) -> WeeklySchedule:
    """Encode the periods that are not over for the week of `now`. Those of next week are wrapped into the same week.

    On the two Sundays with a change of the clocks, `elapsed` counts seconds that pass and `wall` seconds of local time.
    Both known clients use elapsed; how the charger reads it is not documented. In autumn the last elapsed hour lies
    beyond 604800 and is lost (`lost_s`) until the schedule is renewed on Monday. Raises HorizonTooLong, PeriodsOverlap.
    """
    remaining = remaining_periods(merge_periods(periods), now)
    if remaining and remaining[-1].end - max(remaining[0].start, week_start(now, zone)) > timedelta(weeks=1):
        raise HorizonTooLong("the periods lie more than 7 days apart")
    edges = [week_start(now, zone, weeks) for weeks in (0, 1, 2)]
    result: list[WeeklyPeriod] = []
    lost_s = 0
    for start, end in pairwise(edges):
        for period in remaining:
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
    local, monday = (at.astimezone(zone).replace(tzinfo=None) for at in (moment, start))
    return int((local - monday).total_seconds())


def _joined(periods: Iterable[WeeklyPeriod]) -> tuple[WeeklyPeriod, ...]:
    """Join periods that touch, as next week's and this week's may. In autumn's repeated hour, `wall` makes them overlap."""
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
