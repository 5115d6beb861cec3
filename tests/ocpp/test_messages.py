"""Messages: a valid and an invalid payload for each, what we send, and the sets of actions."""

import json
from datetime import UTC, datetime, timedelta, timezone

import msgspec
import pytest

from csms.ocpp.call_handlers import CALL_HANDLERS
from csms.ocpp.messages import (
    INBOUND,
    OUTBOUND,
    TRANSACTION_ACTIONS,
    Decoded,
    Unreadable,
    decode,
    decode_response,
    encode,
    read_answer,
    read_plain,
)
from csms.ocpp.messages import charge_point_answers as answers
from csms.ocpp.messages import charge_point_calls as calls
from tests.harness.narrowing import of_type
from tests.harness.ocpp_schemas import accepts

T = "2024-05-06T07:08:09Z"
AT = datetime(2024, 5, 6, 7, 8, 9, tzinfo=UTC)
SAMPLE = {
    "value": "12.5",
    "context": "Sample.Periodic",
    "format": "Raw",
    "measurand": "Power.Active.Import",
    "phase": "L1",
    "location": "Outlet",
    "unit": "kW",
}

# action, every field, what the message becomes
FULL = [
    (
        "BootNotification",
        {
            "chargePointVendor": "V",
            "chargePointModel": "M",
            "chargePointSerialNumber": "S1",
            "chargeBoxSerialNumber": "S2",
            "firmwareVersion": "1.0",
            "iccid": "I",
            "imsi": "J",
            "meterType": "MT",
            "meterSerialNumber": "MS",
        },
        calls.BootNotificationRequest("V", "M", "S1", "S2", "1.0", "I", "J", "MT", "MS"),
    ),
    ("Heartbeat", {}, calls.HeartbeatRequest()),
    ("Authorize", {"idTag": "TAG"}, calls.AuthorizeRequest("TAG")),
    (
        "StatusNotification",
        {
            "connectorId": 1,
            "errorCode": "OtherError",
            "status": "Faulted",
            "info": "i",
            "timestamp": T,
            "vendorId": "v",
            "vendorErrorCode": "e",
        },
        calls.StatusNotificationRequest(1, "OtherError", "Faulted", "i", AT, "v", "e"),
    ),
    (
        "StartTransaction",
        {"connectorId": 1, "idTag": "TAG", "meterStart": 7, "timestamp": T, "reservationId": 3},
        calls.StartTransactionRequest(1, "TAG", 7, AT, 3),
    ),
    (
        "MeterValues",
        {"connectorId": 1, "transactionId": 5, "meterValue": [{"timestamp": T, "sampledValue": [SAMPLE, {"value": "1"}]}]},
        calls.MeterValuesRequest(
            1,
            (
                calls.OcppMeterValue(
                    AT,
                    (
                        calls.OcppSampledValue("12.5", "Sample.Periodic", "Raw", "Power.Active.Import", "L1", "Outlet", "kW"),
                        calls.OcppSampledValue("1"),
                    ),
                ),
            ),
            5,
        ),
    ),
    (
        "StopTransaction",
        {
            "meterStop": 9,
            "timestamp": T,
            "transactionId": 5,
            "idTag": "TAG",
            "reason": "Local",
            "transactionData": [{"timestamp": T, "sampledValue": [{"value": "1"}]}],
        },
        calls.StopTransactionRequest(9, AT, 5, "TAG", "Local", (calls.OcppMeterValue(AT, (calls.OcppSampledValue("1"),)),)),
    ),
    ("DataTransfer", {"vendorId": "v", "messageId": "m", "data": "d\\\n"}, calls.DataTransferRequest("v", "m", "d\\\n")),
    ("DiagnosticsStatusNotification", {"status": "Idle"}, calls.DiagnosticsStatusNotificationRequest("Idle")),
    ("FirmwareStatusNotification", {"status": "Installed"}, calls.FirmwareStatusNotificationRequest("Installed")),
    (
        "SecurityEventNotification",
        {"type": "TamperDetectionActivated", "timestamp": T, "techInfo": "t"},
        calls.SecurityEventNotificationRequest("TamperDetectionActivated", AT, "t"),
    ),
    ("SignCertificate", {"csr": "c" * 5500}, calls.SignCertificateRequest("c" * 5500)),
    ("LogStatusNotification", {"status": "Uploaded", "requestId": 4}, calls.LogStatusNotificationRequest("Uploaded", 4)),
    (
        "SignedFirmwareStatusNotification",
        {"status": "SignatureVerified", "requestId": 4},
        calls.SignedFirmwareStatusNotificationRequest("SignatureVerified", 4),
    ),
]  # fmt: skip


@pytest.mark.parametrize(
    ("action", "payload", "message"), FULL, ids=lambda v: v if isinstance(v, str) else ""
)
def test_a_full_payload_is_read_without_deviation(action, payload, message):
    data = json.dumps(payload).encode()
    assert decode(action, data) == Decoded(message)
    assert decode(action, msgspec.Raw(data)) == Decoded(message)
    assert accepts(action, data)


def test_the_table_covers_every_inbound_action():
    assert {action for action, _, _ in FULL} == INBOUND


@pytest.mark.parametrize(
    ("action", "payload", "code"),
    [
        ("Authorize", {}, "OccurenceConstraintViolation"),
        ("Authorize", {"idTag": None}, "OccurenceConstraintViolation"),
        ("Authorize", {"idTag": {}}, "TypeConstraintViolation"),
        ("StatusNotification", {"errorCode": "NoError", "status": "Available"}, "OccurenceConstraintViolation"),
        ("StatusNotification", {"connectorId": "one", "errorCode": "NoError", "status": "Available"}, "TypeConstraintViolation"),
        ("StatusNotification", {"connectorId": 2**64, "errorCode": "NoError", "status": "Available"}, "PropertyConstraintViolation"),
        ("StatusNotification", {"connectorId": 1, "errorCode": "NoError", "status": "Frobbing"}, "PropertyConstraintViolation"),
        ("FirmwareStatusNotification", {"status": "Baking"}, "PropertyConstraintViolation"),
        ("DiagnosticsStatusNotification", {}, "OccurenceConstraintViolation"),
        ("SecurityEventNotification", {"timestamp": T}, "OccurenceConstraintViolation"),
        ("SignCertificate", {}, "OccurenceConstraintViolation"),
        ("LogStatusNotification", {"requestId": 1}, "OccurenceConstraintViolation"),
        ("SignedFirmwareStatusNotification", {"status": 1}, "TypeConstraintViolation"),
        ("StartTransaction", {}, "OccurenceConstraintViolation"),
        ("StopTransaction", {"foo": 1}, "OccurenceConstraintViolation"),
        ("MeterValues", {"meterValue": []}, "OccurenceConstraintViolation"),
        ("MeterValues", [1], "FormationViolation"),
        ("BootNotification", "text", "FormationViolation"),
        ("Heartbeat", 5, "FormationViolation"),
        ("Reset", {}, "NotSupported"),
        ("Frobnicate", {}, "NotImplemented"),
    ],
)  # fmt: skip
def test_what_cannot_be_read_has_the_right_error_code(action, payload, code):
    result = decode(action, json.dumps(payload).encode())
    assert isinstance(result, Unreadable)
    assert result.code == code
    assert result.description


def test_a_payload_that_is_no_json_is_a_formation_violation():
    assert of_type(Unreadable, decode("Heartbeat", b"{")).code == "FormationViolation"


@pytest.mark.parametrize("payload", [b"{}", b"null", b"[]", b'""', b'{"extra":1}'])
def test_a_heartbeat_is_read_with_any_payload(payload):
    assert of_type(Decoded, decode("Heartbeat", payload)).message == calls.HeartbeatRequest()


def test_a_boot_notification_is_read_without_the_required_names():
    result = of_type(Decoded, decode("BootNotification", b'{"chargePointVendor":"V"}'))
    assert result.message == calls.BootNotificationRequest("V", "")
    assert [d.field for d in result.deviations] == ["chargePointModel"]


ANSWERS = [
    ("CancelReservation", {"status": "Accepted"}),
    ("CertificateSigned", {"status": "Rejected"}),
    ("ChangeAvailability", {"status": "Scheduled"}),
    ("ChangeConfiguration", {"status": "RebootRequired"}),
    ("ClearCache", {"status": "Accepted"}),
    ("ClearChargingProfile", {"status": "Unknown"}),
    ("DataTransfer", {"status": "UnknownVendorId", "data": "d"}),
    ("DeleteCertificate", {"status": "NotFound"}),
    ("ExtendedTriggerMessage", {"status": "NotImplemented"}),
    (
        "GetCompositeSchedule",
        {
            "status": "Accepted",
            "connectorId": 1,
            "scheduleStart": T,
            "chargingSchedule": {
                "chargingRateUnit": "A",
                "chargingSchedulePeriod": [{"startPeriod": 0, "limit": 16.1, "numberPhases": 3}, {"startPeriod": 60, "limit": 6}],
                "duration": 600,
                "startSchedule": T,
                "minChargingRate": 0.3,
            },
        },
    ),
    ("GetConfiguration", {"configurationKey": [{"key": "k", "readonly": True, "value": "v"}], "unknownKey": ["u"]}),
    ("GetDiagnostics", {"fileName": "f"}),
    (
        "GetInstalledCertificateIds",
        {
            "status": "Accepted",
            "certificateHashData": [
                {"hashAlgorithm": "SHA256", "issuerNameHash": "a", "issuerKeyHash": "b", "serialNumber": "c"}
            ],
        },
    ),
    ("GetLocalListVersion", {"listVersion": -1}),
    ("GetLog", {"status": "AcceptedCanceled", "filename": "f"}),
    ("InstallCertificate", {"status": "Failed"}),
    ("RemoteStartTransaction", {"status": "Accepted"}),
    ("RemoteStopTransaction", {"status": "Rejected"}),
    ("ReserveNow", {"status": "Occupied"}),
    ("Reset", {"status": "Accepted"}),
    ("SendLocalList", {"status": "VersionMismatch"}),
    ("SetChargingProfile", {"status": "NotSupported"}),
    ("SignedUpdateFirmware", {"status": "InvalidCertificate"}),
    ("TriggerMessage", {"status": "NotImplemented"}),
    ("UnlockConnector", {"status": "UnlockFailed"}),
    ("UpdateFirmware", {}),
]  # fmt: skip


@pytest.mark.parametrize(("action", "payload"), ANSWERS, ids=[a for a, _ in ANSWERS])
def test_every_answer_to_our_commands_is_read_whole(action, payload):
    data = json.dumps(payload).encode()
    assert accepts(f"{action}Response", data)
    result = decode_response(action, data)
    assert isinstance(result, Decoded)
    assert result.deviations == ()
    assert without_absent(msgspec.to_builtins(result.message)) == without_absent(json.loads(data))


def without_absent(value):
    if isinstance(value, dict):
        return {k: without_absent(v) for k, v in value.items() if v is not None and v != () and v != []}
    return [without_absent(v) for v in value] if isinstance(value, (list, tuple)) else value


def test_the_table_covers_every_outbound_action():
    assert {action for action, _ in ANSWERS} == OUTBOUND
    assert len(OUTBOUND) == 26
    assert TRANSACTION_ACTIONS < INBOUND


@pytest.mark.parametrize(
    ("action", "payload", "check"),
    [
        ("Reset", {"status": "accepted"}, lambda m: m.status == "Accepted"),
        ("UnlockConnector", {"status": "Accepted"}, lambda m: m.status == "Unlocked"),
        ("GetLocalListVersion", {"listVersion": "3"}, lambda m: m.list_version == 3),
        (
            "GetConfiguration",
            {"configurationKey": {"key": "HeartbeatInterval", "readonly": "false", "value": 300}},
            lambda m: m.configuration_key == (answers.KeyValue("HeartbeatInterval", False, "300"),),
        ),
        ("GetConfiguration", {"unknownKey": None}, lambda m: m == answers.GetConfigurationResponse()),
        ("DataTransfer", {"status": "Accepted", "data": {"a": [1]}}, lambda m: m.data == '{"a":[1]}'),
        (
            "GetCompositeSchedule",
            {"status": "Accepted", "scheduleStart": "soon"},
            lambda m: m.schedule_start is None,
        ),
    ],
)
def test_invalid_answers_are_repaired(action, payload, check):
    result = decode_response(action, json.dumps(payload).encode())
    assert isinstance(result, Decoded)
    assert check(result.message)
    assert result.deviations


def test_unknown_answers_are_unreadable():
    unknown = of_type(Unreadable, decode_response("Reset", b'{"status":"Maybe"}'))
    assert unknown.code == "PropertyConstraintViolation"
    assert of_type(Unreadable, decode_response("Heartbeat", b"{}")).code == "NotImplemented"


@pytest.mark.parametrize(("action", "payload"), ANSWERS, ids=[a for a, _ in ANSWERS])
def test_a_valid_answer_is_given_as_it_came(action, payload):
    assert read_answer(action, json.dumps(payload).encode()) == Decoded(payload)


@pytest.mark.parametrize(
    ("action", "payload", "repaired", "kinds"),
    [
        ("DataTransfer", b'{"status":"Accepted","data":"caf\xe9"}', {"status": "Accepted", "data": "caf\ufffd"}, ["encoding_repaired"]),
        ("DataTransfer", b'{"status":"Accepted","data":"a\tb"}', {"status": "Accepted", "data": "a\tb"}, []),
        ("DataTransfer", b'{"status":"Accepted","data":"\\ud800"}', {"status": "Accepted", "data": "\ufffd"}, ["surrogate_replaced"]),
        ("GetConfiguration", b'{"unknownKey":NaN}', {}, ["null_dropped"]),
        ("GetConfiguration", b'{"configurationKey":{"key":"K","value":true},"unknownKey":null}',
         {"configurationKey": [{"key": "K", "readonly": False, "value": "true"}]}, ["wrapped", "wrong_type", "missing", "null_dropped"]),
        ("GetCompositeSchedule", b'{"status":"accepted","scheduleStart":"2024-05-06T09:08:09+02"}',
         {"status": "Accepted", "scheduleStart": T}, ["enum_respelled", "odd_timestamp"]),
        # No message can be made of these, and yet they answer.
        ("Reset", b'{"status":"OK","extra":1.50}', {"status": "OK", "extra": 1.5}, ["unknown_value", "extra_dropped"]),
        ("Reset", b'{"status":"\xe9"}', {"status": "\ufffd"}, ["encoding_repaired", "unknown_value"]),
        ("Reset", b"{}", {}, ["missing"]),
        ("Unheard", b'{"a":1}', {"a": 1}, []),
    ],
)  # fmt: skip
def test_an_invalid_answer_is_given_repaired(action, payload, repaired, kinds):
    answer = read_answer(action, payload)
    assert isinstance(answer, Decoded)
    assert answer.message == repaired
    assert [d.kind for d in answer.deviations] == kinds


@pytest.mark.parametrize("payload", [b"[1]", b"7", b'"text"', b"{", b"[" * 5000 + b"]" * 5000])
def test_an_answer_that_is_no_object_is_unreadable(payload):
    assert of_type(Unreadable, read_answer("Reset", payload)).code == "FormationViolation"


@pytest.mark.parametrize(
    ("payload", "value"),
    [
        (b'{"a":[1,2.5,"x"]}', {"a": [1, 2.5, "x"]}),
        (b'{"\xe9\\u0000":NaN,"b":1.50,"c":"\\ud800"}', {"\ufffd\ufffd": None, "b": 1.5, "c": "\ufffd"}),
        (b"[\t" + b"9" * 400 + b", 99999999999999999999, 1e999, \t\x01", None),
        (b'["\t",' + b"9" * 400 + b",99999999999999999999,1e999]", ["\t", None, 1e20, None]),
        (b"nothing", None),
    ],
)
def test_any_json_of_a_charge_point_is_read_as_plain_json(payload, value):
    assert read_plain(payload) == value


INFO = calls.IdTagInfo("Accepted", expiry_date=AT, parent_id_tag="P")
EMPTY = calls.EmptyResponse()
SENT = [
    ("BootNotification", calls.BootNotificationResponse("Accepted", AT, 300), {"status": "Accepted", "currentTime": T, "interval": 300}),
    ("Heartbeat", calls.HeartbeatResponse(AT), {"currentTime": T}),
    ("Authorize", calls.AuthorizeResponse(INFO), {"idTagInfo": {"status": "Accepted", "expiryDate": T, "parentIdTag": "P"}}),
    ("StatusNotification", EMPTY, {}),
    ("StartTransaction", calls.StartTransactionResponse(calls.IdTagInfo("Invalid"), 7), {"idTagInfo": {"status": "Invalid"}, "transactionId": 7}),
    ("MeterValues", EMPTY, {}),
    ("StopTransaction", calls.StopTransactionResponse(), {}),
    ("StopTransaction", calls.StopTransactionResponse(calls.IdTagInfo("Expired")), {"idTagInfo": {"status": "Expired"}}),
    ("DataTransfer", calls.DataTransferResponse("UnknownVendorId"), {"status": "UnknownVendorId"}),
    ("DataTransfer", calls.DataTransferResponse("Accepted", "d"), {"status": "Accepted", "data": "d"}),
    ("DiagnosticsStatusNotification", EMPTY, {}),
    ("FirmwareStatusNotification", EMPTY, {}),
    ("SecurityEventNotification", EMPTY, {}),
    ("SignCertificate", calls.SignCertificateResponse("Rejected"), {"status": "Rejected"}),
    ("LogStatusNotification", EMPTY, {}),
    ("SignedFirmwareStatusNotification", EMPTY, {}),
]  # fmt: skip


@pytest.mark.parametrize(("action", "message", "payload"), SENT, ids=[action for action, _, _ in SENT])
def test_what_we_answer_is_exact_and_the_schema_agrees(action, message, payload):
    data = encode(message)
    assert json.loads(data) == payload
    assert b" " not in data.replace(T.encode(), b"")
    assert accepts(f"{action}Response", data)


def test_there_is_an_answer_for_every_inbound_action():
    assert {action for action, _, _ in SENT} == INBOUND == set(CALL_HANDLERS)


def test_times_are_sent_in_utc_without_fraction():
    moment = datetime(2024, 5, 6, 9, 8, 9, 999999, tzinfo=timezone(timedelta(hours=2)))
    assert encode(calls.HeartbeatResponse(moment)) == b'{"currentTime":"2024-05-06T07:08:09Z"}'
    with pytest.raises(ValueError, match="zone"):
        calls.HeartbeatResponse(datetime(2024, 5, 6))
