import os
import pwd
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from csms.embedded.errors import EmbeddedError
from csms.embedded.processes import (
    DirectoryLock,
    command_line,
    is_alive,
    open_log,
    run,
    start_bound,
    stop,
    stop_foreign_process,
    tail,
    unprivileged_account,
)
from tests.embedded.conftest import needs_root, sleeping, until_gone
from tests.harness.narrowing import present
from tests.harness.waiting import until_blocking


def test_programs_get_none_of_the_secrets_of_csms(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CSMS_ADMIN_TOKEN", "hidden")
    monkeypatch.setenv("PGOPTIONS", "-c fsync=off")
    shown = run([sys.executable, "-c", "import os; print(dict(os.environ))"], account=None).stdout
    assert "hidden" not in shown
    assert "PGOPTIONS" not in shown


@needs_root
def test_a_program_runs_as_the_account_and_without_other_groups() -> None:
    account = unprivileged_account(Path("/nonexistent"))
    assert account is not None
    assert account.name in {"postgres", "nobody"}
    shown = run(["/usr/bin/id", "-u"], account=account).stdout
    groups = run(["/usr/bin/id", "-G"], account=account).stdout
    assert shown.strip() == str(account.uid) != "0"
    assert groups.split() == [str(account.gid)]


@needs_root
def test_the_owner_of_existing_data_comes_first(tmp_path: Path) -> None:
    os.chown(tmp_path, 1, 1)  # a system account that every Unix has
    account = unprivileged_account(tmp_path)
    assert account is not None
    assert account.uid == 1


def test_an_ordinary_user_keeps_the_account(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert unprivileged_account(tmp_path) is None


def test_root_without_an_unprivileged_user_is_an_error_that_says_what_to_do(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def unknown(name: str) -> None:
        raise KeyError(name)

    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(pwd, "getpwnam", unknown)
    with pytest.raises(EmbeddedError, match="DATABASE_URL"):
        unprivileged_account(tmp_path / "absent")


def test_a_server_has_its_own_session_so_that_ctrl_c_does_not_reach_it(tmp_path: Path) -> None:
    with open_log(tmp_path / "log") as log:
        server = start_bound(["/bin/sleep", "60"], log=log)
    try:
        assert os.getsid(server.pid) == server.pid != os.getsid(0)
    finally:
        stop(server, ((signal.SIGTERM, 5.0),))
    assert server.returncode != 0


def test_a_server_gets_the_death_signal_although_ctrl_c_is_ignored(tmp_path: Path) -> None:
    """As when a shell has put us in the background."""
    code = (
        "import signal, sys; from pathlib import Path; from csms.embedded.processes import *;"
        "signal.signal(signal.SIGINT, signal.SIG_IGN);"
        f"log = open_log(Path({str(tmp_path / 'log')!r}));"
        "print(start_bound(['/bin/sleep', '60'], log=log).pid, flush=True); sys.stdin.read()"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", code],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with parent:
        pid = int(present(parent.stdout).readline())
        until_blocking(lambda: command_line(pid) == "/bin/sleep 60")
        parent.kill()
    until_gone(pid)


@needs_root
def test_a_server_drops_root_and_gets_the_death_signal(tmp_path: Path) -> None:
    account = unprivileged_account(Path("/nonexistent"))
    assert account is not None
    code = (
        "import sys; from pathlib import Path; from csms.embedded.processes import *;"
        f"log = open_log(Path({str(tmp_path / 'log')!r}));"
        f"print(start_bound(['/bin/sleep', '60'], log=log, account=SystemAccount('x', {account.uid}, {account.gid})).pid, flush=True);"
        "sys.stdin.read()"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with parent:
        pid = int(present(parent.stdout).readline())
        # The program is `sleep` once the stub has dropped its rights and asked for the signal.
        until_blocking(lambda: command_line(pid) == "/bin/sleep 60")
        assert Path(f"/proc/{pid}").stat().st_uid == account.uid
        parent.kill()
    until_gone(pid)


def test_a_server_may_only_be_started_on_the_main_thread(tmp_path: Path) -> None:
    caught: list[BaseException] = []

    def start() -> None:
        try:
            with open_log(tmp_path / "log") as log:
                start_bound(["/bin/sleep", "60"], log=log)
        except RuntimeError as problem:
            caught.append(problem)

    thread = threading.Thread(target=start)
    thread.start()
    thread.join()
    assert "main thread" in str(caught[0])


def test_a_process_that_ignores_signals_is_killed(tmp_path: Path) -> None:
    path = tmp_path / "log"
    code = "import signal, time; signal.signal(2, signal.SIG_IGN); print('deaf', flush=True); time.sleep(60)"
    with open_log(path) as log:
        server = start_bound([sys.executable, "-c", code], log=log)
    until_blocking(lambda: "deaf" in tail(path))
    stop(server, ((signal.SIGINT, 0.1), (signal.SIGKILL, 5.0)))
    assert server.returncode == -signal.SIGKILL


def test_a_process_with_another_command_line_is_not_stopped() -> None:
    with sleeping() as bystander:
        assert stop_foreign_process(bystander.pid, "-D /some/data ", ((signal.SIGKILL, 1.0),))
        assert bystander.poll() is None


def test_a_leftover_with_the_expected_command_line_is_stopped() -> None:
    with sleeping() as leftover:
        assert stop_foreign_process(leftover.pid, "sleep 60", ((None, 0.05), (signal.SIGTERM, 10.0)))
        assert leftover.wait(5) == -signal.SIGTERM


def test_a_leftover_that_does_not_stop_is_reported() -> None:
    with sleeping() as leftover:
        assert not stop_foreign_process(leftover.pid, "sleep 60", ((None, 0.05),))


def test_the_command_line_of_no_process_is_empty() -> None:
    with subprocess.Popen(["/bin/true"]) as short:
        short.wait()
    assert command_line(short.pid) == ""
    assert not is_alive(short.pid)


def test_a_zombie_is_not_alive() -> None:
    with subprocess.Popen(["/bin/true"]) as short:
        until_blocking(lambda: not is_alive(short.pid))
        assert short.returncode is None  # its status was not collected yet


def test_this_process_and_the_first_one_are_alive() -> None:
    assert is_alive(os.getpid())
    assert is_alive(1)


def test_a_locked_directory_names_its_holder(tmp_path: Path) -> None:
    with DirectoryLock(tmp_path / "lock"):
        with pytest.raises(EmbeddedError, match=rf"process {os.getpid()}.*CSMS_DATA_DIR"):
            DirectoryLock(tmp_path / "lock").__enter__()
        # The refused one must not have wiped the name.
        assert (tmp_path / "lock").read_text().strip() == str(os.getpid())
    with DirectoryLock(tmp_path / "lock"):
        pass


def test_a_long_log_is_renamed_and_stays_private(tmp_path: Path) -> None:
    path = tmp_path / "server.log"
    with open_log(path) as log:
        log.write(b"x" * 100)
    with open_log(path, limit_bytes=50) as log:
        log.write(b"new\n")
    assert path.read_text() == "new\n"
    assert (tmp_path / "server.log.old").stat().st_size == 100
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_tail_begins_after_the_given_byte(tmp_path: Path) -> None:
    path = tmp_path / "server.log"
    path.write_text("old\n" + "\n".join(f"line {n}" for n in range(20)))
    assert tail(path, start=4, lines=2) == "line 18\nline 19"
    assert "old" not in tail(path, start=4, lines=50)
    assert tail(tmp_path / "absent") == ""
