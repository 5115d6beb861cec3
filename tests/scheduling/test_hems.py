"""Schedules requested by a HEMS: accepted, or refused as a whole."""

import json
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import msgspec
import pytest

from csms.scheduling.hems import (
    INVALID_SCHEDULE,
    NO_PERIODS_LEFT,
    SCHEDULE_EXPIRED,
    HemsRefused,
    HemsSchedule,
    hems_state,
    iso_time,
    read_schedule,
    without_measurements,
)
from csms.scheduling.periods import ChargePeriod

ZONE = ZoneInfo("Europe/Amsterdam")
PROPOSED = {
    "source": "hems",
    "periods": [
        {"start": "2025-12-04T22:00:00+01:00", "end": "2025-12-04T23:00:00+01:00"},
        {"start": "2025-12-05T02:00:00+01:00", "end": "2025-12-05T06:00:00+01:00"},
    ],
    "max_current": 16,
    "expires_at": "2025-12-05T08:00:00+01:00",
}
IMPLEMENTED = {
    "periods": [
        {"start": "2025-01-15T02:00:00", "end": "2025-01-15T04:00:00"},
        {"start": "2025-01-15T14:00:00", "end": "2025-01-15T15:30:00", "max_current": 10},
    ],
    "expires_at": "2025-01-15T23:59:59",
    "source_id": "battery-optimizer",
}


def utc(year: int, month: int, day: int, hour: int = 0, minute: int = 0, second: int = 0) -> datetime:
    return datetime(year, month, day, hour, minute, second, tzinfo=UTC)


NOON = utc(2025, 12, 4, 12)


def read(message: object, now: datetime = NOON) -> HemsSchedule:
    body = message if isinstance(message, bytes) else json.dumps(message).encode()
    return read_schedule(body, now=now, zone=ZONE, default_current_a=12)


@pytest.mark.parametrize(
    ("status", "online", "state"),
    [
        ("Available", True, "idle"),
        ("SuspendedEV", True, "plugged_in"),
        ("Charging", True, "charging"),
        ("Faulted", True, "error"),
        (None, True, "error"),
        ("Charging", False, "offline"),
    ],
)
def test_a_status_is_one_of_the_states_of_a_hems(status: str | None, online: bool, state: str) -> None:
    assert hems_state(status, online=online) == state


def test_times_are_in_utc_to_the_second() -> None:
    assert iso_time(datetime(2025, 12, 4, 13, 0, 0, 999, tzinfo=ZONE)) == "2025-12-04T12:00:00+00:00"
    assert iso_time(None) is None


def test_measurements_alone_make_no_new_status() -> None:
    class Status(msgspec.Struct):
        state: str
        timestamp: str
        current_power_kw: float

    assert without_measurements(Status("idle", "now", 7.2)) == {"state": "idle"}


def test_h1_with_offsets_and_one_current() -> None:
    schedule = read(PROPOSED)
    assert schedule.periods == (
        ChargePeriod(utc(2025, 12, 4, 21), utc(2025, 12, 4, 22), 16),
        ChargePeriod(utc(2025, 12, 5, 1), utc(2025, 12, 5, 5), 16),
    )
    assert schedule.expires_at == utc(2025, 12, 5, 7)
    assert schedule.source_id == "hems"


def test_h1_naive_times_and_a_current_a_period() -> None:
    schedule = read(IMPLEMENTED, utc(2025, 1, 14, 12))
    assert schedule.periods == (
        ChargePeriod(utc(2025, 1, 15, 1), utc(2025, 1, 15, 3), 12),
        ChargePeriod(utc(2025, 1, 15, 13), utc(2025, 1, 15, 14, 30), 10),
    )
    assert schedule.expires_at == utc(2025, 1, 15, 22, 59, 59)
    assert schedule.source_id == "battery-optimizer"


GOOD = {"start": "2025-12-05T02:00:00+01:00", "end": "2025-12-05T06:00:00+01:00"}


@pytest.mark.parametrize(
    "message",
    [
        b"{bad",
        b"[]",
        b"{}",
        b"null",
        b'{"periods":[]}',
        b'{"periods":"x"}',
        b'{"periods":[{"start":"2025-12-05T02:00:00","end":"2025-12-05T06:00:00\xff"}]}',
        {"periods": [GOOD, {"start": "2025-12-05T07:00:00+01:00"}]},
        {"periods": [{"start": GOOD["end"], "end": GOOD["start"]}]},
        {"periods": [{"start": GOOD["start"], "end": GOOD["start"]}]},
        {"periods": [GOOD], "max_current": 3},
        {"periods": [GOOD], "max_current": 33},
        {"periods": [GOOD], "max_current": True},
        {"periods": [{**GOOD, "max_current": "16"}]},
        {"periods": [{**GOOD, "start": "tomorrow at the earliest"}]},
        {"periods": [{**GOOD, "start": "2025-12-04"}]},
        {"periods": [{**GOOD, "start": 1764896400}]},
        {"periods": [GOOD], "expires_at": "later than that, I hope"},
        {"periods": [GOOD] * 701},
        {"periods": [{"start": "0001-01-01T00:00:00+14:00", "end": "9999-12-31T23:59:59-14:00"}]},
    ],
)
def test_h2_anything_malformed_refuses_the_whole_message(message: object) -> None:
    with pytest.raises(HemsRefused) as refused:
        read(message)
    assert refused.value.text == INVALID_SCHEDULE
    assert refused.value.detail


def test_h3_a_schedule_of_ended_periods_is_refused() -> None:
    with pytest.raises(HemsRefused, match=NO_PERIODS_LEFT):
        read({"periods": [GOOD]}, utc(2025, 12, 6))


def test_h4_ended_periods_are_left_out() -> None:
    schedule = read(PROPOSED, utc(2025, 12, 4, 23))
    assert schedule.periods == (ChargePeriod(utc(2025, 12, 5, 1), utc(2025, 12, 5, 5), 16),)
    assert schedule.past == 1


def test_the_running_period_stays_whole() -> None:
    assert read(PROPOSED, utc(2025, 12, 4, 21, 30)).periods[0].start == utc(2025, 12, 4, 21)


def test_h5_expired_on_arrival() -> None:
    late = {**PROPOSED, "expires_at": "2025-12-04T22:30:00+01:00"}
    with pytest.raises(HemsRefused, match=SCHEDULE_EXPIRED):
        read(late, utc(2025, 12, 4, 22))
    assert read(late, utc(2025, 12, 4, 21, 30)).past == 0, "expires strictly after"


def test_h14_overlaps_of_one_current_are_merged_and_others_refused() -> None:
    second = {"start": "2025-12-05T05:00:00+01:00", "end": "2025-12-05T07:00:00+01:00"}
    assert read({"periods": [GOOD, second]}).periods == (
        ChargePeriod(utc(2025, 12, 5, 1), utc(2025, 12, 5, 6), 12),
    )
    with pytest.raises(HemsRefused, match="claimed at 10 A and at 12 A|claimed at 12 A and at 10 A"):
        read({"periods": [GOOD, {**second, "max_current": 10}]})


def test_adjacent_periods_of_different_currents_stay_apart() -> None:
    second = {"start": GOOD["end"], "end": "2025-12-05T07:00:00+01:00", "max_current": 10}
    assert [p.current_a for p in read({"periods": [GOOD, second]}).periods] == [12, 10]
