"""Run make targets one after the other as named steps, all of them also when one fails, and print how long each took."""

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tools.source import REPOSITORY

_EXAMPLES = """\
example:
  python -m tools.check lint types    as `make lint` and `make types`, with a table of times; status 1 where one failed
"""


@dataclass(frozen=True, slots=True)
class Step:
    """A make target that was run, how long it took, and whether it succeeded."""

    name: str
    seconds: float
    succeeded: bool


def run(name: str, root: Path) -> Step:
    """Run a target, its output passed through."""
    print(f"\n== {name}", flush=True)
    began = time.monotonic()
    make = os.environ.get("MAKE", "make")
    status = subprocess.run([make, "--no-print-directory", name], cwd=root, check=False).returncode
    return Step(name, time.monotonic() - began, status == 0)


def table(steps: Sequence[Step]) -> str:
    """A line for each step and one for the sum."""
    width = max(len("step"), *(len(step.name) for step in steps))
    lines = [f"{'step':<{width}}  seconds  verdict"]
    lines += [
        f"{step.name:<{width}}  {step.seconds:7.1f}  {'ok' if step.succeeded else 'FAILED'}" for step in steps
    ]
    failed = sum(not step.succeeded for step in steps)
    verdict = f"{failed} failed" if failed else "ok"
    lines.append(f"{'all':<{width}}  {sum(step.seconds for step in steps):7.1f}  {verdict}")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None, root: Path = REPOSITORY) -> int:
    """Run the steps. Return the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m tools.check",
        description=__doc__,
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("steps", nargs="+", metavar="TARGET", help="a target of the Makefile")
    steps = [run(name, root) for name in parser.parse_args(arguments).steps]
    print(f"\n{table(steps)}", flush=True)
    return not all(step.succeeded for step in steps)


if __name__ == "__main__":
    sys.exit(main())
