"""The fixtures of tests/conftest.py, from the outside."""

import asyncio
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import aiomqtt
import asyncpg
import pytest

from csms.embedded.ports import is_free
from tests.harness import servers
from tests.harness.servers import REPOSITORY, Addresses, Broker, DatabaseFactory, Mosquitto, unused_port


async def test_every_test_has_a_database_of_its_own(
    database_url: str, empty_database_url: str, databases: DatabaseFactory, template_database: str
) -> None:
    third = await databases.create(template_database)
    try:
        names = set()
        for url in (database_url, empty_database_url, third):
            connection = await asyncpg.connect(url)
            names.add(await connection.fetchval("SELECT current_database()"))
            await connection.execute("CREATE TABLE only_here (n int)")
            await connection.close()
        assert len(names) == 3
    finally:
        await databases.drop(third)


async def test_a_database_goes_away_under_its_connections(databases: DatabaseFactory) -> None:
    url = await databases.create()
    connection = await asyncpg.connect(url)
    await databases.drop(url)
    with pytest.raises((asyncpg.PostgresError, asyncpg.InterfaceError, OSError)):
        await connection.execute("SELECT 1")
    connection.terminate()
    with pytest.raises(asyncpg.InvalidCatalogNameError):
        await asyncpg.connect(url)


def test_a_test_without_a_loop_can_use_a_database_too(database_url: str) -> None:
    async def ask() -> object:
        connection = await asyncpg.connect(database_url)
        try:
            return await connection.fetchval("SELECT 1")
        finally:
            await connection.close()

    assert asyncio.run(ask()) == 1


async def test_the_template_is_made_once(addresses: Addresses, template_database: str) -> None:
    names = await asyncio.gather(
        *(servers.make_template(addresses.database_url, addresses.run_id) for _ in range(3))
    )
    assert set(names) == {template_database}


@pytest.mark.skipif(not (REPOSITORY / "migrations/env.py").exists(), reason="no migrations yet")
async def test_a_tests_database_is_migrated(database_url: str, empty_database_url: str) -> None:
    tables = "SELECT count(*) FROM pg_tables WHERE schemaname = 'public'"
    counts = []
    for url in (database_url, empty_database_url):
        connection = await asyncpg.connect(url)
        counts.append(await connection.fetchval(tables))
        await connection.close()
    assert counts[0] > 1
    assert counts[1] == 0


async def said(host: str, port: int, **options: Any) -> bytes:
    """What comes back from a broker over a round trip."""
    async with aiomqtt.Client(host, port, timeout=10, **options) as client, asyncio.timeout(10):
        await client.subscribe("probe", qos=1)
        await client.publish("probe", "there", qos=1)
        return (await anext(aiter(client.messages))).payload


async def test_the_shared_broker_answers(broker: Broker) -> None:
    async with aiomqtt.Client(broker.host, broker.port, timeout=10):
        pass


async def test_a_private_mosquitto_comes_back_on_its_port(mosquitto: Callable[..., Mosquitto]) -> None:
    server = mosquitto()
    assert await said(server.host, server.port) == b"there"
    server.kill()
    with pytest.raises(aiomqtt.MqttError):
        await said(server.host, server.port)
    server.restart()
    assert await said(server.host, server.port_v5, protocol=aiomqtt.ProtocolVersion.V5) == b"there"
    assert "New client connected" in server.log


async def test_a_private_mosquitto_keeps_its_password_file_and_acl(
    mosquitto: Callable[..., Mosquitto],
) -> None:
    server = mosquitto(users={"meter": "secret"}, acl="user meter\ntopic readwrite probe\n")
    assert await said(server.host, server.port, username="meter", password="secret") == b"there"
    with pytest.raises(aiomqtt.MqttError):
        await said(server.host, server.port, username="meter", password="guess")
    with pytest.raises(aiomqtt.MqttError):
        await said(server.host, server.port)


async def test_a_private_mosquitto_with_persistence_keeps_messages_over_a_stop(
    mosquitto: Callable[..., Mosquitto],
) -> None:
    server = mosquitto("persistence true")
    async with aiomqtt.Client(server.host, server.port) as client:
        await client.publish("kept", "on", qos=1, retain=True)
    server.restart()
    async with aiomqtt.Client(server.host, server.port) as client, asyncio.timeout(10):
        await client.subscribe("kept", qos=1)
        assert (await anext(aiter(client.messages))).payload == b"on"


def test_two_ports_differ(unused_port: int) -> None:
    assert len({unused_port, servers.unused_port(), servers.unused_port()}) == 3


def test_a_topic_prefix_holds_no_wildcard(topic_prefix: str) -> None:
    assert topic_prefix.startswith("test/")
    assert not {"+", "#"} & set(topic_prefix)


def run_pytest(directory: Path, source: str, *options: str) -> "subprocess.CompletedProcess[str]":
    """A test run of its own with these fixtures; its servers are its own, too."""
    file = directory / "test_inner.py"
    file.write_text(source)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    return subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "-c", str(REPOSITORY / "pyproject.toml")),
            *("-p", "tests.conftest", "-p", "no:cacheprovider", *options, str(file)),
        ],
        cwd=REPOSITORY,
        env=environment,
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )


def test_a_leaked_task_fails_its_test_and_no_other(tmp_path: Path) -> None:
    done = run_pytest(
        tmp_path,
        """
import asyncio
import pytest_asyncio

async def forever():
    await asyncio.sleep(3600)

@pytest_asyncio.fixture(scope="session")
async def server():
    task = asyncio.create_task(forever(), name="session-long")
    yield
    task.cancel()

async def test_leaks():
    asyncio.create_task(forever(), name="lost-and-found")

async def test_cleans_up(server):
    task = asyncio.create_task(forever(), name="tidy")
    await asyncio.sleep(0)
    task.cancel()
""",
        "-n0",
    )
    assert "2 passed, 1 error" in done.stdout
    assert "tasks still running at the end of the test: lost-and-found (forever)" in done.stdout
    assert "csms-test-" not in done.stdout  # no server was started


def test_one_server_serves_all_workers_and_is_gone_afterwards(tmp_path: Path) -> None:
    notes = tmp_path / "notes"
    notes.mkdir()
    source = f"""
import pytest

@pytest.mark.parametrize("number", range(4))
def test_uses(number, database_url, broker):
    with open(f"{notes}/{{number}}", "w") as file:
        file.write(f"{{database_url.rpartition('/')[0]}} {{broker.port}}")
"""
    done = run_pytest(tmp_path, source, "-n2", "--dist=load")
    assert "4 passed" in done.stdout, done.stdout + done.stderr
    used = {note.read_text() for note in notes.iterdir()}
    assert len(used) == 1
    address, broker_port = used.pop().split()
    assert is_free(int(address.rpartition(":")[2]))
    assert is_free(int(broker_port))
    assert "Postgres: " in done.stdout
    assert "iotcore" in done.stdout


def test_a_given_server_is_used_and_left_as_it_was(
    tmp_path: Path, addresses: Addresses, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CSMS_TEST_DATABASE_URL", addresses.database_url)
    done = run_pytest(
        tmp_path,
        f"""
def test_uses(database_url, empty_database_url, addresses):
    assert database_url.startswith({addresses.database_url.rpartition("/")[0]!r})
    with open({str(tmp_path / "run_id")!r}, "w") as file:
        file.write(addresses.run_id)
""",
        "-n0",
    )
    assert "1 passed" in done.stdout, done.stdout + done.stderr
    assert "CSMS_TEST_DATABASE_URL" in done.stdout
    prefix = servers.database_prefix((tmp_path / "run_id").read_text())

    async def left() -> list[object]:
        connection = await asyncpg.connect(addresses.database_url)
        rows = await connection.fetch(
            "SELECT datname FROM pg_database WHERE starts_with(datname, $1)", prefix
        )
        await connection.close()
        return rows

    assert asyncio.run(left()) == []


def test_a_port_handed_out_is_not_handed_out_again() -> None:
    assert len({unused_port() for _ in range(50)}) == 50
