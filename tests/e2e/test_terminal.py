"""Texts of chargers and operators on a terminal: no command fails by them, and none lets a control character through."""

import asyncio
import os
import pty
import re
import sys
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import quote

import pytest
import typer

from csms.cli import app
from tests.e2e.conftest import TOKEN, Node, NodeFactory
from tests.e2e.test_cli import commands
from tests.harness.charge_points.raw import RawChargePoint

MARKUP = "[/nope] [bold red]x[/]"
HOSTILE = f"{MARKUP}\x1b[31m\n\u202etxt\x9b2J\x07\u2028"
# What a table of rich itself consists of: its styles.
_STYLES = re.compile(r"\x1b\[[0-9;]*m")

pytestmark = pytest.mark.timeout(240)


async def on_terminal(node: Node, *arguments: str) -> tuple[int, str]:
    """Run a command whose stdout and stderr are a terminal. Return its exit status and what the terminal got."""
    master, slave = pty.openpty()
    environment = {"PATH": os.environ["PATH"], "HOME": "/nonexistent", "CSMS_DATA_DIR": "/nonexistent/csms"}
    environment |= {"CSMS_URL": node.running.http, "CSMS_TOKEN": TOKEN, "COLUMNS": "400", "TERM": "xterm"}
    environment |= {"DATABASE_URL": node.database_url}
    environment |= {name: value for name, value in os.environ.items() if name.startswith("PYTHON")}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", "from csms.cli import main; main()", *arguments,
        stdin=asyncio.subprocess.DEVNULL, stdout=slave, stderr=slave, env=environment,
    )  # fmt: skip
    os.close(slave)

    def read() -> bytes:
        got = b""
        while True:
            try:
                part = os.read(master, 65536)
            except OSError:  # the other side is closed
                return got
            if not part:
                return got
            got += part

    shown = (await asyncio.to_thread(read)).decode()
    os.close(master)
    return await process.wait(), shown


@pytest.fixture
async def node(start_node: NodeFactory) -> Node:
    """A node that knows hostile texts in every place that a list shows."""
    node = await start_node()
    point = await RawChargePoint.dial(node.ocpp, "CP%5Bnope%5D")
    boot = {"chargePointVendor": HOSTILE, "chargePointModel": HOSTILE}
    await point.ask("BootNotification", boot)
    now = datetime.now(UTC).isoformat()
    status = {"connectorId": 1, "status": "Faulted", "errorCode": "OtherError", "info": HOSTILE}
    await point.ask("StatusNotification", status)
    start = {"connectorId": 1, "idTag": HOSTILE, "meterStart": 0, "timestamp": now}
    started = await point.ask("StartTransaction", start)
    stop = {"transactionId": started["transactionId"], "meterStop": 5, "timestamp": now, "idTag": HOSTILE}
    await point.ask("StopTransaction", stop)
    api = node.api
    for path, body in (
        (f"tags/{quote('TAG[red]')}", {"parentIdTag": MARKUP}),
        (f"tariffs/{quote('t[red]')}", {"currency": "EUR", "bands": []}),
        (f"accounts/{quote('a[red]')}", {"currency": "EUR"}),
    ):
        response = await api.put(f"/api/v1/{path}", json=body)
        assert response.is_success, response.text
    assert (await api.post("/api/v1/tokens", json={"name": MARKUP, "role": "viewer"})).is_success
    note = {"note": HOSTILE, "energyWh": 4}
    assert (await api.post(f"/api/v1/transactions/{started['transactionId']}/correct", json=note)).is_success
    await node.fetch(
        "INSERT INTO outbox SELECT 0, charger_id, seq + 1000, recorded_at, 9, $1, true FROM events LIMIT 1",
        HOSTILE,
    )
    await point.close()
    return node


async def test_no_command_sends_a_terminal_what_a_charger_wrote_for_it(node: Node) -> None:
    charger, number = (await node.fetch("SELECT charger_id, id FROM transactions"))[0].values()
    lists = {
        "chargers": ["chargers"],
        "transactions": ["transactions"],
        "transactions revisions": ["transactions", "revisions", str(number)],
        "accounts list": ["accounts", "list"],
        "tags list": ["tags", "list"],
        "tokens list": ["tokens", "list"],
        "tariffs list": ["tariffs", "list"],
        "tariffs show": ["tariffs", "show", "t[red]", "--versions"],
        "plans list": ["plans", "list"],
        "plans set": ["plans", "set", charger],
        "plans show": ["plans", "show", charger],
        "events parked": ["events", "parked"],
        "events replay": ["events", "replay", charger],
        "transactions --csv": ["transactions", "--csv"],
        "no such charger": ["plans", "show", HOSTILE],
    }
    listed = {" ".join(name) for name in commands(typer.main.get_group(app)) if "list" in name}
    assert listed <= lists.keys()
    for name, arguments in lists.items():
        status, shown = await on_terminal(node, *arguments)
        assert status == (1 if name == "no such charger" else 0), (name, shown)
        assert "Traceback" not in shown, name
        for line in _STYLES.sub("", shown).split("\r\n"):
            assert line.expandtabs().isprintable(), (name, line)
        if name in {
            "transactions",
            "chargers",
            "tags list",
            "tokens list",
            "transactions revisions",
            "events parked",
        }:
            assert "[/nope]" in shown, name
        if name in {"tags list", "tariffs list", "tariffs show", "accounts list"}:
            assert "[red]" in shown, name
    _, table = await on_terminal(node, "transactions")
    assert table.count("\\x1b[31m\\n\\u202etxt\\x9b2J\\x07") == 1


def test_every_command_prints_by_the_functions_that_escape() -> None:
    folder = Path(sys.modules["csms.cli"].__file__ or "").parent
    printing = re.compile(
        r"(?<![\w.])print\(|sys\.stdout\.write|sys\.stderr\.write|typer\.echo|click\.echo|rich\.print"
    )
    found = [file.name for file in folder.glob("*.py") if printing.search(file.read_text())]
    assert found == ["output.py"]
