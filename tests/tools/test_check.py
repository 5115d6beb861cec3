"""tools.check on a small Makefile."""

import pytest

from tests.tools.conftest import Written
from tools import check

MAKEFILE = "one:\n\t@echo first\nbad:\n\t@exit 3\ntwo:\n\t@echo second\n"


def test_steps_run_in_order_and_the_table_closes(written: Written, capfd: pytest.CaptureFixture[str]) -> None:
    assert check.main(["one", "two"], written({"Makefile": MAKEFILE})) == 0
    lines = capfd.readouterr().out.split("\n")
    assert lines[:6] == ["", "== one", "first", "", "== two", "second"]
    assert [line.split()[::2] for line in lines[-5:-1]] == [
        ["step", "verdict"],
        ["one", "ok"],
        ["two", "ok"],
        ["all", "ok"],
    ]


def test_a_step_that_fails_is_red_and_the_others_still_run(
    written: Written, capfd: pytest.CaptureFixture[str]
) -> None:
    assert check.main(["bad", "one"], written({"Makefile": MAKEFILE})) == 1
    out = capfd.readouterr().out
    assert "first" in out
    assert [line.split()[2:] for line in out.splitlines()[-3:]] == [["FAILED"], ["ok"], ["1", "failed"]]


def test_a_target_that_does_not_exist_is_red(written: Written) -> None:
    assert check.main(["none"], written({"Makefile": MAKEFILE})) == 1
