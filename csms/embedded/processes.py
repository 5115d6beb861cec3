"""Run server programs so that none outlives this program, and tell whose a process is."""

import fcntl
import os
import pwd
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from csms.embedded.errors import EmbeddedError

_HAS_PROC = Path("/proc/self/cmdline").exists()

# Drops its privileges, asks for the death signal, then becomes the program. The order matters: the kernel forgets the
# death signal when the user id changes. The parent may have died before it was asked for, hence the check. A program of
# its own rather than preexec_fn, which is unsafe once there are threads.
_STUB = """
import os, signal, sys
signal_number, parent, uid, gid = map(int, sys.argv[1:5])
request_signal = None
if sys.platform == "linux":
    import ctypes  # now: after setuid the library may be out of reach
    request_signal = ctypes.CDLL(None).prctl
if uid >= 0:
    os.setgroups([])
    os.setgid(gid)
    os.setuid(uid)
signal.signal(signal.SIGINT, signal.SIG_DFL)  # shells make background jobs ignore it
if request_signal:
    request_signal(1, signal_number, 0, 0, 0)
if os.getppid() != parent:
    sys.exit(1)
os.execv(sys.argv[5], sys.argv[5:])
"""


@dataclass(frozen=True, slots=True)
class SystemAccount:
    """The system user that a program runs as."""

    name: str
    uid: int
    gid: int


def run(
    arguments: Sequence[str], *, account: SystemAccount | None, timeout_s: float = 60, stdin: str = ""
) -> subprocess.CompletedProcess[str]:
    """Run a short program to its end as `account` (None: as this user); output and errors are in `stdout`."""
    return subprocess.run(
        arguments,
        input=stdin,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        timeout=timeout_s,
        check=False,
        cwd="/",
        env=program_environment(),
        user=account.uid if account else None,
        group=account.gid if account else None,
        extra_groups=[] if account else None,
    )


def program_environment() -> dict[str, str]:
    """Return a minimal environment: without PG* variables, locale and the secrets of csms."""
    kept = ("PATH", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH")
    return {"LC_ALL": "C"} | {name: os.environ[name] for name in kept if name in os.environ}


def start_bound(
    arguments: Sequence[str],
    *,
    log: IO[bytes],
    account: SystemAccount | None = None,
    death_signal: int = signal.SIGINT,
) -> "subprocess.Popen[bytes]":
    """Start a server that receives `death_signal` from the kernel when this program dies (Linux only).

    The kernel sends it when the *thread* that forked ends, hence the main thread only. The server gets a session of its
    own, so that Ctrl-C does not reach it: it is stopped in order.
    """
    if threading.current_thread() is not threading.main_thread():
        raise RuntimeError(
            "Start embedded servers on the main thread: they end with the thread that started them."
        )
    return subprocess.Popen(
        [
            sys.executable,
            *("-I", "-c", _STUB),
            *(str(int(death_signal)), str(os.getpid())),
            *(str(account.uid if account else -1), str(account.gid if account else -1)),
            *arguments,
        ],
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=subprocess.STDOUT,
        cwd="/",
        env=program_environment(),
        start_new_session=True,
    )


def stop(process: "subprocess.Popen[bytes]", steps: Sequence[tuple[int, float]]) -> None:
    """Stop a process: send one signal after another, each with the seconds to wait, until it has ended."""
    for number, wait_s in steps:
        if process.poll() is not None:
            return
        process.send_signal(number)
        try:
            process.wait(wait_s)
        except subprocess.TimeoutExpired:
            continue
    process.wait(10)


def command_line(pid: int) -> str:
    """Return the command line of a running process; empty for a zombie, for none, and where it may not be read."""
    if _HAS_PROC:
        try:
            shown = Path(f"/proc/{pid}/cmdline").read_bytes()
            return shown.replace(b"\0", b" ").decode(errors="replace").strip()
        except OSError:
            return ""
    listed = run(["/bin/ps", "-ww", "-o", "command=", "-p", str(pid)], account=None)
    return listed.stdout.strip() if listed.returncode == 0 else ""


def is_alive(pid: int) -> bool:
    """Whether a process exists and has not ended, as a zombie has."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    try:
        state = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2]
    except OSError:
        return not _HAS_PROC
    return state.split()[0] not in {"Z", "X"}


def stop_foreign_process(pid: int, expected: str, steps: Sequence[tuple[int | None, float]]) -> bool:
    """Stop a process that is not a child of this program, as long as its command line holds `expected`.

    Each step is a signal (None: only wait) and the seconds to wait. Returns whether the process has ended.
    """
    for number, wait_s in steps:
        deadline = time.monotonic() + wait_s
        if number is not None and expected in command_line(pid):
            with suppress(ProcessLookupError):
                os.kill(pid, number)
        while expected in command_line(pid):
            if time.monotonic() > deadline:
                break
            time.sleep(0.02)
        else:
            _wait_for_its_files(pid)
            return True
    return False


def _wait_for_its_files(pid: int, timeout_s: float = 2.0) -> None:
    # A process that ends loses its command line first, its files and ports a little later.
    deadline = time.monotonic() + timeout_s
    while is_alive(pid) and not command_line(pid) and time.monotonic() < deadline:
        time.sleep(0.01)


def unprivileged_account(owned: Path) -> SystemAccount | None:
    """Return the user to run Postgres as; None: this user. Under root the owner of `owned`, or one of the system's unprivileged users.

    Raises EmbeddedError when there is none of them.
    """
    if os.geteuid() != 0:
        return None
    candidates = ["postgres", "nobody"]
    try:
        owner = pwd.getpwuid(owned.stat().st_uid)
    except (OSError, KeyError):
        pass
    else:
        if owner.pw_uid != 0:
            candidates.insert(0, owner.pw_name)
    for name in candidates:
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        return SystemAccount(entry.pw_name, entry.pw_uid, entry.pw_gid)
    raise EmbeddedError(
        "Postgres refuses to run as root and this machine has neither a user postgres nor a user nobody: "
        "start csms as an ordinary user, or set DATABASE_URL."
    )


class DirectoryLock:
    """Lets one program at a time use a directory. The kernel releases the lock when the process ends."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: IO[str] | None = None

    def __enter__(self) -> Self:
        # Append mode, which keeps the other program's pid.
        file = self._path.open("a+", encoding="ascii")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            holder = file.read().strip() or "unknown"
            file.close()
            raise EmbeddedError(
                f"Another csms (process {holder}) is using {self._path.parent}: "
                "stop it, or set CSMS_DATA_DIR to another directory."
            ) from None
        file.truncate(0)
        file.write(f"{os.getpid()}\n")
        file.flush()
        self._file = file
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None


def tail(path: Path, *, start: int = 0, lines: int = 12) -> str:
    """Return the last lines that a program wrote after byte `start` of its log."""
    try:
        with path.open("rb") as file:
            file.seek(max(start, path.stat().st_size - 16_384))
            return "\n".join(file.read().decode(errors="replace").splitlines()[-lines:])
    except OSError:
        return ""


def open_log(path: Path, *, limit_bytes: int = 10 * 1024 * 1024) -> IO[bytes]:
    """Open a log to append to, readable by this user only. A log over the limit is renamed to `*.old` first."""
    if path.exists() and path.stat().st_size > limit_bytes:
        path.replace(path.with_name(path.name + ".old"))
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "ab")
