"""The database of commands that need no running node."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from sqlalchemy.ext.asyncio import AsyncEngine

from csms.db import migrate as migrations
from csms.db.engine import create_engine, no_database
from csms.db.outages import DATABASE_ERRORS, is_away
from csms.errors import StartError


@asynccontextmanager
async def current_database(url: str) -> AsyncIterator[AsyncEngine]:
    """The database, at this release's schema. Raises StartError for another, and if it cannot be reached."""
    engine = create_engine(url)
    try:
        current, head = await migrations.current(engine), migrations.head()
        if current != head:
            raise StartError(
                f"the database is at {current or 'nothing'}, this release needs {head}: run `csms migrate`."
            )
        yield engine
    except DATABASE_ERRORS as error:
        if not is_away(error):
            raise
        raise no_database(error) from None
    finally:
        await engine.dispose()
