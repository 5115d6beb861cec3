import asyncio
import signal
import sys

import pytest
import typer
from typer.testing import CliRunner

from csms.cli.simulate import simulate
from tests.harness.central_system import Central
from tests.harness.waiting import until

app = typer.Typer()
app.command()(simulate)

PROGRAM = """
import functools, sys, typer
import csms.cli.simulate as command
command.SimulatedFleet = functools.partial(command.SimulatedFleet, grace_s=float(sys.argv.pop(1)))
app = typer.Typer()
app.command()(command.simulate)
app()
"""


async def spawn(*arguments, grace_s=5):
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        PROGRAM,
        str(grace_s),
        *arguments,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )


async def finished(process):
    async with asyncio.timeout(30):
        out, err = await process.communicate()
    return process.returncode, out.decode(), err.decode()


async def test_sessions_without_errors_end_with_status_0():
    async with Central() as central:
        process = await spawn("--url", central.url, "--chargers", "2", "--sessions", "1", "--speed", "36000")
        status, out, err = await finished(process)
    assert (status, err) == (0, "")
    assert "sessions 2" in out
    assert "lost 0" in out
    assert central.faults == []


async def test_errors_to_transaction_messages_end_with_status_1():
    async with Central() as central:
        central.verdict = lambda action, payload: "error" if action == "StopTransaction" else None
        process = await spawn("--url", central.url, "--chargers", "1", "--speed", "36000", grace_s=0.5)
        await until(lambda: central.actions("StopTransaction"), 20)
        process.send_signal(signal.SIGINT)
        status, out, err = await finished(process)
    assert status == 1
    assert "CALLERROR" in err
    assert "SIM-001: CALLERROR: StopTransaction: InternalError" in out


async def test_without_a_central_system_it_ends_with_status_1_and_one_sentence():
    async with Central() as central:
        url = central.url
    status, _, err = await finished(await spawn("--url", url, "--chargers", "2", "--duration", "0.3"))
    assert status == 1
    assert "No charge point ever connected" in err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_a_signal_ends_it_cleanly(number):
    async with Central() as central:
        process = await spawn("--url", central.url, "--chargers", "2", "--speed", "1200")
        await until(lambda: len(central.actions("StartTransaction")) == 2, 20)
        process.send_signal(number)
        status, out, err = await finished(process)
    assert (status, err) == (0, "")
    assert "sessions 2" in out
    assert len(central.actions("StopTransaction")) == 2


@pytest.mark.parametrize(
    "arguments", [["--url", "http://x"], ["--tag", "x" * 21], ["--chargers", "0"], ["--speed", "nan"]]
)
def test_wrong_usage_ends_with_status_2(arguments):
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 2
    assert result.stderr


def test_help_has_an_example():
    result = CliRunner().invoke(app, ["--help"])
    assert result.exit_code == 0
    assert "Example: csms simulate" in result.stdout
