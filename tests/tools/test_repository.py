"""This repository, held against what the tools find in it."""

from tools import logs
from tools.circles import import_circles
from tools.log_calls import log_calls
from tools.source import REPOSITORY, modules


def test_no_modules_import_each_other_in_a_circle() -> None:
    found = [" → ".join(circle) for circle in import_circles()]
    assert not found, "import circles, also through functions and TYPE_CHECKING:\n" + "\n".join(found)


def test_the_page_of_log_events_is_what_the_code_gives() -> None:
    calls = [call for module in modules() for call in log_calls(module)]
    page = REPOSITORY / logs.PAGE
    wrong = list(logs.faults(calls, page.read_text() if page.is_file() else ""))
    assert not wrong, "\n".join([*wrong, "Run: python -m tools.logs --write"])
