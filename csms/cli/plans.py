"""`csms plans`: the charging plans of OCPP chargers."""

from typing import Annotated, Any

import typer

from csms.cli.client import RestClient, segment
from csms.cli.output import DASH, print_table, say, say_json, say_row

app = typer.Typer(help="Charging plans: by prices, or by an energy management system.", no_args_is_help=True)
_CHARGER = Annotated[str, typer.Argument(metavar="CHARGER", help="The charger's identity.")]
_COLUMNS = ("charger", "mode", "plan", "on the charger", "chosen", "next")


@app.command("list", epilog="Example:  csms plans list")
def list_plans() -> None:
    """List the chargers with a plan: its state, and whether it is on the charger."""
    rows = [
        _row(plan["chargerId"], one) for plan in RestClient().items("/plans") for one in plan["connectors"]
    ]
    print_table("Plans", _COLUMNS, rows, "No charger has a plan. Set one: csms plans set CHARGER")


@app.command(epilog="Example:  csms plans show CP1")
def show(charger: _CHARGER) -> None:
    """Show one charger's plan with its prices, as JSON."""
    say_json(RestClient().get(_path(charger)))


@app.command("set", epilog="Example:  csms plans set CP1 --max-price 0.22 --levels 8 --limit 16")
def set_plan(
    charger: _CHARGER,
    hems: Annotated[
        bool | None, typer.Option("--hems/--prices", help="Plan by a HEMS over MQTT, or by prices (default).")
    ] = None,
    max_price: Annotated[
        str | None, typer.Option(help="The highest price of a kWh, or none (default: 0.25).")
    ] = None,
    levels: Annotated[
        int | None,
        typer.Option(min=1, max=100, help="How many of a day's price levels to use (default: 16)."),
    ] = None,
    limit: Annotated[
        float | None,
        typer.Option(min=6, max=80, help="Amperes per phase at the chosen times (default: 16)."),
    ] = None,
    phases: Annotated[
        int | None, typer.Option(min=1, max=3, help="How many phases the charger has (default: 3).")
    ] = None,
    connector: Annotated[
        int | None, typer.Option(min=0, help="Only this connector (default: 0, all of them).")
    ] = None,
    wait: Annotated[
        bool | None,
        typer.Option(
            "--wait/--charge", help="When no chosen time is left: wait, or charge at any price (default)."
        ),
    ] = None,
    stack_level: Annotated[
        int | None,
        typer.Option(min=0, help="The highest stack level to use (default: the charger's highest)."),
    ] = None,
) -> None:
    """Plan an OCPP charger, or change the given terms of its plan."""
    named: dict[str, Any] = {
        "mode": None if hems is None else "hems" if hems else "standalone",
        "maxPrice": max_price,
        "levels": levels,
        "limitA": limit,
        "phases": phases,
        "connectorId": connector,
        "otherwise": None if wait is None else "wait" if wait else "charge",
        "stackLevel": stack_level,
    }
    body = {key: None if value == "none" else value for key, value in named.items() if value is not None}
    made = RestClient().call("PUT", _path(charger), json=body).json()
    for one in made["connectors"]:
        say_row(_row(charger, one))


@app.command(epilog="Example:  csms plans remove CP1")
def remove(charger: _CHARGER) -> None:
    """Remove the plan, and its charging profile from the charger."""
    RestClient().call("DELETE", _path(charger))
    say(f"{charger}: removed")


def _path(charger: str) -> str:
    return f"/chargers/{segment(charger)}/plan"


def _row(charger: str, one: dict[str, Any]) -> list[str]:
    following = next(iter(one["periods"]), None)
    chosen = f"{one['slotsChosen']} slots" if one["slotsChosen"] else f"{len(one['periods'])} periods"
    return [
        f"{charger}:{one['connectorId']}" if one["connectorId"] else charger,
        one["mode"],
        one["state"],
        f"{one['delivery']}: {one['problem']}" if one["problem"] else one["delivery"],
        chosen,
        following["start"][:16].replace("T", " ") if following else DASH,
    ]
