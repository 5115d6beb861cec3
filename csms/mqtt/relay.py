"""The relay tells the world: it publishes what the outbox holds and deletes what the broker has acknowledged.

    ledger: COMMIT → notify(events) ─┐
    outbox: SELECT of the oldest ────┴→ line-up → publish (QoS 1) → PUBACK → DELETE

Delivery is at least once, with the same bytes every time. Order: csms/mqtt/charger_queue.py. Who sends: each of the 64
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
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Any

import structlog
from msgspec import Struct
from prometheus_client import Counter, Gauge, Histogram
from sqlalchemy.ext.asyncio import AsyncEngine

from csms.core.records import Event
from csms.db import outbox
from csms.db.driver import driver_connection
from csms.mqtt.charger_queue import PendingEvent
from csms.mqtt.client.errors import NO_MATCHING_SUBSCRIBERS, BrokerDisconnected, PublishRefused
from csms.mqtt.client.supervised import PublishingLink
from csms.mqtt.config import RelayConfig
from csms.mqtt.lanes import LOCK_RETRY_S, Lanes
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
_DEAD = Gauge("csms_outbox_parked", "Events set aside because the broker keeps refusing them.")
_THINNED = Counter(
    "csms_mqtt_readings_thinned_total", "Meter readings left out by MQTT_METER_MIN_INTERVAL_S."
)
_DELIVERED = {
    0: _PUBLISHED.labels("published", ""),
    NO_MATCHING_SUBSCRIBERS: _PUBLISHED.labels("published", "no subscribers"),
}
_LANES = Gauge("csms_outbox_lanes_held", "Lanes of the outbox this node relays.")

_HUNG_UP = 0x80
_SUSPECT_AFTER = 3
_NUDGE_EVERY_S = 0.1
_COUNT_EVERY_S = 5.0


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
        link: PublishingLink,
        config: RelayConfig,
        *,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._engine = engine
        self._link = link
        self._config = config
        self._clock = clock
        self._thinning = Thinning(config.meter_min_interval_s)
        self._loop = asyncio.get_running_loop()
        self._turns: deque[Lanes] = deque()  # one for each charger that has an event ready
        self._flying = 0
        self._pumping = False
        self._far: set[int] = set()
        self._far_known = asyncio.Event()
        self._counts = outbox.OutboxCounts(pending=0, dead=0, oldest_at=None)
        self._groups = [
            Lanes(engine, link, config, range(first, outbox.LANES, config.groups), self._ready)
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
                tasks.create_task(_again_and_again(self._nudge), name="relay nudge")
                tasks.create_task(_again_and_again(self._count), name="relay counts")
        finally:
            for group in self._groups:
                await group.stop()
            _LANES.set(0)

    async def drain(self, timeout_s: float = 5) -> bool:
        """Wait until all that was handed over is published and deleted.

        False: the time was up, or there is no broker to wait for.
        """
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                # Asked only at shutdown: an event would have to be kept at every acknowledgement.
                while any(lanes.busy for lanes in self._groups):
                    if not self._link.connected:
                        return False
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

    def _ready(self, group: "Lanes") -> None:
        self._turns.append(group)
        self._pump_soon()

    def _pump_soon(self) -> None:
        """At the end of this turn of the loop, for all that became ready in it."""
        if not self._pumping:
            self._pumping = True
            self._loop.call_soon(self._pump)

    def _pump(self) -> None:
        """Send what may go, no more than `concurrency` at a time."""
        self._pumping = False
        turns, limit = self._turns, self._config.concurrency
        while turns and self._flying < limit and self._link.connected:
            careful = any(lanes.suspects for lanes in self._groups)
            if careful and self._flying:
                return
            group = turns.popleft()
            item = group.lineup.next()
            if item is not None:
                self._publish(group, item, careful=careful)

    def _publish(self, group: "Lanes", item: PendingEvent, *, careful: bool) -> None:
        event = item.event
        if not self._thinning.wanted(event):
            _THINNED.inc()
            group.delivered(item)
            return
        self._flying += 1
        try:
            message = self._config.form.wire(event)
        except Exception as error:
            log.exception("event not publishable", charger=event.charger_id, event_id=event.event_id)
            self._landed(group, item, careful, PublishRefused(_HUNG_UP, f"{type(error).__name__}: {error}"))
        else:
            self._link.begin(message, partial(self._landed, group, item, careful))

    def _landed(
        self,
        group: "Lanes",
        item: PendingEvent,
        careful: bool,
        outcome: int | BrokerDisconnected | PublishRefused,
    ) -> None:
        self._flying -= 1
        if isinstance(outcome, int):
            (_DELIVERED.get(outcome) or _PUBLISHED.labels("published", f"0x{outcome:02X}")).inc()
            _LATENCY.observe(max((self._clock() - item.event.recorded_at).total_seconds(), 0))
            if group.suspects:
                group.suspects.discard(item.key)
            group.delivered(item)
        elif isinstance(outcome, PublishRefused):
            _PUBLISHED.labels("refused", f"0x{outcome.code:02X}").inc()
            group.refused(item, outcome)
        else:
            self._dropped(group, item, str(outcome), careful=careful)
        if self._turns:
            self._pump_soon()

    def _dropped(self, group: "Lanes", item: PendingEvent, error: str, *, careful: bool) -> None:
        """The connection ended with this event under way; usually that is the broker's death, not the event."""
        _PUBLISHED.labels("unknown", "disconnected").inc()
        if careful and item.key in group.suspects:
            # It was alone on its way this time.
            group.refused(item, PublishRefused(_HUNG_UP, f"The broker hangs up when this is sent. {error}"))
            return
        item.drops += 1
        if item.drops >= _SUSPECT_AFTER:
            group.suspects.add(item.key)
        group.lineup.again(item)

    # --- beside ----------------------------------------------------------------------------------

    def _wake(self) -> None:
        self._pump_soon()
        for group in self._groups:
            group.ask()

    async def _nudge(self) -> None:
        """Other nodes hold lanes we have written to: at most ten times a second, outside every transaction."""
        await self._far_known.wait()
        self._far_known.clear()
        lanes, self._far = self._far, set()
        async with self._engine.connect() as connection:
            await outbox.notify(await driver_connection(connection), lanes)
        await asyncio.sleep(_NUDGE_EVERY_S)

    async def _count(self) -> None:
        await self._refresh_counts()
        await asyncio.sleep(_COUNT_EVERY_S)

    async def _refresh_counts(self) -> None:
        _LANES.set(len(self.lanes))
        async with self._engine.connect() as connection:
            self._counts = await outbox.counts(await driver_connection(connection))
        _PENDING.set(self._counts.pending)
        _DEAD.set(self._counts.dead)
        _OLDEST.set(self.health().oldest_age_s)


async def _again_and_again(step: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Repeat a step that needs the database; while that is away, every second."""
    while True:
        try:
            await step()
        except Exception as error:
            log.debug("relay", step=step.__name__, error=str(error))
            await asyncio.sleep(LOCK_RETRY_S)
