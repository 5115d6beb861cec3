"""The command line beside a running node, as an operator types it."""

import asyncio
import csv
import io
import json
import os
import sys
from collections.abc import Iterator
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from csms.cli import app
from csms.cli.serve import announce
from csms.run.app import Running
from tests.e2e.conftest import TOKEN, Node
from tests.harness.charge_points.raw import RawChargePoint

pytestmark = pytest.mark.timeout(120)


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-c", "from csms.cli import main; main()", *arguments]


def environment(*, node: Node | None = None, database: str | None = None) -> dict[str, str]:
    chosen = {"PATH": os.environ["PATH"], "HOME": "/nonexistent", "CSMS_DATA_DIR": "/nonexistent/csms"}
    # Without them every process would compile what it imports.
    chosen |= {name: value for name, value in os.environ.items() if name.startswith("PYTHON")}
    if node is not None:
        chosen |= {"CSMS_URL": node.running.http, "CSMS_TOKEN": TOKEN}
    if database is not None:
        chosen["DATABASE_URL"] = database
    return chosen


async def csms(
    *arguments: str,
    node: Node | None = None,
    database: str | None = None,
    answer: str = "",
    timeout_s: float = 60,
) -> tuple[int, str, str]:
    """Run the command, with `answer` as its input. Return its exit status, stdout and stderr."""
    process = await asyncio.create_subprocess_exec(
        *command(*arguments),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=environment(node=node, database=database),
    )
    async with asyncio.timeout(timeout_s):
        out, errors = await process.communicate(answer.encode())
    assert process.returncode is not None
    return process.returncode, out.decode(), errors.decode()


@pytest.mark.parametrize(
    "wrong",
    [["serve", "--bogus"], ["nonsense"], ["simulate", "--chargers", "0"], ["send"], ["tags", "add"]],
    ids=" ".join,
)
def test_wrong_usage_ends_with_2_and_one_complaint(wrong: list[str]) -> None:
    result = CliRunner().invoke(app, wrong)
    assert result.exit_code == 2
    assert "Error" in result.stderr


async def test_wrong_usage_ends_with_2_and_no_traceback() -> None:
    status, _, errors = await csms("chargers", "--bogus")
    assert status == 2
    assert "Traceback" not in errors
    assert errors


async def test_a_command_imports_only_what_it_needs() -> None:
    """`csms chargers` does not wait for the imports of `csms serve`."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        "import sys; from csms.cli import app; from typer.testing import CliRunner;"
        "CliRunner().invoke(app, ['chargers', '--help']);"
        "print([name for name in ('sqlalchemy', 'fastapi', 'ocpp', 'aiomqtt') if name in sys.modules])",
        stdout=asyncio.subprocess.PIPE,
    )
    out, _ = await process.communicate()
    assert out.decode().strip() == "[]"


def commands(group: Any, *above: str) -> Iterator[list[str]]:
    """Every command of the program, those of groups too."""
    for name in group.list_commands(None):
        command = group.get_command(None, name)
        if hasattr(command, "list_commands") and not command.invoke_without_command:
            yield from commands(command, *above, name)
        else:
            yield [*above, name]


def test_the_help_of_every_command_has_an_example() -> None:
    found = list(commands(typer.main.get_group(app)))
    assert len(found) > 30
    for command in found:
        result = CliRunner().invoke(app, [*command, "--help"])
        assert (result.exit_code, "Example" in result.stdout) == (0, True), command


def test_the_first_help_names_every_command() -> None:
    result = CliRunner().invoke(app, ["--help"])
    assert result.exit_code == 0
    for command in ("serve", "demo", "migrate", "bridge", "simulate", "send", "tags", "tokens", "events"):
        assert command in result.stdout


async def test_a_server_that_does_not_answer_is_one_sentence() -> None:
    status, out, errors = await csms("chargers")
    assert (status, out) == (1, "")
    assert errors.startswith("csms: no csms answers at")
    assert errors.count("\n") == 1


async def test_an_operator_adds_a_tag_resets_a_charger_and_lists_transactions(node: Node) -> None:
    point = await RawChargePoint.dial(node.ocpp, "CP-CLI")
    try:
        await point.boot()
        assert await csms("tags", "add", "04E8", "--parent", "FLEET", node=node) == (
            0,
            "04E8: Accepted\n",
            "",
        )
        assert "04E8\tAccepted" in (await csms("tags", "list", node=node))[1]
        started = await point.ask(
            "StartTransaction",
            {"connectorId": 1, "idTag": "04E8", "meterStart": 1000, "timestamp": "2026-11-01T10:00:00Z"},
        )
        reset = asyncio.create_task(csms("send", "CP-CLI", "Reset", '{"type": "Soft"}', node=node))
        call = await point.receive(30)
        await point.send([3, call[1], {"status": "Accepted"}])
        status, out, _ = await reset
        assert (status, json.loads(out)) == (0, {"status": "Accepted"})
        await point.ask(
            "StopTransaction",
            {
                "transactionId": started["transactionId"],
                "meterStop": 2000,
                "timestamp": "2026-11-01T11:00:00Z",
            },
        )
        assert "CP-CLI\tonline\tAccepted" in (await csms("chargers", node=node))[1]
        rows = list(csv.DictReader(io.StringIO((await csms("transactions", "--csv", node=node))[1])))
        assert len(rows) == 1
        await node.until(lambda: node.of("session_cost", "CP-CLI"))
        replayed = (await csms("events", "replay", "CP-CLI", node=node))[1].splitlines()
        assert [line.encode() for line in replayed] == [body for _, body in node.bodies]
    finally:
        await point.close()


async def test_errors_say_what_is_wrong(node: Node) -> None:
    status, _, errors = await csms("send", "UNKNOWN", "Reset", '{"type": "Soft"}', node=node)
    assert (status, "UNKNOWN" in errors, errors.count("\n")) == (1, True, 1)
    status, _, errors = await csms("send", "UNKNOWN", "Reset", "not json", node=node)
    assert (status, "not JSON" in errors) == (1, True)


async def test_a_token_is_shown_once_and_can_be_revoked(node: Node) -> None:
    status, secret, _ = await csms("tokens", "add", "billing", node=node)
    assert (status, len(secret.strip()) > 20) == (0, True)
    assert secret.strip() not in (await csms("tokens", "list", node=node))[1]
    assert await csms("tokens", "revoke", "billing", node=node) == (0, "billing: revoked\n", "")


@pytest.mark.parametrize("terminal", [True, False])
def test_a_new_admin_token_is_shown_on_terminals_only(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, terminal: bool
) -> None:
    running = Running(
        ocpp="ws://h/", http="http://h/", mqtt="off", database="d", admin_token="s3cret", token_is_new=True,
        token_file="/data/admin-token",
    )  # fmt: skip
    monkeypatch.setattr(sys.stderr, "isatty", lambda: terminal)
    announce(running)
    told = capsys.readouterr().err
    assert ("s3cret" in told) == terminal
    assert "/data/admin-token" in told
