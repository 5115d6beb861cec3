"""`csms bridge NAME`: one bridge as a process of its own."""

import asyncio
import signal
from contextlib import ExitStack
from typing import Annotated

import typer

import bridges
from csms import log, settings
from csms.cli.output import complain
from csms.cli.serve import loop
from csms.run import app, servers
from csms.settings import Settings

EXAMPLE = "Example:  DATABASE_URL=postgresql://csms:…@db/csms MQTT_HOST=broker csms bridge coin_op"


def bridge(
    name: Annotated[str, typer.Argument(help=f"The bridge: {', '.join(bridges.BRIDGES)}.", metavar="NAME")],
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Also log debug events.")] = False,
) -> None:
    """Run one bridge as a process of its own, with the database and the broker of a central system."""
    chosen = settings.load()
    log.configure(chosen.csms_log, verbose=verbose)
    adapter = bridges.create(name)
    chosen = own_node(chosen, name)
    with ExitStack() as stack:
        database_url = stack.enter_context(servers.database(chosen))
        broker = stack.enter_context(servers.broker(chosen))

        async def main() -> None:
            stop = asyncio.Event()
            for number in (signal.SIGINT, signal.SIGTERM):
                asyncio.get_running_loop().add_signal_handler(number, stop.set)

            def ready(database: str) -> None:
                mqtt = broker.url if broker is not None else "off"
                complain(
                    f"bridge {name} is ready: node {chosen.csms_node} · MQTT {mqtt} · database {database}",
                )

            await app.serve_bridge(chosen, database_url, broker, adapter, stop=stop, ready=ready)

        loop(main())


def own_node(chosen: Settings, name: str) -> Settings:
    """Name the bridge's node `<host>-<bridge>` unless CSMS_NODE names it: names of nodes must differ."""
    if "csms_node" in chosen.model_fields_set:
        return chosen
    return chosen.model_copy(update={"csms_node": f"{chosen.csms_node}-{name}"})
