"""`csms chargers`, `csms transactions`: what the console shows, for a terminal or a spreadsheet."""

import sys
from collections.abc import Iterator
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from csms.cli.client import ApiClient

CHARGERS = "Example:  csms chargers --online"
TRANSACTIONS = "Example:  csms transactions --from 2026-11-01 --csv > november.csv"


def pages(client: ApiClient, path: str, **params: Any) -> Iterator[dict[str, Any]]:
    """All items of a listing, page by page."""
    cursor = None
    while True:
        page = client.get(path, cursor=cursor, **params)
        yield from page["items"]
        cursor = page.get("nextCursor")
        if not cursor:
            return


def table(title: str, columns: tuple[str, ...], rows: list[list[str]], empty: str) -> None:
    """A table on a terminal, tab-separated columns in a pipe."""
    if not sys.stdout.isatty():
        for row in rows:
            print("\t".join(row))
        return
    out = Console()
    if not rows:
        out.print(empty, style="dim")
        return
    shown = Table(*columns, title=title, title_justify="left")
    for row in rows:
        shown.add_row(*row)
    out.print(shown)


def chargers(
    online: Annotated[bool, typer.Option("--online", help="Only those connected now.")] = False,
) -> None:
    """List the chargers: status, connection, what they are."""
    rows = [
        [
            c["id"],
            "online" if c["online"] else "offline",
            c["enrollment"],
            ", ".join(f"{p['connectorId']}: {p['status']}" for p in c["connectors"] if p["connectorId"])
            or (c["status"] or "–"),
            " ".join(filter(None, (c["vendor"], c["model"]))) or "–",
            (c["lastSeenAt"] or "–")[:19].replace("T", " "),
        ]
        for c in pages(ApiClient(), "/chargers", online=True if online else None)
    ]
    columns = ("charger", "connection", "enrollment", "connectors", "model", "last seen (UTC)")
    table(
        "Chargers",
        columns,
        rows,
        "No charger has connected yet. Point one at ws://<this host>:9000/<identity>.",
    )


def transactions(
    charger: Annotated[str | None, typer.Option(help="Only of this charger.")] = None,
    active: Annotated[bool, typer.Option("--active", help="Only those running now.")] = False,
    since: Annotated[
        str | None, typer.Option("--from", help="Started at or after this time (ISO 8601).")
    ] = None,
    until: Annotated[str | None, typer.Option("--to", help="Started before this time (ISO 8601).")] = None,
    limit: Annotated[int, typer.Option(min=1, help="At most so many, newest first.")] = 50,
    csv: Annotated[bool, typer.Option("--csv", help="All of them as CSV, for a spreadsheet.")] = False,
) -> None:
    """List the transactions: energy, time, cost."""
    client = ApiClient()
    chosen = {
        "charger": charger,
        "active": True if active else None,
        "from": _moment(since),
        "to": _moment(until),
    }
    if csv:
        given = {name: value for name, value in chosen.items() if value is not None}
        sys.stdout.write(client.call("GET", "/transactions.csv", params=given).text)
        return
    rows: list[list[str]] = []
    for t in pages(client, "/transactions", limit=min(limit, 100), **chosen):
        if len(rows) >= limit:
            break
        cost = t.get("cost") or {}
        rows.append(
            [
                str(t["id"]),
                f"{t['chargerId']}:{t['connectorId']}",
                t["idTag"],
                t["startedAt"][:19].replace("T", " "),
                "running" if t["active"] else (t["stoppedAt"] or "")[:19].replace("T", " "),
                f"{(t.get('energyWh') or 0) / 1000:.3f}",
                f"{cost.get('amount', '')} {cost.get('currency', '')}".strip(),
            ]
        )
    columns = ("id", "charger", "idTag", "started (UTC)", "stopped (UTC)", "kWh", "cost")
    table("Transactions", columns, rows, "No transactions.")


def _moment(text: str | None) -> str | None:
    """A date alone means its midnight, UTC."""
    if text is None:
        return None
    return f"{text}T00:00:00Z" if len(text) == 10 else text
