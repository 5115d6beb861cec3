"""Session: bytes in, events out, bytes out; no socket and no clock."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from csms.ocpp.frames import CallFrame, UnusableFrame
from csms.ocpp.session import (
    CallAbandoned,
    CallAnswered,
    CallRefused,
    CallTimedOut,
    OcppSession,
    UnsolicitedAnswer,
)


@pytest.fixture
def session():
    numbers = iter(range(1, 1000))
    s = OcppSession("CP1", new_id=lambda: f"id-{next(numbers)}")
    s.open_for_calls(0.0)
    return s


def sent(session):
    return [json.loads(frame) for frame in session.data_to_send()]


def test_a_call_of_the_charge_point_is_answered_in_our_own_time(session):
    event = session.receive('[2,"a","Heartbeat",{}]', 0)
    assert (type(event), event.message_id, event.action) == (CallFrame, "a", "Heartbeat")
    assert session.data_to_send() == []
    session.answer("a", b'{"currentTime":"2024-01-01T00:00:00Z"}')
    assert sent(session) == [[3, "a", {"currentTime": "2024-01-01T00:00:00Z"}]]
    assert session.data_to_send() == []


def test_answers_are_not_held_up_by_our_outstanding_call(session):
    session.call("Reset", b'{"type":"Soft"}', 0, 30, "t1")
    session.receive('[2,"a","Heartbeat",{}]', 1)
    session.answer("a", b"{}")
    session.refuse("b", "NotImplemented", "no such action")
    assert sent(session) == [
        [2, "id-1", "Reset", {"type": "Soft"}],
        [3, "a", {}],
        [4, "b", "NotImplemented", "no such action", {}],
    ]


def test_calls_go_out_one_by_one_in_order(session):
    for n in (1, 2, 3):
        session.call(f"A{n}", b"{}", 0, 30, n)
    assert sent(session) == [[2, "id-1", "A1", {}]]
    assert session.data_to_send() == []
    event = session.receive('[3,"id-1",{"status":"Accepted"}]', 5)
    assert event == CallAnswered(1, "A1", event.payload)
    assert bytes(event.payload) == b'{"status":"Accepted"}'
    assert sent(session) == [[2, "id-2", "A2", {}]]
    event = session.receive('[4,"id-2","NotSupported","no",{"x":1}]', 6)
    assert (type(event), event.token, event.code, event.description, bytes(event.details), event.late) == (
        CallRefused, 2, "NotSupported", "no", b'{"x":1}', False,
    )  # fmt: skip
    assert sent(session) == [[2, "id-3", "A3", {}]]


def test_nothing_of_ours_is_sent_before_the_session_is_open_for_calls():
    session = OcppSession("CP1")
    session.call("TriggerMessage", b"{}", 0, 30, "t")
    session.answer("a")
    assert sent(session) == [[3, "a", {}]]
    assert session.next_deadline() is None
    session.open_for_calls(100.0)
    session.open_for_calls(101.0)
    assert [frame[2] for frame in sent(session)] == ["TriggerMessage"]
    assert session.next_deadline() == 130.0


def test_a_call_times_out_counted_from_being_sent_and_the_next_follows(session):
    session.call("A1", b"{}", 0, 30, 1)
    session.call("A2", b"{}", 10, 5, 2)
    assert session.next_deadline() == 30
    assert session.tick(29.9) == []
    assert session.tick(30) == [CallTimedOut(1, "A1")]
    assert session.next_deadline() == 35
    assert [f[2] for f in sent(session)] == ["A1", "A2"]
    assert session.tick(35) == [CallTimedOut(2, "A2")]
    assert session.next_deadline() is None
    assert session.tick(1000) == []


def test_an_answer_after_the_time_out_is_kept_and_does_not_disturb_the_next_call(session):
    session.call("A1", b"{}", 0, 30, 1)
    session.call("A2", b"{}", 0, 30, 2)
    session.tick(30)
    late = session.receive('[3,"id-1",{"status":"Accepted"}]', 31)
    assert (type(late), late.token, late.action, late.late) == (CallAnswered, 1, "A1", True)
    assert type(session.receive('[3,"id-1",{}]', 32)) is UnsolicitedAnswer
    assert session.receive('[3,"id-2",{}]', 33).late is False


def test_a_late_refusal_says_so(session):
    session.call("A1", b"{}", 0, 30, 1)
    session.tick(30)
    assert session.receive('[4,"id-1","InternalError","",{}]', 31).late is True


def test_only_the_latest_overdue_calls_are_kept(session):
    for n in range(150):
        session.call("A", b"{}", n, 1, n)
        assert session.tick(n + 1) == [CallTimedOut(n, "A")]
    assert type(session.receive('[3,"id-1",{}]', 999)) is UnsolicitedAnswer
    assert session.receive('[3,"id-150",{}]', 999).token == 149


def test_answers_to_nothing_are_unsolicited(session):
    result = session.receive('[3,"other",{"a":1}]', 0)
    assert (type(result), result.message_id, result.code, bytes(result.payload)) == (
        UnsolicitedAnswer,
        "other",
        None,
        b'{"a":1}',
    )
    assert session.receive('[4,"other","InternalError","",{}]', 0).code == "InternalError"


def test_a_broken_call_can_be_answered_and_other_garbage_not(session):
    event = session.receive('[2,"a","StopTransaction",{"x":}]', 0)
    assert (type(event), event.answerable, event.message_id, event.action) == (
        UnusableFrame,
        True,
        "a",
        "StopTransaction",
    )
    assert session.data_to_send() == []  # of its own it refuses nothing: this one tells of a transaction
    session.refuse(event.message_id, event.code, event.description)
    assert sent(session)[0][:3] == [4, "a", "FormationViolation"]
    for frame in ("hello", "[]", '[9,"a",{}]', '[3,"a"'):
        event = session.receive(frame, 0)
        assert (type(event), event.answerable) == (UnusableFrame, False)
        assert event.description
    assert session.data_to_send() == []


def test_a_waiting_call_can_be_withdrawn_a_sent_one_cannot(session):
    session.call("A1", b"{}", 0, 30, 1)
    session.call("A2", b"{}", 0, 30, 2)
    assert session.cancel(2) is True
    assert session.cancel(2) is False
    assert session.cancel(1) is False
    session.receive('[3,"id-1",{}]', 1)
    assert [f[2] for f in sent(session)] == ["A1"]


def test_closing_fails_every_call_and_says_which_were_sent(session):
    session.call("A1", b"{}", 0, 30, 1)
    session.call("A2", b"{}", 0, 30, 2)
    assert session.close() == [
        CallAbandoned(1, "A1", sent=True),
        CallAbandoned(2, "A2", sent=False),
    ]
    assert session.close() == []
    session.answer("a")
    assert session.data_to_send() == []
    assert session.next_deadline() is None
    assert type(session.receive('[2,"a","Heartbeat",{}]', 1)) is UnusableFrame
    with pytest.raises(RuntimeError):
        session.call("A3", b"{}", 0, 30, 3)


def test_ids_are_unique_across_sessions_and_short_enough():
    ids = set()
    for _ in range(50):
        session = OcppSession("CP1")
        session.open_for_calls(0)
        session.call("Reset", b"{}", 0, 30, None)
        ids.add(sent(session)[0][1])
    assert len(ids) == 50
    assert max(map(len, ids)) <= 36


@settings(deadline=None)
@given(
    st.lists(
        st.sampled_from(["call", "open", "result", "error", "late", "tick", "incoming", "cancel", "junk"]),
        max_size=40,
    )
)
def test_every_call_ends_exactly_once_and_at_most_one_is_outstanding(steps):
    session, asked, ended, outstanding, now, timed_out = OcppSession("CP1"), 0, [], [], 0.0, []
    for step in steps:
        now += 1
        match step:
            case "call":
                session.call("A", b"{}", now, 3, asked)
                asked += 1
            case "open":
                session.open_for_calls(now)
            case "result" | "error" if outstanding:
                body = "{}" if step == "result" else '"InternalError","",{}'
                event = session.receive(f'[{3 if step == "result" else 4},"{outstanding.pop()}",{body}]', now)
                assert isinstance(event, (CallAnswered, CallRefused))
                ended.append(event.token)
            case "late" if timed_out:
                event = session.receive(f'[3,"{timed_out.pop()}",{{}}]', now)
                assert isinstance(event, CallAnswered)
                assert event.late is True
            case "tick":
                for late in session.tick(now):
                    ended.append(late.token)
                    timed_out.append(outstanding.pop())
            case "incoming":
                assert isinstance(session.receive('[2,"x","Heartbeat",{}]', now), CallFrame)
            case "cancel":
                if session.cancel(asked - 1):
                    ended.append(asked - 1)
            case "junk":
                assert isinstance(session.receive("junk", now), UnusableFrame)
        outstanding += [json.loads(f)[1] for f in session.data_to_send() if f.startswith(b"[2,")]
        assert len(outstanding) <= 1
    ended += [a.token for a in session.close()]
    assert sorted(ended) == list(range(asked))
