"""The line-up: order per charger whatever mixture of hand-over and SELECT brings the events."""

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
    """A line-up and its table."""

    def __init__(self, max_waiting: int = 100) -> None:
        self.tokens = 0
        self.lineup = ChargerQueue(max_waiting, self._ready)

    def _ready(self) -> None:
        self.tokens += 1

    def load(self, *numbers: int, charger_id: str = "CP1") -> int:
        return self.lineup.load(PendingEvent(event(n, charger_id)) for n in numbers)

    def drain(self) -> list[int]:
        sent = []
        while (item := self.lineup.next()) is not None:
            sent.append(item.event.seq)
            self.lineup.delivered(item)
            self.lineup.deleted([item.key])
        return sent


@pytest.fixture
def rig() -> Rig:
    return Rig()


def test_the_first_event_ever_needs_no_select(rig):
    assert rig.lineup.hand_over(event(1))
    assert rig.lineup.hand_over(event(2))
    assert rig.drain() == [1, 2]


def test_an_event_of_an_unknown_charger_is_left_to_the_select(rig):
    assert not rig.lineup.hand_over(event(7))
    assert rig.load(5, 6, 7) == 3
    assert rig.lineup.hand_over(event(8))
    assert rig.drain() == [5, 6, 7, 8]


def test_a_gap_is_left_to_the_select(rig):
    rig.load(5)
    assert rig.lineup.hand_over(event(6))
    assert not rig.lineup.hand_over(event(8))  # another node committed 7
    assert not rig.lineup.hand_over(event(9))
    assert rig.load(5, 6, 7, 8, 9) == 3
    assert rig.drain() == [5, 6, 7, 8, 9]


def test_a_select_that_was_faster_than_the_hand_over_changes_nothing(rig):
    rig.load(1, 2, 3)
    assert rig.lineup.hand_over(event(2))
    assert rig.lineup.hand_over(event(3))
    assert rig.lineup.waiting == 3
    assert rig.drain() == [1, 2, 3]


def test_only_one_event_of_a_charger_is_in_flight(rig):
    rig.load(1, 2)
    rig.load(1, charger_id="CP2")
    first, other = rig.lineup.next(), rig.lineup.next()
    assert (first.key, other.key) == (("CP1", 1), ("CP2", 1))
    assert rig.lineup.next() is None
    rig.lineup.delivered(first)
    assert rig.lineup.next().key == ("CP1", 2)


def test_rows_under_way_or_not_yet_deleted_are_not_sent_twice(rig):
    rig.load(1, 2)
    item = rig.lineup.next()
    assert rig.load(1, 2) == 0
    rig.lineup.delivered(item)
    assert rig.load(1, 2) == 0
    rig.lineup.deleted([item.key])
    assert rig.drain() == [2]


def test_after_a_lost_connection_the_same_event_goes_first(rig):
    rig.load(1, 2)
    item = rig.lineup.next()
    rig.lineup.again(item)
    assert rig.lineup.hand_over(event(3))
    assert rig.drain() == [1, 2, 3]


def test_a_refused_event_holds_its_charger_back_and_no_other(rig):
    rig.load(1, 2)
    rig.load(1, charger_id="CP2")
    rig.lineup.refused(rig.lineup.next())
    assert rig.lineup.hand_over(event(3))  # taken care of: its release asks for a SELECT
    assert rig.load(1, 2, 3) == 0
    assert rig.drain() == [1]
    assert rig.lineup.waiting == 0
    rig.lineup.hold("CP1", 10.0)
    assert not rig.lineup.release(9.9)
    assert rig.lineup.release(10.0)
    rig.load(1, 2, 3)
    assert rig.drain() == [1, 2, 3]


def test_a_full_line_up_leaves_the_rest_to_the_select():
    rig = Rig(max_waiting=2)
    rig.load(1)
    assert rig.lineup.hand_over(event(2))
    assert not rig.lineup.hand_over(event(3))
    assert rig.drain() == [1, 2]
    assert not rig.lineup.hand_over(event(4))
    rig.load(3, 4)
    assert rig.drain() == [3, 4]


def test_an_event_an_operator_has_freed_is_sent_late(rig):
    rig.load(1, 2, 3)
    assert rig.drain() == [1, 2, 3]
    assert rig.load(2) == 1
    assert rig.drain() == [2]
    assert not rig.lineup.hand_over(event(4))
    rig.load(4)
    assert rig.lineup.hand_over(event(5))
    assert rig.drain() == [4, 5]


def test_a_charger_that_was_deleted_counts_from_one_again(rig):
    rig.load(1, 2, 3)
    assert rig.drain() == [1, 2, 3]
    assert not rig.lineup.hand_over(event(1))
    rig.load(1)
    assert rig.lineup.hand_over(event(2))
    rig.load(3)  # another node's
    assert not rig.lineup.hand_over(event(5))  # 4 is nowhere but in the outbox
    rig.load(4, 5)
    assert rig.drain() == [1, 2, 3, 4, 5]


def test_the_old_count_does_not_vouch_for_the_new_one(rig):
    rig.load(1, 2, 3)
    rig.drain()
    rig.load(1, 2)  # the new count, by other nodes; 3 is not read yet
    assert not rig.lineup.hand_over(event(4))
    rig.load(3, 4)
    assert rig.drain() == [1, 2, 3, 4]


@pytest.mark.parametrize("won_again_before", [True, False])
def test_a_lane_lost_and_won_while_an_event_is_in_flight(rig, won_again_before):
    rig.load(1, 2)
    item = rig.lineup.next()
    rig.lineup.forget()
    assert rig.lineup.waiting == 0
    assert not rig.lineup.hand_over(event(3))
    if won_again_before:
        rig.load(1, 2, 3)
        rig.lineup.again(item)
    else:
        rig.lineup.again(item)
        rig.load(1, 2, 3)
    assert rig.drain() == [1, 2, 3]


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_first_appearances_are_always_in_order(data):
    """A table, commits here and elsewhere, SELECTs of any age, failures of every kind, lost lanes."""
    rig, table, committed, flying = Rig(max_waiting=4), [], 0, []
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
                rig.lineup.hand_over(event(committed))
        elif step == "select" and "CP1" not in rig.lineup.held:
            rig.load(*table[: data.draw(st.integers(1, 4)) + len(rig.lineup.known)])
        elif step == "send" and (item := rig.lineup.next()) is not None:
            flying.append(item)
            appeared.append(item.event.seq)
        elif step in {"ack", "drop", "refuse"} and flying:
            item = flying.pop()
            if step == "ack":
                rig.lineup.delivered(item)
                acked.append(item.key)
            elif step == "drop":
                rig.lineup.again(item)
            else:
                rig.lineup.refused(item)
                rig.lineup.hold("CP1", 0)
                rig.lineup.release(1)
        elif step == "lose":
            rig.lineup.forget()
        elif step == "delete":
            table = [n for n in table if ("CP1", n) not in acked]
            rig.lineup.deleted(acked)
            acked = []
        assert len(flying) <= 1
        assert 0 <= rig.lineup.waiting <= 4 + committed
    for item in flying:
        rig.lineup.delivered(item)
        acked.append(item.key)
    table = [n for n in table if ("CP1", n) not in acked]
    rig.lineup.deleted(acked)
    rig.load(*table)
    appeared += rig.drain()
    firsts = list(dict.fromkeys(appeared))
    assert firsts == list(range(1, committed + 1))
