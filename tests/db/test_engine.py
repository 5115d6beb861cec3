"""DATABASE_URL as operators write it, and connections that are lost while idle."""

from pathlib import Path

import asyncpg
import pytest
from sqlalchemy import text
from sqlalchemy.dialects.postgresql.asyncpg import AsyncAdapt_asyncpg_connection
from sqlalchemy.ext.asyncio import AsyncEngine

from csms.cli.database import current_revision
from csms.db.driver import driver_connection
from csms.db.engine import create_engine, database_url, driver_options
from csms.errors import SettingsError, StartError
from tests.harness.postgres_proxy import through_a_proxy
from tests.harness.waiting import until


@pytest.mark.parametrize("scheme", ["postgres", "postgresql", "postgresql+asyncpg", "postgresql+psycopg"])
def test_both_schemes_of_postgres_get_asyncpg(scheme: str) -> None:
    url = database_url(f"{scheme}://me:secret@host:5433/name")
    assert url.render_as_string(hide_password=False) == "postgresql+asyncpg://me:secret@host:5433/name"
    assert driver_options(f"{scheme}://me:secret@host:5433/name") == {}


@pytest.mark.parametrize("address", ["mysql://me:secret@host/name", "host/name", ""])
def test_other_schemes_are_refused_without_showing_the_password(address: str) -> None:
    with pytest.raises(SettingsError, match="postgresql://user:password@host:5432/database") as refused:
        database_url(address)
    assert "secret" not in str(refused.value)


def test_parameters_of_libpq_go_to_the_driver_without_the_password(tmp_path: Path) -> None:
    ca = tmp_path / "my ca.pem"
    address = f"postgresql://me:secret@host/name?sslmode=verify-full&sslrootcert={ca}"
    with pytest.raises(
        SettingsError, match=r"sslrootcert=.*my ca.pem cannot be used; allowed: an existing file"
    ):
        driver_options(address)
    ca.touch()
    assert database_url(address).query == {}
    (dsn,) = driver_options(address).values()
    assert dsn.startswith("postgresql://?sslmode=verify-full&sslrootcert=%2F")
    assert "secret" not in dsn


def test_several_hosts_stay_in_the_address() -> None:
    address = "postgresql://me@/name?host=a:1&host=b:2&sslmode=disable"
    assert database_url(address).query == {"host": ("a:1", "b:2")}
    assert driver_options(address) == {"dsn": "postgresql://?sslmode=disable"}


def test_an_sslmode_that_does_not_exist_is_refused() -> None:
    with pytest.raises(
        SettingsError, match=r"sslmode=on cannot be used; allowed: disable, allow, prefer, require"
    ):
        create_engine("postgresql://me@host/name?sslmode=on")


async def test_the_driver_obeys_the_parameters(database_url: str) -> None:
    bare = database_url.split("?")[0]
    engine = create_engine(f"{bare}?sslmode=disable&application_name=mine&statement_timeout=7s")
    async with engine.connect() as db:
        assert await db.scalar(text("SHOW statement_timeout")) == "7s"
        assert await db.scalar(text("SHOW timezone")) == "UTC"
    await engine.dispose()
    # The tests' server has no TLS.
    engine = create_engine(f"{bare}?sslmode=require")
    with pytest.raises(ConnectionError, match="rejected SSL"):
        await engine.connect()
    await engine.dispose()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda bare: f"{bare}?sslmode=require", "rejected SSL"),
        (lambda bare: bare.replace("://", "://stranger-"), "password authentication failed"),
        (lambda bare: f"{bare}-not-there", "does not exist"),
        (lambda bare: "postgresql://127.0.0.1:1/nothing-listens", "refused"),
    ],
    ids=["no TLS here", "wrong user", "no database", "no server"],
)
async def test_a_refused_connection_is_one_sentence(database_url: str, change, said: str) -> None:
    with pytest.raises(StartError, match=r"the database does not answer \(.*DATABASE_URL right\?") as refused:
        await current_revision(change(database_url.split("?")[0]))
    assert said in str(refused.value)
    assert "sqlalchemy" not in str(refused.value)


@pytest.mark.parametrize(("trusted_s", "pings"), [(10, 0), (0, 2)])
async def test_only_an_idle_connection_is_pinged(
    database_url: str, monkeypatch: pytest.MonkeyPatch, trusted_s: float, pings: int
) -> None:
    pinged = []
    ping = AsyncAdapt_asyncpg_connection.ping
    monkeypatch.setattr(
        AsyncAdapt_asyncpg_connection, "ping", lambda connection: pinged.append(ping(connection))
    )
    engine = create_engine(database_url, trusted_s=trusted_s)
    for _ in range(3):  # the first is new
        async with engine.connect() as db:
            await db.execute(text("SELECT 1"))
    await engine.dispose()
    assert len(pinged) == pings


async def test_a_connection_that_postgres_has_closed_is_replaced(
    engine: AsyncEngine, database_url: str
) -> None:
    async with engine.connect() as one, engine.connect() as other:
        pids = {await db.scalar(text("SELECT pg_backend_pid()")) for db in (one, other)}
        pooled = [await driver_connection(db) for db in (one, other)]
    killer = await asyncpg.connect(database_url)
    for pid in pids:
        await killer.execute("SELECT pg_terminate_backend($1, 5000)", pid)
    await killer.close()
    await until(lambda: all(connection.is_closed() for connection in pooled))
    async with engine.connect() as one, engine.connect() as other:
        assert not pids & {await db.scalar(text("SELECT pg_backend_pid()")) for db in (one, other)}


async def test_a_connection_that_a_firewall_has_dropped_is_replaced(database_url: str) -> None:
    async with through_a_proxy(database_url) as (firewall, address):
        engine = create_engine(address, pool_size=1, trusted_s=0)
        async with engine.connect() as db:
            pid = await db.scalar(text("SELECT pg_backend_pid()"))
        firewall.forget()
        async with engine.connect() as db:
            assert await db.scalar(text("SELECT pg_backend_pid()")) != pid
        await engine.dispose()
