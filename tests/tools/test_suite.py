"""What tools.suite makes of the outcomes of tests, and that a real pytest writes those."""

from collections.abc import Collection, Sequence
from pathlib import Path

import pytest

from tests.tools.conftest import Written
from tools import suite
from tools.suite import Outcomes, Pytest


class Played(Pytest):
    """Runs nothing: a suite with these outcomes, of whose failed tests these pass by themselves."""

    def __init__(self, outcomes: Outcomes, *, flaky: Collection[str] = (), status: int = 1) -> None:
        self._outcomes, self._flaky, self._status = outcomes, flaky, status

    def suite(self, arguments: Sequence[str]) -> tuple[int, Outcomes]:
        return self._status, self._outcomes

    def passes(self, test: str) -> bool:
        return test in self._flaky


def test_a_suite_that_passes_is_green(capsys: pytest.CaptureFixture[str]) -> None:
    assert suite.main([], Played(Outcomes(passed=["a"]), status=0)) == 0
    out = capsys.readouterr().out
    assert "flaky: 0" in out
    assert out.splitlines()[-1] == "suite: 1 passed, 0 failed, 0 skipped"


def test_a_test_that_then_passes_by_itself_is_named_and_counted(capsys: pytest.CaptureFixture[str]) -> None:
    assert suite.main([], Played(Outcomes(["a"], ["b", "c"]), flaky=["b", "c"])) == 0
    lines = capsys.readouterr().out.splitlines()
    counted = lines.index("flaky: 2, red from 3")
    assert lines[counted + 1 : counted + 3] == ["  b", "  c"]
    assert lines[-1] == "suite: 3 passed, 0 failed, 0 skipped"


def test_the_third_flaky_test_is_red(capsys: pytest.CaptureFixture[str]) -> None:
    assert suite.main([], Played(Outcomes(["a"], ["b", "c", "d"]), flaky=["b", "c", "d"])) == 1
    assert "flaky: 3, red from 3" in capsys.readouterr().out


def test_a_test_that_fails_by_itself_too_is_red(capsys: pytest.CaptureFixture[str]) -> None:
    assert suite.main([], Played(Outcomes(["a"], ["b", "c"]), flaky=["c"])) == 1
    out = capsys.readouterr().out
    assert "FAILED b\n" in out
    assert out.splitlines()[-1] == "suite: 2 passed, 1 failed, 0 skipped"


def test_many_failures_are_not_run_again(capsys: pytest.CaptureFixture[str]) -> None:
    many = [f"test {number}" for number in range(11)]
    assert suite.main([], Played(Outcomes([], many), flaky=many)) == 1
    out = capsys.readouterr().out
    assert "too many for chance" in out
    assert out.splitlines()[-1] == "suite: 0 passed, 11 failed, 0 skipped"


def test_an_unexpected_skip_is_red_in_ci_only(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    skipped = Outcomes(["a"], [], {"b": "no such program here", "c": "no such program here"})
    assert suite.main([], Played(skipped, status=0), tmp_path) == 0
    assert suite.main(["--ci"], Played(skipped, status=0), tmp_path) == 1
    assert "  UNEXPECTED no such program here: b and 1 more\n" in capsys.readouterr().out


def test_a_skip_with_an_allowed_reason_is_listed_and_green(
    written: Written, capsys: pytest.CaptureFixture[str]
) -> None:
    allowed = '[tool.house.allowed-skips]\n"no such program" = "it cannot be had everywhere"\n'
    skipped = Outcomes(["a"], [], {"b": "no such program here"})
    assert suite.main(["--ci"], Played(skipped, status=0), written({"pyproject.toml": allowed})) == 0
    assert "  no such program here: b\n" in capsys.readouterr().out


def test_what_pytest_could_not_run_is_its_own_status() -> None:
    nothing = Played(Outcomes(), status=pytest.ExitCode.NO_TESTS_COLLECTED)
    assert suite.main([], nothing) == pytest.ExitCode.NO_TESTS_COLLECTED


def test_pytest_writes_what_became_of_each_test(written: Written, capfd: pytest.CaptureFixture[str]) -> None:
    root = written(
        {
            "test_a.py": """
import pytest

@pytest.fixture
def breaks_at_the_end():
    yield
    assert False

def test_passes(): ...
def test_fails(): assert False
def test_leaves_a_mess(breaks_at_the_end): ...
@pytest.mark.skip(reason="not here")
def test_skips(): ...
@pytest.mark.xfail
def test_is_known_to_fail(): assert False
""",
            "test_b.py": 'import pytest\npytest.skip("nothing here", allow_module_level=True)\n',
        }
    )
    status, outcomes = Pytest(root).suite(["-n", "1", "-p", "no:cacheprovider"])
    assert status == 1
    assert outcomes == Outcomes(
        passed=["test_a.py::test_passes"],
        failed=["test_a.py::test_fails", "test_a.py::test_leaves_a_mess"],
        skipped={"test_a.py::test_skips": "not here", "test_b.py": "nothing here"},
    )
    assert "1 failed, 2 passed" in capfd.readouterr().out  # pytest's own closing line is seen
    assert not Pytest(root).passes("test_a.py::test_fails")
