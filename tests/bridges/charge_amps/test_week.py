"""Periods as Charge Amps' weekly seconds, clock changes included (Europe/Amsterdam)."""

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bridges.charge_amps.weekly_schedule import (
    SECONDS_PER_WEEK,
    HorizonTooLong,
    WeekEncoding,
    WeeklyPeriod,
    encode_week,
    week_start,
)
from csms.scheduling.periods import ChargePeriod

ZONE = ZoneInfo("Europe/Amsterdam")


def at(text: str) -> datetime:
    moment = datetime.fromisoformat(text)
    return (moment if moment.tzinfo else moment.replace(tzinfo=ZONE)).astimezone(UTC)


CASES = [
    pytest.param(
        ["2025-12-04T22:00+01:00/2025-12-04T23:00+01:00", "2025-12-05T02:00+01:00/2025-12-05T06:00+01:00"],
        "2025-11-30T23:00Z",
        [(338400, 342000), (352800, 367200)],
        None,
        id="C1",
    ),
    pytest.param(
        ["2025-01-15T02:00/2025-01-15T04:00", "2025-01-15T14:00/2025-01-15T15:30"],
        "2025-01-12T23:00Z",
        [(180000, 187200), (223200, 228600)],
        None,
        id="C2 naive",
    ),
    pytest.param(
        ["2026-07-08T13:00+02:00/2026-07-08T15:15+02:00"],
        "2026-07-05T22:00Z",
        [(219600, 227700)],
        None,
        id="C3",
    ),
    pytest.param(
        ["2026-11-21T02:00/2026-11-21T03:00", "2026-11-21T13:15/2026-11-21T14:00"],
        "2026-11-15T23:00Z",
        [(439200, 442800), (479700, 482400)],
        None,
        id="C4",
    ),
    pytest.param(
        ["2026-11-22T23:30/2026-11-23T01:30"],
        "2026-11-15T23:00Z",
        [(0, 5400), (603000, 604800)],
        None,
        id="C5 over the edge of the week",
    ),
    pytest.param(["2026-11-23T00:00/2026-11-23T00:15"], "2026-11-22T23:00Z", [(0, 900)], None, id="C6"),
    pytest.param(
        ["2026-03-29T01:00+01:00/2026-03-29T04:00+02:00"],
        "2026-03-22T23:00Z",
        [(522000, 529200)],
        [(522000, 532800)],
        id="C7 spring",
    ),
    pytest.param(
        ["2026-03-29T23:00+02:00/2026-03-30T00:00+02:00"],
        "2026-03-22T23:00Z",
        [(597600, 601200)],
        [(601200, 604800)],
        id="C8 spring, last hour",
    ),
    pytest.param(
        ["2026-10-25T02:00+02:00/2026-10-25T02:15+02:00", "2026-10-25T02:00+01:00/2026-10-25T02:15+01:00"],
        "2026-10-18T22:00Z",
        [(525600, 526500), (529200, 530100)],
        [(525600, 526500)],
        id="C9 autumn, both hours",
    ),
    pytest.param(
        ["2026-10-25T04:00+01:00/2026-10-25T05:00+01:00"],
        "2026-10-18T22:00Z",
        [(536400, 540000)],
        [(532800, 536400)],
        id="C10",
    ),
    pytest.param(
        ["2026-10-25T23:00+01:00/2026-10-26T00:00+01:00"],
        "2026-10-18T22:00Z",
        [],
        [(601200, 604800)],
        id="C11 cannot be expressed",
    ),
]


@pytest.mark.parametrize("encoding", ["elapsed", "wall"])
@pytest.mark.parametrize(("periods", "start", "elapsed", "wall"), CASES)
def test_periods_are_encoded_in_seconds_of_the_week(
    periods: list[str],
    start: str,
    elapsed: list[tuple[int, int]],
    wall: list[tuple[int, int]] | None,
    encoding: WeekEncoding,
) -> None:
    read = [ChargePeriod(at(start), at(end), 16) for start, end in (period.split("/") for period in periods)]
    week = encode_week(read, now=read[0].start - timedelta(seconds=0), zone=ZONE, encoding=encoding)
    assert week.start == at(start)
    expected = elapsed if encoding == "elapsed" or wall is None else wall
    assert [(p.from_s, p.to_s) for p in week.periods] == expected


def test_c11_the_hour_that_cannot_be_encoded_is_reported_and_monday_goes_on() -> None:
    period = ChargePeriod(at("2026-10-25T22:30+01:00"), at("2026-10-26T00:30+01:00"), 16)
    week = encode_week([period], now=at("2026-10-25T12:00+01:00"), zone=ZONE)
    assert week.lost_s == 3600
    assert week.periods == (WeeklyPeriod(0, 1800, 16), WeeklyPeriod(603000, 604800, 16))
    monday = encode_week([period], now=at("2026-10-26T00:00+01:00"), zone=ZONE)
    assert monday.periods == (WeeklyPeriod(0, 1800, 16),), "what belongs to last week must not come again"


def test_c12_the_week_starts_at_local_midnight() -> None:
    period = ChargePeriod(at("2025-12-04T22:00+01:00"), at("2025-12-04T23:00+01:00"), 16)
    (first,) = encode_week([period], now=period.start, zone=ZONE).periods
    assert first.from_s == 338400 != 334800


def test_periods_that_are_over_are_left_out_and_a_current_one_stays_whole() -> None:
    over = ChargePeriod(at("2026-11-21T02:00"), at("2026-11-21T03:00"), 16)
    runs = ChargePeriod(at("2026-11-21T13:15"), at("2026-11-21T14:00"), 16)
    week = encode_week([over, runs], now=at("2026-11-21T13:40"), zone=ZONE)
    assert week.periods == (WeeklyPeriod(479700, 482400, 16),)


def test_periods_over_more_than_a_week_are_refused() -> None:
    now = at("2026-11-21T12:00")
    far = ChargePeriod(now + timedelta(days=7), now + timedelta(days=7, hours=1), 16)
    with pytest.raises(HorizonTooLong):
        encode_week([ChargePeriod(now, now + timedelta(hours=1), 16), far], now=now, zone=ZONE)
    week = encode_week([far], now=now, zone=ZONE)
    assert len(week.periods) == 1


@settings(max_examples=80, deadline=None)
@given(
    start_min=st.integers(0, 60 * 24 * 400),
    lengths=st.lists(st.tuples(st.integers(0, 600), st.integers(1, 300)), min_size=1, max_size=8),
    encoding=st.sampled_from(["elapsed", "wall"]),
)
def test_any_encoded_week_is_valid_and_keeps_its_length(
    start_min: int, lengths: list[tuple[int, int]], encoding: WeekEncoding
) -> None:
    now = at("2026-01-01T00:00") + timedelta(minutes=start_min)
    moment, periods = now, []
    for gap, length in lengths:
        start = moment + timedelta(minutes=gap)
        moment = start + timedelta(minutes=length)
        periods.append(ChargePeriod(start, moment, 16))
    week = encode_week(periods, now=now, zone=ZONE, encoding=encoding)
    last = 0
    for period in week.periods:
        assert last <= period.from_s < period.to_s <= SECONDS_PER_WEEK
        last = period.to_s
    if encoding == "elapsed":
        total_s = sum((p.end - p.start).total_seconds() for p in periods)
        assert sum(p.to_s - p.from_s for p in week.periods) + week.lost_s == total_s
    assert week.start == week_start(now, ZONE)


def test_in_the_repeated_hour_wall_keeps_the_current_of_the_first_period() -> None:
    """02:00 to 02:45 summer time and 02:30 to 03:00 winter time have half an hour of local time in common."""
    summer = ChargePeriod(at("2026-10-25T02:00+02:00"), at("2026-10-25T02:45+02:00"), 16)
    winter = ChargePeriod(at("2026-10-25T02:30+01:00"), at("2026-10-25T03:00+01:00"), 10)
    hidden = ChargePeriod(at("2026-10-25T02:15+01:00"), at("2026-10-25T02:30+01:00"), 8)
    week = encode_week([summer, hidden, winter], now=at("2026-10-25T00:00+02:00"), zone=ZONE, encoding="wall")
    sunday_s = 6 * 86_400
    assert week.periods == (
        WeeklyPeriod(sunday_s + 7200, sunday_s + 9900, 16),
        WeeklyPeriod(sunday_s + 9900, sunday_s + 10_800, 10),
    )
