"""Inferred ends of transactions, as long as their evidence has not changed."""

from typing import Any

import pytest
from msgspec.structs import replace

from csms.core import reports
from tests.harness.fake_store import CP, FakeStore, at, meter, register, start, status, stop


def found(desk: FakeStore, transaction_id: int, connector_id: int = 1) -> reports.Reconcile:
    """The evidence as the reconciler reads it from the database."""
    connector = desk.connectors.get((CP, connector_id))
    return reports.Reconcile(
        charger_id=CP,
        transaction_id=transaction_id,
        free_since=connector.free_since if connector else None,
        reading_at=connector.reading_at if connector else None,
        booted_at=desk.chargers[CP].booted_at,
    )


@pytest.fixture
def desk() -> FakeStore:
    desk = FakeStore(unknown_tags="accept")
    desk.tell(start())
    desk.tell(meter(1, register(7000, at(40))))
    return desk


def test_a_free_connector_ends_its_transaction_at_the_last_reading(desk: FakeStore) -> None:
    desk.now = at(50)
    desk.tell(status("Available", at(50)))
    assert desk.tell(found(desk, 1)) is True
    ended = desk.transactions[1]
    assert (ended.inferred, ended.energy_wh, ended.energy_source) == (True, 6000, "last_reading")
    assert (ended.stopped_at, ended.stop_reason, ended.revision) == (at(40), "Other", 1)
    assert desk.told()[-2:] == ["completed", "session_cost"]
    assert desk.payloads("completed")[0]["inferred"] is True


def test_a_transaction_is_reconciled_once(desk: FakeStore) -> None:
    desk.tell(status("Available", at(50)))
    evidence = found(desk, 1)
    assert desk.tell(evidence) is True
    before = desk.snapshot()
    assert desk.tell(evidence) is False
    assert desk.snapshot() == before


@pytest.mark.parametrize(
    "meanwhile",
    [status("Charging", at(51)), meter(1, register(8000, at(52))), reports.Boot(charger_id=CP), stop(1)],
)
def test_changed_evidence_ends_nothing(desk: FakeStore, meanwhile: Any) -> None:
    desk.tell(status("Available", at(50)))
    evidence = found(desk, 1)
    desk.now = at(53)
    desk.tell(meanwhile)
    before = desk.snapshot()
    assert desk.tell(evidence) is False
    assert desk.snapshot() == before


def test_a_boot_since_the_start_ends_a_transaction_as_a_reboot(desk: FakeStore) -> None:
    desk.now = at(60)
    desk.tell(reports.Boot(charger_id=CP))
    assert desk.tell(found(desk, 1)) is True
    assert (desk.transactions[1].stop_reason, desk.transactions[1].energy_wh) == ("Reboot", 6000)


def test_without_evidence_nothing_ends(desk: FakeStore) -> None:
    assert desk.tell(found(desk, 1)) is False
    assert desk.tell(replace(found(desk, 1), charger_id="other-charger")) is False
    assert desk.tell(replace(found(desk, 1), transaction_id=99)) is False


def test_a_real_stop_amends_a_reconciled_transaction(desk: FakeStore) -> None:
    desk.tell(status("Available", at(50)))
    desk.tell(found(desk, 1))
    desk.tell(stop(1))
    ended = desk.transactions[1]
    assert (ended.inferred, ended.energy_wh, ended.revision) == (False, 24_000, 2)
    assert desk.told()[-2:] == ["updated", "session_cost"]
