"""`csms demo`: servers, the central system, simulated chargers and the events that it publishes, on this machine."""

import asyncio
import contextlib
import json
import sys
from collections.abc import Callable, Coroutine
from typing import Annotated, Any

import aiomqtt
import typer
from rich.console import Console
from rich.text import Text

import bridges
from csms import log, settings
from csms.adapter import Adapter
from csms.cli.output import cell
from csms.cli.serve import run
from csms.core.text import terminal_line
from csms.mqtt.config import BrokerAddress
from csms.run import app
from csms.simulate.clock import SimulatedClock, SimulatedTimeFile
from csms.simulate.controller import ChargePointOptions
from csms.simulate.fleet import SimulatedFleet

EXAMPLE = "Example:  csms demo --chargers 6 --speed 30"

_TAGS = ("ALICE", "BOB", "CAROL", "DAVE")
_COLOURS = {
    "started": "green",
    "completed": "cyan",
    "session_cost": "bold magenta",
    "meter_reading": "dim",
    "status_changed": "yellow",
}


def demo(
    chargers: Annotated[int, typer.Option(min=1, max=200, help="How many simulated charge points.")] = 6,
    speed: Annotated[
        float,
        typer.Option(
            min=1, max=1000, help="Simulated seconds per real second; at 60 an hour passes in a minute."
        ),
    ] = 60,
    duration: Annotated[
        float | None, typer.Option(min=1, help="End after this many seconds. Unset: at Ctrl-C.")
    ] = None,
) -> None:
    """Start a database, a broker, the central system and simulated chargers, and print the MQTT events."""
    chosen = settings.load()
    chosen = chosen.model_copy(
        update={
            "csms_data_dir": chosen.csms_data_dir / "demo",
            "csms_enrollment": "open",
            "csms_unknown_tags": "accept",
            "csms_ocpp_host": "127.0.0.1",
            "csms_node": "demo",
        }
    )
    # The output is the events, so that only warnings are logged.
    log.configure("console" if sys.stderr.isatty() else chosen.csms_log, quiet=True)
    out = Console(highlight=False, soft_wrap=True)
    out.print("Starting a Postgres database and an MQTT broker …", style="dim")

    simulators: list[Coroutine[Any, Any, None]] = []
    time_file = SimulatedTimeFile(chosen.csms_data_dir / "clock")
    clock = SimulatedClock(speed, time_file.lead_s())

    def with_bridges(broker: BrokerAddress | None) -> list[Adapter]:
        demos = (
            [] if broker is None else [bridges.create_demo(name, broker, clock) for name in bridges.BRIDGES]
        )
        simulators.extend(simulated for _, simulated in demos)
        return [adapter for adapter, _ in demos]

    async def beside(running: app.Running, broker: BrokerAddress | None) -> None:
        options = ChargePointOptions(tags=_TAGS, clock=clock)
        fleet = SimulatedFleet(running.ocpp, options, chargers=chargers, prefix="DEMO", ramp_s=1)
        companions = [asyncio.create_task(simulated) for simulated in (*simulators, time_file.keep(clock))]
        if broker is not None:
            companions.append(asyncio.create_task(_watch(broker, out)))
        try:
            async with asyncio.timeout(duration):
                await fleet.run()
        except TimeoutError:
            pass
        finally:
            for companion in companions:
                companion.cancel()
            await asyncio.gather(*companions, return_exceptions=True)

    run(chosen, _announcer(out), or_next_port=True, with_bridges=with_bridges, beside=beside)
    out.print("Stopped. The data are kept, and the next run continues with them.", style="dim")


def _announcer(out: Console) -> Callable[[app.Running], None]:
    def announce(running: app.Running) -> None:
        where = running.token_file or "CSMS_ADMIN_TOKEN"
        token = running.admin_token if out.is_terminal else f"in {where}"
        out.print()
        out.print(cell(f"  console      {running.http}"), style="bold")
        out.print(cell(f"  token        {token}"))
        out.print(cell(f"  charge point {running.ocpp}<identity>"))
        out.print(cell(f"  MQTT         {running.mqtt}   topics csms/# and ocpp/#"))
        out.print(cell(f"  database     {running.database}"))
        out.print("\nEvents as they are published (Ctrl-C stops everything):\n")

    return announce


async def _watch(broker: BrokerAddress, out: Console) -> None:
    """Print the events, read from the broker as any consumer reads them."""
    version = aiomqtt.ProtocolVersion.V5 if broker.version == "5" else aiomqtt.ProtocolVersion.V311
    while True:
        with contextlib.suppress(aiomqtt.MqttError):
            async with aiomqtt.Client(broker.host, broker.port, protocol=version) as client:
                for topic in ("csms/transactions/+/+", "csms/connectors/+/+", "csms/billing/+/+"):
                    await client.subscribe(topic, qos=1)
                async for message in client.messages:
                    if isinstance(message.payload, bytes):
                        out.print(line(json.loads(message.payload)))
        await asyncio.sleep(1)


def line(event: dict[str, Any]) -> Text:
    """Return one event as one line."""
    kind, payload = event["eventType"], event["payload"]
    style = _COLOURS.get(kind, "white")
    text = Text(f"{event['timestamp'][11:19]} ", style="dim")
    text.append(f"{terminal_line(event['clientId']):<10} ", style="bold")
    text.append(f"{terminal_line(kind):<15} ", style=style)
    text.append(terminal_line(_content(kind, payload)), style="dim" if kind == "meter_reading" else "")
    return text


def _content(kind: str, p: dict[str, Any]) -> str:
    where = f"connector {p.get('connectorId')}"
    match kind:
        case "started":
            return f"transaction {p['transactionId']} on {where}: {p['idTag']} at {p['meterStart'] / 1000:.1f} kWh"
        case "completed" | "updated":
            return f"transaction {p['transactionId']}: {p['energyUsed']:.2f} kWh in {p['duration']:.0f} min, {p['reason']}"
        case "session_cost":
            return f"transaction {p['transactionId']}: {p['estimatedCost']:.2f} {p['currency']} for {p['energyConsumed']:.2f} kWh"
        case "meter_reading":
            power, energy = p.get("currentPower"), p.get("sessionEnergy", p.get("totalEnergy"))
            shown = [
                f"{power:.1f} kW" if power is not None else "",
                f"{energy:.2f} kWh" if energy is not None else "",
            ]
            return f"{where}: " + ", ".join(part for part in shown if part)
        case "status_changed":
            return f"{where}: {p['previousStatus']} → {p['status']}" + (
                f" ({p['errorCode']})" if p["errorCode"] != "NoError" else ""
            )
    return json.dumps(p)
