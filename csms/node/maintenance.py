"""Periodic work of a node: partitions ahead of time, rows past their retention, an outbox that grows too long."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta

import structlog
from prometheus_client import Counter
from sqlalchemy.ext.asyncio import AsyncEngine

from csms.aio import FailureLog
from csms.db import outbox, partitions, retention
from csms.db.driver import driver_connection
from csms.settings import Settings

log = structlog.get_logger()
_THINNED = Counter("csms_outbox_thinned_total", "Readings left out because the outbox was too long.")
_PRUNED = Counter("csms_outbox_pruned_total", "Parked events given up past OUTBOX_RETENTION_DAYS.")
_RETENTION_INTERVAL_S = 3600.0
_OUTBOX_INTERVAL_S = 60.0
_ANSWER_RETENTION = timedelta(days=30)
_COMMAND_RETENTION = timedelta(days=365)
_THINNED_TO_ONE_PER = timedelta(minutes=15)


async def run(engine: AsyncEngine, settings: Settings) -> None:
    """Repeat the node's periodic work until cancelled."""
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(
            repeat(_RETENTION_INTERVAL_S, lambda: apply_retention(engine, settings, datetime.now(UTC)))
        )
        tasks.create_task(repeat(_OUTBOX_INTERVAL_S, lambda: thin_outbox(engine, settings.outbox_max_events)))


async def repeat(
    interval_s: float,
    work: Callable[[], Awaitable[timedelta | None]],
    *,
    sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
) -> None:
    """Sleep and do the work, until cancelled. A failure is logged and `work` is tried again after the interval.

    `work` may return another time to sleep before its next run.
    """
    failures = FailureLog("maintenance_failed")
    pause: timedelta | None = None
    while True:
        await sleep(interval_s if pause is None else pause.total_seconds())
        pause = None
        with failures:
            pause = await work()


async def apply_retention(engine: AsyncEngine, settings: Settings, now: datetime) -> None:
    """Create the partitions of the days to come and delete what is past its retention.

    Events that wait for the broker are never deleted, unless they are parked.
    """
    today = now.date()
    async with engine.begin() as db:
        await partitions.ensure(db, today)
        # Before partitions are dropped: a parked event keeps the partition of its day.
        pruned = await outbox.prune(
            await driver_connection(db), now - timedelta(days=settings.outbox_retention_days)
        )
    if pruned:
        _PRUNED.inc(pruned)
        log.warning("parked_events_pruned", events=pruned)
    partition_days = {
        "messages": settings.csms_frame_retention_days,
        "readings": settings.csms_reading_retention_days,
        "events": settings.outbox_retention_days,
    }
    for table, days in partition_days.items():
        if not days:
            continue
        async with engine.begin() as db:
            dropped = await partitions.drop_before(db, table, today - timedelta(days=days))
        if dropped:
            log.info("partitions_dropped", table=table, partitions=dropped)
    async with engine.begin() as db:
        await retention.delete_answers(db, now - _ANSWER_RETENTION)
        await retention.delete_commands(db, now - _COMMAND_RETENTION)
        await retention.delete_data_transfers(db, now - _COMMAND_RETENTION)
        if days := settings.csms_quarantine_retention_days:
            await retention.delete_old_quarantine(db, now - timedelta(days=days))
    if days := settings.csms_status_retention_days:
        await retention.delete_statuses(engine, now - timedelta(days=days))


async def thin_outbox(engine: AsyncEngine, max_events: int) -> timedelta | None:
    """Leave meter readings out of an outbox of more than `max_events`, one node at a time.

    Returns None when the outbox is within its limit, else the time after which another run can remove more:
    a run reads the whole outbox.
    """
    thinned = 0
    for lane in range(outbox.LANES):
        async with engine.begin() as connection:
            db = await driver_connection(connection)
            if lane == 0 and not await outbox.overfull(db, max_events):
                return None
            thinned += await outbox.thin(db, lane, _THINNED_TO_ONE_PER)
    _THINNED.inc(thinned)
    log.warning("outbox_thinned", limit=max_events, readings=thinned)
    return _THINNED_TO_ONE_PER
