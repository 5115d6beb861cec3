"""What the ledger and the frame log have in common: outages are waited for, what is refused is isolated."""

import asyncio
import contextlib

import asyncpg
import pytest

from csms.db.engine import create_engine
from csms.node.batch_writer import BatchWriter
from tests.harness.postgres_proxy import through_a_proxy
from tests.harness.waiting import until


class Recorder:
    """A writer into a list instead of a table. `fails` gives the error of a batch, or None."""

    def __init__(self, url, fails, **given):
        self.engine = create_engine(url)
        self.fails = fails
        self.attempts, self.written, self.refused, self.retries = [], [], [], 0
        self.writer = BatchWriter(
            "test",
            self.engine,
            self.write,
            written=lambda batch, result: self.written.append((batch, result)),
            refused=lambda item, error: self.refused.append((item, error)),
            retried=self.retried,
            **given,
        )

    def retried(self):
        self.retries += 1

    async def write(self, db, batch):
        self.attempts.append(batch)
        if error := self.fails(batch):
            raise error
        return await db.fetchval("SELECT pg_backend_pid()")


@pytest.fixture
async def recorder(database_url):
    async with contextlib.AsyncExitStack() as stack:

        def make(fails=lambda _batch: None, url=database_url, **given):
            made = Recorder(url, fails, **given)
            stack.push_async_callback(made.engine.dispose)
            stack.push_async_callback(made.writer.close)
            return made

        yield make


async def test_one_connection_serves_all_batches(recorder):
    made = recorder()
    for n in range(3):
        await made.writer.store([n])
    assert [batch for batch, _ in made.written] == [[0], [1], [2]]
    assert len({pid for _, pid in made.written}) == 1


async def test_an_item_that_is_refused_is_the_only_one(recorder):
    made = recorder(lambda batch: ValueError("no") if 5 in batch else None)
    await made.writer.store(list(range(8)))
    assert [item for batch, _ in made.written for item in batch] == [0, 1, 2, 3, 4, 6, 7]
    assert [item for item, _ in made.refused] == [5]
    assert made.attempts.count([5]) == 2
    assert len(made.attempts) == 8
    assert made.writer.away_s() == 0


async def test_a_single_item_may_succeed_the_second_time(recorder):
    errors = [asyncpg.UniqueViolationError("a row came in between")]
    made = recorder(lambda _batch: errors.pop() if errors else None)
    await made.writer.store(["x"])
    assert [batch for batch, _ in made.written] == [["x"]]
    assert made.refused == []


async def test_an_outage_is_waited_for_and_the_batch_stays_whole(recorder):
    errors = [asyncpg.ReadOnlySQLTransactionError("a standby"), asyncpg.DeadlockDetectedError("deadlock")]
    away_s: list[float] = []

    def fail(_batch):
        away_s.append(made.writer.away_s())
        return errors.pop() if errors else None

    made = recorder(fail)
    await made.writer.store([1, 2])
    assert made.attempts == [[1, 2]] * 3
    assert made.retries == 2
    assert away_s[0] == 0 < away_s[1] < away_s[2]
    assert made.writer.away_s() == 0


async def test_a_silent_server_is_disconnected(recorder, database_url):
    async with through_a_proxy(database_url) as (proxy, through):
        made = recorder(url=through, timeout_s=0.2)
        await made.writer.store([1])
        proxy.silent.set()
        storing = asyncio.create_task(made.writer.store([2]))
        await until(lambda: made.retries > 0)
        assert not storing.done()
        proxy.silent.clear()
        await storing
        assert [batch for batch, _ in made.written] == [[1], [2]]
