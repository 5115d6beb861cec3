"""No SQL outside csms/db: what the sources of csms and bridges may import, call and spell."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.harness.servers import REPOSITORY

# Named in annotations where an engine or a connection is handed on to csms/db.
TYPES = {"AsyncEngine", "AsyncConnection"}
DRIVERS = {"sqlalchemy", "asyncpg", "alembic"}
STATEMENT_METHODS = {
    "copy_records_to_table",
    "exec_driver_sql",
    "execute",
    "executemany",
    "fetch",
    "fetchrow",
    "fetchval",
    "get_raw_connection",
    "scalar",
    "scalars",
    "stream",
}
STATEMENT = re.compile(
    r"\s*(SELECT\s|INSERT\s+INTO\s|UPDATE\s+\S+\s+SET\s|DELETE\s+FROM\s|WITH\s+\S+\s+AS\s"
    r"|(CREATE|ALTER|DROP)\s+(TABLE|INDEX|SEQUENCE|DATABASE|ROLE)\s|COPY\s|LOCK\s+TABLE\s|TRUNCATE\s|SET\s+LOCAL\s)"
)
# Run by a server that is being set up, before any connection can be made.
BOOTSTRAP = {("csms/embedded/postgres.py", "CREATE DATABASE ")}


def violations(path: str, source: str) -> Iterator[str]:
    """What is not allowed outside csms/db, as `path:line what`."""
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Import(names=names):
                found = [name.name for name in names if name.name.split(".")[0] in DRIVERS]
            case ast.ImportFrom(module=str(module), names=names) if module.split(".")[0] in DRIVERS:
                allowed = TYPES if module == "sqlalchemy.ext.asyncio" else set()
                found = [f"{module}.{name.name}" for name in names if name.name not in allowed]
            case ast.Call(func=ast.Attribute(attr=method)) if method in STATEMENT_METHODS:
                found = [f".{method}()"]
            case ast.Constant(value=str(text)) if STATEMENT.match(text) and (path, text) not in BOOTSTRAP:
                found = [repr(text[:40])]
            case _:
                found = []
        yield from (f"{path}:{getattr(node, 'lineno', 0)} {what}" for what in found)


def sources() -> Iterator[Path]:
    for package in ("csms", "bridges"):
        for path in sorted((REPOSITORY / package).rglob("*.py")):
            if not path.is_relative_to(REPOSITORY / "csms" / "db"):
                yield path


def test_only_csms_db_holds_sql():
    found = [
        violation
        for path in sources()
        for violation in violations(path.relative_to(REPOSITORY).as_posix(), path.read_text())
    ]
    assert found == []


@pytest.mark.parametrize(
    "source",
    [
        "import asyncpg",
        "import sqlalchemy.exc",
        "from sqlalchemy import text",
        "from sqlalchemy.ext.asyncio import create_async_engine",
        "def f():\n    from sqlalchemy import select",
        "db.execute(x)",
        "await connection.scalar(x)",
        "QUERY = 'SELECT 1'",
        "f'DELETE FROM {table} WHERE x'",
        '"""\n  INSERT INTO answers"""',
    ],
)
def test_a_violation_is_noticed(source):
    assert list(violations("csms/api/x.py", source))


@pytest.mark.parametrize(
    "source",
    [
        "from sqlalchemy.ext.asyncio import AsyncEngine",
        "from csms.db import charger_views",
        "raise ValueError('Select a connector; update it.')",
        "'set CSMS_PG_BIN'",
    ],
)
def test_what_is_allowed_passes(source):
    assert list(violations("csms/api/x.py", source)) == []
