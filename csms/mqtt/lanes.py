"""One database session of the relay: locks its share of the lanes, reads their events, deletes what was published."""

import asyncio
import contextlib
import random
from collections.abc import Callable, Sequence
from typing import Any

import structlog
from prometheus_client import Counter
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from csms.aio import FailureLog
from csms.db import outbox
from csms.db.driver import driver_connection
from csms.mqtt.charger_queue import ChargerQueue, EventKey, PendingEvent
from csms.mqtt.client.errors import PublishRefused
from csms.mqtt.client.publishing_link import PublishingLink
from csms.mqtt.config import RelayConfig

log = structlog.get_logger()

_PARKED = Counter("csms_outbox_dead_total", "Events set aside by this node.")
_REPEATED = Counter(
    "csms_outbox_duplicates_suppressed_total",
    "Rows read again while they were under way, and not sent twice.",
)
LOCK_RETRY_S = 1.0
_QUERY_TIMEOUT_S = 30
_GATHER_S = 0.05
_STOP_S = 2


class LaneWorker:
    """`lanes` are those it holds of `share`; `queue` has their events. `ready` is called when an event may go."""

    def __init__(
        self,
        engine: AsyncEngine,
        link: PublishingLink,
        config: RelayConfig,
        share: Sequence[int],
        ready: "Callable[[LaneWorker], None]",
    ) -> None:
        self.lanes: set[int] = set()
        # Events that were in flight several times when the connection ended.
        self.suspects: set[EventKey] = set()
        self.queue = ChargerQueue(config.batch * 10, lambda: ready(self))
        self._engine = engine
        self._link = link
        self._config = config
        self._share = share
        self._connection: AsyncConnection | None = None
        self._db: Any = None
        self._wake = asyncio.Event()
        self._read_due = False
        self._lost = False
        self._acknowledged: list[EventKey] = []
        self._refused: list[tuple[PendingEvent, PublishRefused]] = []

    # --- called by the relay -----------------------------------------------------------------------

    def request_read(self) -> None:
        """Read the outbox soon: it holds events that were not handed over."""
        self._read_due = True
        self._wake.set()

    def delivered(self, item: PendingEvent) -> None:
        self.queue.delivered(item)
        self._acknowledged.append(item.key)
        self._wake.set()

    def refused(self, item: PendingEvent, error: PublishRefused) -> None:
        self.queue.refused(item)
        self._refused.append((item, error))
        self._wake.set()

    @property
    def busy(self) -> bool:
        """Whether an event is yet to be read, published or deleted."""
        unread = self._read_due and self._may_read()
        return bool(
            self.queue.waiting or self.queue.in_flight or self._acknowledged or self._refused or unread
        )

    # --- the loop ----------------------------------------------------------------------------------

    async def run(self) -> None:
        """Hold as many lanes of the share as are free, until cancelled."""
        failures = FailureLog("relay_session_failed")
        while True:
            with failures:
                db = await self._open()
                failures.succeeded()
                await self._serve(db)
            await self._close()
            await asyncio.sleep(LOCK_RETRY_S * random.uniform(0.5, 1.5))

    async def _serve(self, db: Any) -> None:
        loop = asyncio.get_running_loop()
        next_lock = next_poll = 0.0
        while not self._lost:
            now = loop.time()
            async with asyncio.timeout(_QUERY_TIMEOUT_S):
                if len(self.lanes) < len(self._share) and now >= next_lock:
                    next_lock = now + LOCK_RETRY_S * random.uniform(0.8, 1.2)
                    await self._take(db)
                await self._record_outcomes(db, now)
                if self._may_read() and (self._read_due or now >= next_poll):
                    next_poll = now + self._config.poll_s * random.uniform(0.8, 1.2)
                    await self._read(db)
            wait_until = min(next_poll if self._may_read() else now + self._config.poll_s, now + LOCK_RETRY_S)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout_at(max(wait_until, now + 0.001)):
                    await self._wake.wait()
            self._wake.clear()
            if self._acknowledged and not (self._read_due or self._refused or self._lost):
                # Deleting is not urgent, and costs the same for one event as for many.
                await asyncio.sleep(_GATHER_S)

    def _may_read(self) -> bool:
        return bool(self.lanes) and self._link.connected and self.queue.waiting < self._config.batch

    async def _take(self, db: Any) -> None:
        free = await outbox.take_lanes(db, [lane for lane in self._share if lane not in self.lanes])
        if free:
            self.lanes.update(free)
            self._read_due = True
            log.info("lanes_taken", lanes=len(free), held=len(self.lanes))

    async def _record_outcomes(self, db: Any, now: float) -> None:
        """Delete the acknowledged events; count the refusals of the others, and park those refused too often."""
        if self._acknowledged:
            keys = self._acknowledged[:1000]
            await outbox.delete(db, keys)
            del self._acknowledged[: len(keys)]
            self.queue.deleted(keys)
        while self._refused:
            item, error = self._refused[0]
            attempts, parked = await outbox.count_refusal(
                db, *item.key, str(error), permanent=error.permanent
            )
            del self._refused[0]
            delay_s = 0.0
            if parked:
                self.suspects.discard(item.key)
                _PARKED.inc()
                event = item.event
                log.error("event_parked", event_id=event.event_id, topic=event.topic, error=str(error))
            else:
                growing_s = self._config.retry_min_s * 2 ** min(attempts, 20) / 2
                delay_s = min(growing_s, self._config.retry_max_s) * random.uniform(0.8, 1.2)
            self.queue.pause(item.key[0], now + delay_s)
        if self.queue.paused and self.queue.resume(now):
            self._read_due = True

    async def _read(self, db: Any) -> None:
        self._read_due = False
        limit = self._config.batch + len(self.queue.known)
        repeated = self.queue.repeated
        rows = await outbox.pending(db, sorted(self.lanes), limit, list(self.queue.paused))
        if self._lost:
            return
        missing = [(row.charger_id, row.seq) for row in rows if row.event is None]
        self.queue.load(PendingEvent(row.event, row.attempts) for row in rows if row.event is not None)
        _REPEATED.inc(self.queue.repeated - repeated)
        if missing:
            log.error("events_without_body_parked", count=len(missing))
            await outbox.park(db, missing, "The event is no longer stored.")
        if len(rows) >= limit:
            self._read_due = True

    # --- the session -------------------------------------------------------------------------------

    async def _open(self) -> Any:
        self._lost = False
        connection = await self._engine.connect()
        self._connection = connection
        db = self._db = await driver_connection(connection)
        # Out of the pool: the session is held for long, and its locks have to end with it.
        await connection.run_sync(lambda sync: sync.detach())
        db.add_termination_listener(self._terminated)
        await outbox.prepare_session(db)
        await db.add_listener(outbox.CHANNEL, self._notified)
        return db

    def _terminated(self, _db: Any) -> None:
        """The session has ended and its locks with it: publish nothing of these lanes until they are taken again."""
        self._lost = True
        self.lanes.clear()
        self.suspects.clear()
        self.queue.forget()
        self._wake.set()

    def _notified(self, _db: Any, _pid: int, _channel: str, payload: str) -> None:
        if not self.lanes.isdisjoint(int(lane) for lane in payload.split(",") if lane.isdigit()):
            self.request_read()

    async def _close(self) -> None:
        self._terminated(None)
        connection, self._connection = self._connection, None
        db, self._db = self._db, None
        if db is not None:
            db.terminate()
        if connection is not None:
            with contextlib.suppress(Exception):
                await connection.close()

    async def stop(self) -> None:
        """Delete what was acknowledged, and release the lanes for other nodes at once."""
        if (db := self._db) is not None:
            with contextlib.suppress(Exception):
                async with asyncio.timeout(_STOP_S):
                    while self._acknowledged and not self._lost:
                        await self._record_outcomes(db, 0)
                    await outbox.release_lanes(db)
        await self._close()
