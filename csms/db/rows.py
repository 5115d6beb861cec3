"""Results of queries, as rows and as structs."""

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from sqlalchemy import Executable, RowMapping
from sqlalchemy.ext.asyncio import AsyncConnection

S = TypeVar("S")


def from_row(kind: type[S], row: Mapping[Any, Any], *, prefix: str = "") -> S:
    """A struct from the columns of a row that are named as its fields, after `prefix`."""
    return kind(**{name: row[prefix + name] for name in kind.__struct_fields__})  # type: ignore[attr-defined]


async def all_rows(
    db: AsyncConnection, query: Executable, parameters: Mapping[str, Any] | None = None
) -> Sequence[RowMapping]:
    return (await db.execute(query, parameters)).mappings().all()


async def first_row(
    db: AsyncConnection, query: Executable, parameters: Mapping[str, Any] | None = None
) -> RowMapping | None:
    return (await db.execute(query, parameters)).mappings().first()


async def all_structs(db: AsyncConnection, kind: type[S], query: Executable) -> list[S]:
    return [from_row(kind, row) for row in await all_rows(db, query)]


async def first_struct(db: AsyncConnection, kind: type[S], query: Executable) -> S | None:
    row = await first_row(db, query)
    return None if row is None else from_row(kind, row)
