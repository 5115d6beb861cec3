"""Evidence of a session that contradicts other evidence: which of the two is believed."""

from datetime import UTC, datetime, timedelta

import pytest

from csms.core import reports
from tests.core.test_evidence import TO_21, charged, figures, store_with
from tests.harness.fake_store import CP, NOW, at, meter, register, sample, start, stop


def test_a_placeholder_is_replaced_however_far_the_register_has_come():
    store = store_with()
    charged(store, 900_000, [], 909_948, until=60)
    second = charged(store, 0, [], 910_031, since=100, until=20)
    assert figures(second) == (83, "meter_stop", ("meter_start_replaced",), "billed")


def test_a_start_of_long_ago_is_replaced_where_the_first_reading_goes_on_from_the_session_before():
    store = store_with()
    charged(store, 1000, TO_21, 21_000)
    second = charged(store, 1000, [(1, 21_010), (30, 26_000)], 31_000, since=200)
    assert figures(second) == (10_000, "meter_stop", ("register_overlap", "meter_start_replaced"), "billed")


def test_a_register_of_another_place_does_not_count_beside_that_of_the_outlet():
    store = store_with()
    number = store.tell(start(meter_wh=1000, at=NOW)).transaction_id
    for minutes, outlet_wh, inlet_wh in ((30, 6000, 8000), (60, 11_000, 14_000)):
        store.now = at(minutes)
        store.tell(meter(number, register(outlet_wh, at(minutes))))
        store.tell(meter(number, register(inlet_wh, at(minutes + 1), location="Inlet")))
    store.tell(stop(number, meter_wh=None, at=at(70)))
    assert figures(store.transactions[number]) == (10_000, "last_reading", (), "billed")


def test_a_register_summed_from_phases_gives_way_to_a_total():
    store = store_with()
    number = store.tell(start(meter_wh=1000, at=NOW)).transaction_id
    for minutes, value_wh in ((30, 6000), (60, 11_000)):
        store.now = at(minutes)
        store.tell(meter(number, by_phase(value_wh, value_wh + 20, value_wh + 40, at=at(minutes))))
    store.now = at(120)
    store.tell(stop(number, meter_wh=21_000, at=at(120)))
    assert figures(store.transactions[number]) == (20_000, "meter_stop", ("implausible_reading",), "billed")


def by_phase(*values_wh: int, at: datetime) -> reports.Reading:
    """A reading of the register by phase, without a total."""
    names = (f"L{number}" for number in range(1, 4))
    return reports.Reading(
        at=at, samples=[sample(wh, phase=name) for name, wh in zip(names, values_wh, strict=False)]
    )


REPEATED = "phases_repeat_total"


@pytest.mark.parametrize(
    ("begin_wh", "readings", "end_wh", "expected"),
    [
        (1000, [(6000, 6000, 6000), (11_000, 11_000, 11_005)], None, (10_000, "last_reading", (REPEATED,))),
        (None, [(6000, 6000), (11_000, 11_000)], None, (5000, "last_reading", ("no_meter_start", REPEATED))),
        # A lower one is no third of the next one.
        (1000, [(6000,) * 3, (5500,) * 3], None, (5000, "last_reading", ("implausible_reading", REPEATED))),
        (3000, [(2000,) * 3], None, (3000, "last_reading", ())),
        (0, [(3000,) * 3], 9000, (9000, "meter_stop", ())),
        (0, [(3000,) * 3], 3010, (3010, "meter_stop", (REPEATED,))),
        (0, [(3000,) * 3, (3000, 3020, 3040)], None, (9060, "last_reading", ())),
    ],
)
def test_equal_phases_are_one_register_if_it_alone_goes_on(begin_wh, readings, end_wh, expected):
    store = store_with()
    number = store.tell(start(meter_wh=begin_wh, at=NOW)).transaction_id
    for step, values_wh in enumerate(readings, 1):
        store.now = at(30 * step)
        store.tell(meter(number, by_phase(*values_wh, at=at(30 * step))))
    store.now = at(120)
    store.tell(stop(number, meter_wh=end_wh, at=at(120)))
    assert figures(store.transactions[number])[:3] == expected


def test_equal_phases_are_one_register_also_after_the_session_and_without_one():
    store = store_with()
    number = store.tell(start(meter_wh=1000, at=NOW)).transaction_id
    store.tell(start(meter_wh=8000, at=at(60)))
    store.now = at(61)
    store.tell(meter(number, by_phase(6000, 6000, 6000, at=at(30))))
    store.tell(reports.Reconcile(charger_id=CP, transaction_id=number))
    assert figures(store.transactions[number])[:3] == (5000, "last_reading", (REPEATED,))
    store.tell(meter(None, by_phase(6000, 6000, 6000, at=at(61)), connector_id=2))
    store.tell(meter(None, by_phase(2000, 2000, 2000, at=at(62)), connector_id=2))
    assert (store.connectors[CP, 2].energy_wh, store.readings[-2].energy_wh) == (6000, 6000)


def test_readings_of_before_a_reset_are_late_also_after_it():
    store = store_with()
    late = [(30.0, 15_000), (60.0, 20_000), (70.0, 0), (80.0, 1000), (50.0, 18_000), (90.0, 2000)]
    t = charged(store, 10_000, late, 5000)
    assert figures(t) == (15_000, "meter_stop", ("register_reset",), "billed")


def test_a_reset_counts_although_the_clock_is_set_back_with_it():
    store = store_with()
    store.clock_stands = True
    number = store.tell(start(meter_wh=10_000, at=at(60))).transaction_id
    for stamp, value_wh in ((90, 15_000), (120, 20_000), (65, 0), (85, 5000)):
        store.now += timedelta(minutes=30)
        store.tell(meter(number, register(value_wh, at(stamp))))
    store.tell(stop(number, meter_wh=10_000, at=at(105)))
    marks = ("clock_changed", "register_reset")
    assert figures(store.transactions[number])[:3] == (20_000, "meter_stop", marks)


def test_steps_that_are_each_possible_but_together_are_not_are_held():
    store = store_with()
    quick = [(1.0, 55_000), (2.0, 110_000), (3.0, 165_000)]
    t = charged(store, 0, quick, 165_000, until=3)
    assert figures(t) == (165_000, "meter_stop", ("energy_exceeds_power",), "held")
    assert t.held_because == ("energy_exceeds_power",)


@pytest.mark.parametrize(
    ("readings", "end_wh", "expected"),
    [
        ([], 4000, (4000, "meter_stop", ("session_register",), "billed")),
        ([], 0, (0, "meter_stop", ("session_register",), "billed")),
        # More than the charger can have given, and an end on the scale of the start.
        ([], 5_000_000, (0, "none", ("meter_decreased",), "billed")),
        ([], 9_004_000, (4000, "meter_stop", (), "billed")),
        # Readings show which scale it is.
        ([(30, 9_003_000)], 4000, (3000, "last_reading", ("meter_decreased",), "billed")),
    ],
)
def test_the_end_of_a_charger_that_counts_from_0_may_be_below_its_start(readings, end_wh, expected):
    t = charged(store_with(), 9_000_000, readings, end_wh, session_register=True)
    assert figures(t) == expected


@pytest.mark.parametrize(
    ("start_wh", "begin_wh", "energy_wh", "marks"),
    [
        (0, 500_000, 5000, ("meter_start_replaced",)),
        (None, 500_000, 5000, ("no_meter_start",)),
        (499_000, 500_000, 6000, ()),  # a start that is neither missing nor a placeholder holds
    ],
)
def test_a_sample_of_the_begin_is_the_start_where_the_reported_one_is_missing(
    start_wh, begin_wh, energy_wh, marks
):
    store = store_with()
    number = store.tell(start(meter_wh=start_wh, at=NOW)).transaction_id
    store.tell(meter(number, register(begin_wh, at(1), context="Transaction.Begin")))
    store.tell(stop(number, meter_wh=505_000, at=at(60)))
    assert figures(store.transactions[number]) == (energy_wh, "meter_stop", marks, "billed")


def test_a_jump_beyond_the_peak_before_a_reset_is_taken_back_where_the_time_since_the_peak_is_too_short():
    by_second = [1400, 0, 1200, 2300, 3400, 4500, 54_000, 4600]
    readings = [(20 + second / 60, value_wh) for second, value_wh in enumerate(by_second)]
    t = charged(store_with(), 1000, readings, None, until=22)
    marks = ("register_reset", "implausible_reading")
    assert figures(t) == (400 + 4600, "last_reading", marks, "billed")


@pytest.mark.parametrize(
    ("begin_wh", "next_wh", "end_wh", "marks"),
    [
        (1000, 5000, 9000, ("ends_above_next",)),
        (1000, 5000, 5000, ()),
        (1000, 1000, 9000, ("ends_above_next",)),
        (0, 0, 9000, ()),  # each session counts from 0
        (1000, None, 9000, ("ends_above_next",)),  # the next one begins at the register of before
    ],
)
@pytest.mark.parametrize("ended", [False, True])
def test_a_late_end_above_the_next_start_is_marked(begin_wh, next_wh, end_wh, marks, *, ended):
    store = store_with()
    first = store.tell(start(meter_wh=begin_wh, at=NOW)).transaction_id
    store.now = at(100)
    second = store.tell(start(meter_wh=next_wh, at=at(100))).transaction_id
    if ended:
        store.now = at(160)
        store.tell(stop(second, meter_wh=15_000, at=at(160)))
    store.now = at(170)
    store.tell(stop(first, meter_wh=end_wh, at=at(60)))
    assert store.transactions[first].anomalies == marks
    assert store.transactions[first].energy_wh == end_wh - begin_wh


def test_a_start_in_kwh_is_replaced_by_the_register_of_the_connector():
    store = store_with()
    charged(store, 20_000, [], 30_120, until=60)
    second = charged(store, 30, [(10, 31_120)], 33_120, since=90, until=30)
    assert figures(second) == (3000, "meter_stop", ("meter_start_replaced",), "billed")
    assert second.meter_start_wh == 30


@pytest.mark.parametrize(
    ("end", "begin_wh", "minutes"),
    [
        ({}, 5000, 30),
        ({"at": datetime(1970, 1, 1, tzinfo=UTC)}, 5000, 30),
        ({}, 4000, 180),  # by its register it may be older
    ],
)
def test_a_start_before_the_end_of_the_session_before_is_timed_by_receipt(end, begin_wh, minutes):
    store = store_with()
    first = store.tell(start(meter_wh=1000, at=NOW)).transaction_id
    store.now = at(60)
    store.tell(stop(first, **{"meter_wh": 5000, "at": at(60)} | end))
    store.now = at(90)
    second = store.tell(start(meter_wh=begin_wh, at=at(-60))).transaction_id
    store.now = at(120)
    store.tell(stop(second, meter_wh=8000, at=at(120)))
    ended = store.transactions[second]
    assert ended.duration_s == minutes * 60
    assert ("clock_changed" in ended.anomalies) == (minutes == 30)


@pytest.mark.parametrize(
    ("end_wh", "expected"),
    [
        (12_000, (7000, "meter_stop", ("implausible_reading",), "billed")),
        (0, (90_000, "last_reading", ("meter_decreased",), "billed")),
    ],
)
def test_readings_of_another_place_do_not_outdo_start_and_stop(end_wh, expected):
    store = store_with()
    number = store.tell(start(meter_wh=5000, at=NOW)).transaction_id
    for minutes, value_wh in ((20, 90_400), (60, 95_000)):
        store.now = at(minutes)
        store.tell(meter(number, register(value_wh, at(minutes), location="EV")))
    store.now = at(120)
    store.tell(stop(number, meter_wh=end_wh, at=at(120)))
    assert figures(store.transactions[number]) == expected


@pytest.mark.parametrize(
    ("end_wh", "expected"),
    [
        (368, (7, "meter_stop", ("energy_below_power",), "held")),
        (361, (0, "meter_stop", ("energy_below_power",), "billed")),
        (7361, (7000, "meter_stop", (), "billed")),
    ],
)
def test_energy_far_below_the_reported_power_is_held(end_wh, expected):
    store = store_with()
    number = store.tell(start(meter_wh=361, at=NOW)).transaction_id
    for minutes in (10, 60):
        store.now = at(minutes)
        power = [sample(7000, "Power.Active.Import", "W")]
        store.tell(meter(number, reports.Reading(at=at(minutes), samples=power)))
    store.now = at(61)
    store.tell(stop(number, meter_wh=end_wh, at=at(61)))
    assert figures(store.transactions[number]) == expected
