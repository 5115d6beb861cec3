"""Starts that arrive after the session that followed them, and evidence that seems to be of another session."""

from datetime import timedelta
from decimal import Decimal
from typing import Any

from msgspec.structs import replace

from csms.core import reports
from csms.core.tariffs import Tariff
from tests.harness.fake_store import CP, NOW, FakeStore, at, meter, register, start, status, stop

LOST = NOW.replace(year=1970)


def store_with(**given: Any) -> FakeStore:
    store = FakeStore(**({"unknown_tags": "accept", "max_power_w": 22_000} | given))
    store.clock_stands = True
    return store


def told(store: FakeStore, minutes: float, report: Any) -> Any:
    store.now = at(minutes)
    return store.tell(report)


def test_a_start_of_before_a_wrap_does_not_end_the_session_of_after_it() -> None:
    store = store_with()
    told(store, 60, start(at=at(60), meter_wh=500))
    told(store, 70, start(at=at(0), meter_wh=998_000, id_tag="other"))
    told(store, 90, meter(1, register(5500, at(90))))
    told(store, 120, stop(1, meter_wh=10_500, at=at(120)))
    assert [(t.energy_wh, t.revision) for t in store.transactions.values()] == [(10_000, 1), (0, 1)]


def test_a_start_by_a_true_clock_is_older_than_a_session_by_a_lost_one() -> None:
    store = store_with()
    told(store, 60, start(at=LOST, meter_wh=6000))
    told(store, 70, start(at=at(0), meter_wh=1000, id_tag="other"))
    told(store, 90, meter(1, register(11_000, LOST + timedelta(minutes=30))))
    told(store, 120, stop(1, meter_wh=16_000, at=LOST + timedelta(minutes=60)))
    assert [t.energy_wh for t in store.transactions.values()] == [10_000, 0]


def test_a_start_that_the_running_session_can_have_reached_is_the_next_one() -> None:
    store = store_with()
    told(store, 60, start(at=at(60), meter_wh=1000))
    told(store, 90, start(at=at(30), meter_wh=6000, id_tag="other"))
    assert [t.open for t in store.transactions.values()] == [False, True]


def test_readings_that_go_on_from_the_session_that_they_name_are_not_of_an_older_one() -> None:
    store = store_with()
    told(store, 10, start(at=at(60), meter_wh=6000))  # the clock is ahead by 50 minutes
    told(store, 45, start(at=at(50), meter_wh=1000, id_tag="other"))
    told(store, 50, meter(1, register(11_000, at(100))))
    told(store, 51, meter(1, reports.Reading(at=at(101), samples=[])))
    told(store, 70, stop(1, meter_wh=16_000, at=at(120)))
    first, second = store.transactions.values()
    assert first.energy_wh == 10_000
    assert second.open
    assert store.connectors[CP, 1].session_wh(2) in {None, 0}


def test_a_reopened_session_keeps_what_came_after_its_end() -> None:
    store = store_with()
    told(store, 0, start(meter_wh=None))
    told(store, 1, status("Available", at(1)))
    connector = store.connectors[CP, 1]
    evidence = {"free_since": connector.free_since, "booted_at": None, "reading_at": connector.reading_at}
    assert told(store, 2, reports.Reconcile(charger_id=CP, transaction_id=1, **evidence))
    told(store, 10, meter(1, register(2676, at(10))))
    told(store, 30, meter(1, register(8630, at(30))))
    told(store, 40, stop(1, meter_wh=8813, at=at(40)))
    assert store.transactions[1].energy_wh == 8813 - 2676


def test_a_stop_beyond_the_register_of_the_only_session_is_of_another_one() -> None:
    store = store_with()
    told(store, 0, start())
    told(store, 30, stop(4711, meter_wh=900_000_000, at=at(30)))
    assert store.transactions[1].open
    told(store, 60, stop(1, meter_wh=11_000, at=at(60)))
    assert store.transactions[1].energy_wh == 10_000
    assert len(store.quarantine) == 1


def test_a_repaired_stop_is_refused_with_what_it_contradicts() -> None:
    store = store_with()
    told(store, 0, start())
    told(store, 30, stop(4711, meter_wh=900_000_000, at=at(30)))
    repair = reports.Repair(quarantine_id=1, note="olga: it is this one")
    refused = told(store, 60, stop(4711, meter_wh=900_000_000, at=at(30), repair=repair))
    assert "contradicts the readings of transaction 1" in str(refused)


def test_an_older_session_is_debited_to_its_account_and_leaves_the_hold_of_the_next() -> None:
    store = store_with()
    store.policy = replace(store.policy, tariff=Tariff(energy_rate=Decimal("0.12")))
    store.with_account("payer", 10_000)
    given = {"id_tag": "payer", "account_id": "payer"}
    told(store, 60, start(at=at(60), meter_wh=6000, connector_id=1))
    held = reports.Rent(
        charger_id=CP, connector_id=2, account_id="payer", terms=reports.RentalTerms(), holds_for_s=600
    )
    assert told(store, 69, held).status == "Accepted"
    told(store, 70, start(at=at(0), meter_wh=1000, connector_id=1, **given))
    told(store, 71, stop(2, meter_wh=6000, at=at(50)))
    owed_minor = store.transactions[2].cost_minor
    assert owed_minor
    assert sum(e.amount_minor for e in store.entries if e.transaction_id == 2) == -owed_minor
    assert [r.state for r in store.rentals.values()] == ["held", "ended"]
