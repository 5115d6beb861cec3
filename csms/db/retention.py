"""Deletes rows that are past their retention (partitioned tables: csms/db/partitions.py)."""

from datetime import datetime

from sqlalchemy import delete, select
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from csms.core.command_states import OPEN
from csms.db.device_state_tables import commands, data_transfers
from csms.db.security_tables import security_events
from csms.db.tables import answers, quarantine, status_history

BATCH = 10_000
MOST_BATCHES = 100


async def delete_answers(db: AsyncConnection, before: datetime) -> None:
    """Delete stored answers to resent messages that were recorded before `before`."""
    await db.execute(delete(answers).where(answers.c.recorded_at < before))


async def delete_commands(db: AsyncConnection, before: datetime) -> None:
    """Delete commands that were requested before `before` and have ended."""
    await db.execute(delete(commands).where(commands.c.requested_at < before, commands.c.state.not_in(OPEN)))


async def delete_data_transfers(db: AsyncConnection, before: datetime) -> None:
    """Delete the data of DataTransfer messages that were received before `before`."""
    await db.execute(delete(data_transfers).where(data_transfers.c.received_at < before))


async def delete_old_quarantine(db: AsyncConnection, before: datetime) -> None:
    """Delete quarantined messages that were resolved before `before`, and deferred ones that were received before it.

    Others that are unresolved stay.
    """
    await db.execute(delete(quarantine).where(quarantine.c.resolved_at < before))
    await db.execute(
        delete(quarantine).where(
            quarantine.c.enrollment.is_not(None),
            quarantine.c.resolved_at.is_(None),
            quarantine.c.received_at < before,
        )
    )


async def delete_security_events(db: AsyncConnection, before: datetime) -> None:
    """Delete security events that were recorded before `before`."""
    await db.execute(delete(security_events).where(security_events.c.recorded_at < before))


async def delete_statuses(engine: AsyncEngine, before: datetime) -> None:
    """Delete statuses that were recorded before `before`, up to a million at a call.

    The lowest ids are taken, which are nearly the oldest rows: no index by time is needed. Each batch is a
    transaction of its own, so that locks are short however many rows there are.
    """
    oldest = select(status_history.c.id).order_by(status_history.c.id).limit(BATCH).subquery("oldest")
    statement = delete(status_history).where(
        status_history.c.id == oldest.c.id, status_history.c.recorded_at < before
    )
    for _ in range(MOST_BATCHES):
        async with engine.begin() as db:
            if not (await db.execute(statement)).rowcount:
                return
