"""`python -m tests.migration_check`: can every migration be applied, taken back and applied again, and do they
make the schema that csms/db/schema.py describes? Uses CSMS_TEST_DATABASE_URL, else a Postgres of its own.
"""

import asyncio
import contextlib
import io
import os
import secrets
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import asyncpg
from alembic import command
from alembic.script import Script, ScriptDirectory
from alembic.util import CommandError
from sqlalchemy.ext.asyncio import AsyncEngine

from csms.db import migrate
from csms.db.engine import create_engine
from csms.db.schema import metadata
from csms.embedded.errors import EmbeddedError
from csms.embedded.postgres import EmbeddedPostgres
from tests.harness.servers import with_database

# Everything but the partitions and alembic's own table. What autogenerate does not compare (checks, expressions,
# storage parameters, sequences) is compared here, in Postgres's own words.
_CATALOG = {
    "columns": """
        SELECT c.relname, a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull, a.attidentity::text,
            pg_get_expr(d.adbin, d.adrelid), l.collname
        FROM pg_attribute a JOIN pg_class c ON c.oid = attrelid
            LEFT JOIN pg_attrdef d ON d.adrelid = attrelid AND d.adnum = attnum
            LEFT JOIN pg_collation l ON l.oid = attcollation
        WHERE attnum > 0 AND NOT attisdropped AND relkind IN ('r', 'p')""",
    "tables": """
        SELECT c.relname, c.reloptions, pg_get_partkeydef(c.oid) FROM pg_class c WHERE relkind IN ('r', 'p')""",
    "indexes": """
        SELECT c.relname, pg_get_indexdef(i.indexrelid)
        FROM pg_index i JOIN pg_class c ON c.oid = indrelid WHERE true""",
    "constraints": """
        SELECT c.relname, k.conname, pg_get_constraintdef(k.oid)
        FROM pg_constraint k JOIN pg_class c ON c.oid = conrelid WHERE contype <> 'n'""",
    "sequences": """
        SELECT c.relname, format_type(seqtypid, null), seqstart, seqincrement, seqmax, seqmin, seqcycle
        FROM pg_sequence JOIN pg_class c ON c.oid = seqrelid WHERE true""",
}
_OURS = (
    " AND c.relnamespace = current_schema()::regnamespace AND NOT c.relispartition"
    " AND c.relname <> 'alembic_version'"
)


class Failed(Exception):
    """A sentence."""


def heads() -> list[str]:
    return ScriptDirectory.from_config(migrate.config()).get_heads()


def scripts() -> list[Script]:
    """Every migration, newest first."""
    return list(ScriptDirectory.from_config(migrate.config()).walk_revisions())


def check_nothing_is_missing(url: str) -> None:
    """`alembic check`. Raises Failed with what it would still do."""
    config = migrate.config(url)
    config.stdout = io.StringIO()
    try:
        command.check(config)
    except CommandError as error:
        raise Failed(f"`alembic check` finds more to do: {error}") from None


def catalog(url: str) -> dict[str, set[tuple[object, ...]]]:
    """The schema of a database: rows of Postgres's own catalog."""

    async def read() -> dict[str, set[tuple[object, ...]]]:
        db = await asyncpg.connect(url)
        try:
            return {
                kind: {
                    tuple(tuple(cell) if isinstance(cell, list) else cell for cell in row)
                    for row in await db.fetch(query + _OURS)
                }
                for kind, query in _CATALOG.items()
            }
        finally:
            await db.close()

    return asyncio.run(read())


def create_described(url: str) -> None:
    """The schema of csms/db/schema.py, without any migration."""

    async def create(engine: AsyncEngine) -> None:
        async with engine.begin() as db:
            await db.run_sync(metadata.create_all)
        await engine.dispose()

    asyncio.run(create(create_engine(url)))


def differences(migrated: str, described: str) -> list[str]:
    """What two databases' schemas do not have in common."""
    left, right = catalog(migrated), catalog(described)
    return [
        f"{kind}: only {where}: {row}"
        for kind in _CATALOG
        for where, rows in (
            ("in the migrations", left[kind] - right[kind]),
            ("in the tables", right[kind] - left[kind]),
        )
        for row in sorted(rows, key=str)
    ]


def check(url: str, empty_url: str) -> None:
    """`url` and `empty_url` are two empty databases. Raises Failed."""
    if len(heads()) != 1:
        raise Failed(f"there must be one head, there are: {', '.join(heads())}")
    migrate.upgrade(url)
    check_nothing_is_missing(url)
    migrate.downgrade(url, "base")
    left = {row for rows in catalog(url).values() for row in rows}
    if left:
        raise Failed(f"a downgrade to base leaves behind: {min(left, key=str)}")
    migrate.upgrade(url)
    check_nothing_is_missing(url)
    create_described(empty_url)
    found = differences(url, empty_url)
    if found:
        raise Failed("the migrations and csms/db/schema.py differ: " + "; ".join(found))


@contextlib.contextmanager
def _server() -> Iterator[str]:
    url = os.environ.get("CSMS_TEST_DATABASE_URL")
    if url:
        yield url
        return
    with tempfile.TemporaryDirectory(prefix="csms-migrations-") as directory:
        Path(directory).chmod(0o755)
        with EmbeddedPostgres(Path(directory), settings={"fsync": "off"}) as postgres:
            yield postgres.url


@contextlib.contextmanager
def _databases(url: str, count: int) -> Iterator[list[str]]:
    names = [f"csms_migrations_{secrets.token_hex(4)}" for _ in range(count)]

    async def each(statement: str) -> None:
        db = await asyncpg.connect(url)
        for name in names:
            await db.execute(statement.format(name))
        await db.close()

    asyncio.run(each("CREATE DATABASE {}"))
    try:
        yield [with_database(url, name) for name in names]
    finally:
        asyncio.run(each("DROP DATABASE {} WITH (FORCE)"))


def main() -> int:
    try:
        with _server() as server, _databases(server, 2) as (url, empty_url):
            check(url, empty_url)
    except (Failed, EmbeddedError, OSError, asyncpg.PostgresError) as error:
        print(f"migrations: {error}", file=sys.stderr)
        return 1
    print(f"migrations: up, down and up again, as the tables of csms/db, one head ({heads()[0]}): ok")
    return 0


if __name__ == "__main__":
    sys.exit(main())
