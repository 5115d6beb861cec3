"""`csms simulate`: simulated charge points for any OCPP 1.6-J central system, and simulated coin-op stations."""

import asyncio
import contextlib
import logging
import signal
from collections import Counter
from typing import Annotated
from urllib.parse import urlsplit

import typer
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from csms.cli.output import complain, say
from csms.simulate.controller import ChargePointOptions
from csms.simulate.fleet import FleetSummary, SimulatedFleet
from csms.simulate.records import ChargerEvent

_PLAIN_EVERY_S = 5.0
_LIVE_EVERY_S = 0.25
_PRINTED = {
    "booted": "boot answered",
    "refused": "tag refused",
    "resend": "sent again",
    "lost": "LOST",
    "callerror": "CALLERROR",
    "connect_failed": "no connection",
}


class _Notes:
    """The events that are printed: each kind of trouble once for each charge point and wording."""

    def __init__(self) -> None:
        self.fresh: list[str] = []
        self._printed: set[tuple[str, str, str]] = set()

    def take(self, event: ChargerEvent) -> None:
        if event.kind not in _PRINTED or (event.kind == "booted" and event.detail == "Accepted"):
            return
        once = ("", event.kind, event.detail) if event.kind == "connect_failed" else None
        mark = once or (event.charge_point, event.kind, event.detail)
        if mark not in self._printed:
            self._printed.add(mark)
            self.fresh.append(f"{event.charge_point}: {_PRINTED[event.kind]}: {event.detail}")

    def drain(self) -> list[str]:
        lines, self.fresh = self.fresh, []
        return lines


def _figures(summary: FleetSummary) -> dict[str, str]:
    counters = summary.counters
    return {
        "connected": f"{summary.connected}/{summary.chargers}",
        "charging": str(summary.charging),
        "power": f"{summary.power_w / 1000:.1f} kW",
        "sessions": str(summary.sessions),
        "energy": f"{summary.energy_wh / 1000:.2f} kWh",
        "calls": str(counters.calls),
        "refused tags": str(counters.refused),
        "resends": str(counters.resends),
        "errors": str(counters.callerrors + counters.invalid_answers),
        "lost": str(counters.lost),
    }


def _table(fleet: SimulatedFleet, url: str, notes: list[str]) -> Group:
    """Return names above values, five in a row: they fit into 80 columns."""
    figures = list(_figures(fleet.summary()).items())
    table = Table.grid(padding=(0, 3))
    for begin in range(0, len(figures), 5):
        row = figures[begin : begin + 5]
        table.add_row(*(Text(name, style="dim") for name, _ in row))
        table.add_row(*(Text(value, style="bold") for _, value in row))
    title = Text(f"Simulated charge points at {url}   (Ctrl-C ends)")
    return Group(title, table, Text("\n".join(notes), style="yellow"))


def _line(summary: FleetSummary) -> str:
    return "  ".join(f"{name} {value}" for name, value in _figures(summary).items())


async def _show_live(fleet: SimulatedFleet, url: str, notes: _Notes, console: Console) -> None:
    recent: list[str] = []
    with Live(_table(fleet, url, recent), console=console, auto_refresh=False, transient=True) as live:
        while True:
            await asyncio.sleep(_LIVE_EVERY_S)
            recent = [*recent, *notes.drain()][-5:]
            live.update(_table(fleet, url, recent), refresh=True)


async def _show_plain(fleet: SimulatedFleet, notes: _Notes) -> None:
    waited_s = 0.0
    while True:
        await asyncio.sleep(_LIVE_EVERY_S)
        for note in notes.drain():
            say(note)
        waited_s += _LIVE_EVERY_S
        if waited_s >= _PLAIN_EVERY_S:
            waited_s = 0.0
            say(_line(fleet.summary()))


async def _play(fleet: SimulatedFleet, url: str, notes: _Notes) -> FleetSummary:
    console = Console()
    live = console.is_terminal
    main = asyncio.current_task()
    assert main is not None
    with contextlib.suppress(NotImplementedError):  # Windows has no signal handlers on its loops
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, main.cancel)
    shown = asyncio.create_task(_show_live(fleet, url, notes, console) if live else _show_plain(fleet, notes))
    try:
        return await fleet.run()
    finally:
        shown.cancel()
        await asyncio.gather(shown, return_exceptions=True)


def _verdict(summary: FleetSummary) -> int:
    """Return the exit status, and print a sentence on stderr when it is not 0."""
    counters = summary.counters
    if not summary.ever_connected:
        reason = summary.last_failure or "no time to dial"
        complain(f"No charge point ever connected ({reason}). Check --url and --password.")
        return 1
    if summary.faultless and not summary.undelivered:
        return 0
    complain(
        f"{counters.lost} messages lost, {summary.undelivered} never acknowledged,"
        f" {counters.transaction_callerrors} CALLERRORs to transaction messages,"
        f" {counters.invalid_answers} invalid answers: see the central system's log.",
    )
    return 1


def _checked_url(url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme not in {"ws", "wss"} or not parts.hostname or parts.query or parts.fragment:
        raise typer.BadParameter(f"{url!r} is not an address such as ws://localhost:9000/")
    return url


app = typer.Typer(rich_markup_mode="rich")


@app.callback(invoke_without_command=True)
def simulate(
    context: typer.Context,
    url: Annotated[
        str,
        typer.Option(
            help="The address of the central system, to which each charge point appends its identity.",
            callback=_checked_url,
        ),
    ] = "ws://localhost:9000/",
    chargers: Annotated[int, typer.Option(min=1, help="How many charge points.")] = 10,
    connectors: Annotated[int, typer.Option(min=1, max=16, help="How many connectors each has.")] = 1,
    speed: Annotated[
        float,
        typer.Option(
            min=1, max=100_000, help="Simulated seconds per real second; at 60 an hour passes in a minute."
        ),
    ] = 60.0,
    duration: Annotated[
        float | None, typer.Option(min=0.1, help="End after this many real seconds. Unset: at Ctrl-C.")
    ] = None,
    sessions: Annotated[
        int | None, typer.Option(min=1, help="End after this many sessions on each connector.")
    ] = None,
    tag: Annotated[list[str] | None, typer.Option(help="An idTag that the drivers use; repeatable.")] = None,
    prefix: Annotated[str, typer.Option(help="Identities are PREFIX-001 and so on.")] = "SIM",
    password: Annotated[
        str | None,
        typer.Option(
            envvar="CSMS_SIMULATE_PASSWORD",
            show_envvar=True,
            help="The password for HTTP Basic authentication.",
        ),
    ] = None,
    seed: Annotated[int, typer.Option(help="The same seed gives the same drivers, cars and energy.")] = 0,
) -> None:
    """Simulate OCPP 1.6-J charge points: drivers come, plug in, charge, leave.

    Time stamps start in the past when --speed is above 1, so that none lies in
    the future and power, energy and time agree. Once the simulated clock has
    caught up with the wall clock it goes on at speed 1.

    Exit status 1: a message was lost or never acknowledged, or a transaction
    message was answered by an error. Otherwise 0, also after Ctrl-C.

    Example: csms simulate --chargers 20 --duration 300 --tag CARD1 --tag CARD2
    """
    if context.invoked_subcommand is not None:
        return
    notes = _Notes()
    try:
        fleet = SimulatedFleet(
            url,
            ChargePointOptions(
                connectors=connectors,
                speed=speed,
                seed=seed,
                tags=tag or ["SIMTAG"],
                password=password,
                on_event=notes.take,
            ),
            chargers=chargers,
            prefix=prefix,
            duration_s=duration,
            sessions=sessions,
        )
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error
    # The package logs what the figures show already.
    log = logging.getLogger("csms.simulate")
    log.addHandler(logging.NullHandler())
    log.propagate = False
    try:
        summary = asyncio.run(_play(fleet, url, notes))
    except (KeyboardInterrupt, asyncio.CancelledError):  # the second Ctrl-C
        complain("Stopped before everything was delivered.")
        raise typer.Exit(1) from None
    for note in notes.drain():
        say(note)
    say(_line(summary))
    raise typer.Exit(_verdict(summary))


@app.command("coin-op", epilog="Example:  csms simulate coin-op --stations 3 --host localhost --guests")
def coin_op(
    host: Annotated[str, typer.Option(help="The host of the MQTT broker.")] = "localhost",
    port: Annotated[int, typer.Option(min=1, max=65535, help="The port of the MQTT broker.")] = 1883,
    stations: Annotated[
        int, typer.Option(min=1, max=5000, help="How many stations; their ids are PREFIX1 and so on.")
    ] = 1,
    prefix: Annotated[str, typer.Option(help="How their ids begin.")] = "sim-",
    topic_prefix: Annotated[str, typer.Option(help="The same as the setting MQTT_TOPIC_PREFIX.")] = "",
    version: Annotated[
        str, typer.Option(help="The MQTT version: 3.1.1, as real stations have, or 5.")
    ] = "3.1.1",
    username: Annotated[str | None, typer.Option(help="The user name for the broker.")] = None,
    password: Annotated[
        str | None,
        typer.Option(envvar="CSMS_SIMULATE_PASSWORD", show_envvar=True, help="The password for the broker."),
    ] = None,
    speed: Annotated[float, typer.Option(min=0.1, max=1000, help="Simulated seconds per real second.")] = 1.0,
    duration: Annotated[float | None, typer.Option(min=0.1, help="End after this many seconds.")] = None,
    guests: Annotated[
        bool, typer.Option("--guests", help="Simulate users who rent with an app of their own.")
    ] = False,
    charge: Annotated[float, typer.Option(min=1, help="Seconds until a battery is full.")] = 3600.0,
    energy: Annotated[
        str, typer.Option(help="What the energy counter counts: session or cumulative.")
    ] = "session",
    power_scale: Annotated[
        float, typer.Option(help="The scale of the power on the wire; 0.1 is tenths of a watt.")
    ] = 1.0,
    nan_rate: Annotated[float, typer.Option(min=0, max=1, help="The share of meter reads that fail.")] = 0.0,
    loss: Annotated[float, typer.Option(min=0, max=1, help="The share of packets that are lost.")] = 0.0,
    double: Annotated[
        float, typer.Option(min=0, max=1, help="The share of packets that are sent twice.")
    ] = 0.0,
    reboot_at: Annotated[float | None, typer.Option(help="Reboot at this second of every rental.")] = None,
    forgets: Annotated[bool, typer.Option("--forgets", help="A reboot loses the rental.")] = False,
    silent: Annotated[bool, typer.Option("--silent", help="The stations listen and never answer.")] = False,
    second_topic: Annotated[
        bool, typer.Option("--second-topic", help="Also publish on the renter's own topic.")
    ] = False,
    last_will: Annotated[
        bool, typer.Option("--last-will", help="Leave a last will with the broker.")
    ] = False,
) -> None:
    """Simulate coin-op rental stations on an MQTT broker, with all known faults."""
    from csms.simulate import coin_op as coin

    behaviour = coin.StationBehaviour(
        energy=energy,
        power_scale=power_scale,
        charge_s=charge,
        nan_rate=nan_rate,
        loss=loss,
        double=double,
        reboot_at_s=reboot_at,
        forgets=forgets,
        silent=silent,
        second_topic=second_topic,
        last_will=last_will,
    )
    made = [coin.FakeStation(id=f"{prefix}{n}", behaviour=behaviour) for n in range(1, stations + 1)]
    fleet = coin.FakeStationFleet(
        host,
        port,
        made,
        speed=speed,
        prefix=topic_prefix,
        version=version,
        username=username,
        password=password,
    )

    async def play() -> None:
        async with asyncio.timeout(duration), asyncio.TaskGroup() as group:
            group.create_task(fleet.run())
            if guests:
                ids = [station.id for station in made]
                group.create_task(coin.rent_for_ever(host, port, ids, version=version))
            while True:
                await asyncio.sleep(_PLAIN_EVERY_S)
                states = Counter(station.state for station in made)
                shown = "  ".join(f"{state} {count}" for state, count in states.items())
                say(f"connected {fleet.connected}/{len(made)}  packets {fleet.published}  {shown}")

    with contextlib.suppress(KeyboardInterrupt, TimeoutError):
        asyncio.run(play())
