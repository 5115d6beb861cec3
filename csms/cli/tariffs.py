"""`csms tariffs`: the prices of charging."""

import json
import re
import sys
from datetime import date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any

import typer

from csms.cli.client import RestClient, segment
from csms.cli.output import DASH, in_seconds, print_table, say, say_json
from csms.core.currencies import minor_digits
from csms.core.tariffs import DAYS
from csms.errors import CsmsError

app = typer.Typer(help="Tariffs: the prices of charging.", no_args_is_help=True)
_TARIFF = Annotated[str, typer.Argument(metavar="TARIFF", help="The tariff's id.")]
_RANGE = re.compile(r"(\d\d:\d\d)-(\d\d:\d\d)")
_RATES = {"energy": "energyRate", "time": "timeRate", "idle": "idleRate"}
_SET_EXAMPLE = (
    "Example:  csms tariffs set day --currency EUR --energy 0.42 --idle 0.10 --grace 30"
    ' --band "night 22:00-06:00 mon-fri energy=0.25" --zone Europe/Vienna'
)


@app.command("list", epilog="Example:  csms tariffs list")
def list_tariffs() -> None:
    """List the tariffs."""
    rows = [[t["id"], str(t["version"]), *_summary(t)] for t in RestClient().items("/tariffs")]
    columns = ("tariff", "version", "currency", "kWh", "minute", "session", "idle minute", "bands")
    print_table(
        "Tariffs",
        columns,
        rows,
        "No tariffs: CSMS_ENERGY_RATE and CSMS_TIME_RATE apply. Create one: csms tariffs set TARIFF",
    )


@app.command(epilog="Example:  csms tariffs show day --version 2")
def show(
    tariff: _TARIFF,
    version: Annotated[int | None, typer.Option(min=1, help="Show this version.")] = None,
    versions: Annotated[
        bool, typer.Option("--versions", help="List all its versions, newest first.")
    ] = False,
) -> None:
    """Show a tariff as JSON, which `set --file` reads."""
    client, path = RestClient(), f"/tariffs/{segment(tariff)}"
    if not versions:
        say_json(client.get(path, version=version))
        return
    found = client.get(f"{path}/versions")["items"]
    rows = [[str(t["version"]), in_seconds(t["createdAt"]), *_summary(t)] for t in found]
    columns = ("version", "since (UTC)", "currency", "kWh", "minute", "session", "idle minute", "bands")
    print_table(f"Tariff {tariff}", columns, rows, "No versions.")


@app.command("set", epilog=_SET_EXAMPLE)
def set_tariff(
    tariff: _TARIFF,
    currency: Annotated[str | None, typer.Option(help="The currency (ISO 4217), such as EUR.")] = None,
    energy: Annotated[str | None, typer.Option(help="The price of a kWh.")] = None,
    minute: Annotated[str | None, typer.Option("--time", help="The price of a minute.")] = None,
    session: Annotated[str | None, typer.Option(help="The price of a session.")] = None,
    idle: Annotated[
        str | None, typer.Option(help="The price of a minute that the car stays after charging.")
    ] = None,
    grace: Annotated[int | None, typer.Option(min=0, help="How many idle minutes are free.")] = None,
    minimum: Annotated[str | None, typer.Option(help="The least a session costs, or none.")] = None,
    maximum: Annotated[str | None, typer.Option(help="The most a session costs, or none.")] = None,
    minimum_without_energy: Annotated[
        bool | None,
        typer.Option(
            "--minimum-without-energy/--minimum-with-energy-only",
            help="Whether a session of 0 kWh costs the minimum too.",
        ),
    ] = None,
    tax: Annotated[str | None, typer.Option(help="Tax in per cent, or none.")] = None,
    tax_included: Annotated[
        bool | None, typer.Option("--tax-included/--tax-on-top", help="Whether the prices include the tax.")
    ] = None,
    zone: Annotated[
        str | None, typer.Option(help="The time zone of the bands, such as Europe/Vienna.")
    ] = None,
    band: Annotated[
        list[str] | None,
        typer.Option(
            help='Other prices at some times: "NAME HH:MM-HH:MM \\[mon-fri,sun] energy=… time=… idle=…".'
        ),
    ] = None,
    no_bands: Annotated[bool, typer.Option("--no-bands", help="Remove all bands.")] = False,
    file: Annotated[
        Path | None,
        typer.Option(help="Read the whole tariff from a JSON file instead (- is standard input)."),
    ] = None,
) -> None:
    """Create a tariff, or change the given terms of one. Bands are replaced all together."""
    client, path = RestClient(), f"/tariffs/{segment(tariff)}"
    if file is not None:
        made = client.call("PUT", path, json=_from_file(file)).json()
    else:
        named = {
            "currency": currency,
            "energyRate": energy,
            "timeRate": minute,
            "sessionFee": session,
            "idleRate": idle,
            "idleGraceMin": grace,
            "minimum": minimum,
            "maximum": maximum,
            "minimumWithoutEnergy": minimum_without_energy,
            "taxPercent": tax,
            "taxIncluded": tax_included,
            "timeZone": zone,
            "bands": [] if no_bands else [_band(text) for text in band] if band else None,
        }
        body = {key: None if value == "none" else value for key, value in named.items() if value is not None}
        known = client.call("GET", path, missing_ok=True).is_success
        if not known and currency is None:
            raise typer.BadParameter("a new tariff needs one", param_hint="--currency")
        made = client.call("PATCH" if known else "PUT", path, json=body).json()
    say(f"{tariff}: version {made['version']}")


@app.command(epilog="Example:  csms tariffs delete day")
def delete(tariff: _TARIFF) -> None:
    """Delete a tariff that nothing refers to. Its versions stay readable."""
    RestClient().call("DELETE", f"/tariffs/{segment(tariff)}")
    say(f"{tariff}: deleted")


@app.command(
    epilog="Example:  csms tariffs assign day --charger CP1 --charger CP2 --tag 04E8A1B2"
    "  ·  The first that exists applies: the tariff of the tag, the charger, its group, the default."
)
def assign(
    tariff: Annotated[
        str, typer.Argument(metavar="TARIFF", help="The tariff's id; none removes the assignment.")
    ],
    charger: Annotated[list[str] | None, typer.Option(help="Assign it to this charger.")] = None,
    group: Annotated[
        list[str] | None,
        typer.Option(help="Assign it to this group of chargers, which is created if it is new."),
    ] = None,
    tag: Annotated[list[str] | None, typer.Option(help="Assign it to this idTag, at every charger.")] = None,
    members: Annotated[
        list[str] | None, typer.Option("--member", help="Put this charger into the group.")
    ] = None,
) -> None:
    """Assign a tariff to chargers, groups or tags."""
    client, body = RestClient(), {"tariffId": None if tariff == "none" else tariff}
    if members and len(group or []) != 1:
        raise typer.BadParameter("goes with one --group", param_hint="--member")
    for group_id in group or []:
        client.call("PUT", f"/groups/{segment(group_id)}", json=body)
        for charger_id in members or []:
            client.call("PATCH", f"/chargers/{segment(charger_id)}", json={"groupId": group_id})
    for charger_id in charger or []:
        client.call("PATCH", f"/chargers/{segment(charger_id)}", json=body)
    for id_tag in tag or []:
        client.call("PATCH", f"/tags/{segment(id_tag)}", json=body)
    names = [*(group or []), *(charger or []), *(tag or [])]
    if not names:
        raise typer.BadParameter("name a --charger, --group or --tag")
    say(f"{tariff}: {', '.join(names)}")


@app.command(epilog="Example:  csms tariffs price day --kwh 24 --from 22:00 --to 06:00 --idle 45")
def price(
    tariff: _TARIFF,
    kwh: Annotated[str, typer.Option(help="The energy, drawn evenly.")],
    start: Annotated[
        str, typer.Option("--from", help="HH:MM of today, or YYYY-MM-DDTHH:MM, in the tariff's time zone.")
    ],
    end: Annotated[str, typer.Option("--to", help="Likewise; an HH:MM before --from is of the next day.")],
    idle: Annotated[int, typer.Option(min=0, help="Minutes without charging at the end.")] = 0,
    zone: Annotated[str | None, typer.Option(help="The time zone, for a tariff without one.")] = None,
) -> None:
    """Compute what a session would cost, by component."""
    begins = _moment(start, "--from", None)
    body = {
        "energyKwh": kwh,
        "start": begins.isoformat(),
        "end": _moment(end, "--to", begins).isoformat(),
        "idleMinutes": idle,
        "timeZone": zone,
    }
    priced = RestClient().call("POST", f"/tariffs/{segment(tariff)}/price", json=body).json()
    cost = priced["cost"]
    rows = [
        [
            line["component"],
            line["band"] or "",
            f"{line['quantity']} {line['unit']}" if line["quantity"] is not None else "",
            f"{line['rate']} %" if line["component"] == "tax" else (line["rate"] or ""),
            _money(line["amountMinor"], cost["currency"]),
        ]
        for line in cost["breakdown"]
    ]
    rows.append(["total", "", "", "", f"{cost['amount']} {cost['currency']}"])
    tax = cost["tax"]
    if tax is not None and tax["included"]:
        rows.append(
            ["  of which tax", "", "", f"{tax['percent']} %", _money(tax["amountMinor"], cost["currency"])]
        )
    title = f"Tariff {priced['tariffId']} version {priced['version']}, time zone {priced['timeZone']}"
    print_table(title, ("component", "band", "quantity", "rate", "amount"), rows, "")


def _summary(t: dict[str, Any]) -> list[str]:
    bands = ", ".join(f"{b['name']} {b['start']}-{b['end']}" for b in t["bands"])
    return [t["currency"], t["energyRate"], t["timeRate"], t["sessionFee"], t["idleRate"], bands or DASH]


def _money(minor: int, currency: str) -> str:
    digits = minor_digits(currency)
    return f"{Decimal(minor).scaleb(-digits):.{digits}f}"


def _band(text: str) -> dict[str, Any]:
    """Return `night 22:00-06:00 mon-fri energy=0.20` in the form of the REST interface, which checks its values."""
    made: dict[str, Any] = {}
    for word in text.split():
        key, equals, value = word.partition("=")
        if times := _RANGE.fullmatch(word):
            made["start"], made["end"] = times.groups()
        elif equals and key in _RATES:
            made[_RATES[key]] = value
        elif equals:
            raise typer.BadParameter(f"{key!r} is no rate: {', '.join(_RATES)}", param_hint="--band")
        elif (days := _days(word)) is not None:
            made["days"] = days
        elif "name" in made:
            raise typer.BadParameter(f"{word!r} in {text!r} is no time, day or rate", param_hint="--band")
        else:
            made["name"] = word
    return made


def _days(word: str) -> list[str] | None:
    """Return the days of `mon-fri,sun` in order; None for other words."""
    found: set[int] = set()
    for part in word.split(","):
        first, _, last = part.partition("-")
        if first not in DAYS or (last or first) not in DAYS:
            return None
        since, until = DAYS.index(first), DAYS.index(last or first)
        found |= {day % 7 for day in range(since, until + 1 if since <= until else until + 8)}
    return [DAYS[day] for day in sorted(found)]


def _moment(text: str, option: str, after: datetime | None) -> datetime:
    try:
        if len(text) != len("HH:MM"):
            return datetime.fromisoformat(text)
        day = date.today() if after is None else after.date()  # noqa: DTZ011 - the tariff's clock is not known here
        moment = datetime.fromisoformat(f"{day}T{text}")
        # A time of day alone is in the time zone of the beginning.
        moment = moment if after is None else moment.replace(tzinfo=after.tzinfo)
    except ValueError:
        raise typer.BadParameter(f"{text!r} is no time such as 22:00", param_hint=option) from None
    return moment + timedelta(days=1) if after is not None and moment < after else moment


def _from_file(file: Path) -> Any:
    try:
        body = json.loads(sys.stdin.read() if str(file) == "-" else file.read_text())
    except OSError as error:
        raise CsmsError(f"{file} cannot be read: {error.strerror}.") from None
    except ValueError as error:
        raise CsmsError(f"{file} is not JSON: {error}.") from None
    if isinstance(body, dict):
        # `show` prints these beside the terms.
        body = {key: value for key, value in body.items() if key not in {"id", "version", "createdAt"}}
    return body
