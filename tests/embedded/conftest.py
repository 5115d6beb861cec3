"""State directories, and programs that run the embedded servers in a process of their own."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from csms.embedded.processes import command_line, is_alive
from tests.harness.narrowing import present
from tests.harness.servers import REPOSITORY
from tests.harness.waiting import until_blocking


@contextmanager
def state_directory() -> Iterator[Path]:
    """A directory any user can pass through; pytest's own is closed to Postgres' user."""
    parent = Path("/dev/shm") if shutil.disk_usage("/dev/shm").free > 512 * 1024**2 else None
    directory = Path(tempfile.mkdtemp(prefix="csms-embedded-", dir=parent))
    directory.chmod(0o755)
    yield directory / "state"
    # A server whose program was killed may still be stopping, and deletes files at the same time.

    def deleted() -> bool:
        shutil.rmtree(directory, ignore_errors=True)
        return not directory.exists()

    until_blocking(deleted)


@pytest.fixture
def state_dir() -> Iterator[Path]:
    with state_directory() as directory:
        yield directory


class Program:
    """A process running one of the embedded servers; `info` is what it reported once that was up."""

    def __init__(self, arguments: Sequence[str], **options: Any) -> None:
        self.process = subprocess.Popen(
            [*arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=REPOSITORY,
            **options,
        )
        line = present(self.process.stdout).readline()
        self.info: dict[str, Any] = json.loads(line) if line else {}

    def end(self) -> tuple[int, str]:
        """Let it finish by itself; its exit status and what it wrote to stderr."""
        _, errors = self.process.communicate(timeout=30)
        return self.process.returncode, errors

    def kill(self) -> None:
        self.process.kill()
        self.end()


@pytest.fixture
def program() -> Iterator[Callable[..., Program]]:
    with ExitStack() as started:

        def start(what: str, state_dir: Path, *, python: str = sys.executable, **options: Any) -> Program:
            running = Program(
                [python, "-m", "tests.harness.embedded_program", what, str(state_dir)], **options
            )

            def kill_unless_ended() -> None:
                if running.process.poll() is None:
                    running.kill()

            started.callback(kill_unless_ended)
            return running

        yield start


@contextmanager
def sleeping(**options: Any) -> Iterator["subprocess.Popen[bytes]"]:
    """A harmless process, `/bin/sleep 60`, that does not outlive the test."""
    with subprocess.Popen(["/bin/sleep", "60"], cwd="/", **options) as process:
        try:
            # Right after its start a process has no command line yet.
            until_blocking(lambda: command_line(process.pid) == "/bin/sleep 60", 10)
            yield process
        finally:
            process.kill()


def until_gone(pid: int) -> None:
    """Wait until a process that is not our child has ended."""
    until_blocking(lambda: not is_alive(pid))


needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
