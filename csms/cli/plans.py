"""`csms plans`: when OCPP chargers charge."""

import json
from typing import Annotated, Any

import typer

from csms.cli.client import ApiClient, segment
from csms.cli.lists import pages, table

app = typer.Typer(
    help="Charging plans: by prices, or as an energy management system says.", no_args_is_help=True
)
_CHARGER = Annotated[str, typer.Argument(metavar="CHARGER")]
_COLUMNS = ("charger", "mode", "plan", "on the charger", "chosen", "next")


@app.command("list", epilog="Example:  csms plans list")
def list_plans() -> None:
    """List the planned chargers: the plan's state, and what became of it."""
    rows = [
        _row(plan["chargerId"], one) for plan in pages(ApiClient(), "/plans") for one in plan["connectors"]
    ]
    table("Plans", _COLUMNS, rows, "No charger is planned. See csms plans set.")


@app.command(epilog="Example:  csms plans show CP1")
def show(charger: _CHARGER) -> None:
    """Show one charger's plan with its prices, as JSON."""
    print(json.dumps(ApiClient().get(_path(charger)), indent=2, ensure_ascii=False))


@app.command("set", epilog="Example:  csms plans set CP1 --max-price 0.22 --levels 8 --limit 16")
def set_plan(
    charger: _CHARGER,
    hems: Annotated[
        bool | None, typer.Option("--hems/--prices", help="As a HEMS says over MQTT, or by prices (default).")
    ] = None,
    max_price: Annotated[
        str | None, typer.Option(help="The most a kWh may cost, or none.  [default: 0.25]")
    ] = None,
    levels: Annotated[
        int | None, typer.Option(min=1, max=100, help="Price levels of a day to use.  [default: 16]")
    ] = None,
    limit: Annotated[
        float | None, typer.Option(min=6, max=80, help="A a phase within the chosen times.  [default: 16]")
    ] = None,
    phases: Annotated[int | None, typer.Option(min=1, max=3, help="How many it has.  [default: 3]")] = None,
    connector: Annotated[
        int | None, typer.Option(min=0, help="Only this connector.  [default: 0, all of them]")
    ] = None,
    wait: Annotated[
        bool | None,
        typer.Option(
            "--wait/--charge", help="When no chosen time is left: wait, or charge at any price (default)."
        ),
    ] = None,
    stack_level: Annotated[
        int | None, typer.Option(min=0, help="The highest to use.  [default: the charger's highest]")
    ] = None,
) -> None:
    """Plan an OCPP charger, or change what is named of its plan."""
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
    made = ApiClient().call("PUT", _path(charger), json=body).json()
    for one in made["connectors"]:
        print("\t".join(_row(charger, one)))


@app.command(epilog="Example:  csms plans remove CP1")
def remove(charger: _CHARGER) -> None:
    """Plan it no more, and take our charging profile off it."""
    ApiClient().call("DELETE", _path(charger))
    print(f"{charger}: removed")


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
        following["start"][:16].replace("T", " ") if following else "–",
    ]
