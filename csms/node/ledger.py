"""The ledger takes reports, makes them durable and answers them. Group commit, without a timer:

    record(report) → queue → load rows → the core decides → save rows and outbox → COMMIT → answers

All reports that wait when a commit ends go into the next one: an idle node commits a report at once, a busy one
hundreds together. A report that the database refuses fails alone. While Postgres is away the batch is kept and
tried again (csms/node/batch_writer.py).
"""

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from itertools import count
from operator import is_
from typing import Any, TypeVar

import structlog
from prometheus_client import Counter, Histogram
from sqlalchemy.ext.asyncio import AsyncEngine

from csms.core import enrollment, reports
from csms.core.decide import decide
from csms.core.records import Event
from csms.core.work import Policy, Work
from csms.db import store
from csms.db.driver import DriverConnection, driver_connection
from csms.errors import LedgerError, NotAdmitted, NotBookable
from csms.node.batch_writer import BatchWriter
from csms.node.deferred_bookings import DeferredBookings

Answer = TypeVar("Answer")
WaitingReport = tuple[reports.Report[Any], "asyncio.Future[Any] | None"]
Decisions = tuple[list[Any], list[Event]]  # an answer or an exception for each report, and all their events
log = structlog.get_logger()

_REPORTS = Counter("csms_reports_total", "Reports recorded, by type and outcome.", ["report", "outcome"])
_BATCH = Histogram(
    "csms_ledger_batch_reports", "Reports in one commit.", buckets=(1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)
)
_COMMIT = Histogram("csms_ledger_commit_seconds", "Load, decide, save and commit of one batch.")
_RETRIES = Counter("csms_ledger_retries_total", "Batches tried again because Postgres was away or busy.")
_EVENTS_PER_REPORT = 8
_NEEDS_TRANSACTION_ID = (reports.Start, reports.Quarantined, enrollment.Deferred)
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
        self._waiting: asyncio.Queue[WaitingReport] = asyncio.Queue(max_waiting)
        self._writer = BatchWriter(
            "ledger",
            engine,
            self._write,
            written=self._committed,
            refused=_refuse,
            retried=_RETRIES.inc,
            timeout_s=commit_timeout_s,
        )
        # What was written last and is not known to be committed, and the times of the attempts.
        self._attempted: list[reports.Report[Any]] = []
        self._attempts: list[datetime] = []
        self._deferred = DeferredBookings(lambda: self._new_work(clock()), self._draw_ids, relay=relay)
        self._event_numbers: deque[int] = deque()
        self._transaction_ids: deque[int] = deque()
        self._committing = asyncio.Lock()
        self._ended = False

    # --- for adapters ----------------------------------------------------------------------------

    async def record(self, report: reports.Report[Answer]) -> Answer:
        """Answer a report once it is durable. Safe to repeat. A cancelled call is recorded all the same.

        Raises LedgerError when the database refuses the report's content, the exception of a decision that failed,
        and CancelledError when the ledger ends first: whether the report is durable is not known then.
        """
        answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        if self._waiting.full():
            await self._waiting.put((report, answer))
        else:
            self._waiting.put_nowait((report, answer))
        if self._ended:
            self._cancel([])
        return await answer

    def post(self, report: reports.Report[Any]) -> bool:
        """Record without waiting a fact that may be lost under pressure. False: the queue is full, it was lost."""
        try:
            self._waiting.put_nowait((report, None))
        except asyncio.QueueFull:
            return False
        return True

    async def preview(self, report: reports.Report[Answer]) -> Answer:
        """Answer a report as if it were recorded now, and record nothing. Raises what its decision raises."""
        async with self._engine.connect() as connection:
            db = await driver_connection(connection)
            transaction = db.transaction()
            await transaction.start()
            try:
                work = Work(self._clock(), self.policy, numbers=count(1), transaction_ids=count(1))
                await store.load(db, work, [report])
                return decide(work, report)
            finally:
                await transaction.rollback()

    def away_s(self) -> float:
        """For how long Postgres has been away, in seconds; 0 when it is not."""
        return self._writer.away_s()

    # --- the loop --------------------------------------------------------------------------------

    async def run(self) -> None:
        """Commit batches until cancelled; callers that wait for an answer then are cancelled as well."""
        batch: list[WaitingReport] = []
        self._ended = False
        try:
            while True:
                batch = await self._next_batch()
                async with self._committing:
                    await self._writer.store(batch)
        finally:
            self._ended = True
            self._cancel(batch)
            await self._writer.close()

    def _cancel(self, batch: list[WaitingReport]) -> None:
        while not self._waiting.empty():
            batch.append(self._waiting.get_nowait())
        for _, answer in batch:
            if answer is not None:
                answer.cancel()  # no effect on those that were answered

    async def drain(self, timeout_s: float = 10) -> None:
        """Wait until no report waits, at most `timeout_s`: Postgres may be away."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                # Polled, and only at shutdown: an event would have to be kept up to date at every commit.
                while not self._waiting.empty() or self._committing.locked():  # noqa: ASYNC110
                    await asyncio.sleep(0.01)

    async def _next_batch(self) -> list[WaitingReport]:
        batch = [await self._waiting.get()]
        while len(batch) < self._max_batch and not self._waiting.empty():
            batch.append(self._waiting.get_nowait())
        return batch

    async def _write(self, db: DriverConnection, batch: list[WaitingReport]) -> Decisions:
        """Load, decide and save a batch in one database transaction.

        The commit of an attempt that failed may have taken place all the same. Reports recognize their repetition by
        their content, but not statuses, of which the order of arrival decides: for them it is looked up.

        What waited for the acceptance of one of its chargers is booked before, in transactions of its own.
        """
        started, now = time.perf_counter(), self._clock()
        entries = [report for report, _ in batch]
        earlier = self._note_attempt(entries, now)
        try:
            while True:
                async with db.transaction():
                    await self._draw_ids(db, entries)
                    work = self._new_work(now)
                    await store.load(db, work, entries)
                    waiting = [
                        s.charger_id for s in work.states.values() if s.deferred and work.admits(s.charger_id)
                    ]
                    if not waiting:
                        if earlier:
                            work.repeated = await store.recorded_statuses(db, entries, earlier)
                        answers = [_decided(work, report) for report in entries]
                        await store.save(db, work, relay=self._relay)
                        break
                    booked = await self._deferred.book(db, waiting[0])
                self._announce(booked)
                now = self._attempts[-1] = self._clock()
        except BaseException:
            # A Postgres that crashes hands out once more what nextval gave to a transaction without a commit.
            self._event_numbers.clear()
            self._transaction_ids.clear()
            raise
        _COMMIT.observe(time.perf_counter() - started)
        return answers, work.added.get(Event, [])

    def _note_attempt(self, entries: list[reports.Report[Any]], now: datetime) -> list[datetime]:
        """Return the times of earlier attempts at these very reports."""
        again = len(entries) == len(self._attempted) and all(map(is_, entries, self._attempted))
        earlier = self._attempts if again else []
        self._attempted, self._attempts = entries, [*earlier, now]
        return earlier

    def _new_work(self, now: datetime) -> Work:
        return Work(
            now,
            self.policy,
            numbers=iter(self._event_numbers.popleft, None),
            transaction_ids=iter(self._transaction_ids.popleft, None),
        )

    async def _draw_ids(self, db: DriverConnection, entries: Sequence[reports.Report[Any]]) -> None:
        """Draw ids before the decisions, which cannot wait. After the commit the next batch uses the rest."""
        ids = sum(isinstance(report, _NEEDS_TRANSACTION_ID) for report in entries) - len(
            self._transaction_ids
        )
        if ids > 0:
            self._transaction_ids.extend(await store.next_transaction_ids(db, ids))
        numbers = sum(
            _EVENTS_PER_REPORT + (len(r.readings) if isinstance(r, _HAS_READINGS) else 0) for r in entries
        ) - len(self._event_numbers)
        if numbers > 0:
            self._event_numbers.extend(await store.next_numbers(db, numbers))

    def _committed(self, batch: list[WaitingReport], decisions: Decisions) -> None:
        _BATCH.observe(len(batch))
        self._attempted = []
        answers, events = decisions
        for (report, waiter), answer in zip(batch, answers, strict=True):
            _settle(report, waiter, answer)
        self._announce(events)

    def _announce(self, events: list[Event]) -> None:
        if events and self._on_commit is not None:
            try:
                self._on_commit(events)
            except Exception:
                log.exception("commit_listener_failed")


def _decided(work: Work, report: reports.Report[Any]) -> Any:
    """The answer, or the exception of a decision that failed (and left no trace in the work)."""
    try:
        with work.attempt():
            return decide(work, report)
    except (NotBookable, NotAdmitted) as error:
        return error
    except Exception as error:
        log.exception("decision_failed", charger=report.charger_id, report=type(report).__name__)
        return error


def _refuse(waiting: WaitingReport, error: Exception) -> None:
    report, answer = waiting
    name = type(report).__name__
    log.error("report_refused", charger=report.charger_id, report=name, error=str(error))
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
