"""`csms transactions` and its commands with the REST interface behind them."""

import sys

import httpx
import pytest
from typer.testing import CliRunner

from csms.cli import app
from csms.cli.output import print_table
from csms.errors import CsmsError
from tests.harness.api_harness import ApiHarness
from tests.harness.command_line import Ran, Told

NOTE = ("--note", "by hand")


@pytest.fixture(autouse=True)
async def tariff(client: httpx.AsyncClient) -> None:
    await client.put("/tariffs/default", json={"currency": "USD", "energyRate": "0.12"})


async def test_a_transaction_is_corrected_voided_and_explained(world: ApiHarness, did: Told) -> None:
    number = str(await world.session("CP1"))
    shown = await did("transactions", "correct", number, "--energy-wh", "4000", *NOTE, "--dry-run")
    assert [line.split("\t")[3:] for line in shown.splitlines()] == [
        ["5.000", "0.60 USD"],
        ["4.000", "0.48 USD"],
    ]
    done = await did("transactions", "correct", number, "--meter-stop-wh", "5000", *NOTE)
    assert done == f"Transaction {number}: revision 2, 4.000 kWh, 0.48 USD\n"
    voided = await did("transactions", "void", number, *NOTE)
    assert voided == f"Transaction {number}: revision 3, 4.000 kWh, 0.00 USD (void)\n"
    rows = [line.split("\t") for line in (await did("transactions", "revisions", number)).splitlines()]
    assert [(row[0], *row[2:4], row[-1]) for row in rows] == [
        ("1", "charger", "–", "0.60 USD"),
        ("2", "admin", "by hand", "0.48 USD"),
        ("3", "admin", "by hand", "0.00 USD (void)"),
    ]


async def test_a_held_bill_is_listed_and_released(world: ApiHarness, did: Told) -> None:
    await world.session("CP2")
    number = await world.start("CP1")
    world.later(minutes=30)
    await world.meter("CP1", number, 3500, 5000)
    await world.stop("CP1", number, 2**32 - 1)
    listed = await did("transactions", "--billing", "held")
    assert listed.split("\t")[0] == str(number)
    assert listed.endswith("\t2.500\t0.30 USD (held)\n")
    assert (await did("transactions", "--billing", "held", "--csv")).count("\n") == 2
    assert "revision 2" in await did("transactions", "release", str(number), *NOTE)
    assert await did("transactions", "--billing", "held") == ""


async def test_a_transaction_is_stopped_by_hand(world: ApiHarness, did: Told, ran: Ran) -> None:
    number = str(await world.start("CP1"))
    at = world.later(minutes=30)
    world.later(hours=5)
    done = await did("transactions", "stop", number, *NOTE, "--at", at.isoformat(), "--meter-stop-wh", "3000")
    assert done == f"Transaction {number}: revision 1, 2.000 kWh, 0.24 USD\n"
    again = await ran("transactions", "stop", number, *NOTE)
    assert isinstance(again.exception, CsmsError)
    assert "correct it instead" in str(again.exception)
    assert (await ran("transactions", "void", number)).exit_code == 2  # without a reason


@pytest.mark.parametrize("command", ["stop", "correct", "release", "void", "revisions"])
def test_the_help_has_an_example(command: str) -> None:
    result = CliRunner().invoke(app, ["transactions", command, "--help"])
    assert (result.exit_code, f"csms transactions {command} 17" in result.stdout) == (0, True)


async def test_a_reason_does_not_break_the_table(
    world: ApiHarness, did: Told, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    number = str(await world.session("CP1"))
    await did("transactions", "void", number, "--note", "two\nlines\t[/b] \x1b[31m :bell:")
    rows = (await did("transactions", "revisions", number)).splitlines()
    assert len(rows) == 2
    assert rows[1].split("\t")[3] == r"two\nlines\t[/b] \x1b[31m :bell:"
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    print_table("[/b]", ("reason",), [["[/b] [red]x\n:bell:"]], "")
    assert r"[/b] [red]x\n:bell:" in capsys.readouterr().out


async def test_a_reason_that_is_not_utf_8_is_refused(world: ApiHarness, ran: Ran) -> None:
    number = str(await world.session("CP1"))
    refused = await ran("transactions", "void", number, "--note", "\udcff")
    assert isinstance(refused.exception, CsmsError)
    assert "is not UTF-8" in str(refused.exception)
