import pytest

from csms.core import reports
from csms.core.command_effects import EFFECTS, required_device_state
from csms.core.device_state import Capability, ConfigurationKey
from tests.harness.command_answers import answered
from tests.harness.fake_store import CP, NOW, FakeStore, start


@pytest.fixture
def desk():
    return FakeStore()


def features(desk):
    return {row.feature: row.supported for row in desk.recall(Capability)}


@pytest.mark.parametrize("outcome", ["answered", "refused", "no_answer", "not_sent", "failed"])
def test_every_outcome_of_a_command_is_stored(desk, outcome):
    desk.tell(answered("Reset", {"type": "Soft"}, outcome=outcome, id="x", error="why", requested_by="op"))
    (kept,) = desk.outcomes
    assert (kept.id, kept.state, kept.error, kept.requested_by) == ("x", outcome, "why", "op")
    assert (kept.sent_at, kept.ended_at, kept.late) == (NOW, NOW, False)


def test_a_command_without_an_answer_changes_no_device_state(desk):
    desk.tell(answered("ChangeConfiguration", {"key": "K", "value": "1"}, outcome="no_answer"))
    assert desk.recall(ConfigurationKey) == []


def test_a_late_answer_changes_the_device_state(desk):
    payload = {"key": "K", "value": "1"}
    desk.tell(answered("ChangeConfiguration", payload, {}, outcome="no_answer", id="x"))
    desk.tell(answered("ChangeConfiguration", payload, id="x", late=True))
    assert [row.late for row in desk.outcomes] == [False, True]
    assert desk.recall(ConfigurationKey)[0].desired == "1"


def test_no_password_is_stored(desk):
    desk.tell(answered("ChangeConfiguration", {"key": "authorizationKEY", "value": "C0FFEE"}))
    desk.tell(
        answered(
            "GetConfiguration", {}, {"configurationKey": [{"key": "AuthorizationKey", "value": "C0FFEE"}]}
        )
    )
    desk.tell(answered("GetDiagnostics", {"location": "ftp://user:C0FFEE@host/x"}, {"fileName": "f"}))
    desk.tell(answered("GetLog", {"log": {"remoteLocation": "ftp://user:C0FFEE@host/x"}, "requestId": 1}))
    assert "C0FFEE" not in repr(desk.outcomes)
    assert "C0FFEE" not in repr(desk.remembered)
    assert desk.recall(ConfigurationKey) == []


def test_unsupported_features_are_noted_until_the_charger_supports_them(desk):
    refused = {"code": "NotImplemented", "description": "", "details": {}}
    desk.tell(answered("ClearCache", {}, refused, outcome="refused"))
    desk.tell(answered("Reset", {}, {"code": "InternalError"}, outcome="refused"))
    desk.tell(answered("TriggerMessage", {"requestedMessage": "Heartbeat"}, {"status": "NotImplemented"}))
    desk.tell(answered("UnlockConnector", {"connectorId": 9}, {"status": "NotSupported"}))
    assert features(desk) == {
        "ClearCache": False,
        "TriggerMessage/Heartbeat": False,
        "UnlockConnector": True,
    }
    desk.tell(answered("ClearCache", {}))
    assert features(desk)["ClearCache"] is True


@pytest.mark.parametrize("action", ["SendLocalList", "SetChargingProfile"])
def test_not_supported_in_the_answer_may_mean_the_whole_feature(desk, action):
    desk.tell(answered(action, {}, {"status": "NotSupported"}))
    assert features(desk) == {action: False}


def test_an_accepted_trigger_shows_that_its_message_is_supported(desk):
    desk.tell(answered("TriggerMessage", {"requestedMessage": "Heartbeat"}))
    assert features(desk) == {"TriggerMessage/Heartbeat": True}


@pytest.mark.parametrize(
    "answer", [{}, {"status": 7}, {"status": None}, {"x": ["\0\ud800", float("nan")]}, {"status": "Odd"}]
)
@pytest.mark.parametrize("action", sorted(EFFECTS))
def test_a_malformed_answer_is_stored_without_an_error(desk, action, answer):
    assert desk.tell(answered(action, {}, answer)) is None
    assert desk.tell(answered(action, {"reservationId": 2**40, "connectorId": -1}, answer)) is None
    assert "\0" not in repr(desk.outcomes[0].answer)


def test_a_report_loads_only_the_device_state_it_needs():
    assert required_device_state(reports.Seen(charger_id=CP)) == set()
    assert required_device_state(answered("Reset", {})) == {Capability}
    assert len(required_device_state(start())) == 2


def test_a_data_transfer_is_stored_with_its_answer(desk):
    answer = reports.Transferred(status="Accepted", data="ok")
    answered_with = desk.tell(reports.DataTransferred(charger_id=CP, vendor_id="v", data="d", answer=answer))
    assert answered_with == answer
    (kept,) = desk.transfers
    assert (kept.vendor_id, kept.data, kept.status, kept.answer) == ("v", "d", "Accepted", "ok")
