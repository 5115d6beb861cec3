"""tools.coverage on reports and on a small repository."""

import pytest

from tests.tools.conftest import Written
from tools import coverage
from tools.coverage import Covered, Module

PROJECT = """
[tool.coverage.run]
branch = true
patch = ["subprocess"]
data_file = "data"
[tool.pytest.ini_options]
addopts = ["-p", "no:cacheprovider"]
[tool.house.coverage]
pure-tests = ["tests"]
[tool.house.coverage.pure]
"csms.core" = {core}
[tool.house.coverage.whole]
"csms.core" = {core}
"""
DECISION = """
def decide(answer):
    if answer:
        return 1
    return 2
"""
TESTS = """
import subprocess, sys
from csms.core import decision

def test_yes():
    assert decision.decide(True) == 1

def test_no_in_another_process(%s):
    subprocess.run([sys.executable, "-c", "from csms.core import decision; decision.decide(False)"], check=True)
"""
CONFTEST = """
import pytest

def pytest_addoption(parser):
    parser.addoption("--no-servers", action="store_true")

@pytest.fixture
def addresses(request):
    if request.config.getoption("no_servers"):
        pytest.skip("no servers")
"""


@pytest.fixture(autouse=True)
def _measured_by_themselves(monkeypatch: pytest.MonkeyPatch) -> None:
    """These runs measure for themselves, also while the suite that they are part of is measured."""
    monkeypatch.delenv("COVERAGE_PROCESS_CONFIG", raising=False)


def report(**files: tuple[int, list[int], int, list[tuple[int, int]]]) -> dict[str, object]:
    """What `coverage json` writes: statements, missing lines, branches, missing branches."""
    return {
        "files": {
            f"csms/{name}.py": {
                "summary": {
                    "num_statements": statements,
                    "missing_lines": len(lines),
                    "num_branches": branches,
                    "missing_branches": len(missing),
                },
                "missing_lines": lines,
                "missing_branches": missing,
            }
            for name, (statements, lines, branches, missing) in files.items()
        }
    }


def test_places_are_ranges_of_lines_and_the_jumps_between_lines_that_were_run() -> None:
    [module] = coverage.read(report(one=(20, [3, 4, 5, 9], 6, [(2, 3), (7, 11), (8, -1)])))
    assert module == Module("csms.one", "csms/one.py", Covered(20, 4, 6, 3), "3-5, 9, 7→11, 8→exit")


def test_a_percentage_is_never_rounded_up() -> None:
    assert Covered(9_999, 1, 0, 0).percent == 99.9
    assert Covered(10, 0, 10, 0).percent == 100
    assert Covered(0, 0, 0, 0).percent == 100


def test_a_floor_is_for_all_modules_of_a_package_and_only_for_them() -> None:
    modules = coverage.read(
        report(**{"core/a": (10, [], 0, []), "core/b": (10, [7], 0, []), "core_b": (9, [1], 0, [])})
    )
    assert coverage.together(modules, "csms.core") == Covered(20, 1, 0, 0)
    assert coverage.together(modules, "csms.core.b") == Covered(10, 1, 0, 0)
    assert coverage.packages(modules) == ["csms.core", "csms.core_b"]


def test_below_the_floor_the_table_says_where() -> None:
    modules = coverage.read(report(**{"core/a": (10, [], 0, []), "core/b": (10, [7], 0, [])}))
    table, failed = coverage.judge(modules, ["csms.core.a"], {"csms.core": 100})
    assert failed == 1
    lines = table.splitlines()
    assert lines[1].split() == ["csms.core", "20", "1", "0", "0", "95.0", "100", "BELOW"]
    assert lines[2].split() == ["csms.core.a", "10", "0", "0", "0", "100.0"]
    assert lines[3:] == ["csms/core/b.py: 7"]


def test_a_floor_for_what_does_not_exist_fails() -> None:
    table, failed = coverage.judge(coverage.read(report(one=(1, [], 0, []))), (), {"csms.two": 1})
    assert failed == 1
    assert "csms.two  no such module was measured" in table


def test_processes_that_tests_start_are_measured_and_the_last_run_can_be_judged_again(
    written: Written, capfd: pytest.CaptureFixture[str]
) -> None:
    files = {
        "pyproject.toml": PROJECT.format(core=100),
        "csms/__init__.py": "",
        "csms/core/__init__.py": "",
        "csms/core/decision.py": DECISION,
        "bridges/__init__.py": "",
        "tests/test_decision.py": TESTS % "",
    }
    assert coverage.main([], written(files)) == 0
    out = capfd.readouterr().out
    assert "2 passed" in out
    assert "coverage: 0 below the floor" in out
    assert coverage.main(["--last"], written(files | {"pyproject.toml": PROJECT.format(core=101)})) == 1


def test_a_pure_run_leaves_out_what_needs_a_server_and_is_red_where_a_test_fails(
    written: Written, capfd: pytest.CaptureFixture[str]
) -> None:
    files = {
        "pyproject.toml": PROJECT.format(core=50),
        "csms/__init__.py": "",
        "csms/core/__init__.py": "",
        "csms/core/decision.py": DECISION,
        "tests/conftest.py": CONFTEST,
        "tests/test_decision.py": TESTS % "addresses" + "\ndef test_fails():\n    assert False\n",
    }
    assert coverage.main(["--pure", "-n", "0"], written(files)) == 1
    out = capfd.readouterr().out
    assert "1 failed, 1 passed, 1 skipped" in out
    assert "coverage: 0 below the floor" in out
    pure = files | {"pyproject.toml": PROJECT.format(core=100)}
    assert coverage.main(["--pure", "--last"], written(pure)) == 1
    assert "csms/core/decision.py: 5\n" in capfd.readouterr().out
