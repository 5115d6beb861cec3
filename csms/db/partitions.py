"""Daily partitions of the three tables that grow: made ahead of time, dropped when past their keep."""

from datetime import UTC, date, datetime, timedelta

import structlog
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from csms.db.tables import PARTITIONED

DAYS_AHEAD = 7
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
    existing = await _existing(db)
    for table in PARTITIONED:
        for ahead in range(DAYS_AHEAD + 1):
            day = today + timedelta(days=ahead)
            if _name(table, day) not in existing:
                await _create(db, table, day)


async def _create(db: AsyncConnection, table: str, day: date) -> None:
    try:
        async with db.begin_nested():
            await db.execute(text(create_sql(table, day)))
    except IntegrityError:
        # Rows of that day lie in the default partition already (nobody made the day in time): they stay there.
        log.warning("partition not made", table=table, day=day.isoformat())


async def drop_before(db: AsyncConnection, table: str, day: date) -> list[str]:
    """Drop the partitions that hold only days before `day`. Returns their names."""
    assert table in PARTITIONED
    old = sorted(
        name
        for name in await _existing(db)
        if name.startswith(f"{table}_p") and name < _name(table, day) and name != f"{table}_default"
    )
    for name in old:
        await db.execute(text(f"DROP TABLE {name}"))
    return old


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
