"""Order per charger, however hand-over and SELECT mix."""

from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from csms.core.records import Event
from csms.mqtt.charger_queue import ChargerQueue, PendingEvent


def event(seq: int, charger_id: str = "CP1") -> Event:
    return Event(
        charger_id=charger_id,
        seq=seq,
        event_id=f"started_{seq}",
        event_type="started",
        topic=f"csms/transactions/{charger_id}/started",
        body=b"{}",
        transaction_id=None,
        recorded_at=datetime.now(UTC),
    )


class Rig:
    """A queue, filled by number and drained."""

    def __init__(self, max_waiting: int = 100) -> None:
        self.queue = ChargerQueue(max_waiting, lambda: None)

    def load(self, *numbers: int, charger_id: str = "CP1") -> int:
        return self.queue.load(PendingEvent(event(n, charger_id)) for n in numbers)

    def drain(self) -> list[int]:
        sent = []
        while (item := self.queue.next()) is not None:
            sent.append(item.event.seq)
            self.queue.delivered(item)
            self.queue.deleted([item.key])
        return sent


@pytest.fixture
def rig() -> Rig:
    return Rig()


def test_the_first_event_ever_needs_no_select(rig):
    assert rig.queue.hand_over(event(1))
    assert rig.queue.hand_over(event(2))
    assert rig.drain() == [1, 2]


def test_an_event_of_an_unknown_charger_is_left_to_the_select(rig):
    assert not rig.queue.hand_over(event(7))
    assert rig.load(5, 6, 7) == 3
    assert rig.queue.hand_over(event(8))
    assert rig.drain() == [5, 6, 7, 8]


def test_a_gap_is_left_to_the_select(rig):
    rig.load(5)
    assert rig.queue.hand_over(event(6))
    assert not rig.queue.hand_over(event(8))  # another node committed 7
    assert not rig.queue.hand_over(event(9))
    assert rig.load(5, 6, 7, 8, 9) == 3
    assert rig.drain() == [5, 6, 7, 8, 9]


def test_a_select_that_was_faster_than_the_hand_over_changes_nothing(rig):
    rig.load(1, 2, 3)
    assert rig.queue.hand_over(event(2))
    assert rig.queue.hand_over(event(3))
    assert rig.queue.waiting == 3
    assert rig.drain() == [1, 2, 3]


def test_only_one_event_of_a_charger_is_in_flight(rig):
    rig.load(1, 2)
    rig.load(1, charger_id="CP2")
    first, other = rig.queue.next(), rig.queue.next()
    assert (first.key, other.key) == (("CP1", 1), ("CP2", 1))
    assert rig.queue.next() is None
    rig.queue.delivered(first)
    assert rig.queue.next().key == ("CP1", 2)


def test_rows_in_flight_or_not_yet_deleted_are_not_published_twice(rig):
    rig.load(1, 2)
    item = rig.queue.next()
    assert rig.load(1, 2) == 0
    rig.queue.delivered(item)
    assert rig.load(1, 2) == 0
    rig.queue.deleted([item.key])
    assert rig.drain() == [2]


def test_after_a_lost_connection_the_same_event_goes_first(rig):
    rig.load(1, 2)
    item = rig.queue.next()
    rig.queue.retry(item)
    assert rig.queue.hand_over(event(3))
    assert rig.drain() == [1, 2, 3]


def test_a_refused_event_pauses_its_charger_and_no_other(rig):
    rig.load(1, 2)
    rig.load(1, charger_id="CP2")
    rig.queue.refused(rig.queue.next())
    assert rig.queue.hand_over(event(3))  # `resume` asks for a SELECT
    assert rig.load(1, 2, 3) == 0
    assert rig.drain() == [1]
    assert rig.queue.waiting == 0
    rig.queue.pause("CP1", 10.0)
    assert not rig.queue.resume(9.9)
    assert rig.queue.resume(10.0)
    rig.load(1, 2, 3)
    assert rig.drain() == [1, 2, 3]


def test_a_full_queue_leaves_the_rest_to_the_select():
    rig = Rig(max_waiting=2)
    rig.load(1)
    assert rig.queue.hand_over(event(2))
    assert not rig.queue.hand_over(event(3))
    assert rig.drain() == [1, 2]
    assert not rig.queue.hand_over(event(4))
    rig.load(3, 4)
    assert rig.drain() == [3, 4]


def test_an_event_that_an_operator_revived_is_published_late(rig):
    rig.load(1, 2, 3)
    assert rig.drain() == [1, 2, 3]
    assert rig.load(2) == 1
    assert rig.drain() == [2]
    assert not rig.queue.hand_over(event(4))
    rig.load(4)
    assert rig.queue.hand_over(event(5))
    assert rig.drain() == [4, 5]


def test_a_charger_that_was_deleted_counts_from_one_again(rig):
    rig.load(1, 2, 3)
    assert rig.drain() == [1, 2, 3]
    assert not rig.queue.hand_over(event(1))
    rig.load(1)
    assert rig.queue.hand_over(event(2))
    rig.load(3)  # another node's
    assert not rig.queue.hand_over(event(5))  # 4 is nowhere but in the outbox
    rig.load(4, 5)
    assert rig.drain() == [1, 2, 3, 4, 5]


def test_a_deleted_chargers_old_numbers_say_nothing_of_its_new_ones(rig):
    rig.load(1, 2, 3)
    rig.drain()
    rig.load(1, 2)  # the new count, by other nodes; 3 is not read yet
    assert not rig.queue.hand_over(event(4))
    rig.load(3, 4)
    assert rig.drain() == [1, 2, 3, 4]


@pytest.mark.parametrize("won_before_retry", [True, False])
def test_a_lane_may_be_lost_and_won_while_an_event_is_in_flight(rig, won_before_retry):
    rig.load(1, 2)
    item = rig.queue.next()
    rig.queue.forget()
    assert rig.queue.waiting == 0
    assert not rig.queue.hand_over(event(3))
    if won_before_retry:
        rig.load(1, 2, 3)
        rig.queue.retry(item)
    else:
        rig.queue.retry(item)
        rig.load(1, 2, 3)
    assert rig.drain() == [1, 2, 3]


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_first_appearances_are_always_in_order(data):
    """A table, commits here and elsewhere, SELECTs of any age, failures of every kind, lost lanes."""
    rig, table, committed, in_flight = Rig(max_waiting=4), [], 0, []
    appeared: list[int] = []
    acked: list[tuple[str, int]] = []
    for _ in range(data.draw(st.integers(1, 60))):
        step = data.draw(
            st.sampled_from(
                ["here", "elsewhere", "select", "send", "ack", "drop", "refuse", "lose", "delete"]
            )
        )
        if step in {"here", "elsewhere"}:
            committed += 1
            table.append(committed)
            if step == "here":
                rig.queue.hand_over(event(committed))
        elif step == "select" and "CP1" not in rig.queue.paused:
            rig.load(*table[: data.draw(st.integers(1, 4)) + len(rig.queue.known)])
        elif step == "send" and (item := rig.queue.next()) is not None:
            in_flight.append(item)
            appeared.append(item.event.seq)
        elif step in {"ack", "drop", "refuse"} and in_flight:
            item = in_flight.pop()
            if step == "ack":
                rig.queue.delivered(item)
                acked.append(item.key)
            elif step == "drop":
                rig.queue.retry(item)
            else:
                rig.queue.refused(item)
                rig.queue.pause("CP1", 0)
                rig.queue.resume(1)
        elif step == "lose":
            rig.queue.forget()
        elif step == "delete":
            table = [n for n in table if ("CP1", n) not in acked]
            rig.queue.deleted(acked)
            acked = []
        assert len(in_flight) <= 1
        assert 0 <= rig.queue.waiting <= 4 + committed
    for item in in_flight:
        rig.queue.delivered(item)
        acked.append(item.key)
    table = [n for n in table if ("CP1", n) not in acked]
    rig.queue.deleted(acked)
    rig.load(*table)
    appeared += rig.drain()
    firsts = list(dict.fromkeys(appeared))
    assert firsts == list(range(1, committed + 1))
