"""The servers of a session: Postgres, a broker, and the systems under test, each a process of its own."""

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
import venv
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit, urlunsplit

import asyncpg

from benchmarks import machine
from csms import log
from csms.db import migrate
from csms.embedded.broker import EmbeddedBroker
from csms.embedded.ports import LOOPBACK, any_free_port, is_accepting
from csms.embedded.postgres import EmbeddedPostgres

ROOT = Path(__file__).resolve().parent.parent
CSMS, IN_MEMORY, ORM, OCPP_CSMS = "csms", "ocpp in memory", "ocpp + ORM + aiomqtt", "ocpp-csms 0.1.0"
TOKEN = "token-of-the-benchmark"
_MOSQUITTO = """
listener {port} 127.0.0.1
allow_anonymous true
persistence false
max_queued_messages 0
max_inflight_messages 1000
set_tcp_nodelay true
log_dest none
"""
# Durable as shipped: fsync and synchronous_commit are on. The rest is what any guide says for such a machine.
_POSTGRES = {
    "shared_buffers": "1GB",
    "max_wal_size": "8GB",
    "checkpoint_timeout": "30min",
    "max_connections": "100",
}


class Services:
    """Postgres and the broker of a session, for all systems alike."""

    def __init__(self, directory: Path | None = None) -> None:
        self._exit = ExitStack()
        self._given = directory
        self._databases = 0

    def __enter__(self) -> Self:
        log.configure("console", quiet=True)
        if self._given is None:
            self.directory = Path(tempfile.mkdtemp(prefix="csms-benchmark-", dir="/var/tmp"))
            self._exit.callback(shutil.rmtree, self.directory, ignore_errors=True)
        else:
            self.directory = self._given
            self.directory.mkdir(parents=True, exist_ok=True)
        self.directory.chmod(0o755)
        self._postgres = self._exit.enter_context(EmbeddedPostgres(self.directory, settings=_POSTGRES))
        self.postgres_pid = self._postgres.pid or 0
        self.port = any_free_port()
        mosquitto = shutil.which("mosquitto") or shutil.which("/usr/sbin/mosquitto")
        if mosquitto is not None:
            config = self.directory / "mosquitto.conf"
            config.write_text(_MOSQUITTO.format(port=self.port))
            broker = subprocess.Popen([mosquitto, "-c", str(config)], stderr=subprocess.DEVNULL)
            self._exit.callback(_end, broker)
            self.broker_pid, self.broker = broker.pid, "Mosquitto"
            _wait(lambda: is_accepting(self.port), "Mosquitto")
        else:
            embedded = self._exit.enter_context(EmbeddedBroker(self.directory, port=0, port_v5=0))
            self.port, self.broker = embedded.port_v5, "the embedded broker"
            self.broker_pid = embedded.pid or 0
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._exit.close()

    @property
    def postgres_version(self) -> str:
        return self._postgres.version

    def database(self, name: str | None = None, *, migrated: bool = True) -> str:
        """A new database, at our schema if wanted."""
        self._databases += 1
        name = name or f"bench_{self._databases}"
        asyncio.run(self._create(name))
        parts = urlsplit(self._postgres.url)
        url = urlunsplit(parts._replace(path=f"/{name}"))
        if migrated:
            migrate.upgrade(url)
        return url

    async def _create(self, name: str) -> None:
        connection = await asyncpg.connect(self._postgres.url)
        try:
            await connection.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')
            await connection.execute(f'CREATE DATABASE "{name}"')
        finally:
            await connection.close()

    def drop(self, url: str) -> None:
        async def drop() -> None:
            connection = await asyncpg.connect(self._postgres.url)
            try:
                name = urlsplit(url).path[1:]
                await connection.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')
            finally:
                await connection.close()

        asyncio.run(drop())


class System:
    """A system under test: its process, where charge points connect, and its database if it has one."""

    def __init__(self, name: str, command: list[str], services: Services, *, port: int, path: str = "/",
                 url: str | None = None, environment: dict[str, str] | None = None) -> None:  # fmt: skip
        self.name = name
        self.services = services
        self.port = port
        self.path = path
        self.url = url
        self._command = command
        self._environment = environment or {}
        self._process: subprocess.Popen[bytes] | None = None
        self.log = services.directory / f"{name.replace(' ', '-')}-{port}.log"

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        if self.url is not None:
            self.services.drop(self.url)

    def start(self) -> None:
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command,
                cwd=ROOT,
                env={**os.environ, "PYTHONPATH": str(ROOT), **self._environment},
                stdout=log,
                stderr=log,
            )
        _wait(lambda: self._alive() and is_accepting(self.port), self.name)

    def _alive(self) -> bool:
        assert self._process is not None
        if self._process.poll() is not None:
            tail = self.log.read_bytes()[-2000:].decode(errors="replace")
            raise RuntimeError(f"{self.name} ended:\n{tail}")
        return True

    def stop(self) -> None:
        if self._process is not None:
            _end(self._process)
            self._process = None

    def restart(self) -> None:
        self.stop()
        self.start()

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def cpu_s(self) -> float:
        return machine.family_cpu_s(self.pid)


def csms(services: Services, *, url: str | None = None, **settings: str) -> System:
    """Our own, with everything on: validation, resends, raw frames, business and protocol events, state, metrics."""
    port, http = any_free_port(), any_free_port()
    given = url is not None
    url = url or services.database()
    return System(
        CSMS,
        [sys.executable, "-c", "from csms.cli import main; main()", "serve"],
        services,
        port=port,
        path="/ocpp/",
        url=None if given else url,
        environment={
            "DATABASE_URL": url,
            "CSMS_DATA_DIR": str(services.directory / "data"),
            "CSMS_OCPP_HOST": LOOPBACK,
            "CSMS_OCPP_PORT": str(port),
            "CSMS_HTTP_PORT": str(http),
            "CSMS_ENROLLMENT": "open",
            "CSMS_UNKNOWN_TAGS": "accept",
            "CSMS_ADMIN_TOKEN": TOKEN,
            "CSMS_NODE": "bench",
            "CSMS_LOG": "json",
            "MQTT_HOST": LOOPBACK,
            "MQTT_PORT": str(services.port),
            "MQTT_CLIENT_ID": f"csms-{port}",
            **settings,
        },
    )


def in_memory(services: Services) -> System:
    port = any_free_port()
    return System(
        IN_MEMORY, [sys.executable, "-m", "benchmarks.peers.in_memory", str(port)], services, port=port
    )


def orm(services: Services) -> System:
    port, url = any_free_port(), services.database(migrated=False)
    command = [sys.executable, "-m", "benchmarks.peers.orm", str(port), url, LOOPBACK, str(services.port)]
    return System(ORM, command, services, port=port, url=url)


def ocpp_csms(services: Services) -> System | None:
    """From PyPI, in a virtual environment of its own; None (and why, on stderr) when it cannot be had."""
    directory = services.directory / "ocpp-csms"
    if not (directory / "bin" / "ocpp-csms").exists():
        venv.create(directory, with_pip=True)
        install = [str(directory / "bin" / "python"), "-m", "pip", "install", "--quiet",
                   "--disable-pip-version-check", "ocpp-csms==0.1.0"]  # fmt: skip
        done = subprocess.run(install, capture_output=True, text=True, timeout=300, check=False)
        if done.returncode:
            print(f"ocpp-csms left out: {done.stderr.strip()[-300:]}", file=sys.stderr)
            return None
    port = any_free_port()
    command = [str(directory / "bin" / "ocpp-csms"), "--host", LOOPBACK, "--port", str(port)]
    return System(OCPP_CSMS, command, services, port=port)


class Child:
    """A helper process that is told things by lines and answers in JSON lines."""

    def __init__(self, module: str, *arguments: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", module, *arguments],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )

    @property
    def pid(self) -> int:
        return self._process.pid

    def tell(self, line: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()

    def hear(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"a helper process ended with {self._process.wait(5)}")
        said: dict[str, Any] = json.loads(line)
        return said

    def ask(self, line: str) -> dict[str, Any]:
        self.tell(line)
        return self.hear()

    def end(self) -> None:
        _end(self._process)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()


def metrics(system: System) -> str:
    port = system._environment["CSMS_HTTP_PORT"]  # noqa: SLF001
    with urllib.request.urlopen(f"http://{LOOPBACK}:{port}/metrics", timeout=5) as answer:
        text: str = answer.read().decode()
        return text


def _end(process: "subprocess.Popen[Any]") -> None:
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(5)


def _wait(condition: Any, what: str, seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise RuntimeError(f"{what} did not start")
        time.sleep(0.02)
