"""tools.versions on a Makefile that says how its suite was called."""

import sys
from pathlib import Path

import pytest

from tests.tools.conftest import Written
from tools import versions

MAKEFILE = (
    "suite:\n\t@echo PY=$(PY) V=$(V) ARGS=$(ARGS) PG=$$CSMS_PG_BIN\n\t@test -z '$(findstring fail,$(ARGS))'\n"
)
VERSION = f"{sys.version_info.major}.{sys.version_info.minor}"


@pytest.fixture
def postgres(tmp_path: Path) -> Path:
    """The folder of a Postgres that can only say which it is."""
    directory = tmp_path / "postgres"
    directory.mkdir()
    program = directory / "postgres"
    program.write_text("#!/bin/sh\necho 'postgres (PostgreSQL) 15.20 (a distribution)'\n")
    program.chmod(0o755)
    return directory


def test_a_python_is_found_by_its_path_or_not_at_all() -> None:
    assert versions.find_python(sys.executable) == (VERSION, Path(sys.executable))
    assert versions.find_python("/nowhere/python3") is None


def test_each_combination_is_a_suite_in_its_own_environment(
    written: Written, postgres: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("CSMS_PG_BIN", raising=False)
    chosen = ["--pythons", sys.executable, "--postgres", f"embedded {postgres}", "tests/db", "-q"]
    assert versions.main(chosen, written({"Makefile": MAKEFILE})) == 0
    lines = capfd.readouterr().out.splitlines()
    called = f"PY={sys.executable} V=.venv-versions/{VERSION} ARGS=tests/db -q PG="
    assert lines[1:3] == [f"== Python {VERSION}, embedded Postgres", called]
    assert lines[4:6] == [f"== Python {VERSION}, Postgres 15.20", f"{called}{postgres}"]
    assert [line.split()[-1] for line in lines[-3:]] == ["ok", "ok", "ok"]


def test_a_combination_that_fails_is_red(written: Written) -> None:
    chosen = ["--pythons", sys.executable, "--postgres", "embedded", "fail"]
    assert versions.main(chosen, written({"Makefile": MAKEFILE})) == 1


def test_a_python_that_was_asked_for_must_be_there(
    written: Written, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        versions.main(["--pythons", "/nowhere/python3"], written({"Makefile": MAKEFILE}))
    assert "Python /nowhere/python3 does not run" in capsys.readouterr().err
