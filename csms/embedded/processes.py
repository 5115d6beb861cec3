"""Runs server programs so that none outlives us, whatever ends us, and knows whose a process is."""

import fcntl
import os
import pwd
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from csms.embedded.errors import EmbeddedError

_HAS_PROC = Path("/proc/self/cmdline").exists()

# Gives up its rights, asks for the death signal, becomes the program. The order matters: the kernel
# forgets the death signal when the user id changes; and the parent may have died before we asked.
# A small program of its own rather than preexec_fn, which is unsafe once there are threads.
_STUB = """
import os, signal, sys
signal_number, parent, uid, gid = map(int, sys.argv[1:5])
request_signal = None
if sys.platform == "linux":
    import ctypes  # now: later our own library may be out of reach
    request_signal = ctypes.CDLL(None).prctl
if uid >= 0:
    os.setgroups([])
    os.setgid(gid)
    os.setuid(uid)
signal.signal(signal.SIGINT, signal.SIG_DFL)  # shells have what they put in the background ignore Ctrl-C
if request_signal:
    request_signal(1, signal_number, 0, 0, 0)
if os.getppid() != parent:
    sys.exit(1)
os.execv(sys.argv[5], sys.argv[5:])
"""


@dataclass(frozen=True, slots=True)
class SystemAccount:
    """The system user a program is to run as."""

    name: str
    uid: int
    gid: int


def run(
    arguments: Sequence[str], *, account: SystemAccount | None, timeout_s: float = 60, stdin: str = ""
) -> subprocess.CompletedProcess[str]:
    """Run a short program to its end as `account` (None: as ourselves); output and errors in `stdout`."""
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
    """A bare environment: neither PG* variables nor locale nor our own secrets reach the programs."""
    kept = ("PATH", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH")
    return {"LC_ALL": "C"} | {name: os.environ[name] for name in kept if name in os.environ}


def start_bound(
    arguments: Sequence[str],
    *,
    log: IO[bytes],
    account: SystemAccount | None = None,
    death_signal: int = signal.SIGINT,
    environment: Mapping[str, str] | None = None,
) -> "subprocess.Popen[bytes]":
    """Start a server that receives `death_signal` from the kernel when we die (Linux; elsewhere it stays).

    The kernel ties that to the *thread* that forks, hence the main thread only. The server gets a session
    of its own: Ctrl-C is for us, and we stop it in our order.
    """
    if threading.current_thread() is not threading.main_thread():
        raise RuntimeError(
            "start embedded servers on the main thread: they die with the thread that started them"
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
        env=dict(environment) if environment is not None else program_environment(),
        start_new_session=True,
    )


def stop(process: "subprocess.Popen[bytes]", steps: Sequence[tuple[int, float]]) -> None:
    """Send one signal after another, each with the seconds it is given, until the process is gone."""
    for number, patience_s in steps:
        if process.poll() is not None:
            return
        process.send_signal(number)
        try:
            process.wait(patience_s)
        except subprocess.TimeoutExpired:
            continue
    process.wait(10)


def command_line(pid: int) -> str:
    """The command line of a live process; empty for none, for a zombie, and where we may not look."""
    if _HAS_PROC:
        try:
            shown = Path(f"/proc/{pid}/cmdline").read_bytes()
            return shown.replace(b"\0", b" ").decode(errors="replace").strip()
        except OSError:
            return ""
    listed = run(["/bin/ps", "-ww", "-o", "command=", "-p", str(pid)], account=None)
    return listed.stdout.strip() if listed.returncode == 0 else ""


def is_alive(pid: int) -> bool:
    """Whether a process exists that has not ended; a zombie has."""
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
    """Stop a process that is not our child, as long as its command line holds `expected`.

    Each step is a signal (None: only wait) and the seconds it is given. Returns whether it is gone.
    """
    for number, patience_s in steps:
        deadline = time.monotonic() + patience_s
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


def _wait_for_its_files(pid: int, patience_s: float = 2.0) -> None:
    # An ending process loses its command line first, its files and ports a little later.
    deadline = time.monotonic() + patience_s
    while is_alive(pid) and not command_line(pid) and time.monotonic() < deadline:
        time.sleep(0.01)


def unprivileged_account(owned: Path) -> SystemAccount | None:
    """Whom to run Postgres as: None = ourselves; as root, who owns `owned`, else `postgres`, else `nobody`."""
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
    """One program at a time in a directory. The kernel lets go of it with the process, however that ends."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: IO[str] | None = None

    def __enter__(self) -> Self:
        # Append mode: the other program's pid must survive our attempt.
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
    """The last lines a program wrote after byte `start` of its log."""
    try:
        with path.open("rb") as file:
            file.seek(max(start, path.stat().st_size - 16_384))
            return "\n".join(file.read().decode(errors="replace").splitlines()[-lines:])
    except OSError:
        return ""


def open_log(path: Path, *, limit_bytes: int = 10 * 1024 * 1024) -> IO[bytes]:
    """A log to append to, readable by us only; a long one moves to `*.old` first."""
    if path.exists() and path.stat().st_size > limit_bytes:
        path.replace(path.with_name(path.name + ".old"))
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "ab")
