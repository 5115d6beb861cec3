"""Which transaction a start, a reading or a stop belongs to when what it names is wrong, late or missing."""

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import msgspec
import pytest

from csms.core import reports
from csms.core.tariffs import Tariff
from tests.harness.fake_store import CP, FakeStore, at, meter, register, start, status, stop

LOST = datetime(1970, 1, 1, tzinfo=UTC)


@pytest.fixture
def store() -> FakeStore:
    return FakeStore(unknown_tags="accept", tariff=Tariff(energy_rate=Decimal("0.12")))


def energies(store: FakeStore) -> list[int | None]:
    return [t.energy_wh for _, t in sorted(store.transactions.items())]


# --- stops with an unusable id ------------------------------------------------------------------------------------


def test_a_stop_by_another_tag_does_not_end_the_only_session(store):
    bob = store.tell(start(id_tag="BOB", meter_wh=5000)).transaction_id
    assert store.tell(stop(-1, id_tag="ALICE", meter_wh=90_000)).transaction_id is None
    assert store.transactions[bob].open
    assert [entry.error for entry in store.quarantine] == ["no transaction fits this stop"]
    store.tell(stop(bob, id_tag="BOB", meter_wh=9000, at=at(91)))
    assert energies(store) == [4000]


@pytest.mark.parametrize("id_tag", ["ALICE", "alice", "Alice"])
def test_the_tag_of_a_stop_decides_between_two_sessions(store, id_tag):
    alice = store.tell(start(id_tag="ALICE")).transaction_id
    store.tell(start(connector_id=2, id_tag="BOB"))
    assert store.tell(stop(0, id_tag=id_tag)).transaction_id == alice


def test_a_tag_of_the_same_group_may_stop_a_session(store):
    store.with_tag("ALICE", parent_id_tag="FAMILY")
    store.with_tag("CAROL", parent_id_tag="FAMILY")
    alice = store.tell(start(id_tag="ALICE")).transaction_id
    store.tell(start(connector_id=2, id_tag="BOB"))
    assert store.tell(stop(-1, id_tag="CAROL")).transaction_id == alice


def test_the_parent_itself_may_stop_a_session(store):
    store.with_tag("ALICE", parent_id_tag="FAMILY")
    alice = store.tell(start(id_tag="ALICE")).transaction_id
    assert store.tell(stop(-1, id_tag="FAMILY")).transaction_id == alice


def test_the_readings_decide_between_two_sessions(store):
    first = store.tell(start(meter_wh=1000)).transaction_id
    second = store.tell(start(connector_id=2, meter_wh=1000)).transaction_id
    store.tell(meter(first, register(20_000, at(60))))
    store.tell(meter(second, register(5_000_000, at(60)), register(5_001_000, at(70)), connector_id=2))
    assert store.tell(stop(-1, meter_wh=5_001_500)).transaction_id == second


# --- resumed and replayed sessions --------------------------------------------------------------------------------


def inferred_session(store: FakeStore) -> int:
    number = store.tell(start(meter_wh=1000)).transaction_id
    store.tell(meter(number, register(5000, at(30))))
    store.now = at(60)
    store.tell(reports.Boot(charger_id=CP))
    store.now = at(90)
    t = store.transactions[number]
    evidence = {"booted_at": store.chargers[CP].booted_at, "reading_at": at(30)}
    assert store.tell(reports.Reconcile(charger_id=CP, transaction_id=t.id, **evidence))
    assert store.transactions[number].energy_wh == 4000
    return number


def test_a_session_that_goes_on_after_an_inferred_end_is_opened_again(store):
    number = inferred_session(store)
    store.now = at(100)
    store.tell(meter(number, register(10_000, at(100))))
    assert store.transactions[number].open
    assert store.payloads("meter_reading")[-1]["sessionEnergy"] == 9.0
    store.tell(stop(number, meter_wh=31_000, at=at(200)))
    assert energies(store) == [30_000]
    assert [p["energyConsumed"] for p in store.payloads("session_cost")] == [4.0, 30.0]
    assert [p["revision"] for p in store.payloads("session_cost")] == [1, 2]


def test_the_next_start_ends_a_resumed_session_with_all_its_energy(store):
    number = inferred_session(store)
    store.tell(meter(number, register(30_000, at(100))))
    store.tell(start(meter_wh=30_000, at=at(300)))
    assert store.transactions[number].energy_wh == 29_000
    assert store.payloads("updated")[-1]["inferred"]


def test_a_reading_that_does_not_rise_opens_no_session_again(store):
    number = inferred_session(store)
    store.tell(meter(number, register(5000, at(100))))
    assert not store.transactions[number].open


def test_a_reading_without_a_register_opens_no_session_again(store):
    number = inferred_session(store)
    power = [reports.SampledValue(value="7000", measurand="Power.Active.Import", unit="W")]
    store.tell(meter(number, reports.Reading(at=at(100), samples=power)))
    assert not store.transactions[number].open
    store.tell(meter(number, reports.Reading(at=at(101), samples=power), register(6000, at(102))))
    assert store.transactions[number].open


def test_late_readings_amend_a_session_while_another_one_runs(store):
    number = inferred_session(store)
    running = store.tell(start(meter_wh=20_000, at=at(100))).transaction_id
    revisions, told = store.transactions[number].revision, len(store.told())
    for minutes, value_wh in ((43, 10_000), (45, 12_000), (44, 11_000)):
        store.tell(meter(number, register(value_wh, at(minutes))))
    assert set(store.told()[told:]) == {"meter_reading"}
    assert store.tell(reports.Reconcile(charger_id=CP, transaction_id=number))
    assert (store.transactions[number].energy_wh, store.transactions[number].revision) == (
        11_000,
        revisions + 1,
    )
    assert not store.tell(reports.Reconcile(charger_id=CP, transaction_id=number))
    assert store.transactions[running].open
    amended = store.payloads("updated")[-1]
    assert (amended["energyUsed"], amended["duration"]) == (11.0, 45.0)


def test_an_older_start_does_not_end_the_running_session(store):
    store.now = at(200)
    running = store.tell(start(meter_wh=50_000, at=at(200))).transaction_id
    store.tell(meter(running, register(51_000, at(201))))
    past = store.tell(start(meter_wh=40_000, at=at(10))).transaction_id
    assert store.transactions[running].open
    assert not store.transactions[past].open
    store.tell(meter(past, register(45_000, at(60))))
    store.tell(stop(past, meter_wh=50_000, at=at(100)))
    store.tell(stop(running, meter_wh=60_000, at=at(300)))
    assert (store.transactions[past].energy_wh, store.transactions[running].energy_wh) == (10_000, 10_000)


def test_a_start_after_the_clock_was_set_back_is_not_an_older_one(store):
    store.clock_stands = True
    first = store.tell(start(meter_wh=1000, at=at(60))).transaction_id  # an hour ahead
    store.now = at(30)
    second = store.tell(start(meter_wh=9000, at=at(30))).transaction_id
    assert not store.transactions[first].open
    assert store.transactions[second].open


def test_sessions_by_a_clock_that_stands_still_are_different_ones(store):
    store.clock_stands = True
    ids = []
    for number in range(3):
        store.now = at(100 * number)
        store.tell(reports.Boot(charger_id=CP))
        begun = start(meter_wh=0, at=LOST, message_id=f"start{number}", digest=b"s")
        ids.append(store.tell(begun).transaction_id)
        assert store.tell(renamed(begun, f"again{number}")).transaction_id == ids[-1]
        store.now = at(100 * number + 60)
        store.tell(stop(ids[-1], meter_wh=7000, at=LOST, message_id=f"stop{number}", digest=b"e"))
    assert len(set(ids)) == 3
    assert energies(store) == [7000, 7000, 7000]
    assert store.quarantine == []


def renamed(report: Any, message_id: str) -> Any:
    return msgspec.structs.replace(report, message_id=message_id)


# --- readings that name another transaction -----------------------------------------------------------------------


def test_a_foreign_id_with_a_smaller_register_does_not_lower_the_energy(store):
    number = store.tell(start(meter_wh=1000)).transaction_id
    store.tell(meter(number, register(9000, at(30))))
    store.tell(meter(4711, register(2000, at(40))))
    assert store.payloads("meter_reading")[-1]["sessionEnergy"] == 8.0
    assert store.connectors[CP, 1].energy_wh == 9000
    store.tell(start(meter_wh=9000, at=at(60)))
    assert store.transactions[number].energy_wh == 8000


def test_readings_count_for_the_session_that_they_name_on_whichever_connector(store):
    number = store.tell(start(meter_wh=1000)).transaction_id
    store.tell(meter(number, register(6000, at(30)), connector_id=2))
    assert store.connectors[CP, 1].energy_wh == 6000
    other = store.tell(start(connector_id=2, meter_wh=500_000)).transaction_id
    store.tell(meter(number, register(503_000, at(40)), connector_id=2))
    store.tell(stop(number, meter_wh=None, at=at(60)))
    store.tell(stop(other, meter_wh=505_000, at=at(60)))
    assert energies(store) == [5000, 5000]


def test_the_same_stop_with_another_time_is_no_decision_for_an_operator(store):
    number = store.tell(start()).transaction_id
    store.tell(stop(number, digest=b"1"))
    store.tell(stop(number, digest=b"2", reason="Local", at=at(90.001)))
    assert store.quarantine == []
    assert [d.kind for d in store.deviations] == ["repeated_with_another_time"]
    store.tell(stop(number, digest=b"3", at=at(95)))
    assert len(store.quarantine) == 1


def test_the_connector_shows_the_register_of_the_stop_and_no_power(store):
    number = store.tell(start()).transaction_id
    power = reports.Reading(
        at=at(10), samples=[reports.SampledValue(value="7000", measurand="Power.Active.Import", unit="W")]
    )
    store.tell(meter(number, power, register(5000, at(10))))
    store.tell(status("Charging", at(11)))
    store.tell(stop(number))
    connector = store.connectors[CP, 1]
    assert (connector.energy_wh, connector.power_w) == (25_000, 0)


# --- rows of an older release, which kept the last register alone ---------------------------------------------------


def stored_by_an_older_release(store: FakeStore, number: int) -> None:
    store.transactions[number] = msgspec.structs.replace(store.transactions[number], register=None)
    for place, connector in store.connectors.items():
        store.connectors[place] = msgspec.structs.replace(connector, register=None)


@pytest.mark.parametrize(
    ("meter_wh", "energy_wh", "source"), [(None, 4000, "last_reading"), (9000, 8000, "meter_stop")]
)
def test_a_session_that_an_older_release_began_keeps_its_last_reading(store, meter_wh, energy_wh, source):
    number = store.tell(start(meter_wh=1000)).transaction_id
    store.tell(meter(number, register(5000, at(30))))
    stored_by_an_older_release(store, number)
    store.tell(stop(number, meter_wh=meter_wh))
    ended = store.transactions[number]
    assert (ended.energy_wh, ended.energy_source, ended.anomalies) == (energy_wh, source, ())


def test_a_session_without_readings_that_an_older_release_began_has_none(store):
    number = store.tell(start(meter_wh=1000)).transaction_id
    stored_by_an_older_release(store, number)
    store.tell(stop(number, meter_wh=None))
    ended = store.transactions[number]
    assert (ended.energy_wh, ended.energy_source, ended.anomalies) == (0, "none", ("no_meter_stop",))


def test_an_inferred_end_of_an_older_release_keeps_its_energy_when_it_is_amended(store):
    number = inferred_session(store)
    stored_by_an_older_release(store, number)
    store.tell(stop(number, meter_wh=None, at=at(40)))
    ended = store.transactions[number]
    assert (ended.energy_wh, ended.energy_source, ended.inferred) == (4000, "last_reading", False)


def test_an_inferred_end_of_an_older_release_without_readings_shows_no_energy(store):
    first = store.tell(start(meter_wh=1000)).transaction_id
    store.tell(start(meter_wh=1000, at=at(60)))
    assert store.transactions[first].energy_source == "none"
    stored_by_an_older_release(store, first)
    store.tell(stop(first, meter_wh=9000, at=at(50)))
    assert (store.transactions[first].energy_wh, store.transactions[first].energy_source) == (
        8000,
        "meter_stop",
    )
