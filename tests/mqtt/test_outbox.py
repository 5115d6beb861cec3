"""The outbox's SQL, on a real Postgres."""

import contextlib
from datetime import UTC, datetime, timedelta

import pytest

from csms.db import outbox
from csms.db.driver import driver_connection
from csms.db.outbox import lane
from tests.harness.narrowing import present
from tests.mqtt.conftest import Log

ALL = range(outbox.LANES)


@contextlib.asynccontextmanager
async def session(engine):
    async with engine.connect() as connection:
        yield await driver_connection(connection)


async def test_oldest_rows_come_with_their_bytes_in_order(engine, log):
    events = await log.commit(log.events(["A", "B", "A", "C", "A"]))
    async with session(engine) as db:
        rows = await outbox.pending(db, ALL, 10)
        assert [(r.charger_id, r.seq) for r in rows] == [("A", 1), ("B", 1), ("A", 2), ("C", 1), ("A", 3)]
        assert [present(r.event).body for r in rows] == [e.body for e in events]
        assert [r.event for r in rows] == events
        assert [(r.charger_id, r.seq) for r in await outbox.pending(db, ALL, 10, ["A"])] == [
            ("B", 1),
            ("C", 1),
        ]
        assert [(r.charger_id) for r in await outbox.pending(db, [lane("B")], 10)] == ["B"]
        await outbox.delete(db, [("A", 1), ("C", 1), ("gone", 7)])
        assert [(r.charger_id, r.seq) for r in await outbox.pending(db, ALL, 10)] == [
            ("B", 1),
            ("A", 2),
            ("A", 3),
        ]


async def test_a_chargers_lowest_numbers_come_first_despite_wrong_clocks(engine, log):
    """Its node's clock ran an hour ahead when it wrote the first three, then it moved to another node."""
    await log.commit(log.events(["A"] * 3, shift_s=3600))
    await log.commit(log.events(["A"] * 2 + ["B"]))
    async with session(engine) as db:
        rows = await outbox.pending(db, ALL, 2)
        own = [r.seq for r in rows if r.charger_id == "A"]
        assert own == list(range(1, len(own) + 1))
        assert own


async def test_ten_permanent_refusals_park_an_event_and_an_operator_revives_it(engine, log):
    await log.commit(log.events(["A", "A"]))
    async with session(engine) as db:
        for attempt in range(1, 10):
            assert await outbox.count_refusal(db, "A", 1, "Not authorized", permanent=True) == (
                attempt,
                False,
            )
        assert await outbox.count_refusal(db, "A", 1, "Not authorized", permanent=True) == (10, True)
        assert await outbox.count_refusal(db, "A", 9, "gone", permanent=True) == (0, False)
        for _ in range(12):
            _, dead = await outbox.count_refusal(db, "A", 2, "Quota exceeded", permanent=False)
            assert not dead
        assert [r.seq for r in await outbox.pending(db, ALL, 10)] == [2]
        counts = await outbox.counts(db)
        assert (counts.pending, counts.dead) == (1, 1)
        assert await outbox.revive(db, "B") == 0
        assert await outbox.revive(db) == 1
        assert [r.attempts for r in await outbox.pending(db, ALL, 10)] == [0, 12]


async def test_counts_and_age(engine, log):
    async with session(engine) as db:
        assert await outbox.counts(db) == outbox.OutboxCounts(pending=0, dead=0, oldest_at=None)
    old = log.events(["A"], shift_s=-60)
    await log.commit([*old, *log.events(["B", "C"])])
    async with session(engine) as db:
        assert await outbox.counts(db) == outbox.OutboxCounts(pending=3, dead=0, oldest_at=old[0].recorded_at)


async def test_pruning_deletes_only_old_parked_events(engine, log):
    await log.commit(log.events(["A", "B"], shift_s=-3600))
    async with session(engine) as db:
        await outbox.park(db, [("A", 1)], "gone")
        assert await outbox.prune(db, datetime.now(UTC) - timedelta(hours=2)) == 0
        assert await outbox.prune(db, datetime.now(UTC)) == 1
        assert [r.charger_id for r in await outbox.pending(db, ALL, 10)] == ["B"]


async def test_a_row_without_its_event_is_returned_without_it(engine, log):
    await log.commit(log.events(["A"]))
    await log.query("DELETE FROM events")
    async with session(engine) as db:
        (row,) = await outbox.pending(db, ALL, 10)
        assert row.event is None


async def test_a_lane_has_one_owner_until_its_session_ends(engine):
    async with session(engine) as one, session(engine) as other:
        assert await outbox.take_lanes(one, [1, 2, 3]) == [1, 2, 3]
        assert await outbox.take_lanes(other, [2, 3, 4]) == [4]
        await outbox.release_lanes(one)
        assert await outbox.take_lanes(other, [2, 3]) == [2, 3]


@pytest.mark.parametrize("count", [3000])
async def test_the_read_does_not_sort_the_whole_backlog(engine, log: Log, count):
    await log.commit(log.events([f"C{n % 300}" for n in range(count)]))
    await log.query("ANALYZE outbox")
    async with session(engine) as db:
        await db.execute("SET enable_seqscan = off")
        plan = "\n".join(
            row[0] for row in await db.fetch("EXPLAIN ANALYZE " + outbox._PENDING, list(ALL), [], 20)
        )
        rows = await outbox.pending(db, ALL, 20)
        await db.execute("RESET enable_seqscan")
    assert "outbox_lane_recorded_at_idx" in plan
    assert len(rows) == 20
