"""Energy, minutes and idle minutes by band."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from csms.core.tariffs import NO_BAND, Band, Tariff
from csms.core.usage import Evidence, SessionTimeline, idle_spans, usage_by_band

EVENING = datetime(2026, 11, 20, 20, tzinfo=UTC)  # 21:00 in Vienna
NIGHT = Tariff(
    energy_rate=Decimal("0.40"),
    idle_rate=Decimal("0.10"),
    bands=(Band(name="night", start="22:00", end="06:00", energy_rate=Decimal("0.20")),),
    time_zone="Europe/Vienna",
)


def at(minutes):
    return EVENING + timedelta(minutes=minutes)


def timeline(minutes, energy_wh, registers=(), statuses=(), start_wh=0, **more):
    return SessionTimeline(
        started_at=EVENING,
        ended_at=at(minutes),
        energy_wh=energy_wh,
        evidence=Evidence(
            registers=tuple((at(m), wh - start_wh) for m, wh in registers),
            statuses=tuple((at(m), status) for m, status in statuses),
        ),
        **more,
    )


def energy(*given, **more):
    return usage_by_band(NIGHT, timeline(*given, **more)).energy_wh


def idle_min(*given, **more):
    return [
        ((since - EVENING) / timedelta(minutes=1), (until - EVENING) / timedelta(minutes=1))
        for since, until in idle_spans(timeline(*given, **more))
    ]


def test_without_readings_energy_is_spread_evenly():
    assert energy(120, 10_000) == {NO_BAND: 5000, 0: 5000}
    assert energy(180, 10_000) == {NO_BAND: Fraction(10_000, 3), 0: Fraction(20_000, 3)}


def test_with_a_reading_at_the_boundary_energy_is_exact():
    assert energy(120, 10_000, [(60, 10_900)], start_wh=1000) == {NO_BAND: 9900, 0: 100}


def test_between_the_readings_around_a_boundary_energy_is_spread_evenly():
    assert energy(120, 10_000, [(50, 8000), (70, 9000)]) == {NO_BAND: 8500, 0: 1500}


def test_the_order_and_repetition_of_readings_do_not_matter():
    assert energy(120, 10_000, [(70, 9000), (50, 8000), (50, 8000)]) == {NO_BAND: 8500, 0: 1500}


def test_implausible_readings_are_ignored():
    nonsense = [(30, 0), (40, 99_999_999), (55, 200), (130, 10_000), (-10, 5000)]
    assert energy(120, 10_000, [(50, 9000), (70, 10_000), *nonsense], start_wh=1000) == {
        NO_BAND: 8500,
        0: 1500,
    }


def test_one_wrong_reading_does_not_exclude_the_others():
    registers = [(10, 1000), (20, 9999), (30, 3000), (50, 5000), (70, 7000), (100, 9000)]
    assert energy(120, 10_000, registers) == {NO_BAND: 6000, 0: 4000}


def test_a_session_of_no_length_is_in_the_band_of_its_time():
    usage = usage_by_band(NIGHT, SessionTimeline(started_at=at(60), ended_at=at(60), energy_wh=5))
    assert (usage.energy_wh, usage.time_us) == ({0: 5}, {0: 0})


def test_time_is_divided_by_the_clock():
    usage = usage_by_band(NIGHT, timeline(90, 0))
    assert usage.time_us == {NO_BAND: 60 * 60_000_000, 0: 30 * 60_000_000}


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        # minutes, energy, registers, statuses
        ((120, 10_000, [(30, 5000), (60, 10_000), (90, 10_000)], []), [(60, 120)]),
        ((120, 10_000, [], []), []),
        ((120, 10_000, [(30, 5000), (60, 8000)], []), []),
        # a pause that ends in charging is not idle
        ((120, 10_000, [(10, 5000), (90, 5000), (100, 10_000)], []), [(100, 120)]),
        # the standby power of car or charger is not charging
        ((120, 10_020, [(60, 10_000), (75, 10_005), (90, 10_010), (105, 10_015)], []), [(60, 120)]),
        # over more than an hour the mean power proves nothing
        ((240, 10_020, [(60, 10_000), (180, 10_020)], []), [(180, 240)]),
        # the status tells the time between two readings
        ((120, 10_000, [(45, 9500), (60, 10_000)], [(0, "Charging"), (50, "SuspendedEV")]), [(50, 120)]),
        ((120, 10_000, [], [(0, "Charging"), (50, "SuspendedEV")]), [(50, 120)]),
        ((120, 10_000, [], [(50, "SuspendedEV"), (70, "Finishing")]), [(50, 120)]),
        # ... but not against the readings
        ((120, 10_000, [(45, 5000), (60, 9000), (75, 10_000)], [(40, "SuspendedEV")]), [(75, 120)]),
        ((120, 10_000, [], [(50, "SuspendedEV"), (60, "Charging")]), []),
        # the charger does not offer energy, or the car is gone
        (
            (120, 10_000, [(60, 10_000)], [(0, "Charging"), (65, "SuspendedEVSE"), (100, "SuspendedEV")]),
            [(60, 65), (100, 120)],
        ),
        ((120, 10_000, [(60, 10_000)], [(70, "SuspendedEV"), (90, "Available")]), [(60, 90)]),
        ((120, 10_000, [(60, 10_000)], [(10, "Faulted")]), []),
        # a session without energy
        ((120, 0, [], []), []),
        ((120, 0, [(60, 0)], [(20, "SuspendedEV")]), [(20, 120)]),
        ((120, 0, [], [(-5, "SuspendedEV")]), [(0, 120)]),
    ],
)
def test_idle_time_begins_when_charging_has_ended(given, expected):
    assert idle_min(*given) == expected


def test_a_running_session_is_idle_until_its_last_reading():
    assert idle_min(120, 10_000, [(60, 10_000), (80, 10_000)], idle_until=at(80)) == [(60, 80)]


@pytest.mark.parametrize(
    ("grace_min", "expected"), [(0, {NO_BAND: 30, 0: 60}), (30, {0: 60}), (45, {0: 45}), (90, {}), (600, {})]
)
def test_the_first_idle_minutes_are_free_and_the_rest_is_in_bands(grace_min, expected):
    tariff = Tariff(
        idle_rate=Decimal(1), idle_grace_min=grace_min, bands=NIGHT.bands, time_zone="Europe/Vienna"
    )
    usage = usage_by_band(tariff, timeline(120, 10_000, [(15, 7000), (30, 10_000)]))
    assert usage.idle_us == {band: minutes * 60_000_000 for band, minutes in expected.items()}


REGISTERS = st.lists(st.tuples(st.integers(1, 1439), st.integers(0, 50_000)), max_size=12)


@given(
    minutes=st.integers(1, 1440),
    energy_wh=st.integers(0, 50_000),
    registers=REGISTERS,
    split=st.floats(0, 1),
)
def test_splitting_a_session_anywhere_changes_no_sum(minutes, energy_wh, registers, split):
    whole = timeline(minutes, energy_wh, registers)
    usage = usage_by_band(NIGHT, whole)
    assert sum(usage.energy_wh.values()) == energy_wh
    assert sum(usage.time_us.values()) == minutes * 60_000_000
    moment = EVENING + (whole.ended_at - EVENING) * split
    # Split where the register is known to a whole Wh: at a reading of its own.
    known = [wh for m, wh in registers if at(m) <= moment and wh <= energy_wh]
    middle_wh = max(known, default=0)
    with_it = timeline(minutes, energy_wh, [*registers])
    evidence = Evidence(registers=(*with_it.evidence.registers, (moment, middle_wh)))
    one = SessionTimeline(started_at=EVENING, ended_at=moment, energy_wh=middle_wh, evidence=evidence)
    other = SessionTimeline(
        started_at=moment,
        ended_at=whole.ended_at,
        energy_wh=energy_wh - middle_wh,
        evidence=Evidence(registers=tuple((m, wh - middle_wh) for m, wh in evidence.registers)),
    )
    parts = [usage_by_band(NIGHT, one), usage_by_band(NIGHT, other)]
    assert sum(sum(p.energy_wh.values()) for p in parts) == energy_wh
    for band in (NO_BAND, 0):
        assert sum(p.time_us.get(band, 0) for p in parts) == usage.time_us.get(band, 0)


@given(minutes=st.integers(1, 1440), energy_wh=st.integers(0, 50_000), cut=st.integers(1, 1440))
def test_splitting_at_a_reading_changes_no_bands_energy(minutes, energy_wh, cut):
    if cut >= minutes:
        return
    middle = energy_wh // 3
    whole = usage_by_band(NIGHT, timeline(minutes, energy_wh, [(cut, middle)]))
    one = usage_by_band(NIGHT, timeline(cut, middle))
    other = usage_by_band(
        NIGHT,
        SessionTimeline(started_at=at(cut), ended_at=at(minutes), energy_wh=energy_wh - middle),
    )
    for band in (NO_BAND, 0):
        parts = one.energy_wh.get(band, 0) + other.energy_wh.get(band, 0)
        assert parts == whole.energy_wh.get(band, 0)


@given(registers=st.lists(st.tuples(st.integers(1, 1439), st.integers(0, 10_000)), max_size=40))
def test_no_bands_energy_is_negative(registers):
    usage = usage_by_band(NIGHT, timeline(1440, 10_000, registers))
    assert all(wh >= 0 for wh in usage.energy_wh.values())
    assert sum(usage.idle_us.values()) <= 1440 * 60_000_000
