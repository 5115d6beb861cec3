"""Repair: every kind of damage, field by field, and never an exception."""

import json
from datetime import UTC, datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings

from csms.ocpp import frames
from csms.ocpp.messages import INBOUND, TRANSACTION_ACTIONS, Decoded, Unreadable, decode
from csms.ocpp.messages.core import MeterValues, StartTransaction, StatusNotification
from csms.ocpp.repair import KINDS, Notes, compile_repair
from tests.harness.ocpp_schemas import any_json, any_object

CORPUS = json.loads((Path(__file__).parent / "fixtures" / "corpus.json").read_text())


def repaired(message, value, zone=UTC):
    notes = Notes(zone)
    return compile_repair(message)(value, notes), [(d.field, d.kind) for d in notes.deviations]


@pytest.mark.parametrize("case", CORPUS, ids=lambda c: c["name"])
def test_messages_seen_in_the_field_are_read(case):
    call = frames.parse(case["frame"])
    assert isinstance(call, frames.Call)
    decoded = decode(call.action, call.payload)
    assert isinstance(decoded, Decoded), decoded
    assert sorted({d.kind for d in decoded.deviations}) == case["deviations"]
    for attribute, value in case["expect"].items():
        found = getattr(decoded.message, attribute)
        if isinstance(found, datetime):
            found = found.isoformat().replace("+00:00", "Z")
        assert found == value, attribute


def test_every_kind_of_deviation_is_a_lower_case_word():
    assert len(KINDS) == 27
    assert all(kind == kind.lower() and " " not in kind for kind in KINDS)


def test_a_lost_field_does_not_take_the_message_with_it():
    message, notes = repaired(
        StartTransaction,
        {"connectorId": {}, "idTag": ["x"], "meterStart": True, "timestamp": "soon", "reservationId": "no"},
    )
    assert message == StartTransaction(connector_id=None, id_tag="", meter_start=None, timestamp=None)
    assert notes == [
        ("connectorId", "wrong_type"),
        ("idTag", "wrong_type"),
        ("meterStart", "wrong_type"),
        ("timestamp", "unreadable_timestamp"),
        ("reservationId", "wrong_type"),
    ]


def test_deviations_name_the_path_in_ocpps_own_names():
    _, notes = repaired(
        MeterValues,
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
    assert repaired(MeterValues, {"connectorId": 1})[0].meter_value == ()
    message, notes = repaired(
        MeterValues, {"connectorId": 1, "meterValue": [{"timestamp": "2024-01-01T00:00:00Z"}]}
    )
    assert message.meter_value[0].sampled_value == ()
    assert notes == [("meterValue[0].sampledValue", "missing")]


def test_the_charge_points_own_info_wins_over_the_unknown_error_code():
    base = {"connectorId": 1, "errorCode": "E42", "status": "Faulted"}
    assert repaired(StatusNotification, base)[0].info == "E42"
    assert repaired(StatusNotification, {**base, "info": "own"})[0].info == "own"
    assert repaired(StatusNotification, {**base, "errorCode": "noerror"})[0].info is None


@pytest.mark.parametrize(
    ("spelled", "status"),
    [("available", "Available"), ("Suspended EV", "SuspendedEV"), ("SuspendedEvse", "SuspendedEVSE"), ("Occupied", "Preparing"), ("fault", "Faulted")],
)  # fmt: skip
def test_statuses_are_recognised_in_other_spellings(spelled, status):
    message, _ = repaired(StatusNotification, {"connectorId": 1, "errorCode": "NoError", "status": spelled})
    assert message.status == status


def test_an_exact_key_wins_over_a_similar_one():
    message, notes = repaired(
        StartTransaction,
        {"IDTAG": "b", "idTag": "a", "connectorId": 1, "meterStart": 0, "timestamp": "2024-01-01T00:00:00Z"},
    )
    assert message.id_tag == "a"
    assert notes == [("IDTAG", "extra_dropped")]


def test_texts_are_not_cut_below_the_cap_of_a_thousand():
    base = {"connectorId": 1, "errorCode": "NoError", "status": "Available"}
    message, notes = repaired(StatusNotification, {**base, "info": "i" * 1000})
    assert (len(message.info), notes) == (1000, [("info", "too_long")])
    message, notes = repaired(StatusNotification, {**base, "info": "i" * 1001})
    assert (len(message.info), notes) == (1000, [("info", "too_long"), ("info", "truncated")])


def test_signed_readings_are_never_cut():
    signed = "OCMF|" + "x" * 5000
    value = {
        "connectorId": "1",
        "meterValue": [
            {"timestamp": "2024-01-01T00:00:00Z", "sampledValue": [{"value": signed, "format": "SignedData"}]}
        ],
    }
    assert repaired(MeterValues, value)[0].meter_value[0].sampled_value[0].value == signed


def test_the_list_of_deviations_is_bounded():
    _, notes = repaired(MeterValues, {"connectorId": 1, "meterValue": [1] * 1000})
    assert len(notes) == 51
    assert notes[-1] == ("", "more")


def test_details_and_paths_can_be_stored_as_text():
    notes = Notes()
    notes.add("a\x00\ud800", "extra_dropped", "b\x00\udfff" * 100)
    assert notes.deviations[0].field == "a\ufffd\ufffd"
    notes.deviations[0].detail.encode()
    assert "\x00" not in notes.deviations[0].detail


def test_naive_times_are_read_in_the_zone_of_the_site():
    payload = b'{"connectorId":1,"idTag":"T","meterStart":0,"timestamp":"2024-07-01T14:00:00"}'
    assert decode("StartTransaction", payload).message.timestamp == datetime(2024, 7, 1, 14, tzinfo=UTC)
    there = decode("StartTransaction", payload, zone=ZoneInfo("Europe/Stockholm"))
    assert there.message.timestamp == datetime(2024, 7, 1, 12, tzinfo=UTC)
    with_zone = decode(
        "StartTransaction", payload.replace(b'00"', b'00Z"'), zone=ZoneInfo("Europe/Stockholm")
    )
    assert with_zone.message.timestamp == datetime(2024, 7, 1, 14, tzinfo=UTC)


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
        assert deviation.kind in KINDS
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
