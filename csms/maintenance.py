"""What a node does now and then: partitions ahead of time, rows past their keep."""

import asyncio
from datetime import UTC, datetime, timedelta

import structlog
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from csms.db import commands, partitions
from csms.settings import Settings

log = structlog.get_logger()
_EVERY_S = 3600.0
_ANSWERS_KEPT = timedelta(days=30)
_COMMANDS_KEPT = timedelta(days=365)


async def run(engine: AsyncEngine, settings: Settings) -> None:
    """Look after the tables every hour, until cancelled. A failure is logged and tried again the next time."""
    while True:
        await asyncio.sleep(_EVERY_S)
        try:
            await once(engine, settings, datetime.now(UTC))
        except Exception as error:
            log.warning("maintenance failed", error=str(error) or type(error).__name__)


async def once(engine: AsyncEngine, settings: Settings, now: datetime) -> None:
    """Make the partitions of the days to come; drop what is past its keep. Unpublished events are never dropped."""
    today = now.date()
    async with engine.begin() as db:
        await partitions.ensure(db, today)
    kept_days = {
        "messages": settings.csms_frame_retention_days,
        "readings": settings.csms_reading_retention_days,
        "events": settings.outbox_retention_days,
    }
    for table, days in kept_days.items():
        if not days:
            continue
        first = today - timedelta(days=days)
        async with engine.begin() as db:
            if table == "events":
                oldest = (await db.execute(text("SELECT min(recorded_at) FROM outbox"))).scalar()
                first = min(first, oldest.date()) if oldest is not None else first
            dropped = await partitions.drop_before(db, table, first)
        if dropped:
            log.info("partitions dropped", table=table, partitions=dropped)
    async with engine.begin() as db:
        await db.execute(
            text("DELETE FROM answers WHERE recorded_at < :before"), {"before": now - _ANSWERS_KEPT}
        )
        await commands.forget(db, now - _COMMANDS_KEPT)
