import asyncio

import asyncpg
from sqlalchemy.exc import TimeoutError as SQLAlchemyTimeout
from sqlalchemy.ext.asyncio import AsyncEngine

from csms.db import logs
from csms.db.engine import create_engine
from csms.node.frame_log import FrameLog
from tests.harness.fake_store import CP
from tests.harness.ledger_harness import connected, count, frame, logging_frames
from tests.harness.waiting import until
from tests.node.test_ledger import held_up


async def test_a_frame_is_written_soon(database_url):
    async with logging_frames(database_url) as frames:
        frames.put(frame())
        await until(lambda: count(database_url, "messages"))
        async with connected(database_url) as db:
            row = await db.fetchrow("SELECT * FROM messages")
        told = row["charger_id"], row["action"], row["message_id"], row["outgoing"]
        assert told == (CP, "Heartbeat", "1", False)
        assert row["frame"] == b'[2,"1","Heartbeat",{}]'


async def test_frames_of_a_while_are_written_together(database_url, monkeypatch):
    written = []
    save = logs.save_frames

    async def noted(db, frames):
        written.append(len(frames))
        await save(db, frames)

    monkeypatch.setattr(logs, "save_frames", noted)
    async with logging_frames(database_url, gather_s=0.1) as frames:
        for n in range(6000):
            frames.put(frame(message_id=str(n)))
            if n % 1000 == 0:
                await asyncio.sleep(0)
        await frames.drain()
        assert written == [5000, 1000]
    assert await count(database_url, "messages") == 6000


async def test_it_holds_whatever_was_on_the_wire(database_url):
    async with logging_frames(database_url) as frames:
        frames.put(frame(message_id="a\0b", action="\ud800x", frame=b"\0\xff"))
        frames.put(frame(action=None, message_id=None))
        await frames.drain()
    async with connected(database_url) as db:
        rows = await db.fetch("SELECT message_id, action, frame FROM messages ORDER BY message_id")
    assert [tuple(row) for row in rows] == [("a\ufffdb", "\ufffdx", b"\0\xff"), (None, None, frame().frame)]


async def test_a_frame_the_database_refuses_is_the_only_one_lost(database_url):
    async with logging_frames(database_url) as frames:
        for n in range(20):
            frames.put(frame(charger_id="\0" if n == 7 else f"c{n}"))
        await frames.drain()
    assert await count(database_url, "messages") == 19


async def test_a_full_log_drops_frames_and_never_waits(database_url):
    engine = create_engine(database_url)
    frames = FrameLog(engine, max_waiting=3)
    for _ in range(5):
        frames.put(frame())
    assert len(frames._frames) == 3
    await engine.dispose()


async def test_a_connection_that_is_cut_loses_no_frame(database_url):
    async with logging_frames(database_url) as frames:
        async with held_up(database_url, "messages"):
            frames.put(frame(message_id="held up"))
            await until(lambda: count(database_url, "pg_stat_activity", "query LIKE 'COPY%messages%'"))
            async with connected(database_url) as db:
                await db.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'COPY%messages%'"
                )
            frames.put(frame(message_id="meanwhile"))
        await frames.drain()
    assert await count(database_url, "messages") == 2


async def test_frames_wait_for_a_connection_that_is_not_to_be_had(database_url):
    """All of the pool's are in use, say: that is no frame's fault."""
    async with logging_frames(database_url) as frames:
        connect, tried = frames._engine.connect, []

        class Exhausted(AsyncEngine):
            def connect(self):
                tried.append(1)
                if len(tried) < 3:
                    raise SQLAlchemyTimeout("QueuePool limit reached")
                return connect()

        real = frames._engine
        frames._engine = Exhausted(real.sync_engine)
        for n in range(10):
            frames.put(frame(message_id=str(n)))
        await frames.drain()
        frames._engine = real
        assert len(tried) == 3
    assert await count(database_url, "messages") == 10


async def test_draining_ends_when_the_time_is_up(database_url):
    async with logging_frames(database_url) as frames:
        async with held_up(database_url, "messages"):
            frames.put(frame())
            began = asyncio.get_running_loop().time()
            await frames.drain(timeout_s=0.05)
            assert asyncio.get_running_loop().time() - began < 5
            assert await count(database_url, "messages") == 0
        await frames.drain()
    assert await count(database_url, "messages") == 1


async def test_a_server_that_says_nothing_is_hung_up_on(database_url):
    async with logging_frames(database_url, write_timeout_s=0.2) as frames:
        async with held_up(database_url, "messages"):
            frames.put(frame())
            await until(lambda: count(database_url, "pg_stat_activity", "query LIKE 'COPY%messages%'"))
            first = await backend(database_url)
            await until(lambda: another(database_url, first))
        await frames.drain()
    # The first write may have been done after all, although the connection ended before its answer.
    assert await count(database_url, "messages") in {1, 2}


async def backend(url):
    async with connected(url) as db:
        return await db.fetchval("SELECT max(pid) FROM pg_stat_activity WHERE query LIKE 'COPY%messages%'")


async def another(url, first):
    try:
        found = await backend(url)
    except asyncpg.PostgresError:
        return False
    return found is not None and found != first
