"""The ledger takes reports, makes them durable, answers. Group commit, without a timer:

    record(report) → queue → load rows → the core decides → save rows + outbox → COMMIT → answers

Whatever waits when a commit ends goes into the next one: an idle node commits a report at once, a busy one
hundreds together. One bad report fails alone. While Postgres is away the batch is kept and tried again.
"""

import asyncio
import contextlib
import random
import time
from collections import deque
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, TypeVar

import structlog
from prometheus_client import Counter, Histogram
from sqlalchemy.ext.asyncio import AsyncEngine

from csms.core import reports
from csms.core.decide import decide
from csms.core.records import Event
from csms.core.work import Policy, Work
from csms.db import store
from csms.db.outages import connection_failed, is_away
from csms.errors import LedgerError, NotBookable

R = TypeVar("R")
Entry = tuple[reports.Report[Any], "asyncio.Future[Any] | None"]
log = structlog.get_logger()

_REPORTS = Counter("csms_reports_total", "Reports recorded, by type and outcome.", ["report", "outcome"])
_BATCH = Histogram(
    "csms_ledger_batch_reports", "Reports in one commit.", buckets=(1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)
)
_COMMIT = Histogram("csms_ledger_commit_seconds", "Load, decide, save and commit of one batch.")
_RETRIES = Counter("csms_ledger_retries_total", "Batches tried again because Postgres was away or busy.")
_EVENTS_A_REPORT = 8
_NEEDS_ID = (reports.Start, reports.Quarantined)
_HAS_READINGS = (reports.Meter, reports.Stop)


class Ledger:
    """See the module. One per node; `run()` is its only writer."""

    def __init__(
        self,
        engine: AsyncEngine,
        policy: Policy,
        *,
        relay: bool = True,
        on_commit: Callable[[list[Event]], None] | None = None,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
        max_batch: int = 500,
        max_waiting: int = 20_000,
        commit_timeout_s: float = 30,
    ) -> None:
        self.policy = policy
        self._engine = engine
        self._relay = relay
        self._on_commit = on_commit
        self._clock = clock
        self._max_batch = max_batch
        self._waiting: asyncio.Queue[Entry] = asyncio.Queue(max_waiting)
        self._commit_timeout_s = commit_timeout_s
        self._numbers: deque[int] = deque()
        self._transaction_ids: deque[int] = deque()
        self._connection: Any = None
        self._away_since: float | None = None
        self._busy = asyncio.Lock()
        self._ended = False

    # --- for edges -------------------------------------------------------------------------------

    async def record(self, report: reports.Report[R]) -> R:
        """Answer once the report is durable. Safe to repeat; cancelled while it waits, it is recorded all the same.

        Raises LedgerError when the database refuses this report's content, whatever the decision raised, and
        CancelledError when the ledger ends first: whether the report is durable is not known then.
        """
        answer: asyncio.Future[R] = asyncio.get_running_loop().create_future()
        if self._waiting.full():
            await self._waiting.put((report, answer))
        else:
            self._waiting.put_nowait((report, answer))
        if self._ended:
            self._abandon([])
        return await answer

    def post(self, report: reports.Report[Any]) -> bool:
        """Record without waiting, for facts that may be lost under pressure. False: it was."""
        try:
            self._waiting.put_nowait((report, None))
        except asyncio.QueueFull:
            return False
        return True

    def away_s(self) -> float:
        """For how long Postgres has not been answering; 0 when it is."""
        return 0.0 if self._away_since is None else time.monotonic() - self._away_since

    # --- the loop --------------------------------------------------------------------------------

    async def run(self) -> None:
        """Commit batches until cancelled; whoever waits for an answer then is cancelled as well."""
        batch: list[Entry] = []
        self._ended = False
        try:
            while True:
                batch = await self._next_batch()
                async with self._busy:
                    await self._commit(batch)
        finally:
            self._ended = True
            self._abandon(batch)
            await self._hang_up()

    def _abandon(self, batch: list[Entry]) -> None:
        while not self._waiting.empty():
            batch.append(self._waiting.get_nowait())
        for _, answer in batch:
            if answer is not None:
                answer.cancel()  # no effect on those that were answered

    async def drain(self, timeout_s: float = 10) -> None:
        """Wait until nothing waits any more, or the time is up (Postgres may be away)."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                # Asked only at shutdown: an event would have to be kept at every commit.
                while not self._waiting.empty() or self._busy.locked():  # noqa: ASYNC110
                    await asyncio.sleep(0.01)

    async def _next_batch(self) -> list[Entry]:
        batch = [await self._waiting.get()]
        while len(batch) < self._max_batch and not self._waiting.empty():
            batch.append(self._waiting.get_nowait())
        return batch

    async def _commit(self, batch: list[Entry], *, again: bool = False) -> None:
        """Make a batch durable, however long it takes; split it when something in it is refused."""
        delay_s = 0.1
        while True:
            started = time.perf_counter()
            try:
                results, events = await self._try(batch)
                break
            except Exception as error:
                await self._hang_up()
                if is_away(error):
                    if self._away_since is None:
                        self._away_since = time.monotonic()
                        # What ended the transaction says more than its end.
                        first = error if isinstance(error, ConnectionError) else error.__context__ or error
                        log.warning(
                            "postgres away", error=str(first) or type(first).__name__, waiting=len(batch)
                        )
                    _RETRIES.inc()
                    await asyncio.sleep(delay_s * random.uniform(0.5, 1.5))
                    delay_s = min(delay_s * 2, 5)
                    continue
                await self._isolate(batch, error, again=again)
                return
        if self._away_since is not None:
            log.info("postgres is back", away_s=round(self.away_s(), 1))
            self._away_since = None
        _COMMIT.observe(time.perf_counter() - started)
        _BATCH.observe(len(batch))
        for (report, answer), result in zip(batch, results, strict=True):
            _settle(report, answer, result)
        if events and self._on_commit is not None:
            try:
                self._on_commit(events)
            except Exception:
                log.exception("nobody was told of a commit")

    async def _isolate(self, batch: list[Entry], error: Exception, *, again: bool) -> None:
        """The database refused something in here: halve until it stands alone, and refuse only that."""
        if len(batch) > 1:
            half = len(batch) // 2
            await self._commit(batch[:half])
            await self._commit(batch[half:])
        elif not again:
            # Alone it may be taken: another node, or an operator, had a hand on the same rows.
            await self._commit(batch, again=True)
        else:
            _refuse(*batch[0], error)

    async def _try(self, batch: Sequence[Entry]) -> tuple[list[Any], list[Event]]:
        db = await self._connected()
        # A server that has gone silent is hung up on: waiting for it to confirm a cancel would take as long.
        watchdog = asyncio.get_running_loop().call_later(self._commit_timeout_s, db.terminate)
        try:
            async with db.transaction():
                entries = [report for report, _ in batch]
                await self._provide_ids(db, entries)
                work = Work(
                    self._clock(),
                    self.policy,
                    numbers=iter(self._numbers.popleft, None),
                    transaction_ids=iter(self._transaction_ids.popleft, None),
                )
                await store.load(db, work, entries)
                results = [_decided(work, report) for report in entries]
                await store.save(db, work, relay=self._relay)
            return results, work.added.get(Event, [])
        except BaseException:
            # What nextval gave to a transaction that did not commit, a Postgres that crashes gives once more.
            self._numbers.clear()
            self._transaction_ids.clear()
            raise
        finally:
            watchdog.cancel()

    async def _provide_ids(self, db: Any, entries: Sequence[reports.Report[Any]]) -> None:
        """Ids are drawn before the decisions, which cannot wait; unused ones, once committed, serve the next batch."""
        starts = sum(isinstance(report, _NEEDS_ID) for report in entries)
        if starts > len(self._transaction_ids):
            self._transaction_ids.extend(
                await store.next_transaction_ids(db, starts - len(self._transaction_ids))
            )
        wanted = sum(
            _EVENTS_A_REPORT + (len(r.readings) if isinstance(r, _HAS_READINGS) else 0) for r in entries
        )
        if wanted > len(self._numbers):
            self._numbers.extend(await store.next_numbers(db, wanted - len(self._numbers)))

    async def _connected(self) -> Any:
        """The writer's own asyncpg connection, borrowed from SQLAlchemy's pool for as long as it lives.

        Raises ConnectionError, whatever stood in the way: not to be let in is no report's fault.
        """
        try:
            if self._connection is None:
                async with asyncio.timeout(self._commit_timeout_s):
                    self._connection = await self._engine.connect()
            raw = await self._connection.get_raw_connection()
        except Exception as error:
            raise connection_failed(error) from error
        return raw.driver_connection

    async def _hang_up(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(Exception):
                await connection.invalidate()
            with contextlib.suppress(Exception):
                await connection.close()


def _decided(work: Work, report: reports.Report[Any]) -> Any:
    """The answer, or the exception of a decision that failed (and left no trace in the work)."""
    try:
        with work.attempt():
            return decide(work, report)
    except NotBookable as error:
        return error
    except Exception as error:
        log.exception("decision failed", charger=report.charger_id, report=type(report).__name__)
        return error


def _refuse(report: reports.Report[Any], answer: "asyncio.Future[Any] | None", error: Exception) -> None:
    name = type(report).__name__
    log.error("report refused", charger=report.charger_id, report=name, error=str(error))
    failure = LedgerError(f"{name} of {report.charger_id} could not be stored: {error}")
    failure.__cause__ = error
    _settle(report, answer, failure)


@lru_cache(maxsize=100)
def _counter(kind: type[Any], failed: bool) -> Counter:
    return _REPORTS.labels(kind.__name__, "failed" if failed else "recorded")


def _settle(report: reports.Report[Any], answer: "asyncio.Future[Any] | None", result: Any) -> None:
    failed = isinstance(result, Exception)
    _counter(type(report), failed).inc()
    if answer is None or answer.done():
        return
    if failed:
        answer.set_exception(result)
    else:
        answer.set_result(result)
