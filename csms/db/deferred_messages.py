"""Deferred messages: quarantine entries of chargers that are not accepted (csms/core/deferral.py)."""

from collections.abc import Sequence

from sqlalchemy import delete, select, update
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from csms.core import enrollment
from csms.core.deferral import REASONS
from csms.core.records import Charger, DeferredMessage, DeferredStart, DeferredUsage
from csms.core.work import Work
from csms.db.driver import DriverConnection
from csms.db.record_sql import CHARGER_SQL, ReportBatch
from csms.db.tables import charger_states, chargers, quarantine

_OPEN = "enrollment IS NOT NULL AND resolved_at IS NULL"
_USAGE = (
    "SELECT charger_id, count(*), coalesce(sum(octet_length(payload)), 0) FROM quarantine"
    f" WHERE charger_id = ANY($1::text[]) AND {_OPEN} GROUP BY 1"
)
_STARTS = (
    "SELECT DISTINCT ON (s.charger_id, s.start_key) s.charger_id, s.start_key, s.transaction_id, s.message_id,"
    " EXISTS (SELECT FROM quarantine e WHERE e.charger_id = s.charger_id AND e.action = 'StopTransaction'"
    " AND e.enrollment IS NOT NULL AND e.transaction_id = s.transaction_id)"
    " FROM quarantine s WHERE (s.charger_id, s.start_key) IN (SELECT * FROM unnest($1::text[], $2::text[]))"
    " ORDER BY s.charger_id, s.start_key, s.id DESC"
)
_COLUMNS = ", ".join(DeferredMessage.__struct_fields__)
_OLDEST = f"SELECT {_COLUMNS} FROM quarantine WHERE charger_id = $1 AND enrollment = 'Pending' AND {_OPEN} ORDER BY id LIMIT $2"


async def load(db: DriverConnection, work: Work, batch: ReportBatch) -> None:
    """Load what decides whether messages are kept: their chargers' usage, and the starts that came before."""
    deferred = [report for report in batch if isinstance(report, enrollment.Deferred)]
    if not deferred:
        return
    for charger_id, messages, size_bytes in await db.fetch(_USAGE, list({r.charger_id for r in deferred})):
        work.deferred_usage[charger_id] = DeferredUsage(messages=messages, size_bytes=int(size_bytes))
    if keys := [(r.charger_id, r.start_key) for r in deferred if r.start_key is not None]:
        for charger_id, key, transaction_id, message_id, stopped in await db.fetch(
            _STARTS, *map(list, zip(*keys, strict=True))
        ):
            work.deferred_starts[charger_id, key] = DeferredStart(
                transaction_id=transaction_id, message_id=message_id, stopped=stopped
            )


# --- booking: the caller has the lock on the charger's row in charger_states -------------------------------


async def oldest(
    db: DriverConnection, charger_id: str, limit: int
) -> tuple[Charger, Sequence[DeferredMessage]]:
    """A charger with its first deferred messages, in the order of arrival."""
    row = await db.fetchrow(f"{CHARGER_SQL.select} WHERE id = $1", charger_id)
    return Charger(**row), [DeferredMessage(**row) for row in await db.fetch(_OLDEST, charger_id, limit)]


async def set_aside(db: DriverConnection, entry_id: int, error: str) -> None:
    """Make a deferred message that cannot be booked an entry for an operator to repair."""
    await db.execute("UPDATE quarantine SET enrollment = NULL, error = $2 WHERE id = $1", entry_id, error)


async def finish(db: DriverConnection, charger_id: str) -> None:
    """Note that no message of the charger waits any more."""
    await db.execute("UPDATE charger_states SET deferred = false WHERE charger_id = $1", charger_id)


async def awaiting_booking(engine: AsyncEngine) -> list[str]:
    """Accepted chargers whose deferred messages have not been booked: the node ended at the wrong moment."""
    query = (
        select(chargers.c.id)
        .join(charger_states, charger_states.c.charger_id == chargers.c.id)
        .where(charger_states.c.deferred, chargers.c.enrollment == "Accepted")
        .order_by(chargers.c.id)
    )
    async with engine.connect() as db:
        return list(await db.scalars(query))


# --- what an operator decides ------------------------------------------------------------------------------


async def reject(db: AsyncConnection, charger_id: str) -> None:
    """Mark the deferred messages of a charger as those of a rejected one: no acceptance books them."""
    waiting = (quarantine.c.charger_id == charger_id, quarantine.c.enrollment == "Pending")
    await db.execute(
        update(quarantine)
        .where(*waiting, quarantine.c.resolved_at.is_(None))
        .values(enrollment="Rejected", error=REASONS["Rejected"])
    )
    await db.execute(
        update(charger_states).where(charger_states.c.charger_id == charger_id).values(deferred=False)
    )


async def forget(db: AsyncConnection, charger_id: str) -> None:
    """Delete the deferred messages of a charger that is deleted."""
    await db.execute(
        delete(quarantine).where(quarantine.c.charger_id == charger_id, quarantine.c.enrollment.is_not(None))
    )
