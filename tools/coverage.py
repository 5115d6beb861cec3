"""Measure which lines and branches the tests run, and hold each package to its floor.

The floors stand in pyproject.toml, in percent of lines and branches together: [tool.house.coverage.whole] for the whole
suite, [tool.house.coverage.pure] for the tests that need neither a database nor a broker. A floor of 100 allows no line
and no branch that is not run. What a run measured stays in .venv/coverage: `coverage report` and `coverage html` read it.
"""

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from coverage import Coverage
from coverage.exceptions import NoDataError

from tools.source import PACKAGES, REPOSITORY, settings

_EXAMPLES = """\
examples:
  python -m tools.coverage           the whole suite: minutes
  python -m tools.coverage --pure    the tests that need no server, and the modules they alone are to cover
"""

# These tests do not wait: more processes than cores would only import more. With a seed the same examples are tried each
# time: a branch must not be covered by chance.
_PURE_ARGUMENTS = ("-n", "2", "--no-servers", "--hypothesis-seed=0", "-q")


# Those kill the processes that they are about, which then leave nothing measured.
_WHOLE_ARGUMENTS = ("--ignore=tests/soak",)


@dataclass(frozen=True, slots=True)
class Covered:
    """What was run of a module, or of several."""

    lines: int
    missed_lines: int
    branches: int
    missed_branches: int

    @property
    def percent(self) -> float:
        """Of lines and branches together, rounded down to a tenth: 100 means all."""
        total = self.lines + self.branches
        missed = self.missed_lines + self.missed_branches
        return (total - missed) * 1000 // total / 10 if total else 100.0

    def __add__(self, other: "Covered") -> "Covered":
        return Covered(
            self.lines + other.lines,
            self.missed_lines + other.missed_lines,
            self.branches + other.branches,
            self.missed_branches + other.missed_branches,
        )


@dataclass(frozen=True, slots=True)
class Module:
    """A module's part in the table, and the places that were not run, as text."""

    name: str
    path: str
    covered: Covered
    places: str


def read(report: Mapping[str, Any]) -> list[Module]:
    """The modules of a report that `coverage json` wrote."""
    return [_module(path, found) for path, found in sorted(report["files"].items())]


def _module(path: str, found: Mapping[str, Any]) -> Module:
    parts = Path(path).with_suffix("").parts
    summary = found["summary"]
    covered = Covered(
        summary["num_statements"],
        summary["missing_lines"],
        summary.get("num_branches", 0),  # neither is there where a report has no branch at all
        summary.get("missing_branches", 0),
    )
    return Module(
        ".".join(parts[:-1] if parts[-1] == "__init__" else parts),
        Path(path).as_posix(),
        covered,
        ", ".join(_places(found["missing_lines"], found.get("missing_branches", []))),
    )


def _places(lines: Sequence[int], branches: Iterable[tuple[int, int]]) -> Iterator[str]:
    """`7, 9-12` for lines, `14→16` for a jump from one that was run to another; `→exit` leaves the function."""
    missed = set(lines)
    begin = previous = None
    for line in (*lines, None):
        if previous is not None and line != previous + 1:
            yield str(begin) if begin == previous else f"{begin}-{previous}"
            begin = line
        begin, previous = begin or line, line
    for start, end in branches:
        if start not in missed and end not in missed:
            yield f"{start}→{'exit' if end < 0 else end}"


def together(modules: Iterable[Module], name: str) -> Covered | None:
    """What was run of a package or a module; None where there is none of that name."""
    found = [module.covered for module in modules if f"{module.name}.".startswith(f"{name}.")]
    return sum(found, Covered(0, 0, 0, 0)) if found else None


def packages(modules: Iterable[Module]) -> list[str]:
    """The packages below csms and bridges, and the modules that lie beside them."""
    return sorted({".".join(module.name.split(".")[:2]) for module in modules})


def judge(modules: Sequence[Module], names: Iterable[str], floors: Mapping[str, float]) -> tuple[str, int]:
    """The table with a line for each name, below it the places that a floor does not allow; and how many floors fail."""
    rows = sorted({*names, *floors})
    width = max(len(name) for name in rows)
    lines = [f"{'package':<{width}}   lines  missed  branches  missed  percent  floor  verdict"]
    failed = []
    for name in rows:
        covered, floor = together(modules, name), floors.get(name)
        if covered is None:
            failed.append(name)
            lines.append(f"{name:<{width}}  no such module was measured: mend the name in pyproject.toml")
            continue
        verdict = "" if floor is None else "ok" if covered.percent >= floor else "BELOW"
        if verdict == "BELOW":
            failed.append(name)
        lines.append(
            f"{name:<{width}}  {covered.lines:>6}  {covered.missed_lines:>6}  {covered.branches:>8}"
            f"  {covered.missed_branches:>6}  {covered.percent:>7.1f}  {'' if floor is None else f'{floor:g}':>5}"
            f"  {verdict}".rstrip()
        )
    lines += [
        f"{module.path}: {module.places}"
        for name in failed
        for module in modules
        if f"{module.name}.".startswith(f"{name}.") and module.places
    ]
    return "\n".join(lines), len(failed)


def pytest_sessionfinish() -> None:
    """As a plugin of pytest: save before the controller may end this process, which it does after ten seconds."""
    running = Coverage.current()
    if running is not None:
        running.save()


def measure(sources: Sequence[str], options: Sequence[str], arguments: Sequence[str]) -> int:
    """Run pytest with these arguments, and measure these folders. Return pytest's exit status."""
    _coverage().erase()
    sys.stdout.flush()
    command = [sys.executable, "-m", "coverage", "run", f"--source={','.join(sources)}", *options]
    path = os.pathsep.join(filter(None, (str(REPOSITORY), os.environ.get("PYTHONPATH"))))
    return subprocess.run(
        [*command, "-m", "pytest", "-p", __spec__.name, *arguments],
        env=os.environ | {"PYTHONPATH": path},
        check=False,
    ).returncode


def measured() -> list[Module]:
    """What the last run measured: each of its processes wrote a file."""
    found = _coverage()
    with tempfile.TemporaryDirectory(prefix="csms-coverage-") as directory:
        target = Path(directory) / "report.json"
        with contextlib.suppress(NoDataError):  # put together before
            found.combine()
            found.save()
        found.json_report(outfile=str(target))
        return read(json.loads(target.read_text()))


def _coverage() -> Coverage:
    found = Coverage(config_file="pyproject.toml", messages=False)
    found.load()
    return found


def main(arguments: Sequence[str] | None = None, root: Path = REPOSITORY) -> int:
    """Run the tests, print the table. Return the exit status: 1 where a test failed or a package is below its floor."""
    parser = argparse.ArgumentParser(
        prog="python -m tools.coverage",
        description=__doc__,
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--pure", action="store_true", help="only the tests that need no server")
    parser.add_argument("--last", action="store_true", help="judge what the last run measured")
    options, passed_on = parser.parse_known_args(arguments)
    chosen = settings(root).get("coverage", {})
    floors = chosen.get("pure" if options.pure else "whole", {})
    status = 0
    with contextlib.chdir(root):
        if options.last:
            pass
        elif options.pure:
            sources = sorted({"/".join(name.split(".")[:2]) for name in floors})
            # No SQLAlchemy here, whose greenlets make measuring cost twice as much.
            status = measure(
                sources, ["--concurrency=thread"], [*_PURE_ARGUMENTS, *chosen["pure-tests"], *passed_on]
            )
        else:
            status = measure(PACKAGES, [], [*_WHOLE_ARGUMENTS, *passed_on])
        if status > 1:  # interrupted, an error of pytest's or of its use, no tests
            return status
        modules = measured()
    table, failed = judge(modules, () if options.pure else packages(modules), floors)
    print(f"\n{table}\ncoverage: {failed} below the floor", flush=True)
    return bool(status or failed)


if __name__ == "__main__":
    sys.exit(main())
