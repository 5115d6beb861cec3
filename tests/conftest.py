"""Starts the run's servers in the controlling process, hands out databases, brokers and ports, finds leaked tasks."""

import asyncio
import faulthandler
import functools
import gc
import io
import logging
import os
import secrets
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import asyncpg
import pytest
import pytest_asyncio
import structlog
import uvloop

from csms import log
from tests.harness import servers
from tests.harness.servers import Addresses, Broker, DatabaseFactory, Mosquitto, Services

_SERVICES = pytest.StashKey[Services]()
_SERVERS = {"addresses", "mosquitto"}  # fixtures that stand for servers
_TASK_GRACE_S = 0.25
# Mostly waiting: a second of such a file is a third of a second of a processor, or less. Longest first.
_WAITING = (
    "soak/test_kills.py",
    "bridges/charge_amps/test_schedules.py",
    "e2e/test_command_queue.py",
    "bridges/charge_amps/test_sessions.py",
    "bridges/coin_op/test_outages.py",
    "e2e/test_connections.py",
    "bridges/ev_meter/test_bridge.py",
    "e2e/test_postgres_away.py",
    "security/test_keys.py",
    "e2e/test_charger_state.py",
    "bridges/charge_amps/test_clients.py",
    "mqtt/test_relay.py",
    "db/test_ledger_outages.py",
    "bridges/coin_op/test_browser.py",
    "console/test_operator_in_browser.py",
    "plans/test_simulated.py",
    "e2e/test_reconciler.py",
    "mqtt/test_state.py",
)
_LONG_FIRST = (
    "soak",
    "e2e",
    "bridges",
    "embedded",
    "security",
    "conformance",
    "plans",
    "mqtt",
    "db",
    "examples",
    "simulate",
    "rental",
    "api",
    "console",
)
_FILES_BETWEEN = 5


# -- the servers' life -------------------------------------------------------------------------------------


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--no-servers",
        action="store_true",
        help="run only the tests that need neither the run's servers nor a Mosquitto, and start none",
    )


def pytest_configure(config: pytest.Config) -> None:
    asyncio.set_event_loop_policy(uvloop.EventLoopPolicy())  # as `csms serve`
    if not hasattr(config, "workerinput"):
        config.stash[_SERVICES] = Services()


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """In the controller, for each worker that starts: the first one starts the servers."""
    if node.config.getoption("no_servers"):
        return
    node.workerinput["csms_services"] = node.config.stash[_SERVICES].addresses().as_dict


def pytest_unconfigure(config: pytest.Config) -> None:
    """Also reached after Ctrl-C. After a kill -9 the kernel ends the servers."""
    gc.collect()
    gc.freeze()  # pytest will look for what this has not found, ten times
    if _SERVICES in config.stash:
        config.stash[_SERVICES].stop()
    # A thread that does not end would keep this process for ever: it shall say which, and go.
    if sys.__stderr__ is not None:
        faulthandler.dump_traceback_later(30, exit=True, file=sys.__stderr__)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Two cores are busy to the end: files that wait among files that work, and pure ones fill the gaps at the end."""
    if config.getoption("no_servers"):
        needy = [item for item in items if _SERVERS.intersection(getattr(item, "fixturenames", ()))]
        config.hook.pytest_deselected(items=needy)
        items[:] = [item for item in items if item not in needy]
    waiting = {f"tests/{name}": number for number, name in enumerate(_WAITING)}
    order = {name: number for number, name in enumerate(_LONG_FIRST)}
    working: dict[str, int] = {}

    def place(item: pytest.Item) -> tuple[float, int]:
        file = item.nodeid.split("::")[0]
        if file in waiting:
            # Two to begin with, each of the others after a handful of files.
            return max(0, waiting[file] - 1) * _FILES_BETWEEN - 0.5, 0
        return working[file], 1

    def directory(item: pytest.Item) -> int:
        return order.get(item.nodeid.removeprefix("tests/").split("/")[0], len(order))

    for item in sorted(items, key=directory):
        file = item.nodeid.split("::")[0]
        if file not in waiting:
            working.setdefault(file, len(working))
    items.sort(key=place)


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Iterator[Any]:
    """Imports make hardly any garbage, and looking for it takes a quarter of the time. Four thousand tests stand in
    memory for good: not to be looked through again and again."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.set_threshold(50_000, 20, 100)
        gc.enable()


def pytest_report_header(config: pytest.Config) -> str:
    return servers.planned()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Quiet runs print no header, and which servers were used should always be seen."""
    started = config.stash[_SERVICES].started if _SERVICES in config.stash else None
    if started is not None:
        terminalreporter.write_line(started.described)


@pytest.fixture(scope="session")
def addresses(request: pytest.FixtureRequest) -> Addresses:
    """Where the run's servers are; without xdist this starts them."""
    workerinput = getattr(request.config, "workerinput", None)
    if workerinput is not None:
        return Addresses(**workerinput["csms_services"])
    return request.config.stash[_SERVICES].addresses()


# -- databases ---------------------------------------------------------------------------------------------


@pytest_asyncio.fixture(scope="session")
async def databases(addresses: Addresses) -> AsyncIterator[DatabaseFactory]:
    """Makes databases beyond the one of `database_url`; the caller drops them."""
    connection = await asyncpg.connect(addresses.database_url)
    # From Postgres 18 on the kernel copies the files, a tenth cheaper.
    await connection.execute(
        "SELECT set_config(name, 'clone', false) FROM pg_settings WHERE name = 'file_copy_method'"
    )
    yield DatabaseFactory(connection, addresses.database_url, addresses.run_id)
    await connection.close()


@pytest_asyncio.fixture(scope="session")
async def template_database(addresses: Addresses) -> str:
    """The name of the migrated database that tests get copies of; made once per run. Do not connect to it."""
    return await servers.make_template(addresses.database_url, addresses.run_id)


@pytest_asyncio.fixture
async def database_url(databases: DatabaseFactory, template_database: str) -> AsyncIterator[str]:
    """A migrated database of the test's own, `postgresql://…`; dropped afterwards, also while clients are connected."""
    url = await databases.create(template_database)
    yield url
    await databases.drop(url)


@pytest_asyncio.fixture
async def empty_database_url(databases: DatabaseFactory) -> AsyncIterator[str]:
    """A database without a single table, `postgresql://…`."""
    url = await databases.create()
    yield url
    await databases.drop(url)


@pytest.fixture(scope="session")
def copy_cluster(addresses: Addresses) -> Callable[[Path], None]:
    """`copy_cluster(state_dir)`: as `own_cluster`, where the test wants it."""
    return functools.partial(servers.copy_cluster, Path(addresses.directory))


@pytest.fixture
def own_cluster(copy_cluster: Callable[[Path], None]) -> Iterator[Path]:
    """A state directory for an `EmbeddedPostgres` of the test's own, with a migrated database in it."""
    with tempfile.TemporaryDirectory(prefix="csms-test-") as name:
        directory = Path(name)
        copy_cluster(directory)
        yield directory


# -- brokers and ports -------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def broker(addresses: Addresses) -> Broker:
    """The run's embedded broker, shared by all tests: keep to `topic_prefix`, never subscribe to `#`."""
    return addresses.broker


@pytest.fixture
def topic_prefix() -> str:
    """No other test publishes below it."""
    return f"test/{os.environ.get('PYTEST_XDIST_WORKER', 'main')}-{secrets.token_hex(6)}"


@pytest.fixture
def mosquitto(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Mosquitto]]:
    """`mosquitto("extra config line", …, users={name: password}, acl="…")` → a started, private Mosquitto.

    With `users`, anonymous clients are refused.
    """
    if servers.mosquitto_program() is None:
        pytest.skip("Mosquitto is not installed")
    started: list[Mosquitto] = []

    def start(*lines: str, users: Mapping[str, str] | None = None, acl: str = "") -> Mosquitto:
        directory: Path = tmp_path_factory.mktemp("mosquitto")
        server = Mosquitto(directory, lines, users or {}, acl)
        started.append(server)
        server.start()
        return server

    yield start
    for server in started:
        server.kill()


@pytest.fixture
def unused_port() -> int:
    """A free loopback port; for more than one: `tests.harness.servers.unused_port()`."""
    return servers.unused_port()


# -- the log -----------------------------------------------------------------------------------------------


@pytest.fixture
def log_output() -> Iterator[io.StringIO]:
    """All that is logged, in the form that shows the most: JSON, verbose."""
    stream, root = io.StringIO(), logging.getLogger()
    handlers, level, before = root.handlers[:], root.level, structlog.get_config()
    log.configure("json", verbose=True, stream=stream)
    yield stream
    structlog.configure(**before)
    root.handlers[:] = handlers
    root.setLevel(level)


# -- leaked tasks ------------------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def _no_leaked_tasks(request: pytest.FixtureRequest) -> None:
    # Set up before all other function fixtures, hence torn down after them.
    if pytest_asyncio.is_async_test(request.node):
        request.getfixturevalue("_task_watch")


@pytest_asyncio.fixture
async def _task_watch() -> AsyncIterator[None]:
    """Fails a test that leaves tasks running which were not there before, and cancels them."""
    before = asyncio.all_tasks()
    yield
    strangers = asyncio.all_tasks() - before - {asyncio.current_task()}
    if strangers:
        _, strangers = await asyncio.wait(strangers, timeout=_TASK_GRACE_S)
    if not strangers:
        return
    for task in strangers:
        task.cancel()
    await asyncio.wait(strangers, timeout=5)
    names = ", ".join(sorted(f"{task.get_name()} ({_where(task)})" for task in strangers))
    pytest.fail(f"tasks still running at the end of the test: {names}", pytrace=False)


def _where(task: "asyncio.Task[Any]") -> str:
    coroutine = task.get_coro()
    return str(getattr(coroutine, "__qualname__", coroutine))
