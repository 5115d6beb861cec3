"""Repair: every kind of damage, field by field, and never an exception."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import get_args
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings

from csms.ocpp import frames
from csms.ocpp.lenient_values import DeviationKind, DeviationNotes
from csms.ocpp.message_repair import compile_repair
from csms.ocpp.messages import INBOUND, TRANSACTION_ACTIONS, Decoded, Unreadable, decode
from csms.ocpp.messages.charge_point_calls import (
    MeterValuesRequest,
    StartTransactionRequest,
    StatusNotificationRequest,
)
from tests.harness.narrowing import of_type
from tests.harness.ocpp_schemas import any_json, any_object

DEVIATION_KINDS = get_args(DeviationKind)
CORPUS = json.loads((Path(__file__).parent / "fixtures" / "corpus.json").read_text())


def repaired(message, value, zone=UTC):
    notes = DeviationNotes(zone)
    return compile_repair(message)(value, notes), [(d.field, d.kind) for d in notes.deviations]


@pytest.mark.parametrize("case", CORPUS, ids=lambda c: c["name"])
def test_messages_seen_in_the_field_are_read(case):
    call = frames.parse(case["frame"])
    assert isinstance(call, frames.CallFrame)
    decoded = decode(call.action, call.payload)
    assert isinstance(decoded, Decoded), decoded
    assert sorted({d.kind for d in decoded.deviations}) == case["deviations"]
    for attribute, value in case["expect"].items():
        found = getattr(decoded.message, attribute)
        if isinstance(found, datetime):
            found = found.isoformat().replace("+00:00", "Z")
        assert found == value, attribute


def test_every_kind_of_deviation_is_a_lower_case_word():
    assert len(DEVIATION_KINDS) == 27
    assert all(kind == kind.lower() and " " not in kind for kind in DEVIATION_KINDS)


def test_a_message_is_read_without_the_field_that_was_lost():
    message, notes = repaired(
        StartTransactionRequest,
        {"connectorId": {}, "idTag": ["x"], "meterStart": True, "timestamp": "soon", "reservationId": "no"},
    )
    assert message == StartTransactionRequest(connector_id=None, id_tag="", meter_start=None, timestamp=None)
    assert notes == [
        ("connectorId", "wrong_type"),
        ("idTag", "wrong_type"),
        ("meterStart", "wrong_type"),
        ("timestamp", "unreadable_timestamp"),
        ("reservationId", "wrong_type"),
    ]


def test_deviations_name_the_path_in_ocpps_own_names():
    _, notes = repaired(
        MeterValuesRequest,
        {
            "connectorId": 1,
            "meterValue": [
                {"timestamp": "2024-01-01T00:00:00Z", "sampledValue": [{"value": "1"}, {"value": 2}, 3]}
            ],
        },
    )
    assert notes == [
        ("meterValue[0].sampledValue[1].value", "wrong_type"),
        ("meterValue[0].sampledValue[2]", "wrong_type"),
        ("meterValue[0].sampledValue[2]", "element_dropped"),
    ]


def test_missing_arrays_become_empty():
    assert repaired(MeterValuesRequest, {"connectorId": 1})[0].meter_value == ()
    message, notes = repaired(
        MeterValuesRequest, {"connectorId": 1, "meterValue": [{"timestamp": "2024-01-01T00:00:00Z"}]}
    )
    assert message.meter_value[0].sampled_value == ()
    assert notes == [("meterValue[0].sampledValue", "missing")]


def test_the_charge_points_own_info_wins_over_the_unknown_error_code():
    base = {"connectorId": 1, "errorCode": "E42", "status": "Faulted"}
    assert repaired(StatusNotificationRequest, base)[0].info == "E42"
    assert repaired(StatusNotificationRequest, {**base, "info": "own"})[0].info == "own"
    assert repaired(StatusNotificationRequest, {**base, "errorCode": "noerror"})[0].info is None


@pytest.mark.parametrize(
    ("spelled", "status"),
    [("available", "Available"), ("Suspended EV", "SuspendedEV"), ("SuspendedEvse", "SuspendedEVSE"), ("Occupied", "Preparing"), ("fault", "Faulted")],
)  # fmt: skip
def test_statuses_are_recognised_in_other_spellings(spelled, status):
    message, _ = repaired(
        StatusNotificationRequest, {"connectorId": 1, "errorCode": "NoError", "status": spelled}
    )
    assert message.status == status


def test_an_exact_key_wins_over_a_similar_one():
    message, notes = repaired(
        StartTransactionRequest,
        {"IDTAG": "b", "idTag": "a", "connectorId": 1, "meterStart": 0, "timestamp": "2024-01-01T00:00:00Z"},
    )
    assert message.id_tag == "a"
    assert notes == [("IDTAG", "extra_dropped")]


def test_texts_are_not_cut_below_the_cap_of_a_thousand():
    base = {"connectorId": 1, "errorCode": "NoError", "status": "Available"}
    message, notes = repaired(StatusNotificationRequest, {**base, "info": "i" * 1000})
    assert (len(message.info), notes) == (1000, [("info", "too_long")])
    message, notes = repaired(StatusNotificationRequest, {**base, "info": "i" * 1001})
    assert (len(message.info), notes) == (1000, [("info", "too_long"), ("info", "truncated")])


def test_signed_readings_are_never_cut():
    signed = "OCMF|" + "x" * 5000
    value = {
        "connectorId": "1",
        "meterValue": [
            {"timestamp": "2024-01-01T00:00:00Z", "sampledValue": [{"value": signed, "format": "SignedData"}]}
        ],
    }
    assert repaired(MeterValuesRequest, value)[0].meter_value[0].sampled_value[0].value == signed


def test_the_list_of_deviations_is_bounded():
    _, notes = repaired(MeterValuesRequest, {"connectorId": 1, "meterValue": [1] * 1000})
    assert len(notes) == 51
    assert notes[-1] == ("", "more")


def test_details_and_paths_can_be_stored_as_text():
    notes = DeviationNotes()
    notes.add("a\x00\ud800", "extra_dropped", "b\x00\udfff" * 100)
    assert notes.deviations[0].field == "a\ufffd\ufffd"
    notes.deviations[0].detail.encode()
    assert "\x00" not in notes.deviations[0].detail


def test_naive_times_are_read_in_the_zone_of_the_site():
    payload = b'{"connectorId":1,"idTag":"T","meterStart":0,"timestamp":"2024-07-01T14:00:00"}'

    def read(payload: bytes, **zone: ZoneInfo) -> datetime:
        moment: datetime = of_type(Decoded, decode("StartTransaction", payload, **zone)).message.timestamp
        return moment

    stockholm = ZoneInfo("Europe/Stockholm")
    assert read(payload) == datetime(2024, 7, 1, 14, tzinfo=UTC)
    assert read(payload, zone=stockholm) == datetime(2024, 7, 1, 12, tzinfo=UTC)
    with_zone = payload.replace(b'00"', b'00Z"')
    assert read(with_zone, zone=stockholm) == datetime(2024, 7, 1, 14, tzinfo=UTC)


# To make a value takes far longer than to read it: each is read as every message.
@settings(max_examples=300)
@given(payload=any_json)
def test_no_json_value_raises(payload):
    text = json.dumps(payload).encode()
    for action in INBOUND:
        storable(decode(action, text))


@settings(max_examples=100)
@given(payload=any_object)
def test_a_transaction_message_with_anything_usable_is_readable(payload):
    for action in TRANSACTION_ACTIONS:
        storable(decode(action, json.dumps(payload).encode()))
        usable = {"connectorId": 1} if action != "StopTransaction" else {"transactionId": 1}
        assert isinstance(decode(action, json.dumps(payload | usable).encode()), Decoded)


def storable(result):
    """Every text fits Postgres, every integer a bigint, every time a timestamptz."""
    assert isinstance(result, (Decoded, Unreadable))
    if isinstance(result, Decoded):
        check(result.message)
    else:
        assert len(result.description) <= 255
        check(result.description)
    for deviation in result.deviations:
        assert deviation.kind in DEVIATION_KINDS
        check(deviation)


def check(value):
    if isinstance(value, str):
        value.encode()
        assert "\x00" not in value
    elif isinstance(value, bool) or value is None:
        pass
    elif isinstance(value, int):
        assert -(2**63) <= value < 2**63
    elif isinstance(value, datetime):
        assert value.astimezone(UTC).year >= 1970
    elif isinstance(value, tuple):
        for item in value:
            check(item)
    elif hasattr(value, "__struct_fields__"):
        for field in value.__struct_fields__:
            check(getattr(value, field))
