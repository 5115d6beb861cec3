"""Ends transactions whose stop never came: periodically, on one node at a time. The core decides each case."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta

import structlog
from sqlalchemy.ext.asyncio import AsyncEngine

from csms.aio import FailureLog
from csms.core.reports import Reconcile
from csms.db import reconcile

log = structlog.get_logger()
_RUNS_PER_PERIOD = 10
_LONGEST_INTERVAL_S = 30.0

RecordReconcile = Callable[[Reconcile], Awaitable[bool]]


async def run(engine: AsyncEngine, record: RecordReconcile, after_s: float) -> None:
    """Until cancelled, end transactions that have looked ended for `after_s`. A failure is tried again later."""
    failures = FailureLog("reconciliation_failed")
    while True:
        await asyncio.sleep(min(after_s / _RUNS_PER_PERIOD, _LONGEST_INTERVAL_S))
        with failures:
            await once(engine, record, after_s, datetime.now(UTC))


async def once(engine: AsyncEngine, record: RecordReconcile, after_s: float, now: datetime) -> int:
    """End such transactions now. Returns how many; 0 while another node reconciles."""
    async with engine.begin() as db:
        if not await reconcile.our_turn(db):
            return 0
        before = now - timedelta(seconds=after_s)
        found = [*await reconcile.ended(db, before), *await reconcile.late(db, before)]
        closed = 0
        for report in found:
            if await record(report):
                closed += 1
                log.info("stop_inferred", charger=report.charger_id, transaction=report.transaction_id)
    return closed
