from datetime import UTC, datetime

import pytest

from csms.core.command_answers import parse_time
from csms.core.device_state import Reservation
from csms.core.reservations import reservation_state
from tests.harness.command_answers import answered
from tests.harness.fake_store import FakeStore, at, start


@pytest.fixture
def desk():
    return FakeStore(unknown_tags="accept")


def reserve(number=1, connector_id=1, tag="user123", minutes=30, **given):
    payload = {
        "reservationId": number,
        "connectorId": connector_id,
        "idTag": tag,
        "expiryDate": at(minutes).isoformat(),
        **given.pop("more", {}),
    }
    return answered("ReserveNow", payload, **given)


def the(desk):
    (row,) = desk.recall(Reservation)
    return row


@pytest.mark.parametrize("status", ["Faulted", "Occupied", "Rejected", "Unavailable"])
def test_only_an_accepted_reservation_is_stored(desk, status):
    desk.tell(reserve(answer={"status": status}))
    assert desk.recall(Reservation) == []


def test_a_reservation_ends_by_time_without_a_message(desk):
    desk.tell(reserve())
    assert reservation_state(the(desk), at(29)) == "active"
    assert reservation_state(the(desk), at(30)) == "expired"


@pytest.mark.parametrize("status", ["Accepted", "Rejected"])
def test_a_cancelled_reservation_has_ended(desk, status):
    desk.tell(reserve())
    desk.tell(answered("CancelReservation", {"reservationId": 1}, {"status": status}))
    assert reservation_state(the(desk), at(1)) == "cancelled"


def test_a_start_uses_the_reservation_that_it_names(desk):
    desk.tell(reserve(tag="other"))
    started = desk.tell(start(reservation_id=1))
    assert (the(desk).ended_as, the(desk).transaction_id) == ("used", started.transaction_id)


@pytest.mark.parametrize("connector_id", [0, 1])
def test_the_reserved_tag_uses_its_reservation_without_naming_it(desk, connector_id):
    desk.tell(reserve(connector_id=connector_id, tag="USER123"))
    desk.tell(start())
    assert the(desk).ended_as == "used"


def test_another_tag_of_the_group_uses_the_reservation(desk):
    desk.with_tag("user123", parent_id_tag="family")
    desk.tell(reserve(tag="mother", more={"parentIdTag": "FAMILY"}))
    desk.tell(start())
    assert the(desk).ended_as == "used"


def test_another_tag_on_a_reserved_connector_is_authorized_and_flagged(desk):
    desk.tell(reserve(tag="other"))
    started = desk.tell(start())
    assert started.authorization.status == "Accepted"
    assert desk.transactions[started.transaction_id].anomalies == ("reserved_for_another",)
    assert the(desk).ended_at is None
    assert the(desk).broken_by == started.transaction_id


@pytest.mark.parametrize("given", [{"connector_id": 2}, {"connector_id": 0}, {"minutes": -1}])
def test_other_connectors_and_past_reservations_are_not_broken(desk, given):
    desk.tell(reserve(tag="other", **given))
    started = desk.tell(start())
    assert desk.transactions[started.transaction_id].anomalies == ()


def test_a_late_report_of_a_start_before_the_reservation_does_not_concern_it(desk):
    desk.tell(reserve(1))
    desk.tell(reserve(2, connector_id=2, tag="other"))
    desk.now = at(10)
    desk.tell(start(at=at(-20)))
    desk.tell(start(connector_id=2, at=at(-20)))
    assert [(row.ended_as, row.broken_by) for row in desk.recall(Reservation)] == [(None, None)] * 2


def test_a_start_with_a_suspect_clock_counts_as_now(desk):
    desk.tell(reserve())
    desk.tell(start(at=datetime(1970, 1, 1, tzinfo=UTC)))
    assert the(desk).ended_as == "used"


def test_a_repeated_start_uses_no_other_reservation(desk):
    desk.tell(reserve(1))
    desk.tell(start())
    desk.tell(reserve(2))
    desk.tell(start())
    assert [row.ended_as for row in desk.recall(Reservation)] == ["used", None]


def test_times_without_an_offset_are_utc():
    assert parse_time("2023-12-07T10:15:30") == at(0)
    assert parse_time("yesterday") is None
    assert parse_time(7) is None
