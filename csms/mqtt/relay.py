"""The relay tells the world: it publishes what the outbox holds and deletes what the broker has acknowledged.

    ledger: COMMIT → notify(events) ─┐
    outbox: SELECT of the oldest ────┴→ line-up → publish (QoS 1) → PUBACK → DELETE

Delivery is at least once, with the same bytes every time. Order: csms/mqtt/lineup.py. Who sends: each of the 64
lanes (a hash of the charger's id) belongs to the node whose database session holds the lane's advisory lock. A
node that dies loses its session, so another takes its lanes within a second or two. SELECT and DELETE run on
that same session, so a relay that has lost its lock notices with its next batch; what it sends until then
are repetitions of what the new owner sends, never something newer.

A broker that is away costs no attempts: events wait here and in the outbox. A refused event is tried again
with growing pauses while the other chargers' events pass, and parked (`dead`) after ten refusals that trying
again cannot cure. An event at which brokers hang up, instead of refusing it, is found by sending one at a time.
"""

import asyncio
import contextlib
import random
from collections.abc import Callable, Coroutine, Sequence
from datetime import UTC, datetime
from typing import Any

import structlog
from msgspec import Struct
from prometheus_client import Counter, Gauge, Histogram
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from csms.core.records import Event
from csms.db import outbox
from csms.mqtt.errors import NO_MATCHING_SUBSCRIBERS, Disconnected, Refused
from csms.mqtt.lineup import Key, Lineup, Pending
from csms.mqtt.link import Link
from csms.mqtt.messages import EventForm
from csms.mqtt.thinning import Thinning

log = structlog.get_logger()

_PUBLISHED = Counter(
    "csms_mqtt_publishes_total", "Business events offered to the broker.", ["result", "reason"]
)
_LATENCY = Histogram(
    "csms_mqtt_publish_latency_seconds",
    "From the moment an event was recorded to the broker's acknowledgement.",
    buckets=(0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 5, 30, 300, 3600),
)
_PENDING = Gauge(
    "csms_outbox_unpublished", "Events the broker has not acknowledged (counted up to a million)."
)
_OLDEST = Gauge("csms_outbox_oldest_age_seconds", "Age of the oldest of them.")
_DEAD = Gauge("csms_outbox_dead", "Events set aside because the broker keeps refusing them.")
_PARKED = Counter("csms_outbox_dead_total", "Events set aside by this node.")
_REPEATED = Counter(
    "csms_outbox_duplicates_suppressed_total",
    "Rows read again while they were under way, and not sent twice.",
)
_THINNED = Counter(
    "csms_mqtt_readings_thinned_total", "Meter readings left out by MQTT_METER_MIN_INTERVAL_S."
)
_LANES = Gauge("csms_outbox_lanes_held", "Lanes of the outbox this node relays.")

_HUNG_UP = 0x80
_SUSPECT_AFTER = 3
_LOCK_RETRY_S = 1.0
_NUDGE_EVERY_S = 0.1
_COUNT_EVERY_S = 5.0
_QUERY_TIMEOUT_S = 30


class RelayConfig(Struct, frozen=True, kw_only=True):
    """`groups`: sessions (and advisory lock holders) the 64 lanes are spread over."""

    form: EventForm = EventForm()
    groups: int = 4
    batch: int = 200
    poll_s: float = 0.2
    concurrency: int = 100
    retry_min_s: float = 0.5
    retry_max_s: float = 30
    meter_min_interval_s: float = 0
    max_lag_s: float = 30


class RelayHealth(Struct, frozen=True, kw_only=True):
    """`lagging` is worth an alarm, not a restart. Counts are those of the whole outbox, some seconds old."""

    connected: bool
    problem: str | None
    pending: int
    oldest_age_s: float
    dead: int
    lanes: int
    lagging: bool


class Relay:
    """See the module. `run()` until cancelled; `notify` belongs into the ledger's `on_commit`."""

    def __init__(
        self,
        engine: AsyncEngine,
        link: Link,
        config: RelayConfig,
        *,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._engine = engine
        self._link = link
        self._config = config
        self._clock = clock
        self._thinning = Thinning(config.meter_min_interval_s)
        self._tokens: asyncio.Queue[_Group] = asyncio.Queue()
        self._alone = asyncio.Lock()
        self._suspects: set[Key] = set()
        self._far: set[int] = set()
        self._far_known = asyncio.Event()
        self._counts = outbox.Counts(pending=0, dead=0, oldest_at=None)
        self._groups = [
            _Group(engine, link, config, range(first, outbox.LANES, config.groups), self._tokens)
            for first in range(config.groups)
        ]
        link.on_connected(self._wake)

    def notify(self, events: Sequence[Event]) -> None:
        """These events are committed, in this order. Costs no I/O; lanes of other nodes are woken soon after."""
        for event in events:
            lane = outbox.lane(event.charger_id)
            group = self._groups[lane % len(self._groups)]
            if lane in group.lanes:
                if not group.lineup.hand_over(event):
                    group.ask()
            else:
                self._far.add(lane)
                self._far_known.set()

    async def run(self) -> None:
        try:
            async with asyncio.TaskGroup() as tasks:
                for group in self._groups:
                    tasks.create_task(group.run(), name="relay lanes")
                for _ in range(self._config.concurrency):
                    tasks.create_task(self._publish_for_ever(), name="relay publisher")
                tasks.create_task(_again_and_again(self._nudge), name="relay nudge")
                tasks.create_task(_again_and_again(self._count), name="relay counts")
        finally:
            for group in self._groups:
                await group.stop()
            _LANES.set(0)

    async def drain(self, timeout_s: float = 5) -> bool:
        """Wait until all that was handed over is published and deleted. False: the time was up."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                # Asked only at shutdown: an event would have to be kept at every acknowledgement.
                while any(group.busy for group in self._groups):  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
                return True
        return False

    @property
    def lanes(self) -> set[int]:
        """The lanes this node relays at the moment."""
        return set().union(*(group.lanes for group in self._groups))

    def health(self) -> RelayHealth:
        oldest = self._counts.oldest_at
        age_s = max((self._clock() - oldest).total_seconds(), 0.0) if oldest is not None else 0.0
        return RelayHealth(
            connected=self._link.connected,
            problem=self._link.last_error,
            pending=self._counts.pending,
            oldest_age_s=age_s,
            dead=self._counts.dead,
            lanes=len(self.lanes),
            lagging=age_s > self._config.max_lag_s,
        )

    # --- publishing ------------------------------------------------------------------------------

    async def _publish_for_ever(self) -> None:
        while True:
            group = await self._tokens.get()
            await self._link.wait_connected()
            item = group.lineup.next()
            if item is not None:
                try:
                    await self._publish(group, item)
                except asyncio.CancelledError:
                    group.lineup.again(item)
                    raise

    async def _publish(self, group: "_Group", item: Pending) -> None:
        event = item.event
        if not self._thinning.wanted(event):
            _THINNED.inc()
            group.delivered(item)
            return
        careful = bool(self._suspects)
        try:
            async with self._alone if careful else contextlib.nullcontext():
                reason = await self._link.publish(self._config.form.message(event))
        except Disconnected as error:
            self._dropped(group, item, str(error), careful=careful)
        except Refused as error:
            _PUBLISHED.labels("refused", f"0x{error.code:02X}").inc()
            group.refused(item, error)
        except Exception as error:
            log.exception("event not publishable", charger=event.charger_id, event=event.event_id)
            _PUBLISHED.labels("refused", "error").inc()
            group.refused(item, Refused(_HUNG_UP, f"{type(error).__name__}: {error}"))
        else:
            _PUBLISHED.labels(
                "published", "no subscribers" if reason == NO_MATCHING_SUBSCRIBERS else ""
            ).inc()
            _LATENCY.observe(max((self._clock() - event.recorded_at).total_seconds(), 0))
            self._suspects.discard(item.key)
            group.delivered(item)

    def _dropped(self, group: "_Group", item: Pending, error: str, *, careful: bool) -> None:
        """The connection ended with this event under way; usually that is the broker's death, not the event."""
        _PUBLISHED.labels("unknown", "disconnected").inc()
        item.drops += 1
        if careful and item.drops > _SUSPECT_AFTER:
            # It was alone on its way, again.
            group.refused(item, Refused(_HUNG_UP, f"The broker hangs up when this is sent. {error}"))
            return
        if item.drops >= _SUSPECT_AFTER:
            self._suspects.add(item.key)
        group.lineup.again(item)

    # --- beside ----------------------------------------------------------------------------------

    def _wake(self) -> None:
        for group in self._groups:
            group.ask()

    async def _nudge(self) -> None:
        """Other nodes hold lanes we have written to: at most ten times a second, outside every transaction."""
        await self._far_known.wait()
        self._far_known.clear()
        lanes, self._far = self._far, set()
        async with self._engine.connect() as connection:
            await outbox.notify(await _driver(connection), lanes)
        await asyncio.sleep(_NUDGE_EVERY_S)

    async def _count(self) -> None:
        _LANES.set(len(self.lanes))
        async with self._engine.connect() as connection:
            self._counts = await outbox.counts(await _driver(connection))
        _PENDING.set(self._counts.pending)
        _DEAD.set(self._counts.dead)
        _OLDEST.set(self.health().oldest_age_s)
        await asyncio.sleep(_COUNT_EVERY_S)


class _Group:
    """Some lanes: one database session that locks, reads and deletes, and their line-up."""

    def __init__(
        self,
        engine: AsyncEngine,
        link: Link,
        config: RelayConfig,
        lanes: Sequence[int],
        tokens: "asyncio.Queue[_Group]",
    ) -> None:
        self.lanes: set[int] = set()
        self.lineup = Lineup(config.batch * 10, lambda: tokens.put_nowait(self))
        self._engine = engine
        self._link = link
        self._config = config
        self._wanted = lanes
        self._connection: AsyncConnection | None = None
        self._wake = asyncio.Event()
        self._asked = False
        self._lost = False
        self._acked: list[Key] = []
        self._refused: list[tuple[Pending, Refused]] = []
        self._missing: list[Key] = []

    # --- for the publishers ------------------------------------------------------------------------

    def ask(self) -> None:
        """There is something in the outbox that has not come here by itself."""
        self._asked = True
        self._wake.set()

    def delivered(self, item: Pending) -> None:
        self.lineup.delivered(item)
        self._acked.append(item.key)
        self._wake.set()

    def refused(self, item: Pending, error: Refused) -> None:
        self.lineup.refused(item)
        self._refused.append((item, error))
        self._wake.set()

    @property
    def busy(self) -> bool:
        return bool(self.lineup.waiting or self.lineup.in_flight or self._acked or self._refused)

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
            await asyncio.sleep(_LOCK_RETRY_S * random.uniform(0.5, 1.5))

    async def _serve(self, db: Any) -> None:
        loop = asyncio.get_running_loop()
        next_try = next_poll = 0.0
        while not self._lost:
            now = loop.time()
            if len(self.lanes) < len(self._wanted) and now >= next_try:
                next_try = now + _LOCK_RETRY_S * random.uniform(0.8, 1.2)
                await self._take(db)
            await self._settle(db, now)
            if self._may_read() and (self._asked or now >= next_poll):
                next_poll = now + self._config.poll_s * random.uniform(0.8, 1.2)
                await self._read(db)
            wait_until = min(
                next_poll if self._may_read() else now + self._config.poll_s, now + _LOCK_RETRY_S
            )
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout_at(max(wait_until, now + 0.001)):
                    await self._wake.wait()
            self._wake.clear()

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
            attempts, dead = await outbox.failed(db, *item.key, str(error), permanent=error.permanent)
            del self._refused[0]
            if dead:
                _PARKED.inc()
                log.error(
                    "event parked: the broker keeps refusing it",
                    event=item.event.event_id,
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
        self.lineup.load(Pending(row.event, row.attempts) for row in rows if row.event is not None)
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
        # Out of the pool: it is ours for long, and must end when we let it go.
        await connection.run_sync(lambda sync: sync.detach())
        db = await _driver(connection)
        db.add_termination_listener(self._terminated)
        await outbox.prepare(db)
        await db.add_listener(outbox.CHANNEL, self._nudged)
        return db

    def _terminated(self, _db: Any) -> None:
        """The session is gone and its locks with it: nothing more of these lanes until they are ours again."""
        self._lost = True
        self.lanes.clear()
        self.lineup.forget()
        self._wake.set()

    def _nudged(self, _db: Any, _pid: int, _channel: str, payload: str) -> None:
        if not self.lanes.isdisjoint(int(lane) for lane in payload.split(",") if lane.isdigit()):
            self.ask()

    async def _close(self) -> None:
        self._terminated(None)
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(Exception):
                (await _driver(connection)).terminate()
            with contextlib.suppress(Exception):
                await connection.invalidate()
            with contextlib.suppress(Exception):
                await connection.close()

    async def stop(self) -> None:
        """Note what was acknowledged, and leave the lanes to others at once."""
        if self._connection is not None:
            with contextlib.suppress(Exception):
                async with asyncio.timeout(2):
                    db = await _driver(self._connection)
                    while self._acked and not self._lost:
                        await self._settle(db, 0)
                    await outbox.give_back(db)
        await self._close()


async def _driver(connection: AsyncConnection) -> Any:
    return (await connection.get_raw_connection()).driver_connection


async def _again_and_again(step: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Repeat a step that needs the database; while that is away, every second."""
    while True:
        try:
            await step()
        except Exception as error:
            log.debug("relay", step=step.__name__, error=str(error))
            await asyncio.sleep(_LOCK_RETRY_S)
