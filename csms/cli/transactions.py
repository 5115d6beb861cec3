"""`csms transactions`: what the console lists, for a terminal or a spreadsheet, and how an operator corrects it."""

from typing import Annotated, Any

import typer

from csms.cli.client import RestClient
from csms.cli.output import DASH, in_seconds, pass_on, print_table, say

app = typer.Typer(help="Transactions: list, stop, correct, release and void them.")
_ID = Annotated[int, typer.Argument(metavar="ID", min=1, help="The transaction.")]
_NOTE = Annotated[str, typer.Option(help="Why, in 1 to 500 characters; kept with the revision.")]


@app.callback(
    invoke_without_command=True,
    epilog="Example:  csms transactions --from 2026-11-01 --to 2026-12-01 --csv > november.csv"
    "  ·  csms transactions --billing held",
)
def transactions(
    context: typer.Context,
    charger: Annotated[str | None, typer.Option(help="Only transactions of this charger.")] = None,
    active: Annotated[bool, typer.Option("--active", help="Only transactions that are running now.")] = False,
    since: Annotated[
        str | None,
        typer.Option(
            "--from", help="Only those accounted at or after this time (ISO 8601), or this local day."
        ),
    ] = None,
    until: Annotated[
        str | None,
        typer.Option("--to", help="Only those accounted before this time (ISO 8601), or this local day."),
    ] = None,
    billing: Annotated[str | None, typer.Option(help="Only those billed so: billed, held, void.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="The highest number to list, newest first.")] = 50,
    csv: Annotated[bool, typer.Option("--csv", help="Print all of them as CSV, for a spreadsheet.")] = False,
) -> None:
    """List the transactions: energy, time, cost. The commands correct them."""
    if context.invoked_subcommand is not None:
        return
    client = RestClient()
    filters = {
        "charger": charger,
        "active": True if active else None,
        "from": since,
        "to": until,
        "billing": billing,
    }
    if csv:
        given = {name: value for name, value in filters.items() if value is not None}
        pass_on(client.call("GET", "/transactions.csv", params=given).text)
        return
    rows: list[list[str]] = []
    for t in client.items("/transactions", limit=min(limit, 100), **filters):
        if len(rows) >= limit:
            break
        rows.append(
            [
                str(t["id"]),
                f"{t['chargerId']}:{t['connectorId']}",
                t["idTag"],
                in_seconds(t["startedAt"]),
                "running" if t["active"] else in_seconds(t["stoppedAt"]),
                f"{(t.get('energyWh') or 0) / 1000:.3f}",
                _cost(t),
            ]
        )
    columns = ("id", "charger", "idTag", "started (UTC)", "stopped (UTC)", "kWh", "cost")
    print_table("Transactions", columns, rows, "No transactions.")


@app.command(
    epilog='Example:  csms transactions stop 17 --at 2026-01-07T18:00:00Z --note "charger was dismantled"'
)
def stop(
    transaction: _ID,
    note: _NOTE,
    meter_stop_wh: Annotated[
        int | None,
        typer.Option("--meter-stop-wh", help="The register at the end; else the last reading counts."),
    ] = None,
    at: Annotated[
        str | None, typer.Option(help="When it ended (ISO 8601); else the last sign of it.")
    ] = None,
) -> None:
    """Stop a transaction whose charger does not come back. A real stop that comes later amends it."""
    _post(transaction, "stop", {"note": note, "meterStopWh": meter_stop_wh, "stoppedAt": at})


@app.command(
    epilog='Example:  csms transactions correct 17 --energy-wh 24000 --note "photo of the meter" --dry-run'
)
def correct(
    transaction: _ID,
    note: _NOTE,
    meter_start_wh: Annotated[
        int | None, typer.Option("--meter-start-wh", help="The register at the start.")
    ] = None,
    meter_stop_wh: Annotated[
        int | None, typer.Option("--meter-stop-wh", help="The register at the end.")
    ] = None,
    energy_wh: Annotated[
        int | None, typer.Option("--energy-wh", help="The energy; it precedes the registers.")
    ] = None,
    started: Annotated[str | None, typer.Option(help="When it started (ISO 8601).")] = None,
    stopped: Annotated[str | None, typer.Option(help="When it stopped (ISO 8601).")] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what it would change, and change nothing.")
    ] = False,
) -> None:
    """Correct an ended transaction. It is billed anew, as its next revision."""
    body = {
        "note": note,
        "meterStartWh": meter_start_wh,
        "meterStopWh": meter_stop_wh,
        "energyWh": energy_wh,
        "startedAt": started,
        "stoppedAt": stopped,
        "dryRun": True if dry_run else None,
    }
    _post(transaction, "correct", body)


@app.command(epilog='Example:  csms transactions release 17 --note "checked with the site"')
def release(transaction: _ID, note: _NOTE) -> None:
    """Have a bill that is held count as it stands."""
    _post(transaction, "release", {"note": note})


@app.command(epilog='Example:  csms transactions void 17 --note "test of the fitter"')
def void(transaction: _ID, note: _NOTE) -> None:
    """Make a bill zero, for good. The energy stays visible."""
    _post(transaction, "void", {"note": note})


@app.command(epilog="Example:  csms transactions revisions 17")
def revisions(transaction: _ID) -> None:
    """List who changed what a transaction is billed by, when and why."""
    found = RestClient().get(f"/transactions/{transaction}/revisions")["items"]
    rows = [
        [
            str(r["revision"]),
            in_seconds(r["recordedAt"]),
            r["author"],
            r["note"] or DASH,
            *_figures(r["after"]),
        ]
        for r in found
    ]
    columns = (
        "revision",
        "recorded (UTC)",
        "author",
        "reason",
        "started (UTC)",
        "stopped (UTC)",
        "kWh",
        "cost",
    )
    print_table(f"Transaction {transaction}", columns, rows, "It runs, and has no revision yet.")


def _post(transaction: int, action: str, body: dict[str, Any]) -> None:
    given = {name: value for name, value in body.items() if value is not None}
    answer = RestClient().call("POST", f"/transactions/{transaction}/{action}", json=given).json()
    if answer.get("dryRun"):
        columns = ("", "started (UTC)", "stopped (UTC)", "kWh", "cost")
        rows = [["before", *_figures(answer["before"])], ["after", *_figures(answer["after"])]]
        print_table(f"Transaction {transaction}", columns, rows, "")
        return
    _, _, energy, cost = _figures(answer)
    say(f"Transaction {transaction}: revision {answer['revision']}, {energy} kWh, {cost}")


def _figures(shown: dict[str, Any]) -> list[str]:
    """Return start, end, energy and cost of a transaction or of one of its revisions."""
    return [
        in_seconds(shown["startedAt"]),
        in_seconds(shown["stoppedAt"]),
        f"{(shown['energyWh'] or 0) / 1000:.3f}",
        _cost(shown),
    ]


def _cost(shown: dict[str, Any]) -> str:
    cost = shown.get("cost") or {}
    billing = shown.get("billing")
    unusual = f"({billing})" if billing in {"held", "void"} else None
    return " ".join(filter(None, (cost.get("amount"), cost.get("currency"), unusual)))
