"""docs/conformance.md, made from a run: `python -m tests.conformance.report [--write]`."""

import argparse
import ast
import re
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from xml.etree import ElementTree as ET

from tests.conformance.cases import CASES, PENDING

HERE = Path(__file__).parent
REPOSITORY = HERE.parent.parent
DOCUMENT = REPOSITORY / "docs" / "conformance.md"
PASSED, FAILED, NOT_RUN, PENDING_YET = "passed", "**failed**", "**not run**", "not yet"
_NAME = re.compile(r"test_tc_(\d{3}(?:_\d)?)_[a-z]")
_HEAD = """\
# Conformance

The Open Charge Alliance publishes the test cases of its OCPP 1.6 compliance test tool. This page lists those with a
central system under test, and what csms does in each. {passed} of {all} pass{pending}.

`python -m tests.conformance.report --write` runs `tests/conformance` and writes this page; a test fails when the page is
not current. The project runs these cases itself: the results are no certificate.

In every case a charge point that is built on the `ocpp` package (mobilityhouse) connects over a WebSocket to a node
with a Postgres database and an MQTT broker. Cases marked ▸ begin with a request of an operator to
`POST /api/v1/chargers/{{id}}/commands`: the test compares the payload that the charge point receives with the one in
the request, and the HTTP response with the answer of the charge point. At the end of every case the test also asserts
that

- every message that the central system sent is valid by the OCPP schemas, compact and expected by the case, and has
  a message id of its own;
- the frame log contains every frame of both directions, and the protocol stream published it over MQTT;
- the database contains every command with its answer;
- the status history contains every status, and csms published every change of a status once, with the previous status;
- csms published exactly the stored events over MQTT, byte for byte, and their numbers have no gap.

In the tables, csms answers, accepts, refuses, admits, stores, books, prices and publishes; "the operator receives" is what
the HTTP response contains.
"""


@dataclass(frozen=True)
class Test:
    """One test function. `asserted`: its docstring on one line."""

    case: str
    path: str
    name: str
    asserted: str


def tests() -> list[Test]:
    """Every function that is named after a case, as the sources have it."""
    found = []
    for path in sorted(HERE.glob("test_*.py")):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.AsyncFunctionDef | ast.FunctionDef) and (named := _NAME.match(node.name)):
                text = " ".join((ast.get_docstring(node) or "").split())
                found.append(Test(f"TC_{named[1]}", path.name, node.name, text))
    return found


def render(results: Mapping[str, str]) -> str:
    """Return the document. `results`: the result of each test function."""
    of_case = {test.case: test for test in tests()}
    outcome = {
        case.id: PENDING_YET if case.id in PENDING else results.get(of_case[case.id].name, NOT_RUN)
        for case in CASES
        if case.id in PENDING or case.id in of_case
    }
    passed = sum(result == PASSED for result in outcome.values())
    pending = f", {len(PENDING)} have no test yet" if PENDING else ""
    lines = [_HEAD.format(passed=passed, all=len(CASES), pending=pending)]
    for group, cases in groupby(CASES, key=lambda case: case.group):
        lines += [f"## {group}", "", "| case | title | result | what is asserted |", "|---|---|---|---|"]
        for case in cases:
            said = PENDING.get(case.id) or of_case[case.id].asserted
            title = f"▸ {case.title}" if case.operator else case.title
            lines.append(f"| {case.id} | {title} | {outcome[case.id]} | {_capital(said)} |")
        lines.append("")
    return "\n".join(lines).rstrip() + "\n"


def _capital(text: str) -> str:
    text = text[:1].upper() + text[1:]
    return text if text.endswith(".") else f"{text}."


def run() -> dict[str, str]:
    """Run the cases; the result of each test function (of all its parameters together)."""
    with tempfile.TemporaryDirectory() as directory:
        junit = Path(directory) / "junit.xml"
        files = sorted({str(HERE / test.path) for test in tests()})
        subprocess.run(
            [sys.executable, "-m", "pytest", "-q", f"--junitxml={junit}", *files], cwd=REPOSITORY, check=False
        )
        if not junit.is_file():
            sys.exit("pytest wrote no results: see above.")
        return outcomes(junit.read_text(encoding="utf-8"))


def outcomes(junit: str) -> dict[str, str]:
    """By test function; anything but a pass of all its parameters is a failure."""
    results: dict[str, str] = {}
    for found in ET.fromstring(junit).iter("testcase"):
        name = found.attrib["name"].partition("[")[0]
        passed = all(found.find(kind) is None for kind in ("failure", "error", "skipped"))
        results[name] = PASSED if passed and results.get(name, PASSED) == PASSED else FAILED
    return results


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.conformance.report", description=__doc__)
    parser.add_argument("--write", action="store_true", help=f"write {DOCUMENT.relative_to(REPOSITORY)}")
    arguments = parser.parse_args()
    text = render(run())
    if arguments.write:
        DOCUMENT.write_text(text, encoding="utf-8")
    else:
        print(text)
    if FAILED in text or NOT_RUN in text:
        sys.exit(1)


if __name__ == "__main__":
    main()
