"""`csms chargers`: what the console lists, for a terminal."""

from typing import Annotated

import typer

from csms.cli.client import RestClient
from csms.cli.output import DASH, in_seconds, print_table

CHARGERS_EXAMPLE = "Example:  csms chargers --online"


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
