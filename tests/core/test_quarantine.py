"""Repaired quarantine entries are booked as if they had arrived that way, and correct what was booked wrongly."""

import pytest

from csms.core import reports
from csms.core.quarantine import is_as_sent, repairable_message
from csms.errors import NotBookable
from tests.harness.fake_store import CP, FakeStore, at, correction, meter, register, start, stop
from tests.harness.narrowing import present


def repair(entry: int = 1, *, note: str = "by hand", **given) -> reports.Repair:
    return reports.Repair(quarantine_id=entry, note=note, **given)


def unreadable(desk: FakeStore, action: str = "StartTransaction") -> int | None:
    return desk.tell(
        reports.Quarantined(charger_id=CP, action=action, payload=b"[]", error="no object", digest=b"d")
    ).transaction_id


def unreadable_start(desk: FakeStore) -> int:
    return present(unreadable(desk))


def test_a_repaired_start_has_the_id_that_its_charger_was_given() -> None:
    desk = FakeStore(unknown_tags="accept")
    promised = unreadable_start(desk)
    answer = desk.tell(start(repair=repair(transaction_id=promised)))
    assert answer.transaction_id == promised
    desk.tell(stop(promised))
    assert desk.told() == ["started", "completed", "session_cost"]
    assert desk.transactions[promised].energy_wh == 24_000
    assert desk.resolutions == {1: f"by hand (booked as transaction {promised})"}


def test_a_repaired_start_that_was_booked_meanwhile_is_the_same_transaction() -> None:
    desk = FakeStore(unknown_tags="accept")
    unreadable_start(desk)
    booked = desk.tell(start())
    assert desk.tell(start(repair=repair())) == booked
    assert list(desk.transactions) == [booked.transaction_id]


def test_a_repaired_start_that_was_answered_with_another_id_is_another_transaction() -> None:
    desk = FakeStore(unknown_tags="accept")
    promised = unreadable_start(desk)
    booked = desk.tell(start()).transaction_id
    assert desk.tell(start(repair=repair(transaction_id=promised))).transaction_id == promised
    assert set(desk.transactions) == {promised, booked}


def test_a_repaired_start_of_the_past_does_not_end_the_running_transaction() -> None:
    desk = FakeStore(unknown_tags="accept")
    promised = unreadable_start(desk)
    running = desk.tell(start(at=at(120), meter_wh=26_000, id_tag="other")).transaction_id
    desk.tell(start(repair=repair(transaction_id=promised)))
    assert desk.transactions[running].open
    assert (desk.transactions[promised].inferred, desk.transactions[promised].energy_wh) == (True, 0)
    desk.tell(
        stop(promised, repair=repair(2, note="and its stop"))
        if unreadable(desk, "StopTransaction")
        else stop(promised)
    )
    ended = desk.transactions[promised]
    assert (ended.energy_wh, ended.revision, ended.inferred) == (24_000, 2, False)
    assert desk.transactions[running].open


def test_a_repaired_second_stop_amends_the_first() -> None:
    desk = FakeStore(unknown_tags="accept")
    transaction_id = desk.tell(start()).transaction_id
    desk.tell(stop(transaction_id, meter_wh=13_000))
    desk.tell(stop(transaction_id, meter_wh=25_000))
    assert len(desk.quarantine) == 1
    desk.tell(stop(transaction_id, meter_wh=25_000, repair=repair()))
    assert desk.told()[1:] == ["completed", "session_cost", "updated", "session_cost"]
    costs = desk.payloads("session_cost")
    assert [(c["revision"], c["energyConsumed"]) for c in costs] == [(1, 12.0), (2, 24.0)]
    assert costs[0]["amountMinor"] * 2 == costs[1]["amountMinor"]


def test_what_a_repaired_stop_leaves_out_stays_as_booked() -> None:
    desk = FakeStore(unknown_tags="accept")
    transaction_id = desk.tell(start()).transaction_id
    desk.tell(stop(transaction_id, meter_wh=25_000))
    desk.tell(stop(transaction_id, meter_wh=26_000))
    desk.now = at(1000)
    desk.tell(stop(transaction_id, meter_wh=26_000, at=None, reason="EVDisconnected", repair=repair()))
    ended = desk.transactions[transaction_id]
    assert (ended.meter_stop_wh, ended.stopped_at, ended.stop_reason) == (26_000, at(90), "EVDisconnected")
    assert (ended.revision, ended.energy_source) == (2, "operator")


@pytest.mark.parametrize(("kind", "given"), [("void", {}), ("correct", {"energy_wh": 4000})])
def test_a_second_stop_does_not_undo_what_an_operator_decided(kind: str, given: dict[str, int]) -> None:
    desk = FakeStore(unknown_tags="accept")
    transaction_id = desk.tell(start()).transaction_id
    desk.tell(stop(transaction_id, meter_wh=13_000))
    desk.tell(stop(transaction_id, meter_wh=25_000))
    desk.tell(correction(transaction_id, kind=kind, **given))
    before = desk.snapshot()
    (refused,) = desk.batch(stop(transaction_id, meter_wh=25_000, repair=repair()))
    assert isinstance(refused, NotBookable)
    assert "An operator has decided about transaction" in str(refused)
    assert desk.snapshot() == before


def test_a_repaired_stop_that_the_readings_contradict_is_refused() -> None:
    desk = FakeStore(unknown_tags="accept")
    transaction_id = desk.tell(start()).transaction_id
    desk.tell(meter(transaction_id, register(11_000, at(30))))
    desk.tell(stop(77, meter_wh=500))
    before = desk.snapshot()
    (refused,) = desk.batch(stop(transaction_id, meter_wh=4000, repair=repair()))
    assert isinstance(refused, NotBookable)
    assert "contradicts the readings" in str(refused)
    assert desk.snapshot() == before


def test_a_repaired_stop_that_fits_no_transaction_is_refused() -> None:
    desk = FakeStore(unknown_tags="accept")
    desk.tell(stop(77))
    before = desk.snapshot()
    (refused,) = desk.batch(stop(77, repair=repair()))
    assert isinstance(refused, NotBookable)
    assert "name the one that it ended" in str(refused)
    assert desk.snapshot() == before
    assert desk.resolutions == {}


def test_an_unknown_stop_that_is_repaired_unchanged_is_refused_and_stays_open() -> None:
    desk = FakeStore(unknown_tags="accept")
    desk.tell(stop(77, message_id="m", digest=b"same"))
    (refused,) = desk.batch(stop(77, digest=b"same", repair=repair()))
    assert isinstance(refused, NotBookable)
    assert "transactionId" in str(refused)
    assert desk.resolutions == {}


def test_a_repaired_orphan_stop_ends_the_transaction_that_it_names() -> None:
    desk = FakeStore(unknown_tags="accept")
    first = desk.tell(start()).transaction_id
    second = desk.tell(start(connector_id=2, id_tag="other")).transaction_id
    desk.tell(stop(77))  # it fits two transactions
    desk.tell(stop(second, repair=repair()))
    assert (desk.transactions[first].open, desk.transactions[second].open) == (True, False)


def test_an_entry_is_booked_once() -> None:
    desk = FakeStore(unknown_tags="accept")
    transaction_id = desk.tell(start()).transaction_id
    desk.tell(stop(transaction_id, meter_wh=13_000))
    desk.tell(stop(transaction_id, meter_wh=25_000))
    first, second = desk.batch(
        stop(transaction_id, repair=repair()), stop(transaction_id, meter_wh=99_000, repair=repair())
    )
    assert first.transaction_id == transaction_id
    assert isinstance(second, NotBookable)
    assert isinstance(desk.batch(stop(transaction_id, repair=repair()))[0], NotBookable)
    assert desk.transactions[transaction_id].energy_wh == 24_000


def test_an_entry_is_offered_for_repair_in_ocpps_terms() -> None:
    desk = FakeStore()
    desk.tell(stop(77, id_tag="T"))
    (entry,) = desk.quarantine
    assert repairable_message(entry.action, entry.payload) == {
        "transactionId": 77,
        "meterStop": 25_000,
        "timestamp": "2023-12-07T11:45:30Z",
        "reason": "Local",
        "idTag": "T",
    }
    assert repairable_message("MeterValues", b'{"connectorId": "one"}') == {"connectorId": "one"}
    assert repairable_message("StopTransaction", b'{"charger_id": 5, "at": 7}') == {"charger_id": 5, "at": 7}
    for garbage in (b"[]", b"{", b"\xff", b'"text"'):
        assert repairable_message("StartTransaction", garbage) is None


def test_only_a_stop_that_was_read_is_not_as_its_charger_sent_it() -> None:
    desk = FakeStore()
    desk.tell(stop(77, id_tag="T"))
    (entry,) = desk.quarantine
    assert not is_as_sent(entry.action, entry.payload)
    for payload in (b'{"transactionId": 5}', b"[]", b"{"):
        assert is_as_sent("StopTransaction", payload)
    assert is_as_sent("StartTransaction", b'{"charger_id": 5}')
