"""Daily partitions of the three tables that grow: made ahead of time, dropped when past their keep."""

from datetime import UTC, date, datetime, timedelta

import asyncpg
import structlog
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

DAYS_AHEAD = 7
# A partition is made and dropped under a lock on its whole table: one long reader in front of it would stop
# every writer behind it, so it gives way and the next round tries again.
LOCK_TIMEOUT = "2s"
# The partitioned tables, in the order in which the ledger writes them, and the times they are partitioned by.
PARTITIONED = {"messages": "at", "readings": "received_at", "events": "recorded_at"}
log = structlog.get_logger()


def create_sql(table: str, day: date) -> str:
    """The statement that makes the partition of one UTC day, if it is not there."""
    start, end = _midnight(day), _midnight(day + timedelta(days=1))
    return (
        f"CREATE TABLE IF NOT EXISTS {_name(table, day)} PARTITION OF {table}"
        f" FOR VALUES FROM ('{start}') TO ('{end}')"
    )


async def ensure(db: AsyncConnection, today: date | None = None) -> None:
    """Make the partitions of today and the days ahead. Safe to repeat, safe on several nodes."""
    today = today or datetime.now(UTC).date()
    await db.execute(text("SELECT pg_advisory_xact_lock(hashtext('csms.partitions'))"))
    await db.execute(text(f"SET LOCAL lock_timeout = '{LOCK_TIMEOUT}'"))
    existing = await _existing(db)
    for table in PARTITIONED:
        for ahead in range(DAYS_AHEAD + 1):
            day = today + timedelta(days=ahead)
            if _name(table, day) not in existing and not await _create(db, table, day):
                break


async def _create(db: AsyncConnection, table: str, day: date) -> bool:
    """Whether to go on with this table: not while somebody else holds it."""
    try:
        async with db.begin_nested():
            await db.execute(text(create_sql(table, day)))
    except IntegrityError:
        # Rows of that day lie in the default partition already (nobody made the day in time): they stay there.
        log.warning("partition not made: its rows are in the default one", table=table, day=day.isoformat())
    except DBAPIError as error:
        if not _gave_way(error):
            raise
        log.warning("partition not made: the table is in use", table=table, day=day.isoformat())
        return False
    return True


async def drop_before(db: AsyncConnection, table: str, day: date) -> list[str]:
    """Drop the partitions that hold only days before `day`, and such rows of the default one.

    Returns the names of what was dropped. Events that the broker has not taken yet are kept, with their day.
    """
    assert table in PARTITIONED
    if table == "events":
        oldest: datetime | None = await db.scalar(text("SELECT min(recorded_at) FROM outbox"))
        if oldest is not None:
            day = min(day, oldest.astimezone(UTC).date())
    await db.execute(text(f"SET LOCAL lock_timeout = '{LOCK_TIMEOUT}'"))
    dropped = []
    for name in sorted(await _existing(db)):
        if name.startswith(f"{table}_p") and name < _name(table, day):
            try:
                async with db.begin_nested():
                    await db.execute(text(f"DROP TABLE {name}"))
            except DBAPIError as error:
                if not _gave_way(error):
                    raise
                log.warning("partition not dropped: the table is in use", partition=name)
                break
            dropped.append(name)
    await db.execute(
        text(f"DELETE FROM {table}_default WHERE {PARTITIONED[table]} < CAST(:day AS timestamptz)"),
        {"day": datetime(day.year, day.month, day.day, tzinfo=UTC)},
    )
    return dropped


def _gave_way(error: DBAPIError) -> bool:
    return error.orig is not None and isinstance(error.orig.__cause__, asyncpg.LockNotAvailableError)


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
