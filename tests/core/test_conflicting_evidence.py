"""Evidence of a session that contradicts other evidence: which of the two is believed."""

from datetime import timedelta

from csms.core import reports
from tests.core.test_evidence import TO_21, charged, figures, store_with
from tests.harness.fake_store import NOW, at, meter, register, sample, start, stop


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
        each = [sample(value_wh, phase=phase) for phase in ("L1", "L2", "L3")]
        store.tell(meter(number, reports.Reading(at=at(minutes), samples=each)))
    store.now = at(120)
    store.tell(stop(number, meter_wh=21_000, at=at(120)))
    assert figures(store.transactions[number]) == (20_000, "meter_stop", ("implausible_reading",), "billed")


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
