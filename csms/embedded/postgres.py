"""A private Postgres server in the data directory, which runs exactly as long as this program."""

import os
import secrets
import shutil
import signal
import subprocess
import time
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

import structlog

from csms.embedded.errors import EmbeddedError
from csms.embedded.ports import LOOPBACK, any_free_port, is_free
from csms.embedded.postgres_binaries import PostgresBinaries, find_postgres, prepare_shared, reachable_for
from csms.embedded.processes import (
    DirectoryLock,
    SystemAccount,
    open_log,
    run,
    start_bound,
    stop,
    stop_foreign_process,
    tail,
    unprivileged_account,
)

log = structlog.get_logger()

_USER = "csms"
_DATABASE = "csms"
_SHARED = Path("/var/lib/csms-embedded")
# First a fast shutdown (SIGINT): a smart one would wait for clients.
_STOP_S = 20.0
_FORCED_STOP = ((signal.SIGQUIT, 5.0), (signal.SIGKILL, 5.0))
_ATTEMPTS = 3


class EmbeddedPostgres:
    """A Postgres server on a loopback port, with its own user, password and database.

    A synchronous context manager for the main thread, around `asyncio.run`. `url` is
    `postgresql://user:password@127.0.0.1:port/csms`. `settings` are server settings as in postgresql.conf; commits are
    durable unless they say otherwise.

    Under root the server runs as an unprivileged user (`unprivileged_account`). Where that user cannot reach `state_dir`, the data is
    below `shared_dir`, at the place that the file `state_dir/postgres/location` names. Raises EmbeddedError.
    """

    def __init__(
        self,
        state_dir: Path,
        *,
        port: int | None = None,
        settings: Mapping[str, str] | None = None,
        start_timeout_s: float = 60.0,
        shared_dir: Path = _SHARED,
    ) -> None:
        self._state_dir = state_dir.expanduser().absolute()
        self._wanted_port = port
        self._settings = {"timezone": "UTC", "log_timezone": "UTC"} | dict(settings or {})
        self._start_timeout_s = start_timeout_s
        self._shared_dir = shared_dir
        self._exit = ExitStack()
        self._process: subprocess.Popen[bytes] | None = None
        self._home = self._state_dir / "postgres"
        self._account: SystemAccount | None = None
        self._password = ""
        self.port = 0
        self.version = ""

    @property
    def url(self) -> str:
        return self.url_of(_DATABASE)

    def url_of(self, database: str) -> str:
        """Return the address of another database of this server.

        The server has no TLS, and asking for it would take a third of the time of a connect.
        """
        return f"postgresql://{_USER}:{self._password}@{LOOPBACK}:{self.port}/{database}?sslmode=disable"

    @property
    def data_dir(self) -> Path:
        return self._home / "data"

    @property
    def log_path(self) -> Path:
        return self._home / "postgres.log"

    @property
    def pid(self) -> int | None:
        """The server's process id while it runs."""
        return self._process.pid if self._process is not None and self._process.poll() is None else None

    def __enter__(self) -> Self:
        with ExitStack() as undo:
            undo.callback(self._stop)
            try:
                self._start(undo)
            except OSError as problem:
                raise EmbeddedError(
                    f"The embedded Postgres cannot use {problem.filename or self._state_dir} ({problem.strerror}): "
                    "set CSMS_DATA_DIR to a directory you can write to, or set DATABASE_URL."
                ) from problem
            self._exit = undo.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._exit.close()

    def _start(self, undo: ExitStack) -> None:
        binaries = find_postgres()
        self._state_dir.mkdir(mode=0o755, parents=True, exist_ok=True)
        marker = self._state_dir / "postgres"
        marker.mkdir(mode=0o755, exist_ok=True)
        undo.enter_context(DirectoryLock(marker / "lock"))
        self._account = unprivileged_account(marker / "data")
        self._home = self._choose_home(marker)
        binaries = reachable_for(binaries, self._account, self._shared_dir)
        if self.data_dir.exists():
            self._check_version(binaries)
            self._stop_leftover()
        else:
            self._create_cluster(binaries)
        self._password = self._read_password()
        self.version = f"{binaries.major} ({binaries.origin})"
        for attempt in range(1, _ATTEMPTS + 1):
            log_start = self.log_path.stat().st_size if self.log_path.exists() else 0
            self.port = self._choose_port()
            self._launch(binaries)
            if self._becomes_ready():
                break
            self._stop()
            said = tail(self.log_path, start=log_start)
            # Another program may have taken the port between the check above and the server's start.
            if attempt == _ATTEMPTS or self._wanted_port is not None or "could not bind" not in said:
                raise EmbeddedError(
                    f"The embedded Postgres did not start within {self._start_timeout_s:.0f} s; "
                    f"see {self.log_path}, or set DATABASE_URL. Its last output:\n{said}"
                )
        (self._home / "port").write_text(f"{self.port}\n", encoding="ascii")
        log.info(
            "embedded_postgres_started", version=self.version, port=self.port, data_dir=str(self.data_dir)
        )

    def _choose_home(self, marker: Path) -> Path:
        """Return the directory of data, password and log: in the state directory if Postgres' user can reach it."""
        location = marker / "location"
        if location.exists():
            home = Path(location.read_text(encoding="utf-8").strip())
            if not home.is_dir():
                raise EmbeddedError(
                    f"The database that {location} names does not exist: restore {home}, or delete that file to start with an empty database."
                )
            return home
        if self._account is None or self._reaches(marker):
            return marker
        if (marker / "data").exists():
            raise EmbeddedError(
                f"User {self._account.name} can no longer reach the database in {marker}: "
                "make its parent directories passable again (chmod o+x), or set CSMS_DATA_DIR."
            )
        prepare_shared(self._shared_dir)
        home = self._shared_dir / f"data-{secrets.token_hex(8)}"
        home.mkdir(mode=0o755)
        home.chmod(0o755)
        location.write_text(f"{home}\n", encoding="utf-8")
        log.warning(
            "embedded_postgres_moved", user=self._account.name, unreachable=str(marker), directory=str(home)
        )
        return home

    def _reaches(self, directory: Path) -> bool:
        return run(["/bin/sh", "-c", 'cd "$1"', "sh", str(directory)], account=self._account).returncode == 0

    def _check_version(self, binaries: PostgresBinaries) -> None:
        found = (self.data_dir / "PG_VERSION").read_text(encoding="ascii").strip()
        if found != str(binaries.major):
            raise EmbeddedError(
                f"The database in {self.data_dir} was made by Postgres {found} and this is {binaries.major}: "
                f"set CSMS_PG_BIN to the bin directory of a Postgres {found}, delete {self._home} to start with an empty database, "
                "or set DATABASE_URL."
            )

    def _read_password(self) -> str:
        path = self._home / "password"
        try:
            return path.read_text(encoding="ascii").strip()
        except FileNotFoundError:
            raise EmbeddedError(
                f"The password file {path} is missing: restore it, or delete {self._home} to start with an empty database."
            ) from None

    def _create_cluster(self, binaries: PostgresBinaries) -> None:
        """Run initdb in another directory, then rename it: a cluster exists completely or not at all."""
        for abandoned in self._home.glob("data.new-*"):
            shutil.rmtree(abandoned, ignore_errors=True)
        fresh = self._home / f"data.new-{secrets.token_hex(4)}"
        fresh.mkdir(mode=0o700)
        password = self._home / "password"
        password.unlink(missing_ok=True)
        with os.fdopen(os.open(password, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(secrets.token_urlsafe(24) + "\n")
        if self._account is not None:
            # initdb reads the password as this user, who owns the database.
            for path in (fresh, password):
                os.chown(path, self._account.uid, self._account.gid)
        options = ["--encoding=UTF8", "--no-locale", "--data-checksums", "--auth=scram-sha-256"]
        if self._settings.get("fsync") == "off":
            options.append("--no-sync")
        try:
            self._setup_step(
                [
                    binaries.initdb,
                    f"--pgdata={fresh}",
                    f"--username={_USER}",
                    f"--pwfile={password}",
                    *options,
                ]
            )
            self._setup_step(
                [
                    binaries.postgres,
                    "--single",
                    "-D",
                    str(fresh),
                    "-c",
                    "unix_socket_directories=",
                    "template1",
                ],
                stdin=f"CREATE DATABASE {_DATABASE}\n",
            )
            fresh.rename(self.data_dir)
        finally:
            shutil.rmtree(fresh, ignore_errors=True)

    def _setup_step(self, arguments: list[str], *, stdin: str = "") -> None:
        done = run(arguments, account=self._account, timeout_s=max(self._start_timeout_s, 60), stdin=stdin)
        # The single-user server prints a line for a failed statement; its exit status is 0.
        if done.returncode != 0 or "ERROR:" in done.stdout:
            raise EmbeddedError(
                f"The embedded Postgres could not be set up in {self._home}; set DATABASE_URL to use another. "
                f"What {Path(arguments[0]).name} said:\n{done.stdout.strip()}"
            )

    def _stop_leftover(self) -> None:
        """Stop a server that an earlier, killed program has left, and remove its pid file.

        On Linux the old server is already stopping, so it is given a moment first. Process ids are used again: a process
        is the server of this database only if its command line has the data directory.
        """
        pid_file = self.data_dir / "postmaster.pid"
        try:
            pid = int(pid_file.read_text(encoding="ascii").splitlines()[0])
        except (FileNotFoundError, IndexError, ValueError):
            return
        expected = f"-D {self.data_dir} "
        steps = ((None, 0.5), (signal.SIGINT, _STOP_S), *_FORCED_STOP)
        if not stop_foreign_process(pid, expected, steps):
            raise EmbeddedError(
                f"An old Postgres (process {pid}) on {self.data_dir} does not stop: end it and try again."
            )
        pid_file.unlink(missing_ok=True)

    def _choose_port(self) -> int:
        if self._wanted_port is not None:
            return self._wanted_port
        try:
            last = int((self._home / "port").read_text(encoding="ascii"))
        except (FileNotFoundError, ValueError):
            return any_free_port()
        return last if is_free(last) else any_free_port()

    def _launch(self, binaries: PostgresBinaries) -> None:
        arguments = [binaries.postgres, "-D", str(self.data_dir), "-p", str(self.port)]
        # No Unix socket: its path may not exceed 107 bytes, and TCP is as fast.
        fixed = {"listen_addresses": LOOPBACK, "unix_socket_directories": ""}
        for name, value in (self._settings | fixed).items():
            arguments += ["-c", f"{name}={value}"]
        with open_log(self.log_path) as file:
            self._process = start_bound(arguments, log=file, account=self._account)

    def _becomes_ready(self) -> bool:
        """Wait for `ready` in line 8 of Postgres' pid file, for which no login is needed."""
        process = self._process
        assert process is not None
        deadline = time.monotonic() + self._start_timeout_s
        while time.monotonic() < deadline and process.poll() is None:
            try:
                lines = (self.data_dir / "postmaster.pid").read_text(encoding="utf-8").splitlines()
            except FileNotFoundError:
                lines = []
            if len(lines) >= 8 and lines[0].strip() == str(process.pid) and lines[7].strip() == "ready":
                return True
            time.sleep(0.01)
        return False

    def _stop(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            stop(process, ((signal.SIGINT, _STOP_S), *_FORCED_STOP))
