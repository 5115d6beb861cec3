"""A Postgres of the run's own that can be killed, restarted, and run out of disk."""

import contextlib
import fcntl
import itertools
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import asyncpg

from csms.embedded import EmbeddedPostgres
from tests.harness.servers import unused_port

_DISK_MB = 320
_TEMPLATE = "csms"
_DEVICE = "csms-test"
NO_SPACE = "No space left on device"
_FULL = """
CREATE OR REPLACE FUNCTION disk_is_full() RETURNS trigger LANGUAGE plpgsql AS
$$ BEGIN RAISE EXCEPTION 'could not extend file: No space left on device' USING ERRCODE = '53100'; END $$;
CREATE OR REPLACE TRIGGER disk_is_full BEFORE INSERT ON outbox FOR EACH STATEMENT EXECUTE FUNCTION disk_is_full();
"""


class OwnPostgres:
    """Durable as in production. `real_disk`: its data lie on a small file system of their own."""

    def __init__(self, directory: Path, *, real_disk: bool) -> None:
        self.real_disk = real_disk
        self._directory = directory
        self._port = unused_port()
        self._server = self._new()
        self._numbers = itertools.count(1)
        self._database = _TEMPLATE

    def _new(self) -> EmbeddedPostgres:
        settings = {"max_connections": "60", "max_wal_size": "64MB", "min_wal_size": "32MB"}
        settings |= {"restart_after_crash": "on", "shared_buffers": "32MB"}
        return EmbeddedPostgres(self._directory, port=self._port, settings=settings)

    @property
    def url(self) -> str:
        return self._server.url_of(self._database)

    async def fresh_database(self) -> str:
        """The URL of a migrated database of a test's own."""
        name = f"soak_{next(self._numbers)}"
        await self._execute(f'CREATE DATABASE {name} TEMPLATE "{_TEMPLATE}"', "postgres")
        self._database = name
        return self.url

    @property
    def alive(self) -> bool:
        return self._server.pid is not None

    def start(self) -> None:
        """Also after a crash. On the main thread."""
        self._server = self._new()
        self._server.__enter__()

    def stop(self) -> None:
        self._server.__exit__(None, None, None)

    def crash(self) -> None:
        """Immediate shutdown: no checkpoint, no word to clients; recovery comes with the next start."""
        assert self._server.pid is not None
        os.kill(self._server.pid, signal.SIGQUIT)
        self.stop()

    async def crash_a_process(self) -> None:
        """kill -9 of one server process of the node's: Postgres disconnects all clients and recovers by itself."""
        db = await asyncpg.connect(self.url)
        pid = await db.fetchval(
            "SELECT pid FROM pg_stat_activity WHERE application_name = 'csms' ORDER BY random() LIMIT 1"
        )
        os.kill(pid, signal.SIGKILL)
        with contextlib.suppress(Exception):
            await db.close(timeout=1)

    # --- the disk --------------------------------------------------------------------------------

    async def fill(self) -> None:
        """Take what is left of the disk. Without a file system of our own: have Postgres say that it is full."""
        if not self.real_disk:
            await self._execute(_FULL)
            return
        with (self._directory / "filler").open("wb", buffering=0) as filler, contextlib.suppress(OSError):
            for size in (1 << 20, 4096):
                with contextlib.suppress(OSError):
                    while True:
                        filler.write(bytes(size))

    async def free(self) -> None:
        """Give it back; a server that did not survive it is started again, as an operator would."""
        if not self.real_disk:
            await self._execute("DROP TRIGGER disk_is_full ON outbox")
            return
        (self._directory / "filler").unlink()
        if not self.alive:
            self.stop()
            self.start()

    async def _execute(self, sql: str, database: str | None = None) -> None:
        db = await asyncpg.connect(self._server.url_of(database or self._database))
        try:
            await db.execute(sql)
        finally:
            await db.close()


@contextlib.contextmanager
def own_postgres(copy_cluster: Callable[[Path], None]) -> Iterator[OwnPostgres]:
    """Started and migrated; on a tmpfs of its own where we may mount one (root, Linux)."""
    with tempfile.TemporaryDirectory(prefix="csms-test-") as name:
        directory = Path(name)
        directory.chmod(0o755)
        mounted = _mount(directory)
        try:
            copy_cluster(directory / "state")
            postgres = OwnPostgres(directory / "state", real_disk=mounted)
            postgres.start()
            try:
                yield postgres
            finally:
                postgres.stop()
        finally:
            if mounted:
                subprocess.run(["umount", "-l", name], check=False, capture_output=True, timeout=10)


def _clear_abandoned() -> None:
    """What runs that were killed have left mounted."""
    for line in Path("/proc/mounts").read_text(encoding="utf-8").splitlines():
        device, place, *_ = line.split()
        if device != _DEVICE:
            continue
        with contextlib.suppress(OSError), (Path(place) / "state/postgres/lock").open() as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            subprocess.run(["umount", "-l", place], check=False, capture_output=True, timeout=10)
            Path(place).rmdir()


def _mount(directory: Path) -> bool:
    if os.geteuid() != 0 or not sys.platform.startswith("linux"):
        return False
    _clear_abandoned()
    try:
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={_DISK_MB}m,mode=755", _DEVICE, str(directory)],
            check=False,
            capture_output=True,
            timeout=10,
        )
    except OSError:
        return False
    return done.returncode == 0
