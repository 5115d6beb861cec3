"""Ends what no stop has ended: looks for it now and then, on one node at a time; the core decides each case."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta

import structlog
from sqlalchemy.ext.asyncio import AsyncEngine

from csms.core.reports import Reconcile
from csms.db import reconcile

log = structlog.get_logger()
_LOOKS = 10  # in the time that a charge point is given
_LONGEST_S = 30.0

Record = Callable[[Reconcile], Awaitable[bool]]


async def run(engine: AsyncEngine, record: Record, after_s: float) -> None:
    """Until cancelled, close transactions that have looked ended for `after_s`. A failure is tried again later."""
    while True:
        await asyncio.sleep(min(after_s / _LOOKS, _LONGEST_S))
        try:
            await once(engine, record, after_s, datetime.now(UTC))
        except Exception as error:
            log.warning("reconciliation failed", error=str(error) or type(error).__name__)


async def once(engine: AsyncEngine, record: Record, after_s: float, now: datetime) -> int:
    """How many transactions were closed. Another node that is at it already leaves nothing to do."""
    async with engine.begin() as db:
        if not await reconcile.our_turn(db):
            return 0
        found = await reconcile.ended(db, now - timedelta(seconds=after_s))
        closed = 0
        for report in found:
            if await record(report):
                closed += 1
                log.info("stop inferred", charger=report.charger_id, transaction=report.transaction_id)
    return closed
