"""The relay publishes the events of the outbox and deletes those that the broker has acknowledged.

    ledger: COMMIT → notify(events) ─┐
    outbox: SELECT of the oldest ────┴→ charger queue → publish (QoS 1) → PUBACK → DELETE

Delivery is at least once, with the same bytes each time. The order is that of csms/mqtt/charger_queue.py. Each of the 64
lanes (a hash of the charger's id) belongs to the node whose database session holds the lane's advisory lock. A node that
dies loses its session, so another one takes its lanes within a second or two. SELECT and DELETE run on that same session,
so a relay that has lost a lock notices it with its next batch. What it publishes until then repeats what the new owner
publishes; it is never a newer event.

While the broker is unreachable no attempts are counted: events wait here and in the outbox. A refused event is tried again
after growing pauses while events of other chargers pass, and is parked after ten refusals that a retry cannot change. An
event that makes the broker close the connection, instead of refusing it, is found by publishing one event at a time.
"""

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Any

import structlog
from msgspec import Struct
from prometheus_client import Counter, Gauge, Histogram
from sqlalchemy.ext.asyncio import AsyncEngine

from csms.aio import FailureLog
from csms.core.records import Event
from csms.db import outbox
from csms.db.driver import driver_connection
from csms.mqtt.charger_queue import PendingEvent
from csms.mqtt.client.errors import NO_MATCHING_SUBSCRIBERS, BrokerDisconnected, PublishRefused
from csms.mqtt.client.publisher import PublishOutcome
from csms.mqtt.client.publishing_link import PublishingLink
from csms.mqtt.config import RelayConfig
from csms.mqtt.lanes import LOCK_RETRY_S, LaneWorker
from csms.mqtt.thinning import ReadingThinning

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
_PARKED = Gauge("csms_outbox_parked", "Events set aside because the broker keeps refusing them.")
_THINNED = Counter(
    "csms_mqtt_readings_thinned_total", "Meter readings left out by MQTT_METER_MIN_INTERVAL_S."
)
_DELIVERED = {
    0: _PUBLISHED.labels("published", ""),
    NO_MATCHING_SUBSCRIBERS: _PUBLISHED.labels("published", "no subscribers"),
}
_LANES = Gauge("csms_outbox_lanes_held", "Lanes of the outbox this node relays.")

_UNSPECIFIED_ERROR = 0x80
_SUSPECT_AFTER = 3
_NOTIFY_EVERY_S = 0.1


class RelayHealth(Struct, frozen=True, kw_only=True):
    """`lagging` calls for an alarm, not for a restart. Counts are those of the whole outbox, some seconds old."""

    connected: bool
    problem: str | None
    pending: int
    oldest_age_s: float
    parked: int
    lanes: int
    lagging: bool


class Relay:
    """See the module. `run()` until cancelled; the ledger calls `notify` after each commit."""

    def __init__(self, engine: AsyncEngine, link: PublishingLink, config: RelayConfig) -> None:
        self._engine = engine
        self._link = link
        self._config = config
        self._thinning = ReadingThinning(config.meter_min_interval_s)
        self._loop = asyncio.get_running_loop()
        self._ready: deque[LaneWorker] = deque()  # one entry for each charger that has an event ready
        self._in_flight = 0
        self._pump_scheduled = False
        self._foreign_lanes: set[int] = set()
        self._foreign_written = asyncio.Event()
        self._counts = outbox.OutboxCounts(pending=0, dead=0, oldest_at=None)
        self._workers = [
            LaneWorker(engine, link, config, range(first, outbox.LANES, config.sessions), self._has_ready)
            for first in range(config.sessions)
        ]
        link.on_connected(self._wake)

    def notify(self, events: Sequence[Event]) -> None:
        """Take events that were committed, in this order. No I/O; lanes of other nodes are notified soon after."""
        for event in events:
            lane = outbox.lane(event.charger_id)
            worker = self._workers[lane % len(self._workers)]
            if lane in worker.lanes:
                if not worker.queue.hand_over(event):
                    worker.request_read()
            else:
                self._foreign_lanes.add(lane)
                self._foreign_written.set()

    async def run(self) -> None:
        try:
            async with asyncio.TaskGroup() as tasks:
                for worker in self._workers:
                    tasks.create_task(worker.run(), name="relay lanes")
                tasks.create_task(self._repeat(self._notify_others), name="relay notifications")
                tasks.create_task(self._repeat(self._count), name="relay counts")
        finally:
            for worker in self._workers:
                await worker.stop()
            _LANES.set(0)

    async def drain(self, timeout_s: float = 5) -> bool:
        """Wait until all events that were handed over are published and deleted.

        False: the time was up, or the broker is not connected.
        """
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                # Polled, since only shutdown asks: an event would have to be kept up to date at every acknowledgement.
                while any(worker.busy for worker in self._workers):
                    if not self._link.connected:
                        return False
                    await asyncio.sleep(0.01)
                return True
        return False

    @property
    def lanes(self) -> set[int]:
        """The lanes this node holds now."""
        return set().union(*(worker.lanes for worker in self._workers))

    def health(self) -> RelayHealth:
        oldest = self._counts.oldest_at
        age_s = max((datetime.now(UTC) - oldest).total_seconds(), 0.0) if oldest is not None else 0.0
        return RelayHealth(
            connected=self._link.connected,
            problem=self._link.last_error,
            pending=self._counts.pending,
            oldest_age_s=age_s,
            parked=self._counts.dead,
            lanes=len(self.lanes),
            lagging=age_s > self._config.max_lag_s,
        )

    # --- publishing ------------------------------------------------------------------------------

    def _has_ready(self, worker: LaneWorker) -> None:
        self._ready.append(worker)
        self._schedule_pump()

    def _schedule_pump(self) -> None:
        """Publish at the end of this turn of the loop, for all that becomes ready in it."""
        if not self._pump_scheduled:
            self._pump_scheduled = True
            self._loop.call_soon(self._pump)

    def _pump(self) -> None:
        """Publish what may go, at most `concurrency` events at a time."""
        self._pump_scheduled = False
        ready, limit = self._ready, self._config.concurrency
        while ready and self._in_flight < limit and self._link.connected:
            alone = any(worker.suspects for worker in self._workers)
            if alone and self._in_flight:
                return
            worker = ready.popleft()
            item = worker.queue.next()
            if item is not None:
                self._publish(worker, item, alone=alone)

    def _publish(self, worker: LaneWorker, item: PendingEvent, *, alone: bool) -> None:
        event = item.event
        if not self._thinning.passes(event):
            _THINNED.inc()
            worker.delivered(item)
            return
        self._in_flight += 1
        try:
            message = self._config.form.encode(event)
        except Exception as error:
            log.exception("event_not_encodable", charger=event.charger_id, event_id=event.event_id)
            refused = PublishRefused(_UNSPECIFIED_ERROR, f"{type(error).__name__}: {error}")
            self._answered(worker, item, alone, refused)
        else:
            self._link.begin(message, partial(self._answered, worker, item, alone))

    def _answered(self, worker: LaneWorker, item: PendingEvent, alone: bool, outcome: PublishOutcome) -> None:
        self._in_flight -= 1
        if isinstance(outcome, int):
            (_DELIVERED.get(outcome) or _PUBLISHED.labels("published", f"0x{outcome:02X}")).inc()
            _LATENCY.observe(max((datetime.now(UTC) - item.event.recorded_at).total_seconds(), 0))
            if worker.suspects:
                worker.suspects.discard(item.key)
            worker.delivered(item)
        elif isinstance(outcome, PublishRefused):
            _PUBLISHED.labels("refused", f"0x{outcome.code:02X}").inc()
            worker.refused(item, outcome)
        else:
            self._dropped(worker, item, outcome, alone=alone)
        if self._ready:
            self._schedule_pump()

    def _dropped(
        self, worker: LaneWorker, item: PendingEvent, error: BrokerDisconnected, *, alone: bool
    ) -> None:
        """The connection ended with this event in flight; usually because of the broker, not of the event."""
        _PUBLISHED.labels("unknown", "disconnected").inc()
        if alone and item.key in worker.suspects:
            text = f"The broker hangs up when this is sent. {error}"
            worker.refused(item, PublishRefused(_UNSPECIFIED_ERROR, text))
            return
        item.drops += 1
        if item.drops >= _SUSPECT_AFTER:
            worker.suspects.add(item.key)
        worker.queue.retry(item)

    # --- other nodes, figures --------------------------------------------------------------------

    def _wake(self) -> None:
        self._schedule_pump()
        for worker in self._workers:
            worker.request_read()

    async def _notify_others(self) -> None:
        """Notify the nodes that hold lanes written to here: at most ten times a second, outside every transaction."""
        await self._foreign_written.wait()
        self._foreign_written.clear()
        lanes, self._foreign_lanes = self._foreign_lanes, set()
        async with self._engine.connect() as connection:
            await outbox.notify(await driver_connection(connection), lanes)
        await asyncio.sleep(_NOTIFY_EVERY_S)

    async def _count(self) -> None:
        await self._refresh_counts()
        await asyncio.sleep(self._config.count_every_s)

    async def _refresh_counts(self) -> None:
        _LANES.set(len(self.lanes))
        async with self._engine.connect() as connection:
            self._counts = await outbox.counts(await driver_connection(connection))
        _PENDING.set(self._counts.pending)
        _PARKED.set(self._counts.dead)
        _OLDEST.set(self.health().oldest_age_s)

    async def _repeat(self, step: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Repeat a step that needs the database, until cancelled; after a failure, a second later."""
        failures = FailureLog("relay_step_failed", step=step.__name__.strip("_"))
        while True:
            with failures:
                await step()
            if failures.error is not None:
                await asyncio.sleep(LOCK_RETRY_S)
