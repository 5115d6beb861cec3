"""The secret that all nodes of one database have in common."""

import secrets

from sqlalchemy.ext.asyncio import AsyncEngine

from csms.db.driver import driver_connection

KEY_BYTES = 32


async def message_key(engine: AsyncEngine) -> bytes:
    """Return the key of messages between nodes. The first node that asks makes it; it is never logged."""
    async with engine.connect() as connection:
        db = await driver_connection(connection)
        await db.execute(
            "INSERT INTO node_keys (purpose, key) VALUES ('messages', $1) ON CONFLICT DO NOTHING",
            secrets.token_bytes(KEY_BYTES),
        )
        key: bytes = await db.fetchval("SELECT key FROM node_keys WHERE purpose = 'messages'")
    return key
