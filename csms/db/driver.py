"""The driver's connection, less one question: what Postgres' own types look like is asked once per program."""

from types import SimpleNamespace
from typing import Any

import asyncpg

# Postgres gives out its own types' numbers itself, below this one (access/transam.h: FirstNormalObjectId).
_FIRST_FOREIGN_OID = 16_384
# After a query asyncpg prepares its nameless statement once more; after none it need not.
_NOTHING_ASKED = SimpleNamespace(name="remembered")
_remembered: dict[tuple[Any, frozenset[int]], Any] = {}


class Connection(asyncpg.Connection):  # type: ignore[misc]  # the driver ships no types
    """For asyncpg's `connection_class`.

    asyncpg asks for every array type on every new connection: three statements, one of them recursive over the
    catalog, 10 ms of Postgres, several times what the rest of a login costs. After an outage a node opens all its
    connections at once. Should asyncpg no longer call `_introspect_types`, all is as slow as it was.
    """

    async def _introspect_types(self, typeoids: Any, timeout: float) -> Any:  # noqa: ASYNC109 - not our signature
        if any(oid >= _FIRST_FOREIGN_OID for oid in typeoids):
            return await super()._introspect_types(typeoids, timeout)
        key = self.get_server_version(), frozenset(typeoids)
        if key in _remembered:
            return _remembered[key], _NOTHING_ASKED
        types, statement = await super()._introspect_types(typeoids, timeout)
        _remembered[key] = types
        return types, statement
