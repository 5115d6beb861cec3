"""The queries of asyncpg to Postgres' catalog."""

import asyncio
from typing import Any, ClassVar

import asyncpg
import pytest

from csms.db.driver import TypeCachingConnection


@pytest.fixture
def kind() -> type[TypeCachingConnection]:
    """A connection class that has cached nothing yet."""

    class Fresh(TypeCachingConnection):
        cached_types: ClassVar[dict[Any, Any]] = {}

    return Fresh


async def questions(kind: type[TypeCachingConnection], url: str, query: str, *args: Any) -> tuple[Any, int]:
    """The answer over a new connection, and the number of statements."""
    queries: list[str] = []
    connection = await asyncpg.connect(url, connection_class=kind)
    try:
        connection.add_query_logger(lambda record: queries.append(record.query))
        answer = await connection.fetchval(query, *args)
        await asyncio.sleep(0)  # the driver tells of them a turn later
        return answer, len(queries)
    finally:
        await connection.close()


@pytest.mark.parametrize(
    ("query", "value"),
    [
        ("SELECT $1::int4[]", [1, 2]),
        ("SELECT $1::bool[]", [True]),
    ],
)
async def test_an_array_type_is_looked_up_by_the_first_connection_only(
    kind: type[TypeCachingConnection], database_url: str, query: str, value: Any
) -> None:
    answer, first = await questions(kind, database_url, query, value)
    again, then = await questions(kind, database_url, query, value)
    assert answer == again == value
    assert first > 1
    assert then == 1


async def test_a_prepared_statement_without_a_name_survives(
    kind: type[TypeCachingConnection], database_url: str
) -> None:
    for _ in range(2):
        connection = await asyncpg.connect(database_url, connection_class=kind, statement_cache_size=0)
        assert await connection.fetchval("SELECT $1::bool[]", [True]) == [True]
        await connection.close()


async def test_types_of_a_databases_own_are_looked_up_in_it(
    kind: type[TypeCachingConnection], databases: Any
) -> None:
    """Their ids mean something else in another database."""
    for labels in ("'on', 'off'", "'in', 'out'"):
        url = await databases.create()
        connection = await asyncpg.connect(url)
        await connection.execute(f"CREATE TYPE door AS ENUM ({labels})")
        await connection.close()
        first = labels.split("'")[1]
        answer, asked = await questions(kind, url, "SELECT $1::door[]", [first])
        assert answer == [first]
        assert asked > 1
        await databases.drop(url)
