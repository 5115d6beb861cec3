"""Statements made from the tables' own columns: to read records, to write many rows at once, to run several as one."""

import re
from collections.abc import Iterable, Sequence
from functools import lru_cache
from operator import attrgetter
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


def json_text(value: Any) -> str | None:
    """JSON as asyncpg takes it on a connection of SQLAlchemy's; None is NULL."""
    return None if value is None else msgspec.json.encode(value).decode()


def array_text(words: Iterable[str]) -> str:
    """An array of plain words as Postgres reads it: it has no arrays of arrays of unequal length."""
    return "{" + ",".join(f'"{word}"' for word in words) + "}"


class RecordSql:
    """A record type and the statements that read and write it. The columns are the record's fields.

    `settings`: columns that only operators change; they are written with a new row, never over a stored one.
    """

    def __init__(self, record: type[Any], table: Table, *, settings: tuple[str, ...] = ()) -> None:
        self.record = record
        self.table = table
        self.columns: tuple[str, ...] = record.__struct_fields__
        self.types = tuple(_TYPES[type(table.c[name].type).__name__] for name in self.columns)
        self.primary_key = tuple(column.name for column in table.primary_key.columns)
        self._json_at = [i for i, kind in enumerate(self.types) if kind == "jsonb"]
        # How the columns that asyncpg does not take as they are become text.
        self._texts = {
            name: json_text if kind == "jsonb" else array_text
            for name, kind in zip(self.columns, self.types, strict=True)
            if kind in {"jsonb", "text[]"}
        }
        into = f"INSERT INTO {table.name} ({', '.join(self.columns)})"
        changes = ", ".join(
            f"{name} = excluded.{name}" for name in self.columns if name not in self.primary_key + settings
        )
        replace = f"ON CONFLICT ({', '.join(self.primary_key)}) DO UPDATE SET {changes}"
        parameters = [f"${i}::{kind}" for i, kind in enumerate(self.types, 1)]
        arrays = ", ".join(f"{parameter.removesuffix('[]')}[]" for parameter in parameters)
        # A column of arrays comes as texts, and is cast.
        new = ", ".join(
            f"{name}::text[]" if kind == "text[]" else name
            for name, kind in zip(self.columns, self.types, strict=True)
        )
        self.select = f"SELECT {', '.join(self.columns)} FROM {table.name}"
        # One array per column, however many rows there are.
        self.upsert_arrays = (
            f"{into} SELECT {new} FROM unnest({arrays}) AS new({', '.join(self.columns)}) {replace}"
        )
        self.insert_row = f"{into} VALUES ({', '.join(parameters)})"
        self.upsert_row = f"{self.insert_row} {replace}"

    def arrays(self, rows: Sequence[Any], names: Sequence[str] | None = None) -> list[list[Any]]:
        """The arguments of `upsert_arrays`, or those columns only."""
        return [self._array(name, rows) for name in names or self.columns]

    def _array(self, name: str, rows: Sequence[Any]) -> list[Any]:
        values = map(attrgetter(name), rows)
        text = self._texts.get(name)
        return list(values if text is None else map(text, values))

    def values(self, row: Any) -> list[Any]:
        """The arguments of `upsert_row`."""
        values = list(msgspec.structs.astuple(row))
        for i in self._json_at:
            values[i] = json_text(values[i])
        return values

    async def copy(self, db: DriverConnection, rows: Iterable[Any]) -> None:
        """Add rows by COPY."""
        await db.copy_records_to_table(
            self.table.name, records=map(msgspec.structs.astuple, rows), columns=self.columns
        )


class PartialUpdate:
    """Some columns of a table, and the statement that changes only them."""

    def __init__(self, kind: RecordSql, *columns: str) -> None:
        self.kind = kind
        self.columns = columns
        named = kind.primary_key + columns
        types = dict(zip(kind.columns, kind.types, strict=True))
        arrays = ", ".join(f"${i}::{types[name]}[]" for i, name in enumerate(named, 1))
        changes = ", ".join(f"{name} = new.{name}" for name in columns)
        table = kind.table.name
        same = " AND ".join(f"{table}.{name} = new.{name}" for name in kind.primary_key)
        self.update = (
            f"UPDATE {table} SET {changes} FROM unnest({arrays}) AS new({', '.join(named)}) WHERE {same}"
        )

    def arrays(self, rows: Sequence[Any]) -> list[list[Any]]:
        """The arguments of `update`."""
        return self.kind.arrays(rows, self.kind.primary_key + self.columns)

    def covers(self, before: Any, after: Any) -> bool:
        """Whether two records differ in no other column."""
        new = {name: getattr(after, name) for name in self.columns}
        return bool(msgspec.structs.replace(before, **new) == after)


class StatementBatch:
    """Statements that do not see each other's effects, run as one: a single round trip."""

    def __init__(self) -> None:
        self._statements: list[str] = []
        self._arguments: list[list[Any]] = []

    def add(self, statement: str, arguments: Iterable[list[Any]]) -> None:
        self._statements.append(statement)
        self._arguments += arguments

    async def run(self, db: DriverConnection) -> None:
        if self._statements:
            await db.execute(joined(tuple(self._statements)), *self._arguments)


@lru_cache(maxsize=1000)
def joined(statements: tuple[str, ...]) -> str:
    """The statements as one: all but the last in a WITH clause, their parameters numbered on."""
    parts: list[str] = []
    used = 0
    for statement in statements:
        parts.append(_PARAMETER.sub(lambda found, used=used: f"${int(found[1]) + used}", statement))  # type: ignore[misc]
        used += max(int(number) for number in _PARAMETER.findall(statement))
    *first, last = parts
    named = ", ".join(f"part_{i} AS ({part})" for i, part in enumerate(first))
    return f"WITH {named} {last}" if first else last
