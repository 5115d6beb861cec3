"""Run the tests as CI does: what failed runs once more by itself, flaky tests and skips are named and counted.

A test that fails and then passes by itself is flaky: it is named, and the run is red from the third one on. With --ci a
skip whose reason is not in [tool.house.allowed-skips] of pyproject.toml is red too: a machine that lacks a program
would otherwise check less without a word.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tools.source import REPOSITORY, settings

_EXAMPLES = """\
examples:
  python -m tools.suite                      the whole suite
  python -m tools.suite --ci tests/db -n 2   part of it, with pytest's own arguments; unexpected skips are red
"""

_FLAKY_ALLOWED = 2
# More failures than this are no chance, and each run by itself starts servers of its own.
_RUN_AGAIN_AT_MOST = 10


@dataclass(slots=True)
class Outcomes:
    """What became of the tests of a run, by node id."""

    passed: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    skipped: dict[str, str] = field(default_factory=dict)


class Pytest:
    """Runs the tests of a folder, each time in a process of its own."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def suite(self, arguments: Sequence[str]) -> tuple[int, Outcomes]:
        """Run them with these arguments: pytest's exit status, and what became of each test."""
        with tempfile.TemporaryDirectory(prefix="csms-suite-") as directory:
            target = Path(directory) / "outcomes.json"
            status = self._run("-p", "tools.outcomes", "--outcomes", str(target), *arguments)
            written = json.loads(target.read_text()) if target.is_file() else {}
        return status, Outcomes(**written)

    def passes(self, test: str) -> bool:
        """Whether a test passes that runs by itself."""
        return self._run("-n", "0", "-q", test) == 0

    def _run(self, *arguments: str) -> int:
        sys.stdout.flush()
        path = os.pathsep.join(filter(None, (str(REPOSITORY), os.environ.get("PYTHONPATH"))))
        command = [sys.executable, "-m", "pytest", *arguments]
        environment = os.environ | {"PYTHONPATH": path}
        return subprocess.run(command, cwd=self._root, env=environment, check=False).returncode


def main(
    arguments: Sequence[str] | None = None, pytest: Pytest | None = None, root: Path = REPOSITORY
) -> int:
    """Run the suite. Return the exit status: pytest's own where the tests could not be run."""
    parser = argparse.ArgumentParser(
        prog="python -m tools.suite",
        description=__doc__,
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--ci", action="store_true", help="fail where a test is skipped for an unexpected reason"
    )
    options, passed_on = parser.parse_known_args(arguments)
    pytest = pytest or Pytest(root)
    status, outcomes = pytest.suite(passed_on)
    if status > 1:  # interrupted, an error of pytest's or of its use, no tests
        return status
    broken, flaky = _again(pytest, outcomes.failed)
    unexpected = _unexpected(outcomes.skipped, settings(root).get("allowed-skips", {}))
    _print(outcomes, broken, flaky, unexpected)
    return bool(broken or len(flaky) > _FLAKY_ALLOWED or (options.ci and unexpected))


def _again(pytest: Pytest, failed: Sequence[str]) -> tuple[list[str], list[str]]:
    """Which of these tests fail by themselves too, and which do not: the flaky ones."""
    broken: list[str] = []
    flaky: list[str] = []
    if len(failed) > _RUN_AGAIN_AT_MOST:
        print(f"\n{len(failed)} tests failed, too many for chance: none is run again")
        return list(failed), flaky
    for test in failed:
        print(f"\nonce more, by itself: {test}")
        (flaky if pytest.passes(test) else broken).append(test)
    return broken, flaky


def _unexpected(skipped: dict[str, str], allowed: dict[str, str]) -> set[str]:
    return {reason for reason in skipped.values() if not any(re.match(each, reason) for each in allowed)}


def _print(outcomes: Outcomes, broken: list[str], flaky: list[str], unexpected: set[str]) -> None:
    by_reason = defaultdict(list)
    for test, reason in outcomes.skipped.items():
        by_reason[reason].append(test)
    print(f"\nskipped: {len(outcomes.skipped)}")
    for reason, tests in sorted(by_reason.items()):
        more = f" and {len(tests) - 1} more" if len(tests) > 1 else ""
        print(f"  {'UNEXPECTED ' if reason in unexpected else ''}{reason}: {tests[0]}{more}")
    print(f"flaky: {len(flaky)}, red from {_FLAKY_ALLOWED + 1}")
    for test in flaky:
        print(f"  {test}")
    for test in broken:
        print(f"FAILED {test}")
    passed = len(outcomes.passed) + len(flaky)
    print(f"suite: {passed} passed, {len(broken)} failed, {len(outcomes.skipped)} skipped", flush=True)


if __name__ == "__main__":
    sys.exit(main())
