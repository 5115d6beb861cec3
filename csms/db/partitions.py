"""Daily partitions of the three tables that grow: created ahead of time, dropped past their retention."""

from datetime import UTC, date, datetime, timedelta

import asyncpg
import structlog
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from csms.db.outages import driver_error

DAYS_AHEAD = 7
# A partition is created and dropped under a lock on its whole table. Writers queue behind a statement that waits for
# such a lock, so it gives up early and the next run tries again.
LOCK_TIMEOUT_MS = 2000
# The partitioned tables, in the order in which the ledger writes them, and the times they are partitioned by.
PARTITIONED = {"messages": "at", "readings": "received_at", "events": "recorded_at"}
log = structlog.get_logger()


def create_sql(table: str, day: date) -> str:
    """The statement that creates the partition of one UTC day, if it does not exist."""
    start, end = _midnight(day), _midnight(day + timedelta(days=1))
    return (
        f"CREATE TABLE IF NOT EXISTS {_name(table, day)} PARTITION OF {table}"
        f" FOR VALUES FROM ('{start}') TO ('{end}')"
    )


async def ensure(
    db: AsyncConnection, today: date | None = None, *, lock_timeout_ms: int = LOCK_TIMEOUT_MS
) -> None:
    """Create the partitions of today and the days ahead. Safe to repeat, and on several nodes at once."""
    today = today or datetime.now(UTC).date()
    await db.execute(text("SELECT pg_advisory_xact_lock(hashtext('csms.partitions'))"))
    await db.execute(text(f"SET LOCAL lock_timeout = {lock_timeout_ms:d}"))
    existing = await _existing(db)
    for table in PARTITIONED:
        for ahead in range(DAYS_AHEAD + 1):
            day = today + timedelta(days=ahead)
            if _name(table, day) not in existing and not await _create(db, table, day):
                break


async def _create(db: AsyncConnection, table: str, day: date) -> bool:
    """Whether to go on with this table: not while its lock is held."""
    try:
        async with db.begin_nested():
            await db.execute(text(create_sql(table, day)))
    except IntegrityError:
        # No node created the day in time: its rows are in the default partition, and stay there.
        log.warning("partition_left_in_default", table=table, day=day.isoformat())
    except DBAPIError as error:
        if not _lock_timed_out(error):
            raise
        log.warning("partition_creation_postponed", table=table, day=day.isoformat())
        return False
    return True


async def drop_before(
    db: AsyncConnection, table: str, day: date, *, lock_timeout_ms: int = LOCK_TIMEOUT_MS
) -> list[str]:
    """Drop the partitions of days before `day`, and delete such rows of the default one.

    Returns the names of the dropped partitions. Days of events that the outbox still has are kept.
    """
    assert table in PARTITIONED
    if table == "events":
        oldest: datetime | None = await db.scalar(text("SELECT min(recorded_at) FROM outbox"))
        if oldest is not None:
            day = min(day, oldest.astimezone(UTC).date())
    await db.execute(text(f"SET LOCAL lock_timeout = {lock_timeout_ms:d}"))
    dropped = []
    for name in sorted(await _existing(db)):
        if name.startswith(f"{table}_p") and name < _name(table, day):
            try:
                async with db.begin_nested():
                    await db.execute(text(f"DROP TABLE {name}"))
            except DBAPIError as error:
                if not _lock_timed_out(error):
                    raise
                log.warning("partition_drop_postponed", partition=name)
                break
            dropped.append(name)
    await db.execute(
        text(f"DELETE FROM {table}_default WHERE {PARTITIONED[table]} < CAST(:day AS timestamptz)"),
        {"day": datetime(day.year, day.month, day.day, tzinfo=UTC)},
    )
    return dropped


def _lock_timed_out(error: DBAPIError) -> bool:
    return isinstance(driver_error(error), asyncpg.LockNotAvailableError)


async def _existing(db: AsyncConnection) -> set[str]:
    rows = await db.execute(
        text(
            "SELECT child.relname FROM pg_inherits"
            " JOIN pg_class child ON child.oid = inhrelid JOIN pg_class parent ON parent.oid = inhparent"
            " WHERE parent.relname = ANY(:tables) AND child.relnamespace = current_schema()::regnamespace"
        ),
        {"tables": list(PARTITIONED)},
    )
    return set(rows.scalars())


def _name(table: str, day: date) -> str:
    return f"{table}_p{day:%Y%m%d}"


def _midnight(day: date) -> str:
    return f"{day.isoformat()} 00:00:00+00"
