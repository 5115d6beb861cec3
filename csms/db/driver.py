"""asyncpg below SQLAlchemy: its connections, and one that asks for Postgres' own types once per process."""

from types import SimpleNamespace
from typing import Any, ClassVar

import asyncpg
from sqlalchemy.ext.asyncio import AsyncConnection

DriverConnection = Any  # an asyncpg connection: the driver ships no types

# The first object id that is not Postgres' own (access/transam.h: FirstNormalObjectId).
_FIRST_NORMAL_OID = 16_384
# After a query asyncpg prepares its unnamed statement again; after a name, as here, it does not.
_NO_STATEMENT = SimpleNamespace(name="cached")


async def driver_connection(connection: AsyncConnection) -> DriverConnection:
    """The asyncpg connection below one of SQLAlchemy's."""
    return (await connection.get_raw_connection()).driver_connection


class TypeCachingConnection(asyncpg.Connection):  # type: ignore[misc]  # the driver ships no types
    """For asyncpg's `connection_class`: caches the description of Postgres' own types for the process.

    asyncpg asks for every array type on every new connection: three statements, one of them recursive over the
    catalog, which take 10 ms, several times the rest of a login. After an outage a node opens all its connections
    at once. If asyncpg no longer calls `_introspect_types`, connecting only becomes slower.
    """

    cached_types: ClassVar[dict[tuple[Any, frozenset[int]], Any]] = {}

    async def _introspect_types(self, typeoids: Any, timeout: float) -> Any:  # noqa: ASYNC109 - not our signature
        if any(oid >= _FIRST_NORMAL_OID for oid in typeoids):
            return await super()._introspect_types(typeoids, timeout)
        key = self.get_server_version(), frozenset(typeoids)
        if key in self.cached_types:
            return self.cached_types[key], _NO_STATEMENT
        types, statement = await super()._introspect_types(typeoids, timeout)
        self.cached_types[key] = types
        return types, statement
