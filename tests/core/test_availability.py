import pytest

from csms.core.availability import availability_in_sync
from csms.core.device_state import Availability
from tests.harness.command_answers import answered
from tests.harness.fake_store import FakeStore


@pytest.fixture
def desk():
    return FakeStore()


def change(connector_id, word, status="Accepted"):
    return answered("ChangeAvailability", {"connectorId": connector_id, "type": word}, {"status": status})


def rows(desk):
    return {row.connector_id: (row.desired, row.scheduled) for row in desk.recall(Availability)}


def test_the_desired_availability_is_kept_when_the_charger_accepted_it(desk):
    desk.tell(change(1, "Inoperative", "Rejected"))
    assert rows(desk) == {}
    desk.tell(change(1, "Inoperative", "Scheduled"))
    assert rows(desk) == {1: ("Inoperative", True)}
    desk.tell(change(1, "Inoperative"))
    assert rows(desk) == {1: ("Inoperative", False)}


def test_connector_0_changes_all_connectors(desk):
    desk.tell(change(1, "Inoperative"))
    desk.tell(change(0, "Operative"))
    assert rows(desk) == {0: ("Operative", False), 1: ("Operative", False)}


@pytest.mark.parametrize(
    ("desired", "status", "expected"),
    [
        ("Inoperative", "Unavailable", True),
        ("Inoperative", "Charging", False),
        ("Operative", "Available", True),
        ("Operative", "Unavailable", False),
        ("Operative", "Faulted", None),
        (None, "Available", None),
        ("Operative", None, None),
    ],
)
def test_the_reported_status_agrees_with_the_desired_availability_or_not(desired, status, expected):
    assert availability_in_sync(desired, status) is expected
