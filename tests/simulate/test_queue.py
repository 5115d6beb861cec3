import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from csms.simulate.queue import TransactionQueue
from tests.harness.narrowing import present


def queue(attempts=3, interval_s=10.0, same=False):
    ids = itertools.count(1)
    made = TransactionQueue(
        attempts, interval_s, same_message_id=same, new_message_id=lambda: f"m{next(ids)}"
    )
    made.append("StartTransaction", 0, {"id_tag": "A"})
    made.append("MeterValues", 0, {"connector_id": 1})
    made.append("StopTransaction", 0, {"meter_stop": 5})
    return made


def test_the_transaction_id_of_the_answer_is_set_in_later_messages():
    made = queue()
    start = made.take(0)
    assert made.take(0) is None  # one in flight
    made.succeeded(start, 4711)
    meter = made.take(0)
    assert meter.payload == {"connector_id": 1, "transaction_id": 4711}
    made.succeeded(meter)
    stop = made.take(0)
    assert stop.payload == {"meter_stop": 5, "transaction_id": 4711}
    made.succeeded(stop)
    assert len(made) == 0
    assert made.due_in_s(0) is None


def test_a_retry_waits_longer_each_time_and_delays_the_rest():
    made = queue()
    first = made.take(0)
    assert not made.failed(first, 100)
    assert made.take(109.9) is None
    assert made.due_in_s(104) == 6
    second = made.take(110)
    assert second is first
    assert not made.failed(second, 110)
    assert made.take(129.9) is None
    assert made.take(130).action == "StartTransaction"


def test_a_retry_has_a_new_message_id_unless_configured_otherwise():
    for same in (False, True):
        made = queue(same=same)
        ids = []
        for now_s in (0, 1000, 2000):
            message = made.take(now_s)
            ids.append(message.message_id)
            made.failed(message, now_s)
        assert len(set(ids)) == (1 if same else 3)


def test_a_message_without_attempts_left_is_lost_and_the_rest_has_no_id():
    made = queue(attempts=2)
    assert not made.failed(made.take(0), 0)
    assert made.failed(made.take(10), 10)
    meter = made.take(10)
    assert meter.action == "MeterValues"
    assert meter.payload["transaction_id"] is None
    made.succeeded(meter)
    assert made.take(10).payload["transaction_id"] == -1


def test_only_what_is_in_flight_can_end():
    made = queue()
    message = made.take(0)
    made.succeeded(message, 1)
    with pytest.raises(ValueError, match="not in flight"):
        made.failed(message, 0)


@settings(deadline=None)
@given(
    outcomes=st.lists(st.sampled_from(["answer", "fail"]), max_size=60),
    attempts=st.integers(1, 4),
    transactions=st.integers(1, 4),
)
def test_every_message_is_delivered_or_lost_once_in_order(outcomes, attempts, transactions):
    made = TransactionQueue(attempts, 1)
    expected = []
    for key in range(transactions):
        for action in ("StartTransaction", "MeterValues", "StopTransaction"):
            made.append(action, key, {})
            expected.append((key, action))
    now_s, gone, answered = 0.0, [], {}
    for outcome in [*outcomes, *["answer"] * len(expected)]:
        due_s = made.due_in_s(now_s)
        if due_s is None:
            break
        now_s += due_s
        message = present(made.take(now_s))
        assert message.attempts <= attempts
        if message.action == "StopTransaction":
            assert message.payload["transaction_id"] == answered.get(message.transaction, -1)
        if outcome == "answer":
            if message.action == "StartTransaction":
                answered[message.transaction] = 100 + message.transaction
            made.succeeded(message, answered.get(message.transaction))
            gone.append((message.transaction, message.action))
        elif made.failed(message, now_s):
            gone.append((message.transaction, message.action))
    assert gone == expected
