import pytest

from csms.core.device_state import ChargingProfile
from tests.harness.command_answers import answered, profile
from tests.harness.fake_store import FakeStore, at, start


@pytest.fixture
def desk():
    return FakeStore(unknown_tags="accept")


def install(connector_id, chosen, **given):
    return answered(
        "SetChargingProfile", {"connectorId": connector_id, "csChargingProfiles": chosen}, **given
    )


def live(desk):
    return {row.id: row for row in desk.recall(ChargingProfile) if row.cleared_at is None}


def test_only_an_accepted_profile_is_installed(desk):
    desk.tell(install(1, profile(1), answer={"status": "Rejected"}))
    desk.tell(install(1, profile(2)))
    assert list(live(desk)) == [2]


def test_a_profile_of_the_same_purpose_and_level_is_replaced_on_its_connector(desk):
    desk.tell(install(1, profile(1)))
    desk.tell(install(2, profile(2)))
    desk.tell(install(1, profile(3)))
    desk.tell(install(1, profile(4, level=1)))
    assert list(live(desk)) == [2, 3, 4]


@pytest.mark.parametrize(
    ("criteria", "left"),
    [
        ({}, []),
        ({"id": 2}, [1, 3]),
        ({"connectorId": 1}, [1]),
        ({"connectorId": 1, "stackLevel": 1}, [1, 2]),
        ({"chargingProfilePurpose": "ChargePointMaxProfile"}, [2, 3]),
        ({"id": 1, "connectorId": 1}, [1, 2, 3]),
    ],
)
def test_criteria_are_joined_by_and(desk, criteria, left):
    desk.tell(install(0, profile(1, "ChargePointMaxProfile")))
    desk.tell(install(1, profile(2)))
    desk.tell(install(1, profile(3, level=1)))
    desk.tell(answered("ClearChargingProfile", criteria))
    assert list(live(desk)) == left


def test_unknown_in_the_answer_clears_the_profile_too(desk):
    desk.tell(install(1, profile(1)))
    desk.tell(answered("ClearChargingProfile", {"id": 1}, {"status": "Unknown"}))
    assert live(desk) == {}


def test_a_profile_of_a_running_transaction_belongs_to_it(desk):
    transaction_id = desk.tell(start()).transaction_id
    desk.tell(install(1, profile(1, "TxProfile")))
    assert live(desk)[1].transaction_id == transaction_id


def test_a_remote_starts_profile_waits_for_its_transaction(desk):
    payload = {"idTag": "USER123", "chargingProfile": profile(1, "TxProfile")}
    desk.tell(answered("RemoteStartTransaction", payload))
    assert (live(desk)[1].transaction_id, live(desk)[1].connector_id) == (None, 0)
    desk.tell(start(connector_id=2, id_tag="other"))
    assert live(desk)[1].transaction_id is None
    transaction_id = desk.tell(start(connector_id=1)).transaction_id
    assert (live(desk)[1].transaction_id, live(desk)[1].connector_id) == (transaction_id, 1)


def test_the_profile_of_a_remote_start_without_a_start_is_cleared(desk):
    payload = {"idTag": "user123", "chargingProfile": profile(1, "TxProfile")}
    desk.tell(answered("RemoteStartTransaction", payload))
    desk.now = at(61)
    desk.tell(start())
    assert live(desk) == {}


def test_the_start_on_another_connector_does_not_take_a_remote_starts_profile(desk):
    payload = {"idTag": "user123", "connectorId": 2, "chargingProfile": profile(1, "TxProfile")}
    desk.tell(answered("RemoteStartTransaction", payload))
    desk.tell(start(connector_id=1))
    assert live(desk)[1].transaction_id is None


def test_a_profile_without_a_transaction_belongs_to_no_remote_start(desk):
    desk.tell(install(1, profile(1, "TxProfile")))
    desk.tell(install(1, profile(2)))
    desk.tell(start())
    assert [(row.id_tag, row.transaction_id) for row in live(desk).values()] == [(None, None)] * 2


@pytest.mark.parametrize(
    "chosen", [None, [], {}, profile(None), profile(1) | {"stackLevel": "x"}, profile(1, None)]
)
def test_a_malformed_profile_is_not_kept(desk, chosen):
    desk.tell(install(1, chosen))
    assert live(desk) == {}
