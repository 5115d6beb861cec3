import asyncio
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from csms.simulate.clock import (
    SESSION_S,
    UNBOUNDED_LEAD_S,
    SimulatedClock,
    SimulatedTimeFile,
    lead_s,
    ocpp_time,
    parse_time,
)
from tests.harness.waiting import until

WALL = datetime(2026, 5, 1, 12, tzinfo=UTC)


class Real:
    """A hand-turned real clock."""

    def __init__(self) -> None:
        self.s = 100.0

    def clock(self, speed: float, lead: float) -> SimulatedClock:
        return SimulatedClock(speed, lead, wall=lambda: WALL, monotonic=lambda: self.s)


def test_at_speed_one_it_is_the_wall_clock():
    real = Real()
    clock = real.clock(1, 9999)
    real.s += 5
    assert clock.now_s() == 5
    assert clock.at(clock.now_s()) == WALL + timedelta(seconds=5)


def test_a_fast_clock_starts_in_the_past_and_slows_down_when_it_has_caught_up():
    real = Real()
    clock = real.clock(60, 590)
    assert clock.at(clock.now_s()) == WALL - timedelta(seconds=590)
    real.s += 10
    assert clock.at(clock.now_s()) == WALL + timedelta(seconds=10)
    real.s += 7
    assert clock.at(clock.now_s()) == WALL + timedelta(seconds=17)


@settings(deadline=None)
@given(
    speed=st.floats(1, 10_000),
    lead=st.floats(0, 1e6),
    passed=st.floats(0, 1e5),
    ahead=st.floats(0, 1e6),
)
def test_it_never_runs_ahead_and_a_delay_ends_on_time(speed, lead, passed, ahead):
    real = Real()
    clock = real.clock(speed, lead)
    real.s += passed
    now_s = clock.now_s()
    assert clock.at(now_s) <= WALL + timedelta(seconds=passed, milliseconds=1)
    until_s = now_s + ahead
    real.s += clock.real_delay_s(until_s)
    assert clock.now_s() == pytest.approx(until_s, abs=1e-3, rel=1e-6)
    assert clock.real_delay_s(now_s) == pytest.approx(0, abs=1e-6)


def test_the_lead_fits_the_run():
    assert lead_s(1) == 0
    assert lead_s(60) == UNBOUNDED_LEAD_S
    assert lead_s(60, duration_s=10) == 590
    assert lead_s(60, sessions=2, slack_s=10) == 2 * SESSION_S + 590
    assert lead_s(60, duration_s=10, sessions=2) == 590


@pytest.mark.parametrize("speed", [0.5, 0, -1, float("nan"), 1e6])
def test_speeds_out_of_range_are_refused(speed):
    with pytest.raises(ValueError, match="speed"):
        SimulatedClock(speed)


def test_times_are_utc_with_z_and_are_read_with_or_without_a_zone():
    assert ocpp_time(WALL) == "2026-05-01T12:00:00.000Z"
    assert parse_time("2026-05-01T14:00:00+02:00") == WALL
    assert parse_time("2026-05-01T12:00:00") == WALL


async def test_the_next_run_continues_where_the_last_one_ended(tmp_path):
    note = tmp_path / "clock"
    wall = datetime(2026, 11, 21, 12, tzinfo=UTC)
    chronicle = SimulatedTimeFile(note, wall=lambda: wall)
    assert chronicle.lead_s() == UNBOUNDED_LEAD_S
    real_s = 0.0
    first = SimulatedClock(60, UNBOUNDED_LEAD_S, wall=lambda: wall, monotonic=lambda: real_s)
    real_s = 100.0
    keeping = asyncio.create_task(chronicle.keep(first))
    await until(lambda: note.exists() and note.read_text())
    keeping.cancel()
    second = SimulatedClock(60, chronicle.lead_s(), wall=lambda: wall)
    assert first.at(first.now_s()) < second.at(0) <= first.at(first.now_s() + 60)
    note.write_text("2030-01-01T00:00:00+00:00")
    assert chronicle.lead_s() == 0
    for garbage in ("yesterday", "2026-01-01T00:00:00", ""):
        note.write_text(garbage)
        assert chronicle.lead_s() == UNBOUNDED_LEAD_S
