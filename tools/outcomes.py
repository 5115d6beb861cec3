"""A pytest plugin: `-p tools.outcomes --outcomes FILE` writes what became of each test, as JSON, for tools.suite."""

import json
from pathlib import Path

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--outcomes", type=Path, metavar="FILE", help="write what became of each test to this file"
    )


def pytest_configure(config: pytest.Config) -> None:
    target = config.getoption("--outcomes")
    if target is not None and not hasattr(config, "workerinput"):  # xdist's controller hears of all tests
        config.pluginmanager.register(_Recorder(target))


class _Recorder:
    def __init__(self, target: Path) -> None:
        self._target = target
        self._passed: set[str] = set()
        self._failed: dict[str, None] = {}
        self._skipped: dict[str, str] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            self._failed[report.nodeid] = None
        elif hasattr(report, "wasxfail"):
            pass  # its failure is expected: neither passed nor skipped
        elif report.skipped:
            self._skipped[report.nodeid] = _reason(report)
        elif report.when == "call":
            self._passed.add(report.nodeid)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.skipped:
            self._skipped[report.nodeid] = _reason(report)

    def pytest_sessionfinish(self) -> None:
        outcomes = {
            "passed": sorted(self._passed - self._failed.keys()),
            "failed": list(self._failed),
            "skipped": self._skipped,
        }
        self._target.write_text(json.dumps(outcomes))


def _reason(report: pytest.TestReport | pytest.CollectReport) -> str:
    where = report.longrepr  # file, line, "Skipped: reason"
    said = where[2] if isinstance(where, tuple) else str(where)
    return said.removeprefix("Skipped: ")
