"""Periods of charging: sorted, joined, and the one that counts now."""

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from csms.scheduling.periods import (
    ChargePeriod,
    PeriodsOverlap,
    as_utc,
    current_or_next,
    merge_periods,
    remaining_periods,
)

NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)


def period(start: float, end: float, current_a: float = 16) -> ChargePeriod:
    return ChargePeriod(NOON + timedelta(minutes=start), NOON + timedelta(minutes=end), current_a)


@pytest.mark.parametrize(
    ("given", "merged"),
    [
        ([], ()),
        ([period(30, 60), period(0, 15)], (period(0, 15), period(30, 60))),
        ([period(0, 15), period(15, 30)], (period(0, 30),)),
        ([period(0, 30), period(10, 20)], (period(0, 30),)),
        ([period(0, 15), period(15, 30, 10)], (period(0, 15), period(15, 30, 10))),
    ],
)
def test_periods_of_equal_current_that_touch_or_overlap_are_joined(
    given: list[ChargePeriod], merged: tuple[ChargePeriod, ...]
) -> None:
    assert merge_periods(given) == merged


def test_overlapping_periods_of_different_currents_are_refused() -> None:
    with pytest.raises(PeriodsOverlap, match="claimed at 16 A and at 10 A"):
        merge_periods([period(0, 30), period(10, 40, 10)])


def test_the_running_period_counts_before_the_next_one() -> None:
    periods = (period(-60, -30), period(-15, 15), period(30, 60))
    assert remaining_periods(periods, NOON) == periods[1:]
    assert current_or_next(periods, NOON) == periods[1]
    assert current_or_next(periods, NOON + timedelta(minutes=20)) == periods[2]
    assert current_or_next(periods, NOON + timedelta(hours=2)) is None


def test_a_time_without_an_offset_is_local() -> None:
    assert as_utc(datetime(2026, 11, 21, 13), ZoneInfo("Europe/Amsterdam")) == NOON
    assert as_utc(NOON, ZoneInfo("Asia/Tokyo")) == NOON
