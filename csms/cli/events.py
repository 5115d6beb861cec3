"""`csms events`: the business events, again or as they come. Byte for byte what MQTT carries."""

import json
import sys
import time
from collections import deque
from typing import Annotated

import typer

from csms.cli.client import Client

app = typer.Typer(help="Business events: replay what was missed, or follow.", no_args_is_help=True)
_PAGE = 500
_RECENT = 1000


def _page(client: Client, charger: str, after: int) -> list[str]:
    """Up to a page of events after `after`, each as its own line, unchanged."""
    response = client.call(
        "GET",
        "/events",
        params={"clientId": charger, "afterSeq": after, "limit": _PAGE},
        headers={"Accept": "application/x-ndjson"},
    )
    return [line for line in response.text.split("\n") if line]


def _seq(line: str) -> int:
    return int(json.loads(line)["seq"])


@app.command(epilog="Example:  csms events replay CP1 --after 41 > missed.ndjson")
def replay(
    charger: Annotated[str, typer.Argument(help="The charger's identity (clientId).")],
    after: Annotated[
        int, typer.Option(min=0, help="The last seq that was seen; 0 is from the beginning.")
    ] = 0,
) -> None:
    """Print a charger's events in order, one a line, and stop at the newest."""
    client = Client()
    while lines := _page(client, charger, after):
        sys.stdout.write("\n".join(lines) + "\n")
        after = _seq(lines[-1])


@app.command(epilog="Example:  csms events tail CP1")
def tail(
    charger: Annotated[str | None, typer.Argument(help="Only this charger's (clientId).")] = None,
    last: Annotated[int, typer.Option(min=0, help="Begin with so many old ones.")] = 10,
    every: Annotated[float, typer.Option(min=0.1, help="Seconds between two looks.")] = 1,
) -> None:
    """Print the newest events, then each one as it comes, until Ctrl-C."""
    client = Client()
    shown: deque[str] = deque(maxlen=_RECENT * 2)
    first = True
    while True:
        response = client.call(
            "GET", "/events", params={"limit": _RECENT}, headers={"Accept": "application/x-ndjson"}
        )
        fresh = []
        for line in filter(None, response.text.split("\n")):
            event = json.loads(line)
            if event["eventId"] not in shown and charger in {None, event["clientId"]}:
                shown.append(event["eventId"])
                fresh.append(line)
        for line in fresh[len(fresh) - last if first and len(fresh) > last else 0 :]:
            print(line, flush=True)
        first = False
        time.sleep(every)
