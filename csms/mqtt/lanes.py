"""A share of the lanes: one database session that locks, reads and deletes, and the line-up between them."""

import asyncio
import contextlib
import random
from collections.abc import Callable, Sequence
from typing import Any

import structlog
from prometheus_client import Counter
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from csms.db import outbox
from csms.db.driver import driver_connection
from csms.mqtt.charger_queue import ChargerQueue, Key, PendingEvent
from csms.mqtt.client.errors import PublishRefused
from csms.mqtt.client.supervised import PublishingLink
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


class Lanes:
    """Some lanes: one database session that locks, reads and deletes, and their line-up."""

    def __init__(
        self,
        engine: AsyncEngine,
        link: PublishingLink,
        config: RelayConfig,
        lanes: Sequence[int],
        ready: "Callable[[Lanes], None]",
    ) -> None:
        self.lanes: set[int] = set()
        self.suspects: set[Key] = set()  # events under way when the connection ended, several times
        self.lineup = ChargerQueue(config.batch * 10, lambda: ready(self))
        self._engine = engine
        self._link = link
        self._config = config
        self._wanted = lanes
        self._connection: AsyncConnection | None = None
        self._db: Any = None
        self._wake = asyncio.Event()
        self._asked = False
        self._lost = False
        self._acked: list[Key] = []
        self._refused: list[tuple[PendingEvent, PublishRefused]] = []

    # --- for the publishers ------------------------------------------------------------------------

    def ask(self) -> None:
        """There is something in the outbox that has not come here by itself."""
        self._asked = True
        self._wake.set()

    def delivered(self, item: PendingEvent) -> None:
        self.lineup.delivered(item)
        self._acked.append(item.key)
        self._wake.set()

    def refused(self, item: PendingEvent, error: PublishRefused) -> None:
        self.lineup.refused(item)
        self._refused.append((item, error))
        self._wake.set()

    @property
    def busy(self) -> bool:
        unread = self._asked and self._may_read()
        return bool(self.lineup.waiting or self.lineup.in_flight or self._acked or self._refused or unread)

    # --- the loop ----------------------------------------------------------------------------------

    async def run(self) -> None:
        """Hold as many of the lanes as can be had, for ever."""
        complained = False
        while True:
            try:
                db = await self._open()
                complained = False
                await self._serve(db)
            except Exception as error:
                if not complained:
                    log.warning("relay has no database", error=str(error) or type(error).__name__)
                complained = True
            await self._close()
            await asyncio.sleep(LOCK_RETRY_S * random.uniform(0.5, 1.5))

    async def _serve(self, db: Any) -> None:
        loop = asyncio.get_running_loop()
        next_try = next_poll = 0.0
        while not self._lost:
            now = loop.time()
            async with asyncio.timeout(_QUERY_TIMEOUT_S):
                if len(self.lanes) < len(self._wanted) and now >= next_try:
                    next_try = now + LOCK_RETRY_S * random.uniform(0.8, 1.2)
                    await self._take(db)
                await self._settle(db, now)
                if self._may_read() and (self._asked or now >= next_poll):
                    next_poll = now + self._config.poll_s * random.uniform(0.8, 1.2)
                    await self._read(db)
            wait_until = min(next_poll if self._may_read() else now + self._config.poll_s, now + LOCK_RETRY_S)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout_at(max(wait_until, now + 0.001)):
                    await self._wake.wait()
            self._wake.clear()
            if self._acked and not (self._asked or self._refused or self._lost):
                # A deletion is in no hurry, and costs the same for one event as for many.
                await asyncio.sleep(_GATHER_S)

    def _may_read(self) -> bool:
        return bool(self.lanes) and self._link.connected and self.lineup.waiting < self._config.batch

    async def _take(self, db: Any) -> None:
        free = await outbox.take_lanes(db, [lane for lane in self._wanted if lane not in self.lanes])
        if free:
            self.lanes.update(free)
            self._asked = True
            log.info("relay took lanes", lanes=len(free), held=len(self.lanes))

    async def _settle(self, db: Any, now: float) -> None:
        """Write down what became of the events under way."""
        if self._acked:
            acked = self._acked[:1000]
            await outbox.delete(db, acked)
            del self._acked[: len(acked)]
            self.lineup.deleted(acked)
        while self._refused:
            item, error = self._refused[0]
            attempts, dead = await outbox.count_refusal(db, *item.key, str(error), permanent=error.permanent)
            del self._refused[0]
            if dead:
                self.suspects.discard(item.key)
                _PARKED.inc()
                log.error(
                    "event parked: the broker keeps refusing it",
                    event_id=item.event.event_id,
                    topic=item.event.topic,
                    error=str(error),
                )
            delay_s = (
                0.0
                if dead
                else min(self._config.retry_min_s * 2 ** min(attempts, 20) / 2, self._config.retry_max_s)
            )
            self.lineup.hold(item.key[0], now + delay_s * random.uniform(0.8, 1.2))
        if self.lineup.held and self.lineup.release(now):
            self._asked = True

    async def _read(self, db: Any) -> None:
        self._asked = False
        limit = self._config.batch + len(self.lineup.known)
        before = self.lineup.repeated
        rows = await outbox.pending(db, sorted(self.lanes), limit, list(self.lineup.held))
        if self._lost:
            return
        gone = [(row.charger_id, row.seq) for row in rows if row.event is None]
        self.lineup.load(PendingEvent(row.event, row.attempts) for row in rows if row.event is not None)
        if self.lineup.repeated > before:
            _REPEATED.inc(self.lineup.repeated - before)
        if gone:
            log.error("events parked: they are no longer stored", count=len(gone))
            await outbox.park(db, gone, "The event is no longer stored.")
        if len(rows) >= limit:
            self._asked = True

    # --- the session -------------------------------------------------------------------------------

    async def _open(self) -> Any:
        self._lost = False
        connection = await self._engine.connect()
        self._connection = connection
        db = self._db = await driver_connection(connection)
        # Out of the pool: it is ours for long, and must end when we let it go.
        await connection.run_sync(lambda sync: sync.detach())
        db.add_termination_listener(self._terminated)
        await outbox.prepare_session(db)
        await db.add_listener(outbox.CHANNEL, self._nudged)
        return db

    def _terminated(self, _db: Any) -> None:
        """The session is gone and its locks with it: nothing more of these lanes until they are ours again."""
        self._lost = True
        self.lanes.clear()
        self.suspects.clear()
        self.lineup.forget()
        self._wake.set()

    def _nudged(self, _db: Any, _pid: int, _channel: str, payload: str) -> None:
        if not self.lanes.isdisjoint(int(lane) for lane in payload.split(",") if lane.isdigit()):
            self.ask()

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
        """Note what was acknowledged, and leave the lanes to others at once."""
        if (db := self._db) is not None:
            with contextlib.suppress(Exception):
                async with asyncio.timeout(2):
                    while self._acked and not self._lost:
                        await self._settle(db, 0)
                    await outbox.release_lanes(db)
        await self._close()
