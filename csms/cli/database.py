"""The database of commands that need no running node."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from sqlalchemy.ext.asyncio import AsyncEngine

from csms.db import migrate as migrations
from csms.db.engine import create_engine, no_database
from csms.db.outages import DATABASE_ERRORS, is_away


@asynccontextmanager
async def current_database(url: str) -> AsyncIterator[AsyncEngine]:
    """The database, at this release's schema. Raises StartError for another, and if it cannot be reached."""
    async with _database(url) as engine:
        migrations.check_revision(await migrations.current(engine))
        yield engine


async def current_revision(url: str) -> str | None:
    """Return the database's revision; None without a schema. Raises StartError when it cannot be reached."""
    async with _database(url) as engine:
        return await migrations.current(engine)


@asynccontextmanager
async def _database(url: str) -> AsyncIterator[AsyncEngine]:
    engine = create_engine(url)
    try:
        yield engine
    except DATABASE_ERRORS as error:
        if not is_away(error):
            raise
        raise no_database(error) from None
    finally:
        await engine.dispose()
