"""The real servers tests run on: one Postgres and one broker for the whole run, private Mosquittos on demand."""

import asyncio
import base64
import fcntl
import hashlib
import itertools
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import asyncpg

from csms.db import partitions
from csms.db.engine import create_engine
from csms.db.tables import PARTITIONED
from csms.embedded.broker import EmbeddedBroker
from csms.embedded.ports import LOOPBACK, is_accepting, is_free
from csms.embedded.postgres import EmbeddedPostgres
from csms.embedded.postgres_binaries import find_postgres
from csms.embedded.processes import open_log, start_bound, stop, tail

REPOSITORY = Path(__file__).resolve().parents[2]
_DIRECTORY_PREFIX = "csms-test-"
_MEMORY = Path("/dev/shm")  # noqa: S108
_MEMORY_NEEDED_BYTES = 512 * 1024 * 1024

# Nothing here survives the run, so nothing needs to reach a disk.
_POSTGRES_SETTINGS = {
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "max_connections": "300",
    "max_wal_size": "256MB",
    "autovacuum": "off",
}


@dataclass(frozen=True, slots=True)
class Broker:
    """Where an MQTT broker listens; `port` speaks 3.1.1, `port_v5` speaks MQTT 5."""

    host: str
    port: int
    port_v5: int


@dataclass(frozen=True, slots=True)
class Addresses:
    """What a test process must know of the servers; goes to the xdist workers as a dict."""

    database_url: str
    run_id: str
    broker_port: int
    broker_port_v5: int
    directory: str
    described: str

    @property
    def broker(self) -> Broker:
        return Broker(LOOPBACK, self.broker_port, self.broker_port_v5)

    @property
    def as_dict(self) -> dict[str, str | int]:
        return asdict(self)


class Services:
    """The run's own Postgres and broker, started when first asked for. Lives in one process, the controller."""

    def __init__(self) -> None:
        self._exit = ExitStack()
        self._addresses: Addresses | None = None

    @property
    def started(self) -> Addresses | None:
        return self._addresses

    def addresses(self) -> Addresses:
        if self._addresses is None:
            with ExitStack() as undo:
                self._addresses = self._start(undo)
                self._exit = undo.pop_all()
        return self._addresses

    def stop(self) -> None:
        self._exit.close()
        self._addresses = None

    def _start(self, undo: ExitStack) -> Addresses:
        directory = _working_directory()
        undo.callback(shutil.rmtree, directory, ignore_errors=True)
        run_id = secrets.token_hex(4)
        url = os.environ.get("CSMS_TEST_DATABASE_URL")
        if url:
            described = "Postgres: CSMS_TEST_DATABASE_URL"
            undo.callback(drop_databases_of, url, run_id)
        else:
            postgres = undo.enter_context(EmbeddedPostgres(directory, settings=_POSTGRES_SETTINGS))
            url = postgres.url
            asyncio.run(_cheap_logins(url))
            described = f"Postgres: {postgres.version}, {directory}"
        broker = undo.enter_context(EmbeddedBroker(directory, port=0, port_v5=0))
        described += (
            f"; MQTT: iotcore {version('iotcore')}, ports {broker.port} and {broker.port_v5} (MQTT 5)"
        )
        described += f"; {mosquitto_program() or 'no Mosquitto (its tests are skipped)'}"
        return Addresses(url, run_id, broker.port, broker.port_v5, str(directory), described)


async def _cheap_logins(url: str) -> None:
    """A login hashes the password four thousand times, on both sides; ten thousand logins of tests need it once."""
    connection = await asyncpg.connect(url)
    try:
        # Postgres 16 and newer; an older one hashes as often as ever.
        await connection.execute(
            "SELECT set_config(name, '1', false) FROM pg_settings WHERE name = 'scram_iterations'"
        )
        parts = urlsplit(url)
        await connection.execute(f"ALTER ROLE \"{parts.username}\" PASSWORD '{parts.password}'")
    finally:
        await connection.close()


def planned() -> str:
    """One line on what a run will use, without starting it."""
    if os.environ.get("CSMS_TEST_DATABASE_URL"):
        postgres = "CSMS_TEST_DATABASE_URL"
    else:
        found = find_postgres()
        postgres = f"{found.major} ({found.origin}) in {_parent_directory()}"
    return (
        f"Postgres: {postgres}; MQTT: iotcore {version('iotcore')}, {mosquitto_program() or 'no Mosquitto'}"
    )


def _parent_directory() -> Path:
    if _MEMORY.is_dir() and shutil.disk_usage(_MEMORY).free >= _MEMORY_NEEDED_BYTES:
        return _MEMORY
    return Path(tempfile.gettempdir())


def _working_directory() -> Path:
    """A directory that Postgres' user can enter; what killed runs left in memory goes first."""
    parent = _parent_directory()
    for old in parent.glob(f"{_DIRECTORY_PREFIX}*"):
        _remove_abandoned(old)
    directory = Path(tempfile.mkdtemp(prefix=_DIRECTORY_PREFIX, dir=parent))
    directory.chmod(0o755)
    return directory


def _remove_abandoned(directory: Path) -> None:
    try:
        if directory.stat().st_uid != os.geteuid():
            return
        with (directory / "postgres" / "lock").open() as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(directory, ignore_errors=True)
    except OSError:
        return  # in use, or not ours to judge


# -- databases ---------------------------------------------------------------------------------------------


def with_database(url: str, name: str) -> str:
    """The same server, another database."""
    return urlunsplit(urlsplit(url)._replace(path=f"/{name}"))


def database_prefix(run_id: str) -> str:
    return f"csms_test_{run_id}_"


async def make_template(url: str, run_id: str) -> str:
    """The migrated template database's name; the first process to come makes it, the others wait.

    No client may be connected to a template while it is copied, hence the migration in a process of its own.
    """
    template = f"{database_prefix(run_id)}template"
    unfinished = f"{template}_unfinished"
    connection = await asyncpg.connect(url)
    try:
        await connection.execute("SELECT pg_advisory_lock(hashtext($1))", template)
        if await connection.fetchval("SELECT true FROM pg_database WHERE datname = $1", template):
            return template
        await connection.execute(f'DROP DATABASE IF EXISTS "{unfinished}" WITH (FORCE)')
        await connection.execute(f'CREATE DATABASE "{unfinished}"')
        await asyncio.to_thread(migrate, with_database(url, unfinished))
        await _furnish(with_database(url, unfinished))
        await connection.execute(f'ALTER DATABASE "{unfinished}" RENAME TO "{template}"')
        return template
    finally:
        await connection.close()


def migrate(url: str) -> None:
    """`alembic upgrade head`, as an operator would type it."""
    if not (REPOSITORY / "migrations" / "env.py").is_file():
        return
    done = subprocess.run(
        [sys.executable, "-m", "alembic", "-c", "alembic.ini", "upgrade", "head"],
        cwd=REPOSITORY,
        env=os.environ | {"DATABASE_URL": url},
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    if done.returncode != 0:
        raise RuntimeError(f"alembic upgrade head failed:\n{done.stdout}\n{done.stderr}")


async def _furnish(url: str) -> None:
    """What the first node would do to a database, and the first connection: the next days' partitions, a warm catalog."""
    engine = create_engine(url)
    async with engine.begin() as db:
        await partitions.ensure(db)
    await engine.dispose()
    connection = await asyncpg.connect(url)
    await connection.close()


def copy_cluster(run_directory: Path, state_dir: Path) -> None:
    """Fill a state directory with a migrated database, for an `EmbeddedPostgres` that a test may break.

    The first process to come makes it, the others wait: to make one takes twenty times as long as to copy it.
    """
    made = run_directory / "cluster"
    with (run_directory / "cluster.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not made.exists():
            unfinished = run_directory / "cluster.unfinished"
            shutil.rmtree(unfinished, ignore_errors=True)
            with EmbeddedPostgres(unfinished, settings={"fsync": "off"}) as postgres:
                migrate(postgres.url)
            (unfinished / "postgres" / "port").unlink()
            unfinished.rename(made)
    state_dir.mkdir(exist_ok=True)
    subprocess.run(["cp", "-a", f"{made}/.", state_dir], check=True)
    state_dir.chmod(0o755)  # Postgres' own user must get there


async def without_days(url: str) -> None:
    """For tests about partitions: as the migrations leave a database, with the default ones only."""
    connection = await asyncpg.connect(url)
    days = await connection.fetch(
        "SELECT inhrelid::regclass::text AS name FROM pg_inherits WHERE inhparent = ANY($1::text[]::regclass[])",
        PARTITIONED,
    )
    for name in (row["name"] for row in days if not row["name"].endswith("_default")):
        await connection.execute(f"DROP TABLE {name}")
    await connection.close()


def drop_databases_of(url: str, run_id: str) -> None:
    """Leave a server that the tests did not start as it was found."""

    async def drop() -> None:
        connection = await asyncpg.connect(url)
        try:
            rows = await connection.fetch(
                "SELECT datname FROM pg_database WHERE starts_with(datname, $1)", database_prefix(run_id)
            )
            for row in rows:
                await connection.execute(f'DROP DATABASE IF EXISTS "{row["datname"]}" WITH (FORCE)')
        finally:
            await connection.close()

    asyncio.run(drop())


class DatabaseFactory:
    """Creates and drops one test's databases over one connection of this process."""

    def __init__(self, connection: "asyncpg.Connection[asyncpg.Record]", url: str, run_id: str) -> None:
        self._connection = connection
        self._url = url
        self._prefix = f"{database_prefix(run_id)}{os.environ.get('PYTEST_XDIST_WORKER', 'main')}_"
        self._numbers = itertools.count(1)

    async def create(self, template: str | None = None) -> str:
        """A new database's URL."""
        name = f"{self._prefix}{next(self._numbers)}"
        source = f' TEMPLATE "{template}" STRATEGY FILE_COPY' if template else ""
        await self._connection.execute(f'CREATE DATABASE "{name}"{source}')
        return with_database(self._url, name)

    async def drop(self, url: str) -> None:
        """Connected clients are disconnected."""
        name = urlsplit(url).path.removeprefix("/")
        await self._connection.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')


# -- ports and brokers -------------------------------------------------------------------------------------


def _port_numbers() -> "itertools.cycle[int]":
    # Below the range that outgoing connections are given, and a stretch of it for each worker.
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % 8
    first = 14_000 + 2_000 * worker
    offset = os.getpid() % 2_000
    return itertools.cycle([*range(first + offset, first + 2_000), *range(first, first + offset)])


_ports = _port_numbers()


def unused_port() -> int:
    """A free loopback port that no other call here returns for a long while."""
    for port in itertools.islice(_ports, 2_000):
        if is_free(port):
            return port
    raise RuntimeError("no unused port")


def mosquitto_program() -> str | None:
    """Debian puts it where an ordinary user's PATH does not look."""
    return shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin:/usr/local/sbin")


class Mosquitto:
    """A private Mosquitto, both protocol versions on one port; kill and restart it as the test needs.

    Start and restart on the main thread only (an async test is on it).
    """

    host = LOOPBACK

    def __init__(self, directory: Path, lines: tuple[str, ...], users: Mapping[str, str], acl: str) -> None:
        self.port = self.port_v5 = unused_port()
        self._config = directory / "mosquitto.conf"
        self._log_path = directory / "mosquitto.log"
        self._acl = directory / "acl"
        self._process: subprocess.Popen[bytes] | None = None
        config = [
            f"listener {self.port} {self.host}",
            "max_queued_messages 0",
            f"allow_anonymous {'false' if users else 'true'}",
            f"persistence_location {directory}/",
        ]
        if os.geteuid() == 0:
            # It would become the user mosquitto, who can read none of this.
            config.append("user root")
        if not any(line.startswith("persistence ") for line in lines):
            config.append("persistence false")
        if users:
            passwords = directory / "passwords"
            passwords.write_text("".join(f"{name}:{_hash(word)}\n" for name, word in users.items()))
            passwords.chmod(0o600)
            config.append(f"password_file {passwords}")
        if acl:
            self._acl.write_text(acl)
            self._acl.chmod(0o600)
            config.append(f"acl_file {self._acl}")
        self._config.write_text("\n".join([*config, *lines]) + "\n")

    @property
    def log(self) -> str:
        return tail(self._log_path, lines=200)

    def start(self) -> None:
        program = mosquitto_program()
        assert program is not None
        with open_log(self._log_path) as output:
            self._process = start_bound(
                [program, "-v", "-c", str(self._config)], log=output, death_signal=signal.SIGKILL
            )
        deadline = time.monotonic() + 10
        while not is_accepting(self.port):
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.kill()
                raise RuntimeError(f"Mosquitto did not start:\n{self.log}")
            time.sleep(0.01)

    def kill(self) -> None:
        """As a crash: no DISCONNECT, no persistence file."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """As an operator would: it writes its persistence file if it has one."""
        self._end(signal.SIGTERM)

    def allow(self, acl: str) -> None:
        """Another access list, at once; there must have been one from the start."""
        self._acl.write_text(acl)
        assert self._process is not None
        self._process.send_signal(signal.SIGHUP)

    def restart(self) -> None:
        """Up again on the same port, after `kill`, `stop` or neither."""
        self.stop()
        self.start()

    def _end(self, number: int) -> None:
        process, self._process = self._process, None
        if process is not None:
            stop(process, ((number, 5.0), (signal.SIGKILL, 5.0)))


def _hash(password: str) -> str:
    # Mosquitto 2's own format: PBKDF2 with SHA-512, "$7$iterations$salt$key".
    salt = secrets.token_bytes(12)
    key = hashlib.pbkdf2_hmac("sha512", password.encode(), salt, 101)
    return f"$7$101${base64.b64encode(salt).decode()}${base64.b64encode(key).decode()}"
