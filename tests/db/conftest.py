"""Connections to a database of the test's own."""

import contextlib
from collections.abc import AsyncIterator

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from csms.db.driver import DriverConnection, driver_connection
from csms.db.engine import create_engine
from csms.db.outages import DATABASE_ERRORS


@pytest.fixture
async def engine(database_url: str) -> AsyncIterator[AsyncEngine]:
    engine = create_engine(database_url, pool_size=2)
    yield engine
    with contextlib.suppress(*DATABASE_ERRORS):
        await engine.dispose()


@pytest.fixture
async def db(engine: AsyncEngine) -> AsyncIterator[DriverConnection]:
    """A connection as the ledger has it: SQLAlchemy's, with its codecs."""
    async with engine.connect() as connection:
        yield await driver_connection(connection)
        await connection.rollback()
