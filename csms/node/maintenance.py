"""What a node does now and then: partitions ahead of time, rows past their keep, an outbox that grows too long."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta

import structlog
from prometheus_client import Counter
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from csms.db import commands, outbox, partitions
from csms.settings import Settings

log = structlog.get_logger()
_THINNED = Counter("csms_outbox_thinned_total", "Readings left out because the outbox was too long.")
_PRUNED = Counter("csms_outbox_pruned_total", "Parked events given up past OUTBOX_RETENTION_DAYS.")
_EVERY_S = 3600.0
_LOOK_EVERY_S = 60.0
_ANSWERS_KEPT = timedelta(days=30)
_COMMANDS_KEPT = timedelta(days=365)
_ONE_READING_IN = timedelta(minutes=15)
_AT_ONCE = 10_000
_ROUNDS = 100


async def run(engine: AsyncEngine, settings: Settings) -> None:
    """Until cancelled. A failure is logged and tried again the next time."""
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(_every(_EVERY_S, lambda: once(engine, settings, datetime.now(UTC))))
        tasks.create_task(_every(_LOOK_EVERY_S, lambda: relieve(engine, settings.outbox_max_events)))


async def _every(pause_s: float, work: Callable[[], Awaitable[timedelta | None]]) -> None:
    """`work` may say how long to rest before the next time."""
    rest: timedelta | None = None
    while True:
        await asyncio.sleep(pause_s if rest is None else rest.total_seconds())
        try:
            rest = await work()
        except Exception as error:
            log.warning("maintenance failed", error=str(error) or type(error).__name__)


async def once(engine: AsyncEngine, settings: Settings, now: datetime) -> None:
    """Make the partitions of the days to come; drop what is past its keep. Events that wait for the broker are
    never dropped, unless they are parked."""
    today = now.date()
    async with engine.begin() as db:
        await partitions.ensure(db, today)
        # Before the partitions: a parked event keeps its day.
        given_up = await outbox.prune(
            await outbox.driver(db),
            now - timedelta(days=settings.outbox_retention_days),
        )
    if given_up:
        _PRUNED.inc(given_up)
        log.warning("parked events given up", events=given_up)
    kept_days = {
        "messages": settings.csms_frame_retention_days,
        "readings": settings.csms_reading_retention_days,
        "events": settings.outbox_retention_days,
    }
    for table, days in kept_days.items():
        if not days:
            continue
        async with engine.begin() as db:
            dropped = await partitions.drop_before(db, table, today - timedelta(days=days))
        if dropped:
            log.info("partitions dropped", table=table, partitions=dropped)
    async with engine.begin() as db:
        await db.execute(
            text("DELETE FROM answers WHERE recorded_at < :before"), {"before": now - _ANSWERS_KEPT}
        )
        await commands.forget(db, now - _COMMANDS_KEPT)
    if days := settings.csms_status_retention_days:
        await _forget_statuses(engine, now - timedelta(days=days))
    if days := settings.csms_quarantine_retention_days:
        async with engine.begin() as db:
            await db.execute(
                text("DELETE FROM quarantine WHERE resolved_at < :before"),
                {"before": now - timedelta(days=days)},
            )


async def _forget_statuses(engine: AsyncEngine, before: datetime) -> None:
    """The oldest by id, which is nearly the oldest by time, a bite at a time: there may be many millions."""
    for _ in range(_ROUNDS):
        async with engine.begin() as db:
            done = await db.execute(
                text(
                    "DELETE FROM status_history USING"
                    " (SELECT id FROM status_history ORDER BY id LIMIT :bite) AS oldest"
                    " WHERE status_history.id = oldest.id AND recorded_at < :before"
                ),
                {"bite": _AT_ONCE, "before": before},
            )
        if not done.rowcount:
            return


async def relieve(engine: AsyncEngine, max_events: int) -> timedelta | None:
    """With more than `max_events` waiting, thin out the readings among them.

    Then returns how long it takes until doing it again can bring anything: it reads the whole outbox.
    """
    left_out = 0
    for lane in range(outbox.LANES):
        async with engine.begin() as connection:
            db = await outbox.driver(connection)
            if lane == 0 and not await outbox.overfull(db, max_events):
                return None
            if await connection.scalar(text("SELECT pg_try_advisory_xact_lock(hashtext('csms.relief'))")):
                left_out += await outbox.thin(db, lane, _ONE_READING_IN)
    _THINNED.inc(left_out)
    log.warning("the outbox is too long: readings were left out", limit=max_events, readings=left_out)
    return _ONE_READING_IN
