import asyncio
import os
import pwd
import signal
import socket
import stat
import subprocess
import sys
import sysconfig
from collections.abc import Callable
from pathlib import Path

import asyncpg
import pytest

from csms.embedded import EmbeddedError, EmbeddedPostgres
from csms.embedded.ports import is_accepting, is_free
from csms.embedded.postgres_binaries import find_postgres
from csms.embedded.processes import SystemAccount, is_alive, start_bound, tail, unprivileged_account
from tests.embedded.conftest import Program, needs_root, sleeping, until_gone
from tests.harness.servers import REPOSITORY, unused_port
from tests.harness.waiting import until_blocking

FAST = {"fsync": "off"}


def query(url: str, *statements: str) -> object:
    """The first value of the last statement's answer, over a connection of its own."""

    async def run() -> object:
        connection = await asyncpg.connect(url, timeout=10)
        try:
            for statement in statements[:-1]:
                await connection.execute(statement)
            return await connection.fetchval(statements[-1])
        finally:
            await connection.close()

    return asyncio.run(run())


@pytest.fixture
def cluster(copy_cluster: Callable[[Path], None], state_dir: Path) -> Path:
    """A state directory as a program left it behind after a clean stop; for what is not about making one."""
    copy_cluster(state_dir)
    return state_dir


def test_data_url_and_password_survive_a_restart(state_dir: Path) -> None:
    with EmbeddedPostgres(state_dir, settings=FAST) as first:
        query(first.url, "CREATE TABLE kept (n int)", "INSERT INTO kept VALUES (7)", "SELECT 1")
        url, pid = first.url, first.pid
        assert pid is not None
    assert first.pid is None
    assert not is_alive(pid)
    with EmbeddedPostgres(state_dir, settings=FAST) as second:
        assert second.url == url
        assert query(second.url, "SELECT n FROM kept") == 7


def test_a_stop_is_clean_and_leaves_no_process(cluster: Path) -> None:
    with EmbeddedPostgres(cluster, settings=FAST) as postgres:
        port = postgres.port
    assert is_free(port)
    assert not (postgres.data_dir / "postmaster.pid").exists()
    assert tail(postgres.log_path, lines=1).endswith("database system is shut down")


def test_commits_are_durable_unless_the_caller_says_otherwise(state_dir: Path) -> None:
    with EmbeddedPostgres(state_dir) as postgres:
        assert query(postgres.url, "SHOW fsync") == "on"
        assert query(postgres.url, "SHOW synchronous_commit") == "on"
        assert query(postgres.url, "SHOW data_checksums") == "on"
        assert query(postgres.url, "SHOW server_encoding") == "UTF8"
        assert query(postgres.url, "SHOW timezone") == "UTC"


def test_the_callers_settings_reach_the_server(cluster: Path) -> None:
    settings = FAST | {"work_mem": "7MB", "application_name": "it's odd"}
    with EmbeddedPostgres(cluster, settings=settings) as postgres:
        assert query(postgres.url, "SHOW work_mem") == "7MB"
        assert query(postgres.url, "SHOW fsync") == "off"


def test_a_login_needs_the_password_and_a_loopback_address(state_dir: Path) -> None:
    with EmbeddedPostgres(state_dir, settings=FAST) as postgres:
        password = postgres.url.split(":")[2].split("@")[0]
        with pytest.raises(asyncpg.InvalidPasswordError):
            query(postgres.url.replace(password, "guess"), "SELECT 1")
        assert query(postgres.url, "SHOW listen_addresses") == "127.0.0.1"
        assert query(postgres.url, "SHOW unix_socket_directories") == ""
        secret = state_dir / "postgres" / "password"
        assert secret.read_text().strip() == password
        assert stat.S_IMODE(secret.stat().st_mode) == 0o600


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_killed_program_leaves_no_server_and_the_next_one_uses_the_data(
    number: int, cluster: Path, program: Callable[..., Program]
) -> None:
    killed = program("postgres", cluster)
    query(killed.info["url"], "CREATE TABLE kept (n int)", "INSERT INTO kept VALUES (7)", "SELECT 1")
    killed.process.send_signal(number)
    killed.end()
    with EmbeddedPostgres(cluster) as postgres:  # at once: the old server may still be on its way out
        assert query(postgres.url, "SELECT n FROM kept") == 7
        assert postgres.pid != killed.info["pid"]
    until_gone(killed.info["pid"])


def test_a_program_and_server_killed_together_recover(cluster: Path, program: Callable[..., Program]) -> None:
    killed = program("postgres", cluster)
    query(killed.info["url"], "CREATE TABLE kept (n int)", "INSERT INTO kept VALUES (7)", "SELECT 1")
    os.kill(killed.info["pid"], signal.SIGKILL)
    killed.kill()
    assert Path(killed.info["data"], "postmaster.pid").exists()
    with EmbeddedPostgres(cluster) as postgres:
        assert query(postgres.url, "SELECT n FROM kept") == 7


def test_a_stale_pid_file_of_another_process_is_removed(cluster: Path) -> None:
    with EmbeddedPostgres(cluster, settings=FAST) as postgres:
        pid_file = postgres.data_dir / "postmaster.pid"
        lines = pid_file.read_text().splitlines()
        account = unprivileged_account(postgres.data_dir)
    # Of the server's own user: Postgres takes such a process for a server of its own and would not start.
    user = {"user": account.uid, "group": account.gid} if account else {}
    with sleeping(**user) as stranger:
        pid_file.write_text("\n".join([str(stranger.pid), *lines[1:]]) + "\n")
        if account:
            os.chown(pid_file, account.uid, account.gid)
        with EmbeddedPostgres(cluster, settings=FAST) as again:
            assert query(again.url, "SELECT 1") == 1
        assert stranger.poll() is None


def test_a_server_left_running_is_replaced(cluster: Path) -> None:
    """As on systems without a death signal: the old server runs on, without a parent."""
    with EmbeddedPostgres(cluster, settings=FAST) as postgres:
        account = unprivileged_account(postgres.data_dir)
    arguments = [find_postgres().postgres, "-D", str(postgres.data_dir), "-p", str(postgres.port), "-k", ""]
    with (
        (cluster / "leftover.log").open("wb") as log,
        start_bound(arguments, log=log, account=account) as leftover,
    ):
        until_blocking(lambda: is_accepting(postgres.port) or leftover.poll() is not None)
        with EmbeddedPostgres(cluster, settings=FAST) as again:
            assert leftover.wait(10) == 0
            assert again.pid != leftover.pid
            assert query(again.url, "SELECT 1") == 1


def test_a_second_program_is_refused_with_the_first_ones_pid(
    cluster: Path, program: Callable[..., Program]
) -> None:
    with EmbeddedPostgres(cluster, settings=FAST) as postgres:
        status, errors = program("postgres", cluster).end()
        assert status == 2
        assert f"process {os.getpid()}" in errors
        assert "CSMS_DATA_DIR" in errors
        assert "Traceback" not in errors
        assert query(postgres.url, "SELECT 1") == 1


def test_a_last_port_that_is_taken_gives_another(cluster: Path) -> None:
    with EmbeddedPostgres(cluster, settings=FAST) as first:
        port = first.port
    with (
        socket.create_server(("127.0.0.1", port)),
        EmbeddedPostgres(cluster, settings=FAST) as second,
    ):
        assert second.port != port
        assert query(second.url, "SELECT 1") == 1


def test_a_port_that_is_asked_for_is_used_or_the_log_says_why_not(cluster: Path) -> None:
    port = unused_port()
    with EmbeddedPostgres(cluster, port=port, settings=FAST) as postgres:
        assert postgres.port == port
    with (
        socket.create_server(("127.0.0.1", port)),
        pytest.raises(EmbeddedError, match="could not bind"),
    ):
        EmbeddedPostgres(cluster, port=port, settings=FAST).__enter__()
    with EmbeddedPostgres(cluster, port=port, settings=FAST):  # the failed start let go of the directory
        pass


def test_a_wrong_setting_fails_the_start_with_the_servers_output(state_dir: Path) -> None:
    with pytest.raises(EmbeddedError, match=r"DATABASE_URL(.|\n)*no_such_setting"):
        EmbeddedPostgres(state_dir, settings={"no_such_setting": "1"}).__enter__()


def test_an_interrupted_creation_is_started_again(state_dir: Path) -> None:
    home = state_dir / "postgres"
    half = home / "data.new-0badcafe"
    half.mkdir(parents=True)
    (half / "PG_VERSION").write_text("18\n")
    (home / "password").write_text("left behind\n")
    with EmbeddedPostgres(state_dir, settings=FAST) as postgres:
        assert query(postgres.url, "SELECT 1") == 1
    assert not half.exists()


def test_a_database_of_another_major_is_not_touched(state_dir: Path) -> None:
    data = state_dir / "postgres" / "data"
    data.mkdir(parents=True)
    (data / "PG_VERSION").write_text("9\n")
    with pytest.raises(EmbeddedError, match=r"made by Postgres 9 .*CSMS_PG_BIN"):
        EmbeddedPostgres(state_dir).__enter__()
    assert [path.name for path in data.iterdir()] == ["PG_VERSION"]


def test_a_missing_password_file_is_named(cluster: Path) -> None:
    with EmbeddedPostgres(cluster, settings=FAST):
        pass
    (cluster / "postgres" / "password").unlink()
    with pytest.raises(EmbeddedError, match=r"password .* is missing"):
        EmbeddedPostgres(cluster).__enter__()


def test_a_state_directory_that_cannot_be_made_says_what_to_do(state_dir: Path) -> None:
    state_dir.write_text("a file, not a directory")
    with pytest.raises(EmbeddedError, match="CSMS_DATA_DIR"):
        EmbeddedPostgres(state_dir).__enter__()


def test_a_path_too_long_for_a_socket_is_no_problem(state_dir: Path) -> None:
    deep = state_dir / ("d" * 60) / ("e" * 60)
    with EmbeddedPostgres(deep, settings=FAST) as postgres:
        assert query(postgres.url, "SELECT 1") == 1


def test_the_wheel_is_never_imported(state_dir: Path, program: Callable[..., Program]) -> None:
    assert program("postgres", state_dir).info["imported"] == []


@needs_root
def test_under_root_the_server_has_another_user_and_parent_directories_stay_closed(state_dir: Path) -> None:
    state_dir.mkdir(mode=0o711)
    with EmbeddedPostgres(state_dir, settings=FAST) as postgres:
        status = Path(f"/proc/{postgres.pid}/status").read_text()
        uids = next(line for line in status.splitlines() if line.startswith("Uid:")).split()[1:]
        assert "0" not in uids
        assert postgres.data_dir.is_relative_to(state_dir)
        assert stat.S_IMODE(postgres.data_dir.stat().st_mode) == 0o700
    assert stat.S_IMODE(state_dir.stat().st_mode) == 0o711
    assert state_dir.stat().st_uid == 0


@needs_root
def test_under_root_with_a_closed_home_the_data_is_elsewhere_and_found_again(state_dir: Path) -> None:
    home = state_dir.parent / "home"
    home.mkdir(mode=0o700)
    shared = state_dir.parent / "shared"
    with EmbeddedPostgres(home / "state", settings=FAST, shared_dir=shared) as postgres:
        query(postgres.url, "CREATE TABLE kept (n int)", "INSERT INTO kept VALUES (7)", "SELECT 1")
        assert postgres.data_dir.is_relative_to(shared)
        place = postgres.data_dir
    assert stat.S_IMODE(home.stat().st_mode) == 0o700
    assert (home / "state/postgres/location").read_text().strip() == str(place.parent)
    home.chmod(0o755)  # reachable now, but the data are where they are
    with EmbeddedPostgres(home / "state", settings=FAST, shared_dir=shared) as postgres:
        assert postgres.data_dir == place
        assert query(postgres.url, "SELECT n FROM kept") == 7


@needs_root
def test_under_root_unreachable_data_is_not_replaced_by_an_empty_database(cluster: Path) -> None:
    with EmbeddedPostgres(cluster, settings=FAST):
        pass
    cluster.chmod(0o700)
    with pytest.raises(EmbeddedError, match="can no longer reach"):
        EmbeddedPostgres(cluster, shared_dir=cluster.parent / "shared").__enter__()


def python_for(account: SystemAccount) -> tuple[str, dict[str, str]]:
    """An interpreter that user can run with our packages: this one may lie in a closed home directory."""
    environment = {"PYTHONPATH": os.pathsep.join([str(REPOSITORY), sysconfig.get_path("platlib")])}
    environment["PYTHONDONTWRITEBYTECODE"] = "1"
    for python in (sys.executable, "/usr/bin/python3", "/usr/local/bin/python3"):
        try:
            done = subprocess.run(
                [python, "-c", "import csms.embedded, asyncpg, ctypes"],
                check=False,
                user=account.uid,
                group=account.gid,
                extra_groups=[],
                cwd="/",
                env=environment,
                capture_output=True,
            )
        except OSError:
            continue
        if done.returncode == 0:
            return python, environment
    pytest.skip(f"user {account.name} can run no Python with our packages")


@needs_root
@pytest.mark.parametrize("what", ["postgres", "broker"])
def test_an_ordinary_user_runs_the_servers_below_a_closed_home(
    what: str, state_dir: Path, program: Callable[..., Program]
) -> None:
    entry = pwd.getpwnam("nobody")
    python, environment = python_for(SystemAccount(entry.pw_name, entry.pw_uid, entry.pw_gid))
    home = state_dir.parent / "home"
    home.mkdir(mode=0o700)
    os.chown(home, entry.pw_uid, entry.pw_gid)
    options = {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": [], "env": environment}
    killed = program(what, home / "state", python=python, **options)
    assert killed.info["uid"] == entry.pw_uid
    killed.kill()
    until_gone(killed.info["pid"])
    again = program(what, home / "state", python=python, **options)
    if what == "postgres":
        assert query(again.info["url"], "SELECT 1") == 1
    else:
        assert is_accepting(again.info["port"])
    assert again.end() == (0, "")
    assert not is_alive(again.info["pid"])
