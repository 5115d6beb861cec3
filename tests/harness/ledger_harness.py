"""What the tests of the database have in common: a ledger that runs, direct queries, batches decided by hand."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import asyncpg

from csms.core import reports
from csms.core.decide import decide
from csms.core.records import Frame
from csms.core.work import Policy, Work
from csms.db import store
from csms.db.driver import DriverConnection
from csms.db.engine import create_engine
from csms.node.frame_log import FrameLog
from csms.node.ledger import Ledger
from tests.harness.fake_store import CP, NOW

OPEN = Policy(enrollment="open", unknown_tags="accept")


@contextlib.asynccontextmanager
async def connected(url: str) -> AsyncIterator[Any]:
    """A plain asyncpg connection, for questions and for getting in the way."""
    db = await asyncpg.connect(url)
    try:
        yield db
    finally:
        await db.close()


class Counting(Ledger):
    """Notes how many reports were in each commit that was tried."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.sizes: list[int] = []

    async def _write(self, db: Any, batch: Any) -> Any:
        self.sizes.append(len(batch))
        return await super()._write(db, batch)


@contextlib.asynccontextmanager
async def running(
    url: str, *, kind: type[Ledger] = Ledger, policy: Policy = OPEN, **given: Any
) -> AsyncIterator[Any]:
    """A ledger that commits until the end of the block."""
    engine = create_engine(url)
    ledger = kind(engine, policy, **given)
    task = asyncio.create_task(ledger.run())
    try:
        yield ledger
        assert not task.done(), task
    finally:
        task.cancel()
        await asyncio.wait([task])
        await engine.dispose()


def frame(**given: Any) -> Frame:
    defaults: dict[str, Any] = {
        "charger_id": CP,
        "at": datetime.now(UTC),
        "outgoing": False,
        "kind": "call",
        "action": "Heartbeat",
        "message_id": "1",
        "frame": b'[2,"1","Heartbeat",{}]',
    }
    return Frame(**(defaults | given))


@contextlib.asynccontextmanager
async def logging_frames(
    url: str, *, engine: Any = lambda engine: engine, **given: Any
) -> AsyncIterator[FrameLog]:
    """A log of frames that writes until the end of the block. `engine` may wrap its engine."""
    engine = engine(create_engine(url))
    frames = FrameLog(engine, **({"gather_s": 0.02} | given))
    task = asyncio.create_task(frames.run())
    try:
        yield frames
        assert not task.done(), task
    finally:
        task.cancel()
        await asyncio.wait([task])
        await engine.dispose()


async def count(url: str, table: str, where: str = "true") -> int:
    async with connected(url) as db:
        return int(await db.fetchval(f"SELECT count(*) FROM {table} WHERE {where}"))


async def seqs_are_gapless(url: str) -> bool:
    async with connected(url) as db:
        rows = await db.fetch("SELECT charger_id, array_agg(seq ORDER BY seq) AS seqs FROM events GROUP BY 1")
    return all(list(row["seqs"]) == list(range(1, len(row["seqs"]) + 1)) for row in rows)


async def loaded(db: DriverConnection, *batch: reports.Report[Any]) -> Work:
    """The work of a batch before its decisions."""
    work = Work(NOW, OPEN, numbers=iter(()), transaction_ids=iter(()))
    async with db.transaction():
        await store.load(db, work, batch)
    return work


class PostgresStore:
    """As tests.harness.fake_store.FakeStore, with Postgres behind it."""

    def __init__(self, db: Any, policy: Policy = OPEN) -> None:
        self.db = db
        self.policy = policy
        self.now: Any = None
        self._numbers: list[int] = []
        self._transaction_ids: list[int] = []

    async def batch(self, *batch: reports.Report[Any]) -> list[Any]:
        async with self.db.transaction():
            if len(self._numbers) < 1000:
                self._numbers += await store.next_numbers(self.db, 1000)
            self._transaction_ids += await store.next_transaction_ids(self.db, len(batch))
            work = Work(
                self.now,
                self.policy,
                numbers=iter(lambda: self._numbers.pop(0), None),
                transaction_ids=iter(lambda: self._transaction_ids.pop(0), None),
            )
            await store.load(self.db, work, batch)
            answers = [decide(work, report) for report in batch]
            await store.save(self.db, work, relay=True)
        return answers
