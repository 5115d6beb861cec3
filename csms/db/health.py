"""Whether the database answers."""

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncEngine


async def ping(engine: AsyncEngine) -> None:
    """Make one round trip. Raises what SQLAlchemy, asyncpg or the operating system raises when it fails."""
    async with engine.connect() as db:
        await db.execute(select(1))
