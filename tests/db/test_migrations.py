import asyncio
import os
import shutil
import subprocess
import sys
from pathlib import Path

import asyncpg
import pytest
from sqlalchemy import String
from sqlalchemy.exc import DBAPIError

from csms.db import migrate
from csms.db.engine import create_engine
from csms.db.partitions import ensure
from csms.db.schema import metadata
from csms.errors import StartError
from tests import migration_check
from tests.harness.ledger_harness import connected
from tests.harness.narrowing import present
from tests.harness.servers import REPOSITORY


def alembic(url, *arguments, directory=REPOSITORY):
    """The plain command, from the repository root or another directory with an alembic.ini."""
    return subprocess.Popen(
        [sys.executable, "-m", "alembic", *arguments],
        cwd=directory,
        env=os.environ | {"DATABASE_URL": url},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


async def finished(process):
    out, err = await asyncio.to_thread(process.communicate, timeout=50)
    return process.returncode, out, err


async def at_revision(url):
    engine = create_engine(url)
    try:
        return await migrate.current(engine)
    finally:
        await engine.dispose()


async def test_there_is_one_head():
    assert migration_check.heads() == [migrate.head()]


def test_file_names_carry_the_number_of_their_revision():
    for script in migration_check.scripts():
        assert Path(script.path).name.startswith(f"{script.revision}_")
    assert [script.revision for script in migration_check.scripts()] == [
        f"{number:04d}" for number in range(int(present(migrate.head())), 0, -1)
    ]


async def test_every_revision_upgrades_to_the_next(empty_database_url, database_url):
    for script in reversed(migration_check.scripts()):
        await asyncio.to_thread(migrate.upgrade, empty_database_url, script.revision)
        assert await at_revision(empty_database_url) == script.revision
    both = empty_database_url, database_url
    assert await asyncio.to_thread(migration_check.differences, *both) == []


async def test_a_new_revision_gets_the_next_number(database_url, tmp_path):
    shutil.copytree(migrate.scripts(), tmp_path / "migrations")
    (tmp_path / "alembic.ini").write_text((REPOSITORY / "alembic.ini").read_text())
    made = alembic(database_url, "revision", "--autogenerate", "-m", "tag owners", directory=tmp_path)
    status, _, error = await finished(made)
    assert status == 0, error
    number = f"{int(present(migrate.head())) + 1:04d}"
    (script,) = (tmp_path / "migrations" / "versions").glob(f"{number}_*.py")
    assert script.name == f"{number}_tag_owners.py"
    assert f'revision = "{number}"' in script.read_text().replace("'", '"')


async def test_migrations_can_be_taken_back_and_make_the_described_schema(databases, empty_database_url):
    other = await databases.create()
    try:
        assert await at_revision(empty_database_url) is None
        await asyncio.to_thread(migration_check.check, empty_database_url, other)
        assert await at_revision(empty_database_url) == migrate.head()
    finally:
        await databases.drop(other)


@pytest.mark.parametrize(
    "change",
    [
        "ALTER TABLE tags DROP CONSTRAINT tags_status_check",
        "ALTER TABLE tags ALTER COLUMN status DROP DEFAULT",
        "ALTER TABLE charger_states RESET (fillfactor)",
        "DROP INDEX transactions_open_id_tag_idx",
        "ALTER SEQUENCE transaction_ids CYCLE",
        "ALTER TABLE readings ALTER COLUMN samples TYPE jsonb USING samples::jsonb",
        "CREATE TABLE forgotten (id int)",
    ],
)
async def test_a_difference_of_the_schema_is_noticed(empty_database_url, database_url, change):
    await asyncio.to_thread(migration_check.create_described, empty_database_url)
    both = database_url, empty_database_url
    assert await asyncio.to_thread(migration_check.differences, *both) == []
    async with connected(database_url) as db:
        await db.execute(change)
    assert await asyncio.to_thread(migration_check.differences, *both) != []


async def test_a_missing_column_is_noticed(database_url):
    async with connected(database_url) as db:
        await db.execute("ALTER TABLE tags DROP COLUMN parent_id_tag")
    with pytest.raises(migration_check.Failed, match="parent_id_tag"):
        await asyncio.to_thread(migration_check.check_nothing_is_missing, database_url)


async def test_daily_partitions_are_no_difference(database_url):
    engine = create_engine(database_url)
    async with engine.begin() as db:
        await ensure(db)
    await engine.dispose()
    await asyncio.to_thread(migration_check.check_nothing_is_missing, database_url)


async def test_plain_alembic_does_what_csms_does(databases, empty_database_url):
    other = await databases.create()
    try:
        status, _, error = await finished(alembic(empty_database_url, "upgrade", "head"))
        assert status == 0, error
        await asyncio.to_thread(migrate.upgrade, other)
        assert await asyncio.to_thread(migration_check.differences, empty_database_url, other) == []
        assert await at_revision(empty_database_url) == await at_revision(other) == migrate.head()
    finally:
        await databases.drop(other)


async def test_two_upgrades_at_once_wait_for_each_other(empty_database_url):
    both = [alembic(empty_database_url, "upgrade", "head") for _ in range(2)]
    for status, _, error in await asyncio.gather(*map(finished, both)):
        assert status == 0, error
    assert await at_revision(empty_database_url) == migrate.head()


async def test_a_migration_that_waits_for_a_lock_gives_up(database_url, monkeypatch):
    monkeypatch.setenv("CSMS_MIGRATE_LOCK_TIMEOUT", "100ms")
    await asyncio.to_thread(migrate.downgrade, database_url, "0005")
    newest = await at_revision(database_url)
    async with connected(database_url) as user:
        async with user.transaction():
            await user.fetch("SELECT 1 FROM chargers, transactions")
            with pytest.raises(DBAPIError) as refused:
                await asyncio.to_thread(migrate.downgrade, database_url, "base")
        assert isinstance(present(refused.value.orig).__cause__, asyncpg.LockNotAvailableError)
        # Nothing was half done: a migration is one transaction.
        assert await user.fetchval("SELECT count(*) FROM transactions") == 0
    assert await at_revision(database_url) == newest
    await asyncio.to_thread(migrate.downgrade, database_url, "base")
    assert await at_revision(database_url) is None


async def test_the_statements_can_be_printed_and_run_by_hand(databases, empty_database_url, capsys):
    other = await databases.create()
    try:
        await asyncio.to_thread(migrate.sql, empty_database_url)
        script = capsys.readouterr().out
        assert "CREATE TABLE transactions" in script
        async with connected(empty_database_url) as db:
            assert await db.fetchval("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'") == 0
            # One by one, as psql does: CREATE INDEX CONCURRENTLY must not be in a transaction.
            for statement in filter(str.strip, script.split(";\n")):
                await db.execute(statement)
        await asyncio.to_thread(migrate.upgrade, other)
        assert await asyncio.to_thread(migration_check.differences, empty_database_url, other) == []
        assert await at_revision(empty_database_url) == migrate.head()
    finally:
        await databases.drop(other)


def test_without_an_address_the_error_says_what_to_do(monkeypatch):
    monkeypatch.delenv("DATABASE_URL", raising=False)
    with pytest.raises(StartError, match="DATABASE_URL"):
        migrate.default_url()


def test_a_password_with_special_characters_survives():
    address = "postgresql://u:p%25%40s@127.0.0.1/x"
    assert migrate.config(address).attributes["url"] == address


def test_identities_sort_by_byte():
    for table in metadata.tables.values():
        for column in table.columns:
            if column.name == "charger_id":
                assert isinstance(column.type, String)
                assert column.type.collation == "C", table.name
