"""Alembic's entry: one advisory lock, a lock and a statement timeout, a transaction for each migration.

`alembic upgrade head` and `csms migrate` both end here. The database comes from the `-x url=…` argument,
from the configuration attribute `url` (set by csms), or from DATABASE_URL.
"""

import asyncio
import os
import time

from alembic import context
from sqlalchemy import pool, text
from sqlalchemy.engine import Connection
from sqlalchemy.ext.asyncio import create_async_engine

from csms.db import account_tables, device_state_tables, plan_tables  # noqa: F401  # their tables are part of the metadata
from csms.db.engine import database_url, driver_options
from csms.db.migrate import compare_object, default_url
from csms.db.tables import metadata

# Asked again and again, never waited for: an index made concurrently waits for all who wait in a transaction.
LOCK = "SELECT pg_try_advisory_lock(hashtext('csms.migrations'))"
ASK_AGAIN_S = 0.1
# A migration that cannot get its lock gives way to the running system instead of queueing everybody behind it.
LIMITS = f"SET lock_timeout = '{os.environ.get('CSMS_MIGRATE_LOCK_TIMEOUT', '4s')}'"
STATEMENT = f"SET statement_timeout = '{os.environ.get('CSMS_MIGRATE_STATEMENT_TIMEOUT', '60s')}'"

OPTIONS = {
    "target_metadata": metadata,
    "transaction_per_migration": True,
    "compare_type": True,
    "include_object": compare_object,
}


def address() -> str:
    given = context.get_x_argument(as_dictionary=True).get("url") or context.config.attributes.get("url")
    return str(given or default_url())


def offline() -> None:
    context.configure(
        url=database_url(address()), literal_binds=True, dialect_opts={"paramstyle": "named"}, **OPTIONS
    )
    with context.begin_transaction():
        context.run_migrations()


def run(connection: Connection) -> None:
    # Waiting for another migrator is right, so the lock comes before the limits.
    while not connection.scalar(text(LOCK)):
        connection.rollback()
        time.sleep(ASK_AGAIN_S)
    connection.execute(text(LIMITS))
    connection.execute(text(STATEMENT))
    connection.commit()
    context.configure(connection=connection, **OPTIONS)
    with context.begin_transaction():
        context.run_migrations()
    connection.commit()


async def online() -> None:
    engine = create_async_engine(
        database_url(address()), poolclass=pool.NullPool, connect_args=driver_options(address())
    )
    async with engine.connect() as connection:
        await connection.run_sync(run)
    await engine.dispose()


if context.is_offline_mode():
    offline()
else:
    asyncio.run(online())
