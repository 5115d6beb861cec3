"""Statements put together from the tables' own columns: read, written by arrays, several run as one."""

import re
from collections.abc import Iterable
from functools import lru_cache
from typing import Any

import msgspec
from sqlalchemy import Table

from csms.db.driver import DriverConnection

_PARAMETER = re.compile(r"\$(\d+)")
_TYPES = {
    "String": "text",
    "Text": "text",
    "Integer": "int4",
    "BigInteger": "int8",
    "SmallInteger": "int2",
    "Boolean": "bool",
    "DateTime": "timestamptz",
    "Double": "float8",
    "Numeric": "numeric",
    "JSONB": "jsonb",
    "JSON": "json",
    "LargeBinary": "bytea",
    "ARRAY": "text[]",
}


class RecordSql(msgspec.Struct, frozen=True):
    """A record type and the statements that read and write it. Columns = the record's fields."""

    record: type[Any]
    table: str
    columns: tuple[str, ...]
    types: tuple[str, ...]
    primary_key: tuple[str, ...]
    # Columns that only an operator changes: written with a new row, never over what is there.
    settings: tuple[str, ...] = ()

    @property
    def select(self) -> str:
        return f"SELECT {', '.join(self.columns)} FROM {self.table}"

    @property
    def upsert_arrays(self) -> str:
        """One array parameter a column, however many rows."""
        arrays = ", ".join(f"${i}::{t}[]" for i, t in enumerate(self.types, 1))
        return f"INSERT INTO {self.table} ({', '.join(self.columns)}) SELECT * FROM unnest({arrays}) {self._on_conflict}"

    @property
    def upsert_row(self) -> str:
        values = ", ".join(f"${i}::{t}" for i, t in enumerate(self.types, 1))
        return f"INSERT INTO {self.table} ({', '.join(self.columns)}) VALUES ({values}) {self._on_conflict}"

    @property
    def _on_conflict(self) -> str:
        kept = self.primary_key + self.settings
        updates = ", ".join(f"{c} = excluded.{c}" for c in self.columns if c not in kept)
        return f"ON CONFLICT ({', '.join(self.primary_key)}) DO UPDATE SET {updates}"


def record_sql(record: type[Any], table: Table, *, settings: tuple[str, ...] = ()) -> RecordSql:
    fields = msgspec.structs.fields(record)
    columns = [table.c[field.name] for field in fields]
    return RecordSql(
        record=record,
        table=table.name,
        columns=tuple(column.name for column in columns),
        types=tuple(_TYPES[type(column.type).__name__] for column in columns),
        primary_key=tuple(column.name for column in table.primary_key.columns),
        settings=settings,
    )


class PartialUpdate(msgspec.Struct, frozen=True):
    """Some columns of a table, and the statement that changes only them."""

    kind: RecordSql
    columns: tuple[str, ...]

    @property
    def update(self) -> str:
        named = self.kind.primary_key + self.columns
        types = dict(zip(self.kind.columns, self.kind.types, strict=True))
        arrays = ", ".join(f"${i}::{types[name]}[]" for i, name in enumerate(named, 1))
        changes = ", ".join(f"{name} = new.{name}" for name in self.columns)
        same = " AND ".join(f"{self.kind.table}.{name} = new.{name}" for name in self.kind.primary_key)
        return f"UPDATE {self.kind.table} SET {changes} FROM unnest({arrays}) AS new({', '.join(named)}) WHERE {same}"

    def only(self, before: Any, after: Any) -> bool:
        """Whether nothing else has changed."""
        new = {name: getattr(after, name) for name in self.columns}
        return bool(msgspec.structs.replace(before, **new) == after)


class StatementBatch:
    """Statements that do not look at each other, run as one: a round trip for all of them, not one each."""

    def __init__(self) -> None:
        self._statements: list[str] = []
        self._arguments: list[list[Any]] = []

    def add(self, statement: str, arguments: Iterable[list[Any]]) -> None:
        self._statements.append(statement)
        self._arguments += arguments

    async def run(self, db: DriverConnection) -> None:
        if self._statements:
            await db.execute(_joined(tuple(self._statements)), *self._arguments)


@lru_cache(maxsize=1000)
def _joined(statements: tuple[str, ...]) -> str:
    parts: list[str] = []
    used = 0
    for statement in statements:
        parts.append(_PARAMETER.sub(lambda found, used=used: f"${int(found[1]) + used}", statement))  # type: ignore[misc]
        used += max(int(number) for number in _PARAMETER.findall(statement))
    *first, last = parts
    named = ", ".join(f"part_{i} AS ({part})" for i, part in enumerate(first))
    return f"WITH {named} {last}" if first else last
