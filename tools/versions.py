"""Run the tests with each Python and each Postgres that this machine has.

Each Python gets an environment of its own below .venv-versions/, with the locked packages. Postgres is the embedded one
and each that the system has installed; the tests take it from CSMS_PG_BIN.
"""

import argparse
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from tools.check import Step, table
from tools.source import REPOSITORY

_EXAMPLES = """\
examples:
  python -m tools.versions                               the whole suite, in each combination
  python -m tools.versions --pythons "3.12 3.13" tests/db    these tests, two Pythons, each Postgres
  python -m tools.versions --pythons /opt/python/bin/python3.12 --postgres /usr/lib/postgresql/15/bin
"""

SUPPORTED = ("3.11", "3.12", "3.13")
ENVIRONMENTS = Path(".venv-versions")
EMBEDDED = "embedded"
_SYSTEM = Path("/usr/lib/postgresql")


def find_python(wanted: str) -> tuple[str, Path] | None:
    """The version, as `3.12`, and the program of a Python: given by its path, or by its version and found on PATH."""
    program = shutil.which(f"python{wanted}" if wanted in SUPPORTED else wanted)
    if program is None:
        return None
    asked = "import sys; print('%d.%d' % sys.version_info[:2], sys.executable)"
    # pyenv puts programs on PATH for versions that it does not run unless it is told to.
    environment = os.environ | ({"PYENV_VERSION": wanted} if wanted in SUPPORTED else {})
    answer = subprocess.run(
        [program, "-c", asked], env=environment, capture_output=True, text=True, check=False
    )
    if answer.returncode != 0:
        return None
    version, _, executable = answer.stdout.strip().partition(" ")
    return version, Path(executable)


def described(postgres: Path | None) -> str:
    """As `PostgreSQL 15.4`; None is the embedded one."""
    if postgres is None:
        return "embedded Postgres"
    answer = subprocess.run([postgres / "postgres", "-V"], capture_output=True, text=True, check=True)
    return " ".join(answer.stdout.replace("postgres (PostgreSQL)", "Postgres").split()[:2])


def run(
    python: tuple[str, Path], postgres: Path | None, arguments: Sequence[str], root: Path = REPOSITORY
) -> Step:
    """Install what is missing and run the tests, their output passed through."""
    version, program = python
    name = f"Python {version}, {described(postgres)}"
    print(f"\n== {name}", flush=True)
    environment = os.environ | ({} if postgres is None else {"CSMS_PG_BIN": str(postgres)})
    command = [os.environ.get("MAKE", "make"), "--no-print-directory", "suite"]
    settings = [f"PY={program}", f"V={ENVIRONMENTS / version}", f"ARGS={' '.join(arguments)}"]
    began = time.monotonic()
    status = subprocess.run([*command, *settings], cwd=root, env=environment, check=False).returncode
    return Step(name, time.monotonic() - began, status == 0)


def main(arguments: Sequence[str] | None = None, root: Path = REPOSITORY) -> int:
    """Run every combination and print a table. Return the exit status: 1 where one failed."""
    parser = argparse.ArgumentParser(
        prog="python -m tools.versions",
        description=__doc__,
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--pythons", default="", help=f"versions or paths ({' '.join(SUPPORTED)}, where found)"
    )
    parser.add_argument(
        "--postgres",
        default="",
        help=f"folders with postgres and initdb, or {EMBEDDED} ({EMBEDDED}, and all below {_SYSTEM})",
    )
    options, passed_on = parser.parse_known_args(arguments)
    pythons = []
    for wanted in options.pythons.split() or SUPPORTED:
        found = find_python(wanted)
        if found is not None:
            pythons.append(found)
        elif options.pythons:
            parser.error(
                f"Python {wanted} does not run: name a version that is on PATH, or a program's path."
            )
        else:
            print(f"Python {wanted} is not on this machine: left out")
    installed = [program.parent for program in sorted(_SYSTEM.glob("*/bin/postgres"))]
    chosen = options.postgres.split() or [EMBEDDED, *installed]
    servers = [None if each == EMBEDDED else Path(each) for each in chosen]
    steps = [run(python, server, passed_on, root) for python in pythons for server in servers]
    print(f"\n{table(steps)}", flush=True)
    return not all(step.succeeded for step in steps)


if __name__ == "__main__":
    sys.exit(main())
