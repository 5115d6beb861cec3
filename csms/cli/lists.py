"""`csms chargers`, `csms transactions`: what the console lists, for a terminal or a spreadsheet."""

import sys
from typing import Annotated

import typer

from csms.cli.client import RestClient
from csms.cli.output import DASH, in_seconds, print_table

CHARGERS_EXAMPLE = "Example:  csms chargers --online"
TRANSACTIONS_EXAMPLE = "Example:  csms transactions --from 2026-11-01 --csv > november.csv"


def chargers(
    online: Annotated[bool, typer.Option("--online", help="Only chargers that are connected now.")] = False,
) -> None:
    """List the chargers: connection, enrollment, status, model."""
    rows = [
        [
            c["id"],
            "online" if c["online"] else "offline",
            c["enrollment"],
            ", ".join(f"{p['connectorId']}: {p['status']}" for p in c["connectors"] if p["connectorId"])
            or (c["status"] or DASH),
            " ".join(filter(None, (c["vendor"], c["model"]))) or DASH,
            in_seconds(c["lastSeenAt"]),
        ]
        for c in RestClient().items("/chargers", online=True if online else None)
    ]
    print_table(
        "Chargers",
        ("charger", "connection", "enrollment", "connectors", "model", "last seen (UTC)"),
        rows,
        "No charger has connected yet. Point one at ws://<this host>:9000/<identity>.",
    )


def transactions(
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
    """List the transactions: energy, time, cost."""
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
        sys.stdout.write(client.call("GET", "/transactions.csv", params=given).text)
        return
    rows: list[list[str]] = []
    for t in client.items("/transactions", limit=min(limit, 100), **filters):
        if len(rows) >= limit:
            break
        cost = t.get("cost") or {}
        rows.append(
            [
                str(t["id"]),
                f"{t['chargerId']}:{t['connectorId']}",
                t["idTag"],
                in_seconds(t["startedAt"]),
                "running" if t["active"] else in_seconds(t["stoppedAt"]),
                f"{(t.get('energyWh') or 0) / 1000:.3f}",
                " ".join(
                    filter(None, (cost.get("amount"), cost.get("currency"), _unusual(t.get("billing"))))
                ),
            ]
        )
    columns = ("id", "charger", "idTag", "started (UTC)", "stopped (UTC)", "kWh", "cost")
    print_table("Transactions", columns, rows, "No transactions.")


def _unusual(billing: str | None) -> str | None:
    return f"({billing})" if billing in {"held", "void"} else None
