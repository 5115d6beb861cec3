"""The page of log events, written from small trees."""

from pathlib import Path

import pytest

from tests.tools.conftest import Written
from tools import logs

CODE = """
log.info("plan_taken", charger=charger, source=plan.source)
log.bind(charger=1).exception("plan_lost", why=why, exc_info=True)
log.warning("plan_taken", charger=charger, **more)
log.info("a sentence")
"""


@pytest.fixture
def tree(written: Written) -> Path:
    root = written(
        {"csms/plans/target.py": CODE, "bridges/one.py": 'log.debug("plan_lost")', "docs/a.md": ""}
    )
    assert logs.main(["--write"], root) == 1  # no meanings yet
    return root


def rows(root: Path) -> list[str]:
    text = (root / logs.PAGE).read_text()
    return [line for line in text.splitlines() if line.startswith("| `")]


def mean(root: Path, event: str, meaning: str) -> None:
    page = root / logs.PAGE
    lines = page.read_text().splitlines()
    [line] = [line for line in lines if line.startswith(f"| `{event}`")]
    told = line.removesuffix("|").rstrip().removesuffix("|").rstrip() + f" | {meaning} |"
    page.write_text("\n".join(told if each == line else each for each in lines) + "\n")


def test_an_event_is_a_row_with_its_levels_modules_and_fields(tree: Path) -> None:
    assert rows(tree) == [
        "| `plan_lost` | error, debug | `bridges.one`, `csms.plans.target` | `charger`, `why` |  |",
        "| `plan_taken` | info, warning | `csms.plans.target` | `charger`, `source`, `…` |  |",
    ]


def test_the_event_of_a_failure_log_is_a_warning_with_the_error(written: Written) -> None:
    code = 'FailureLog("round_failed", charger=charger)'
    root = written({"csms/plans/target.py": code, "bridges/one.py": "", "docs/a.md": ""})
    logs.main(["--write"], root)
    assert rows(root) == ["| `round_failed` | warning | `csms.plans.target` | `charger`, `error` |  |"]


def test_a_page_with_all_meanings_is_right(tree: Path, capsys: pytest.CaptureFixture[str]) -> None:
    mean(tree, "plan_lost", "A plan is gone; it is made anew.")
    mean(tree, "plan_taken", "The charger has a plan.")
    capsys.readouterr()
    assert logs.main([], tree) == 0
    assert capsys.readouterr().err == ""


def test_a_meaning_stays_when_the_page_is_written_anew(tree: Path) -> None:
    mean(tree, "plan_taken", "The charger has a plan.")
    (tree / "csms/plans/target.py").write_text('log.error("plan_taken")')
    logs.main(["--write"], tree)
    assert "| `plan_taken` | error | `csms.plans.target` |  | The charger has a plan. |" in rows(tree)


def test_an_event_without_a_meaning_is_named(tree: Path, capsys: pytest.CaptureFixture[str]) -> None:
    mean(tree, "plan_lost", "A plan is gone.")
    assert logs.main([], tree) == 1
    assert "does not say what plan_taken means" in capsys.readouterr().err


def test_a_new_event_and_one_that_is_gone_are_named(tree: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tree / "bridges/two.py").write_text('log.info("link_up")')
    (tree / "csms/plans/target.py").unlink()
    assert logs.main([], tree) == 1
    said = capsys.readouterr().err
    assert "link_up is new" in said
    assert "plan_taken is logged no more" in said


def test_a_meaning_that_is_taken_out_is_printed(tree: Path, capsys: pytest.CaptureFixture[str]) -> None:
    mean(tree, "plan_taken", "The charger has a plan.")
    (tree / "csms/plans/target.py").unlink()
    logs.main(["--write"], tree)
    assert "taken out: plan_taken: The charger has a plan." in capsys.readouterr().out


def test_the_help_has_an_example(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        logs.main(["--help"])
    assert "python -m tools.logs --write" in capsys.readouterr().out
