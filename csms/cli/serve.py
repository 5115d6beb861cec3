"""`csms serve`: the central system."""

import asyncio
import gc
import signal
import sys
from collections.abc import Callable, Coroutine, Sequence
from contextlib import ExitStack
from typing import Annotated, Any

import typer

import bridges
from csms import log, settings
from csms.adapter import Adapter
from csms.cli.output import complain
from csms.mqtt.config import BrokerAddress
from csms.run import app, servers
from csms.settings import Settings

EXAMPLE = "Example:  DATABASE_URL=postgresql://csms:…@db/csms MQTT_HOST=broker csms serve"


def serve(
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Also log how every frame is handled.")
    ] = False,
) -> None:
    """Run the central system: OCPP, REST and console, MQTT. Without settings it starts its own database and broker."""
    chosen = settings.load()
    log.configure(chosen.csms_log, verbose=verbose)
    adapters = [bridges.create(name) for name in chosen.csms_bridges]
    run(chosen, announce, with_bridges=lambda _broker: adapters)


Beside = Callable[[app.Running, BrokerAddress | None], Coroutine[Any, Any, None]]
WithBridges = Callable[[BrokerAddress | None], Sequence[Adapter]]


def run(
    chosen: Settings,
    ready: Callable[[app.Running], None],
    *,
    or_next_port: bool = False,
    with_bridges: WithBridges = lambda _broker: (),
    beside: Beside | None = None,
) -> None:
    """Bind the ports, start the servers that are not configured, and run the node. `beside` runs next to the node."""
    with ExitStack() as stack:
        ports = app.bind(chosen, or_next=or_next_port)
        stack.callback(ports.ocpp.close)
        stack.callback(ports.http.close)
        if ports.ocpp_tls is not None:
            stack.callback(ports.ocpp_tls.close)
        database_url = stack.enter_context(servers.database(chosen))
        broker = stack.enter_context(servers.broker(chosen))
        # More than half of a reconnect storm is the cyclic collector (docs/benchmarks.md).
        gc.set_threshold(50_000, 20, 100)
        loop(_main(chosen, database_url, broker, ports, ready, with_bridges, beside))


def announce(running: app.Running) -> None:
    """Print where everything can be reached, and the admin token when it is new; if no terminal shows it, its file."""
    complain(
        f"csms is ready: charge points {running.ocpp}<identity>"
        f"{f' and {running.ocpp_tls}<identity>' if running.ocpp_tls else ''} · console {running.http}"
        f" · MQTT {running.mqtt} · database {running.database}",
    )
    if running.token_is_new and sys.stderr.isatty():
        complain(f"admin token (shown once, kept in {running.token_file}): {running.admin_token}")
    elif running.token_is_new:
        # Logs of containers are kept and passed on.
        complain(f"admin token: generated, kept in {running.token_file}")


async def _main(
    chosen: Settings,
    database_url: str,
    broker: BrokerAddress | None,
    ports: app.Ports,
    ready: Callable[[app.Running], None],
    with_bridges: WithBridges,
    beside: Beside | None,
) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    companions: list[asyncio.Task[None]] = []

    def is_ready(running: app.Running) -> None:
        gc.collect()
        gc.freeze()
        ready(running)
        if beside is not None:
            companion = asyncio.create_task(beside(running, broker), name="beside")
            companion.add_done_callback(lambda _: stop.set())
            companions.append(companion)

    serving = asyncio.create_task(
        app.serve(
            chosen,
            database_url,
            broker,
            ports,
            stop=stop,
            ready=is_ready,
            bridges=with_bridges(broker),
        ),
        name="node",
    )
    stopping = asyncio.create_task(stop.wait(), name="stop")
    await asyncio.wait({serving, stopping}, return_when=asyncio.FIRST_COMPLETED)
    # They stop first, because they are the node's clients.
    for companion in companions:
        companion.cancel()
    results = await asyncio.gather(*companions, return_exceptions=True)
    stopping.cancel()
    await serving
    for result in results:
        if isinstance(result, Exception):
            raise result


def loop(main: Coroutine[Any, Any, None]) -> None:
    """Run to the end on uvloop, or on asyncio's own loop where uvloop is not installed."""
    try:
        import uvloop
    except ImportError:
        # asyncio's own loop reads into 256 KiB blocks: freeing one of a megabyte first keeps malloc from mapping
        # and unmapping memory for every frame (docs/benchmarks.md).
        block = bytearray(1 << 20)
        del block
        asyncio.run(main)
    else:
        uvloop.run(main)
