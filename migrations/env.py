"""Alembic's environment: one advisory lock, a lock timeout, a statement timeout, a transaction for each migration.

Both `alembic upgrade head` and `csms migrate` run this file. The database address comes from the `-x url=…`
argument, from the configuration attribute `url` (set by csms), or from DATABASE_URL.
"""

import asyncio
import os
import time
from typing import Any

from alembic import context
from sqlalchemy import pool, text
from sqlalchemy.engine import Connection
from sqlalchemy.ext.asyncio import create_async_engine

from csms.db.engine import database_url, driver_options
from csms.db.migrate import compare_object, default_url, head
from csms.db.schema import metadata

# Polled, because CREATE INDEX CONCURRENTLY waits for every transaction that blocks on a lock.
LOCK = "SELECT pg_try_advisory_lock(hashtext('csms.migrations'))"
POLL_S = 0.1
# Statements of the running system queue behind a migration that waits for a lock, so it gives up early.
LOCK_TIMEOUT = f"SET lock_timeout = '{os.environ.get('CSMS_MIGRATE_LOCK_TIMEOUT', '4s')}'"
STATEMENT_TIMEOUT = f"SET statement_timeout = '{os.environ.get('CSMS_MIGRATE_STATEMENT_TIMEOUT', '60s')}'"


def number_revision(_context: Any, _revisions: Any, directives: list[Any]) -> None:
    """Identify a new migration by the number after the newest one; its file name begins with it."""
    directives[0].rev_id = f"{int(head() or 0) + 1:04d}"


OPTIONS = {
    "target_metadata": metadata,
    "transaction_per_migration": True,
    "compare_type": True,
    "include_object": compare_object,
    "process_revision_directives": number_revision,
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
    # Taken before the timeouts are set: waiting for another migration is not limited.
    while not connection.scalar(text(LOCK)):
        connection.rollback()
        time.sleep(POLL_S)
    connection.execute(text(LOCK_TIMEOUT))
    connection.execute(text(STATEMENT_TIMEOUT))
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
