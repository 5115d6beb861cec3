import base64
import json
import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bridges.ev_meter.frame import (
    MalformedFrame,
    UnsupportedFrame,
    VendorAccount,
    WorkingInfo,
    account_from_request,
    decode,
    decode_frame,
    encode_request,
)
from tests.harness.bridges.ev_meter_vectors import PAYLOADS, SCENARIO, expected, told

FUZZ = int(os.environ.get("CSMS_FUZZ_EXAMPLES", "300"))
ACCOUNT = VendorAccount("00000000-0000-4000-8000-000000000001", bytes(range(48)))
REQUEST = base64.b64decode(
    "YQAAAAAAAAAHJAAwMDAwMDAwMC0wMDAwLTQwMDAtODAwMC0wMDAwMDAwMDAwMDEwAAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4fICEiIyQl"
    "JicoKSorLC0uLwAA"
)
S01, S03 = PAYLOADS["S01"], PAYLOADS["S03"]


# --- the request ----------------------------------------------------------------------------------------


def test_the_request_is_99_bytes_and_contains_the_account():
    assert encode_request(ACCOUNT) == REQUEST
    assert len(REQUEST) == 99
    assert ACCOUNT.user_id == "30303030303030302D303030302D343030302D383030302D303030303030303030303031"
    assert account_from_request(REQUEST) == ACCOUNT


@pytest.mark.parametrize(
    "frame",
    [
        b"",
        REQUEST[:-1],
        REQUEST + b"\0",
        REQUEST[:8] + b"\x08" + REQUEST[9:],
        b"\x62" + REQUEST[1:],
        bytes(99),
    ],
)
def test_a_recorded_request_for_another_command_is_refused(frame):
    with pytest.raises(ValueError, match=r"a request|an account"):
        account_from_request(frame)


@pytest.mark.parametrize(("uuid", "token"), [("0" * 36, bytes(48)), (ACCOUNT.uuid, bytes(47)), (ACCOUNT.uuid.replace("4", "G"), bytes(48))])  # fmt: skip
def test_a_malformed_account_is_refused(uuid, token):
    with pytest.raises(ValueError, match="an account's"):
        VendorAccount(uuid, token)


def test_the_repr_of_account_and_frame_has_no_content():
    assert repr(ACCOUNT) == "VendorAccount(…)"
    assert str(expected("C1")) == "WorkingInfo(…)"


# --- replies --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PAYLOADS)
def test_every_vector_decodes_to_its_fields(name):
    decoded, meant = decode(PAYLOADS[name]), expected(name)
    for field in WorkingInfo.__struct_fields__:
        assert getattr(decoded, field) == getattr(meant, field), field


WRAPPED = {
    "bare": S03,
    "JSON with base64": json.dumps({"payload_base64": base64.b64encode(S03).decode()}).encode(),
    "JSON with hexadecimal": json.dumps({"payload_base64": S03.hex()}).encode(),
    "upper case, other keys, white space": (
        b'\n{"topic": "/x", "payload_base64": "' + S03.hex().upper().encode() + b'", "n": [1]} '
    ),
}


@pytest.mark.parametrize("name", WRAPPED)
def test_every_envelope_decodes_to_the_same_frame(name):
    assert decode(WRAPPED[name]) == expected("S03")


@pytest.mark.parametrize("name", ["C1", "C2", "C3"])
def test_hexadecimal_that_is_also_base64_is_decoded_as_what_yields_a_frame(name):
    text = PAYLOADS[name].hex()
    assert decode(json.dumps({"payload_base64": text}).encode()) == expected(name)
    if len(text) % 4 == 0:
        with pytest.raises(MalformedFrame, match="declares"):
            decode_frame(base64.b64decode(text, validate=True))


def test_a_bare_frame_that_begins_with_a_brace_is_not_read_as_json():
    assert PAYLOADS["S13"][:1] == b"{"
    assert decode(PAYLOADS["S13"]).ssid == "A" * 32


REJECTED = {
    "B1 empty": b"",
    "B2": base64.b64decode("YA=="),
    "B3": base64.b64decode("YAA="),
    "B4 cut after the first voltage": base64.b64decode("YwADAeGTBAAGADcuMTAuMwMDAACYAw=="),
    "B5 promises more than it brings": b"\x95" + S01[1:],
    "B6 a text crosses the end": S01[:8] + b"\xff\xff" + S01[10:],
    "B10 odd hexadecimal": b'{"payload_base64": "abc"}',
    "B10 no hexadecimal": b'{"payload_base64": "zz"}',
    "B10 empty": b'{"payload_base64": ""}',
    "B10 a number": b'{"payload_base64": 7}',
    "B10 missing": b'{"payload": "YwAD"}',
    "B10 base64 with a blank": b'{"payload_base64": "' + base64.b64encode(S03)[:50] + b' AAA="}',
    "B11 hexadecimal read as base64": base64.b64decode(PAYLOADS["C1"].hex() + "=" * (-len(PAYLOADS["C1"].hex()) % 4)),
    "JSON, but no object": b"[1, 2, 3]",
    "half of a JSON": b'{"payload_base64": "',
    "a version of 33 characters": S01[:8] + b"\x21\x00" + b"7" * 33 + S01[16:],
    "an SSID of 65 characters": b"\xa0\x00" + S01[2:48] + b"\x41\x00" + b"A" * 65 + S01[58:],
    "larger than any reply": S01 + bytes(1024),
}  # fmt: skip


@pytest.mark.parametrize("name", REJECTED)
def test_a_malformed_frame_is_rejected(name):
    with pytest.raises(MalformedFrame) as caught:
        decode(REJECTED[name])
    assert not isinstance(caught.value, UnsupportedFrame)


@pytest.mark.parametrize("kind", [0, 2, 4, 255])
def test_a_frame_of_another_type_is_unsupported(kind):
    with pytest.raises(UnsupportedFrame, match=f"type {kind}"):
        decode(S01[:2] + bytes([kind]) + S01[3:])


def test_a_frame_of_another_type_in_json_is_unsupported():
    other = S01[:2] + b"\x02" + S01[3:]
    with pytest.raises(UnsupportedFrame):
        decode(json.dumps({"payload_base64": other.hex()}).encode())


@pytest.mark.parametrize("name", [name for name in PAYLOADS if name != "S19"])
def test_every_strict_prefix_is_rejected(name):
    for size in range(len(PAYLOADS[name])):
        with pytest.raises(MalformedFrame):
            decode(PAYLOADS[name][:size])


def test_json_is_never_read_as_a_frame():
    text = json.dumps({"payload_base64": "zz" * 60}).encode()
    with pytest.raises(MalformedFrame, match="neither base64 nor hexadecimal|declares"):
        decode(text)


def test_the_scenario_decodes():
    totals = [decode(told(row["payload"])).total_wh for row in SCENARIO if row["payload"]]
    assert totals == [1357673, 1357673, 1357718, 1357779, 1357833, 1357893, 1357933, 1357933]


# --- fuzzing: make fuzz has more of it ------------------------------------------------------------------

FRAMES = st.sampled_from(list(PAYLOADS.values()))


@st.composite
def damaged(draw):
    """A true frame, cut, lengthened, with some bytes changed, maybe wrapped."""
    frame = bytearray(draw(FRAMES))
    for _ in range(draw(st.integers(0, 6))):
        frame[draw(st.integers(0, len(frame) - 1))] = draw(st.integers(0, 255))
    payload = bytes(frame)[: draw(st.integers(0, len(frame)))] + draw(st.binary(max_size=8))
    match draw(st.sampled_from(["bare", "base64", "hex", "text"])):
        case "base64":
            return json.dumps({"payload_base64": base64.b64encode(payload).decode()}).encode()
        case "hex":
            return json.dumps({"payload_base64": payload.hex()}).encode()
        case "text":
            return b'{"payload_base64": "' + payload + b'"}'
    return payload


@settings(max_examples=FUZZ, deadline=None)
@given(st.one_of(st.binary(max_size=300), damaged()))
def test_random_bytes_raise_malformed_frame_only(payload):
    try:
        info = decode(payload)
    except MalformedFrame:
        return
    assert isinstance(info, WorkingInfo)
    assert info.trailing_bytes >= 0


@settings(max_examples=FUZZ, deadline=None)
@given(FRAMES, st.data())
def test_a_truncated_frame_never_decodes(frame, data):
    """In spite of its length field: a frame that ends before its own last field is no frame."""
    whole = decode_frame(frame)
    needed = len(frame) - whole.trailing_bytes - (37 if frame == PAYLOADS["S19"] else 0)
    size = data.draw(st.integers(2, needed - 1))
    cut = (size - 2).to_bytes(2, "little") + frame[2:size]
    with pytest.raises(MalformedFrame):
        decode(cut)
