"""Real errors of asyncpg and SQLAlchemy, and which of them mean that the database is away."""

import asyncio

import asyncpg
import pytest
from sqlalchemy import text
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import create_async_engine

from csms.db.engine import create_engine
from csms.db.engine import database_url as sqlalchemy_url
from csms.db.outages import DATABASE_ERRORS, connection_failed, driver_error, is_away
from tests.harness import servers
from tests.harness.ledger_harness import connected
from tests.harness.postgres_proxy import through_a_proxy

MESSAGE = "INSERT INTO tags (id_tag) VALUES ('T1')"
# What goes before (one statement each), the statement that fails, the error, whether the database is away.
STATEMENTS = {
    "a standby": (
        ["SET default_transaction_read_only = on"],
        MESSAGE,
        asyncpg.ReadOnlySQLTransactionError,
        True,
    ),
    "statement_timeout": (
        ["SET statement_timeout = 10"],
        "SELECT pg_sleep(9)",
        asyncpg.QueryCanceledError,
        True,
    ),
    "an administrator ends the session": (
        [],
        "SELECT pg_terminate_backend(pg_backend_pid())",
        (asyncpg.AdminShutdownError, asyncpg.ConnectionDoesNotExistError),
        True,
    ),
    "a table that a migration has renamed": (
        ["ALTER TABLE tags RENAME TO hidden"],
        MESSAGE,
        asyncpg.UndefinedTableError,
        True,
    ),
    "a column that a migration has renamed": (
        ["ALTER TABLE tags RENAME id_tag TO hidden"],
        MESSAGE,
        asyncpg.UndefinedColumnError,
        True,
    ),
    "a right that is missing": (["SET ROLE pg_monitor"], MESSAGE, asyncpg.InsufficientPrivilegeError, True),
    "a schema that is missing": ([], "CREATE TABLE gone.x ()", asyncpg.InvalidSchemaNameError, True),
    "a value that is there already": ([MESSAGE], MESSAGE, asyncpg.UniqueViolationError, False),
    "a value that is missing": (
        [],
        "INSERT INTO tags (id_tag) VALUES (NULL)",
        asyncpg.NotNullViolationError,
        False,
    ),
    "a value that a check refuses": (
        [],
        "INSERT INTO tags (id_tag, status) VALUES ('T1', 'odd')",
        asyncpg.CheckViolationError,
        False,
    ),
    "a reference to nothing": (
        [],
        "INSERT INTO tags (id_tag, tariff_id) VALUES ('T1', 'none')",
        asyncpg.ForeignKeyViolationError,
        False,
    ),
    "a number that is too large": (
        [],
        "SELECT 2147483647::int4 + 1",
        asyncpg.NumericValueOutOfRangeError,
        False,
    ),
    "a text that is no number": ([], "SELECT 'x'::int4", asyncpg.InvalidTextRepresentationError, False),
    "a division by zero": ([], "SELECT 1 / 0", asyncpg.DivisionByZeroError, False),
}


async def raised(work):
    """The error that an awaitable ends in."""
    with pytest.raises(DATABASE_ERRORS) as caught:
        await work
    return caught.value


async def by_sqlalchemy(engine, statements):
    async with engine.connect() as connection:
        db = await connection.execution_options(isolation_level="AUTOCOMMIT")
        for statement in statements:
            await db.execute(text(statement))


async def by_asyncpg(url, statements):
    async with connected(url) as db:
        for statement in statements:
            await db.execute(statement)


@pytest.mark.parametrize("driver", ["asyncpg", "SQLAlchemy"])
@pytest.mark.parametrize(("before", "statement", "kind", "away"), STATEMENTS.values(), ids=STATEMENTS)
async def test_errors_of_statements(engine, database_url, driver, before, statement, kind, away):
    run, target = (by_asyncpg, database_url) if driver == "asyncpg" else (by_sqlalchemy, engine)
    error = await raised(run(target, [*before, statement]))
    assert isinstance(driver_error(error), kind)
    assert is_away(error) is away


@pytest.mark.parametrize("value", ["a\0b", "\ud800"])
async def test_a_text_that_postgres_cannot_store_is_no_outage(engine, value):
    async with engine.connect() as db:
        with pytest.raises(Exception) as caught:
            await db.execute(text("SELECT CAST(:value AS text)"), {"value": value})
    assert not is_away(caught.value)


async def test_a_parameter_beyond_its_type_is_no_outage(database_url):
    async with connected(database_url) as db:
        error = await raised(db.fetch("SELECT $1::int4", 2**31))
    assert isinstance(error, asyncpg.DataError)
    assert not is_away(error)


async def test_two_transactions_that_wait_for_each_other(engine, database_url):
    async with connected(database_url) as db:
        await db.execute("INSERT INTO tags (id_tag) VALUES ('A'), ('B')")
    change = "UPDATE tags SET status = 'Blocked' WHERE id_tag = '{}'"
    async with engine.connect() as one, engine.connect() as other:
        await one.execute(text(change.format("A")))
        await other.execute(text(change.format("B")))
        ended = await asyncio.gather(
            one.execute(text(change.format("B"))),
            other.execute(text(change.format("A"))),
            return_exceptions=True,
        )
    (error,) = [result for result in ended if isinstance(result, Exception)]
    assert isinstance(driver_error(error), asyncpg.DeadlockDetectedError)
    assert is_away(error)


async def test_a_row_that_has_changed_since_the_snapshot(engine, database_url):
    async with connected(database_url) as db:
        await db.execute(MESSAGE)
    async with engine.connect() as connection:
        one = await connection.execution_options(isolation_level="REPEATABLE READ")
        await one.execute(text("SELECT FROM tags"))
        async with connected(database_url) as db:
            await db.execute("UPDATE tags SET status = 'Blocked'")
        error = await raised(one.execute(text("UPDATE tags SET status = 'Accepted'")))
    assert isinstance(driver_error(error), asyncpg.SerializationError)
    assert is_away(error)


async def test_a_lock_that_is_not_given_in_time(engine, database_url):
    async with connected(database_url) as db, db.transaction():
        await db.execute("LOCK TABLE tags")
        error = await raised(by_sqlalchemy(engine, ["SET lock_timeout = 10", MESSAGE]))
    assert isinstance(driver_error(error), asyncpg.LockNotAvailableError)
    assert is_away(error)


async def test_a_prepared_statement_whose_columns_a_migration_has_changed(database_url):
    async with connected(database_url) as db, connected(database_url) as migration:
        async with db.transaction():
            await db.fetch("SELECT * FROM tariffs")
        async with db.transaction():
            await db.fetchval("SELECT 1")  # a snapshot, so that asyncpg cannot prepare the statement again
            await migration.execute("ALTER TABLE tariffs ADD COLUMN added int")
            error = await raised(db.fetch("SELECT * FROM tariffs"))
    assert isinstance(error, asyncpg.InvalidCachedStatementError)
    assert is_away(error)


async def test_a_pool_whose_connections_are_all_in_use(database_url):
    pool = create_async_engine(sqlalchemy_url(database_url), pool_size=1, max_overflow=0, pool_timeout=0.01)
    async with pool.connect():
        error = await raised(by_sqlalchemy(pool, []))
    assert isinstance(error, PoolTimeoutError)
    assert is_away(error)
    await pool.dispose()


async def test_a_server_that_does_not_run():
    nowhere = create_engine(f"postgresql://csms@127.0.0.1:{servers.unused_port()}/none")
    error = await raised(by_sqlalchemy(nowhere, []))
    assert isinstance(error, ConnectionRefusedError)
    assert is_away(error)


async def test_a_database_that_does_not_exist(databases):
    url = await databases.create()
    await databases.drop(url)
    error = await raised(by_sqlalchemy(create_engine(url), []))
    assert isinstance(driver_error(error), asyncpg.InvalidCatalogNameError)
    assert is_away(error)


@pytest.mark.parametrize(
    ("state", "kind"),
    [
        (b"57P03", asyncpg.CannotConnectNowError),
        (b"53300", asyncpg.TooManyConnectionsError),
        (b"28P01", asyncpg.InvalidPasswordError),
        (b"28000", asyncpg.InvalidAuthorizationSpecificationError),
    ],
)
async def test_a_server_that_refuses_the_connection(database_url, state, kind):
    async with through_a_proxy(database_url) as (proxy, through):
        proxy.refusal = b"SFATAL\0VFATAL\0C%b\0Mnot now\0\0" % state
        refusing = create_engine(through)
        error = await raised(by_sqlalchemy(refusing, []))
        assert isinstance(driver_error(error), kind)
        assert is_away(error)
        assert str(connection_failed(error)) == "not now"
        await refusing.dispose()


async def test_a_connection_that_was_closed(database_url):
    async with connected(database_url) as db:
        db.terminate()
        assert is_away(await raised(db.fetchval("SELECT 1")))


@pytest.mark.parametrize(
    "error", [ValueError("x"), KeyError("x"), RuntimeError("x"), asyncio.CancelledError()]
)
def test_errors_of_the_program_are_no_outage(error):
    assert not is_away(error)
