"""Frames: the three types, what is tolerated, what is answered and what is dropped."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from csms.ocpp import frames
from csms.ocpp.frames import CallErrorFrame, CallFrame, CallResultFrame, UnusableFrame, parse
from tests.harness.narrowing import of_type
from tests.harness.ocpp_schemas import any_json


def kinds(message):
    return [d.kind for d in message.deviations]


def test_a_call_keeps_its_payload_as_the_bytes_that_came():
    call = of_type(CallFrame, parse(b'[2,"19","Heartbeat",{"a": 1.50}]'))
    assert (call.message_id, call.action, bytes(call.payload), call.deviations) == (
        "19",
        "Heartbeat",
        b'{"a": 1.50}',
        (),
    )


@pytest.mark.parametrize(
    "frame",
    [
        '[2,"19","Heartbeat",{}]',
        ' [ 2 , "19" , "Heartbeat" , {} ] \n',
        b'\xef\xbb\xbf[2,"19","Heartbeat",{}]',
    ],
)
def test_text_bytes_white_space_and_byte_order_mark_read_alike(frame):
    call = parse(frame)
    assert isinstance(call, CallFrame)
    assert (call.message_id, call.action, bytes(call.payload), kinds(call)) == ("19", "Heartbeat", b"{}", [])


@pytest.mark.parametrize(
    ("frame", "noted"),
    [
        ('[2,"19","Heartbeat",null]', []),
        ('[2,"19","Heartbeat"]', ["frame_elements"]),
        ('[2,"19","Heartbeat",{},{}]', ["frame_elements"]),
        ('[2,"19","Heartbeat",{}]\x00', ["trailing_dropped"]),
        ('["2","19","Heartbeat",{}]', ["wrong_type"]),
        ('[2.0,"19","Heartbeat",{}]', ["wrong_type"]),
        ('[2,19,"Heartbeat",{}]', ["message_id_type"]),
    ],
)
def test_small_departures_are_tolerated_and_noted(frame, noted):
    call = parse(frame)
    assert isinstance(call, CallFrame)
    assert (call.message_id, call.action, bytes(call.payload)) == ("19", "Heartbeat", b"{}")
    assert kinds(call) == noted


def test_a_long_id_is_tolerated_up_to_10000_characters():
    assert kinds(parse(json.dumps([2, "i" * 36, "Heartbeat", {}], separators=(",", ":")))) == []
    assert kinds(parse(json.dumps([2, "i" * 37, "Heartbeat", {}], separators=(",", ":")))) == [
        "message_id_long"
    ]
    assert parse(json.dumps([2, "i" * 10_000, "Heartbeat", {}])).message_id == "i" * 10_000
    assert of_type(UnusableFrame, parse(json.dumps([2, "i" * 10_001, "Heartbeat", {}]))).answerable is False


def test_a_payload_that_is_not_quite_json_is_kept_for_the_repair():
    call = parse(b'[2,"19","StatusNotification",{"info":"caf\xe9 \\ud800 \x01"}]')
    assert isinstance(call, CallFrame)
    assert kinds(call) == ["encoding_repaired"]
    assert bytes(call.payload) == '{"info":"caf\ufffd \\ud800 \x01"}'.encode()


@pytest.mark.parametrize(
    "frame",
    ["", "hello", "{}", "[]", "null", "[", "2", '[5,"19","Heartbeat",{}]', '[true,"19","Heartbeat",{}]', "[2]", '[2,null,"Heartbeat",{}]',
     '[2,{"a":1},"Heartbeat",{}]', '[2,"a\\u0000","Heartbeat",{}]', '[3,"19",{"a":}]', '[3,"19"', '[4,"19","X"', "[" * 100_000, '[2,"19'],
)  # fmt: skip
def test_what_cannot_be_attributed_to_a_call_is_dropped(frame):
    bad = parse(frame)
    assert isinstance(bad, UnusableFrame)
    assert not bad.answerable
    assert bad.description


@pytest.mark.parametrize(
    ("frame", "action"),
    [
        ('[2,"19"]', None),
        ('[2,"19",null,{}]', None),
        ('[2,"19","",{}]', None),
        ('[2,"19",{},{}]', None),
        ('[2,"19","StartTransaction",{"a":}]', "StartTransaction"),
        ('[2,"19","StartTransaction",{"a":1}', "StartTransaction"),
        ('[2,"19","StartTransaction",' + "[" * 100_000, "StartTransaction"),
    ],
)
def test_a_broken_call_with_an_id_can_be_answered(frame, action):
    bad = parse(frame)
    assert isinstance(bad, UnusableFrame)
    assert (bad.answerable, bad.message_id, bad.action, bad.code) == (
        True,
        "19",
        action,
        "FormationViolation",
    )


def test_callresult_and_callerror_frames_are_read():
    result = parse('[3,"7",{"status":"Accepted"}]')
    assert isinstance(result, CallResultFrame)
    assert (result.message_id, bytes(result.payload)) == ("7", b'{"status":"Accepted"}')
    for empty in ('[3,"7",null]', '[3,"7"]'):
        assert bytes(of_type(CallResultFrame, parse(empty)).payload) == b"{}"
    error = parse('[4,"7","NotSupported","no","{}"]')
    assert isinstance(error, CallErrorFrame)
    assert (error.code, error.description) == ("NotSupported", "no")


@pytest.mark.parametrize(
    ("frame", "code", "description"),
    [
        ('[4,"7"]', "GenericError", ""),
        ('[4,"7","InternalError"]', "InternalError", ""),
        ('[4,"7","InternalError",null,null]', "InternalError", "null"),
        ('[4,"7",13,"x",{}]', "13", "x"),
    ],
)
def test_an_incomplete_callerror_is_read(frame, code, description):
    error = parse(frame)
    assert isinstance(error, CallErrorFrame)
    assert (error.code, error.description, bytes(error.details)) == (code, description, b"{}")


def test_rendering_is_compact_and_escaped():
    assert frames.render_call("1", "Reset", b'{"type":"Soft"}') == b'[2,"1","Reset",{"type":"Soft"}]'
    assert frames.render_result("1") == b'[3,"1",{}]'
    assert frames.render_error("1", "NotSupported") == b'[4,"1","NotSupported","",{}]'
    odd = 'a"\\\n\x00é'
    assert json.loads(frames.render_error(odd, "GenericError", odd, {"k": odd})) == [
        4,
        odd,
        "GenericError",
        odd,
        {"k": odd},
    ]
    assert (
        json.loads(frames.render_error("1", "GenericError", "\ud800" + "d" * 300))[3] == "\ufffd" + "d" * 254
    )


@given(st.one_of(st.binary(max_size=200), st.text(max_size=200)))
def test_no_input_raises(frame):
    assert parse(frame) is not None


@given(st.lists(any_json, max_size=6))
def test_no_array_raises_and_every_usable_answer_can_be_rendered(elements):
    message = parse(json.dumps(elements))
    if isinstance(message, UnusableFrame) and message.answerable:
        assert message.message_id is not None
        assert (
            json.loads(frames.render_error(message.message_id, message.code, message.description))[1]
            == message.message_id
        )


@given(
    st.text(st.characters(blacklist_categories=["Cs"], blacklist_characters="\x00"), max_size=36), any_json
)
def test_what_is_rendered_is_read_back(message_id, payload):
    body = json.dumps(payload).encode()
    call = parse(frames.render_call(message_id, "DataTransfer", body))
    assert isinstance(call, CallFrame)
    assert (call.message_id, call.action) == (message_id, "DataTransfer")
    assert bytes(call.payload) == (b"{}" if payload is None or payload != payload else body)


def test_a_call_without_a_usable_id_still_tells_its_action():
    bad = frames.parse('[2,null,"StartTransaction",{}]')
    assert isinstance(bad, UnusableFrame)
    assert (bad.message_id, bad.action, bad.answerable) == (None, "StartTransaction", False)
