from datetime import UTC, datetime, timedelta

import pytest

from tests.harness.fake_store import CP, NOW, FakeStore, at, start, status, stop


@pytest.fixture
def desk():
    return FakeStore(unknown_tags="accept")


def changes(desk):
    return [(p["previousStatus"], p["status"], p["errorCode"]) for p in desk.payloads("status_changed")]


def test_every_status_is_stored_and_only_a_change_is_published(desk):
    for word in ("Available", "Available", "Preparing", "Charging", "Charging"):
        desk.tell(status(word))
    assert changes(desk) == [
        ("Unknown", "Available", "NoError"),
        ("Available", "Preparing", "NoError"),
        ("Preparing", "Charging", "NoError"),
    ]
    assert len(desk.statuses) == 5
    assert len({row.id for row in desk.statuses}) == 5


def test_an_error_is_a_change(desk):
    desk.tell(status("Charging"))
    desk.tell(status("Charging", error_code="OverCurrentFailure"))
    assert changes(desk)[1] == ("Charging", "Charging", "OverCurrentFailure")


def test_starts_and_stops_do_not_change_the_status(desk):
    desk.tell(status("Preparing", at(0)))
    first = desk.tell(start(at=at(1))).transaction_id
    desk.tell(status("Charging", at(2)))
    desk.tell(stop(first))
    desk.tell(status("Finishing", at(91)))
    assert [(previous, word) for previous, word, _ in changes(desk)] == [
        ("Unknown", "Preparing"),
        ("Preparing", "Charging"),
        ("Charging", "Finishing"),
    ]
    assert [p.get("transactionId") for p in desk.payloads("status_changed")] == [None, first, None]


@pytest.mark.parametrize("word", ["SuspendedEV", "Faulted", "Available"])
def test_a_status_names_the_running_transaction(desk, word):
    first = desk.tell(start()).transaction_id
    desk.tell(status(word))
    assert desk.payloads("status_changed")[0]["transactionId"] == first


def test_connector_0_has_no_transaction(desk):
    desk.tell(start())
    desk.tell(status("Unavailable", connector_id=0))
    (payload,) = desk.payloads("status_changed")
    assert payload["connectorId"] == 0
    assert "transactionId" not in payload


def test_an_older_status_is_stored_only(desk):
    desk.tell(status("Charging", at(-5)))
    desk.tell(status("Preparing", at(-10)))
    assert changes(desk) == [("Unknown", "Charging", "NoError")]
    assert desk.connectors[CP, 1].status == "Charging"
    assert [row.status for row in desk.statuses] == ["Charging", "Preparing"]


def test_of_two_statuses_in_the_same_second_the_later_one_counts(desk):
    desk.tell(status("Preparing", at(0)))
    desk.tell(status("Charging", at(0)))
    assert desk.connectors[CP, 1].status == "Charging"


def test_a_status_from_the_future_does_not_exclude_later_ones(desk):
    desk.clock_stands = True
    desk.tell(status("Charging", at(60 * 24 * 365)))
    desk.tell(status("Finishing", at(1)))
    assert desk.connectors[CP, 1].status == "Finishing"


def test_a_charger_without_a_clock_is_trusted_after_every_reboot(desk):
    booted = datetime(1970, 1, 1, tzinfo=UTC)
    desk.tell(status("Charging", booted + timedelta(hours=9)))
    desk.tell(status("Available", booted + timedelta(seconds=20)))
    assert desk.connectors[CP, 1].status == "Available"
    desk.tell(status("Faulted", at(0)))
    desk.tell(status("Available", booted + timedelta(seconds=20)))
    assert desk.connectors[CP, 1].status == "Available"


def test_a_status_without_a_time_counts_from_now(desk):
    desk.tell(status("Charging", at(-5)))
    desk.tell(status("Finishing"))
    desk.tell(status("Preparing", at(-1)))
    row = desk.connectors[CP, 1]
    assert (row.status, row.status_at) == ("Finishing", NOW)
    assert "reportedAt" not in desk.payloads("status_changed")[1]


def test_a_connector_is_free_since_its_first_available(desk):
    desk.tell(status("Available", at(-5)))
    desk.tell(status("Available", at(-4)))
    assert desk.connectors[CP, 1].free_since == at(-5)
    desk.tell(status("Preparing", at(-3)))
    assert desk.connectors[CP, 1].free_since is None
    desk.tell(status("Available"))
    assert desk.connectors[CP, 1].free_since == NOW
    desk.tell(start())
    assert desk.connectors[CP, 1].free_since is None
