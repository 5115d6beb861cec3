"""Requests to charge points are checked against the schema; problems are sentences for operators."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from csms.ocpp.messages import OUTBOUND
from csms.ocpp.request_schema import check_request
from tests.harness.ocpp_schemas import any_json, payloads


def problems(action, payload):
    return [str(p) for p in check_request(action, payload)]


def profile(**changes):
    return {
        "chargingProfileId": 1,
        "stackLevel": 0,
        "chargingProfilePurpose": "TxProfile",
        "chargingProfileKind": "Absolute",
        "chargingSchedule": {
            "chargingRateUnit": "A",
            "chargingSchedulePeriod": [{"startPeriod": 0, "limit": 16.3}],
        },
    } | changes


def test_every_command_of_ocpp_1_6_and_its_security_extension_is_known():
    assert {
        "Reset",
        "SetChargingProfile",
        "GetLog",
        "SignedUpdateFirmware",
        "DataTransfer",
    } <= OUTBOUND
    assert problems("Heartbeat", {}) == ["Heartbeat is not a request of a central system"]


@pytest.mark.parametrize(
    ("action", "payload", "expected"),
    [
        ("Reset", {"type": "Soft"}, []),
        ("Reset", {"type": "soft"}, ["type: 'soft' is not one of Hard, Soft"]),
        ("Reset", {}, ["type must be given"]),
        ("ChangeAvailability", {}, ["connectorId and type must be given"]),
        ("Reset", {"type": "Soft", "force": True}, ["force is not part of it"]),
        ("Reset", {"type": None}, ["type: null is not of type 'string'", "type: null is not one of Hard, Soft"]),
        ("Reset", [], ["[] is not of type 'object'"]),
        ("ClearCache", {}, []),
        ("UnlockConnector", {"connectorId": True}, ["connectorId: true is not of type 'integer'"]),
        ("UnlockConnector", {"connectorId": 1.0}, ["connectorId: 1.0 is not of type 'integer'"]),
        ("GetLog", {"logType": "SecurityLog", "requestId": 1.0, "log": {"remoteLocation": "ftp://h/f"}}, ["requestId: 1.0 is not of type 'integer'"]),
        ("RemoteStartTransaction", {"idTag": "x" * 21}, ["idTag: 21 characters are more than the 20 allowed"]),
        ("RemoteStartTransaction", {"idTag": "x", "chargingProfile": profile()}, []),
        ("RemoteStartTransaction", {"idTag": "x", "chargingProfile": profile(stackLevel="x")}, ["chargingProfile.stackLevel: 'x' is not of type 'integer'"]),
        ("SetChargingProfile", {"connectorId": 0, "csChargingProfiles": profile(validFrom="2024-01-01")},
         ["csChargingProfiles.validFrom: '2024-01-01' is not a date-time with seconds and zone, such as 2026-01-31T08:00:00Z"]),
        ("ReserveNow", {"connectorId": 1, "expiryDate": "2024-02-30T00:00:00Z", "idTag": "x", "reservationId": 1},
         ["expiryDate: '2024-02-30T00:00:00Z' is not a date-time with seconds and zone, such as 2026-01-31T08:00:00Z"]),
        ("ReserveNow", {"connectorId": 1, "expiryDate": "2024-02-29T00:00:00.5+01:00", "idTag": "x", "reservationId": 1}, []),
        ("UpdateFirmware", {"location": "somewhere", "retrieveDate": "2024-01-01T00:00:00Z"}, ["location: 'somewhere' is not a uri"]),
        ("UpdateFirmware", {"location": "https://host/fw.bin", "retrieveDate": "2024-01-01T00:00:00Z"}, []),
        ("GetConfiguration", {"key": ["a", 1]}, ["key[1]: 1 is not of type 'string'"]),
        ("GetConfiguration", {}, []),
    ],
)  # fmt: skip
def test_problems_are_sentences(action, payload, expected):
    assert problems(action, payload) == expected


@pytest.mark.parametrize("tenths", [*range(0, 3201, 7), 1, 3, 161, 163, 3199])
def test_every_tenth_is_a_multiple_of_a_tenth(tenths):
    schedule = {"chargingRateUnit": "A", "chargingSchedulePeriod": [{"startPeriod": 0, "limit": tenths / 10}]}
    assert (
        problems(
            "SetChargingProfile", {"connectorId": 0, "csChargingProfiles": profile(chargingSchedule=schedule)}
        )
        == []
    )


def test_a_hundredth_is_no_multiple_of_a_tenth():
    schedule = {"chargingRateUnit": "A", "chargingSchedulePeriod": [{"startPeriod": 0, "limit": 6.25}]}
    assert problems(
        "SetChargingProfile", {"connectorId": 0, "csChargingProfiles": profile(chargingSchedule=schedule)}
    ) == [
        "csChargingProfiles.chargingSchedule.chargingSchedulePeriod[0].limit: 6.25 is not a multiple of 0.1"
    ]


@pytest.mark.parametrize(
    "payload", [{"type": float("nan")}, {"type": float("inf")}, {"type": {1, 2}}, {"type": b"x"}]
)
def test_what_is_no_json_is_a_problem_not_an_exception(payload):
    assert problems("Reset", payload)[0].startswith("not JSON: ")


@pytest.mark.parametrize("action", sorted(OUTBOUND))
@settings(max_examples=25, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_what_the_schema_accepts_may_be_sent(action, data):
    payload = data.draw(payloads(action))
    assert [p for p in check_request(action, payload) if "is not a uri" not in p.text] == []


@pytest.mark.parametrize("action", ["SetChargingProfile", "GetLog"])
@given(payload=any_json)
def test_no_payload_raises(action, payload):
    assert isinstance(check_request(action, payload), list)
