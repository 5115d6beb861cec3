import asyncio
from datetime import UTC, date, datetime, timedelta

import pytest
from sqlalchemy import text

from csms.db import partitions
from tests.harness.fake_store import meter, register, start
from tests.harness.ledger_harness import connected, frame, logging_frames, running
from tests.harness.servers import without_days

TODAY = datetime.now(UTC).date()


@pytest.fixture
async def database_url(database_url):
    await without_days(database_url)
    return database_url


async def ensure(engine, today=TODAY, **given):
    async with engine.begin() as db:
        await partitions.ensure(db, today, **given)


async def names(engine, table):
    async with engine.connect() as db:
        return sorted(
            name
            for name in await partitions._existing(db)
            if name.startswith(table) and name != f"{table}_default"
        )


async def test_partitions_of_today_and_the_days_ahead_are_created_once(engine):
    for _ in range(2):
        await ensure(engine, date(2026, 12, 28))
    assert await names(engine, "readings") == [
        *(f"readings_p202612{day}" for day in range(28, 32)),
        *(f"readings_p2027010{day}" for day in range(1, 5)),
    ]
    await ensure(engine, date(2026, 12, 30))
    assert [len(await names(engine, table)) for table in partitions.PARTITIONED] == [10, 10, 10]


async def test_several_nodes_may_create_partitions_at_once(engine):
    await asyncio.gather(*(ensure(engine) for _ in range(4)))
    assert len(await names(engine, "events")) == partitions.DAYS_AHEAD + 1


async def test_rows_lie_in_the_partition_of_their_day(engine, database_url):
    await ensure(engine)
    async with running(database_url) as ledger, logging_frames(database_url) as frames:
        frames.put(frame())
        # The charger's own time does not matter, however wrong it is.
        await ledger.record(meter(None, register(1, datetime(1970, 1, 1, tzinfo=UTC))))
        await frames.drain()
    async with connected(database_url) as db:
        for table in partitions.PARTITIONED:
            rows = await db.fetch(f"SELECT tableoid::regclass::text FROM {table}")
            assert [row[0] for row in rows] in (
                [f"{table}_p{TODAY:%Y%m%d}"],
                [f"{table}_p{TODAY + timedelta(days=1):%Y%m%d}"],  # midnight came in between
            )


async def test_a_day_whose_rows_lie_in_the_default_partition_stays_there(engine, database_url):
    async with running(database_url) as ledger:
        await ledger.record(meter(None, register(1, None)))
    await ensure(engine, TODAY)
    made = await names(engine, "readings")
    assert len(made) == partitions.DAYS_AHEAD
    assert f"readings_p{TODAY:%Y%m%d}" not in made
    async with running(database_url) as ledger:
        await ledger.record(meter(None, register(2, None)))
    async with connected(database_url) as db:
        assert await db.fetchval("SELECT count(*) FROM readings") == 2


async def test_old_days_are_dropped_and_younger_ones_are_not(engine):
    await ensure(engine, date(2026, 1, 1))
    async with engine.begin() as db:
        dropped = await partitions.drop_before(db, "messages", date(2026, 1, 4))
        again = await partitions.drop_before(db, "messages", date(2026, 1, 4))
    assert dropped == ["messages_p20260101", "messages_p20260102", "messages_p20260103"]
    assert again == []
    assert await names(engine, "messages") == [f"messages_p2026010{day}" for day in range(4, 9)]
    assert len(await names(engine, "readings")) == partitions.DAYS_AHEAD + 1


async def test_old_rows_of_the_default_partition_are_deleted(engine, database_url):
    async with running(database_url) as ledger:
        await ledger.record(meter(None, register(1, None)))
    for day, left in ((TODAY, 1), (TODAY + timedelta(days=2), 0)):
        async with engine.begin() as db:
            assert await partitions.drop_before(db, "readings", day) == []
            assert await db.scalar(text("SELECT count(*) FROM readings")) == left


async def test_events_that_the_broker_has_not_taken_are_kept(engine, database_url):
    await ensure(engine)
    async with running(database_url) as ledger:
        await ledger.record(start())
    later = TODAY + timedelta(days=3)
    async with engine.begin() as db:
        assert await partitions.drop_before(db, "events", later) == []
    async with engine.begin() as db:
        await db.execute(text("DELETE FROM outbox"))
        assert f"events_p{TODAY:%Y%m%d}" in await partitions.drop_before(db, "events", later)
        assert await db.scalar(text("SELECT count(*) FROM events")) == 0


async def test_a_table_in_use_is_left_for_the_next_run(engine, database_url):
    async with connected(database_url) as reader, reader.transaction():
        await reader.fetch("SELECT 1 FROM readings")
        await ensure(engine, lock_timeout_ms=50)
        assert [len(await names(engine, table)) for table in partitions.PARTITIONED] == [8, 0, 8]
        async with engine.begin() as db:
            assert await partitions.drop_before(db, "messages", TODAY + timedelta(days=1)) != []
    await ensure(engine)
    assert len(await names(engine, "readings")) == 8
    async with connected(database_url) as reader, reader.transaction():
        await reader.fetch("SELECT 1 FROM readings")
        async with engine.begin() as db:
            later = TODAY + timedelta(days=1)
            assert await partitions.drop_before(db, "readings", later, lock_timeout_ms=50) == []


async def test_making_partitions_does_not_deadlock_with_a_busy_ledger(engine, database_url):
    async with running(database_url) as ledger, logging_frames(database_url) as frames:

        async def report(n):
            for k in range(40):
                frames.put(frame(charger_id=f"c{n}"))
                await ledger.record(meter(None, register(k, None), charger_id=f"c{n}"))

        busy = [asyncio.create_task(report(n)) for n in range(5)]
        for day in range(10):
            await ensure(engine, TODAY + timedelta(days=30 * day + 3))
        await asyncio.gather(*busy)
        assert ledger.away_s() == 0
    async with connected(database_url) as db:
        deadlocks = await db.fetchval(
            "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()"
        )
        assert deadlocks == 0
        assert await db.fetchval("SELECT count(*) FROM readings") == 200
