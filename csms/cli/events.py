"""`csms events`: the business events, again or as they come. Byte for byte what MQTT carries."""

import json
import sys
import time
from collections import deque
from typing import Annotated

import typer

from csms.cli.client import ApiClient
from csms.cli.lists import table

app = typer.Typer(
    help="Business events: replay what was missed, follow, or see to what the broker refused.",
    no_args_is_help=True,
)
OneCharger = Annotated[str | None, typer.Argument(help="Only this charger's (clientId).")]
_PAGE = 500
_RECENT = 1000


def _page(client: ApiClient, charger: str, after: int) -> list[str]:
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
    client = ApiClient()
    while lines := _page(client, charger, after):
        sys.stdout.write("\n".join(lines) + "\n")
        after = _seq(lines[-1])


@app.command(epilog="Example:  csms events tail CP1")
def tail(
    charger: OneCharger = None,
    last: Annotated[int, typer.Option(min=0, help="Begin with so many old ones.")] = 10,
    every: Annotated[float, typer.Option(min=0.1, help="Seconds between two looks.")] = 1,
) -> None:
    """Print the newest events, then each one as it comes, until Ctrl-C."""
    client = ApiClient()
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


@app.command(epilog="Example:  csms events parked")
def parked(charger: OneCharger = None) -> None:
    """List the events set aside because the broker kept refusing them, with its reason."""
    found = ApiClient().get("/events/parked", clientId=charger, limit=1000)["items"]
    rows = [
        [
            event["clientId"],
            str(event["seq"]),
            event["eventId"] or "(no longer stored)",
            event["recordedAt"][:19].replace("T", " "),
            event["error"] or "–",
        ]
        for event in found
    ]
    columns = ("charger", "seq", "event", "recorded (UTC)", "refused because")
    table("Parked events", columns, rows, "No event is parked.")


@app.command(epilog="Example:  csms events revive CP1")
def revive(charger: OneCharger = None) -> None:
    """Send parked events after all, when the cause is mended: the broker's access list, its size limit."""
    print(f"{_free('revive', charger)} events will be sent.")


@app.command(epilog="Example:  csms events discard CP1")
def discard(charger: OneCharger = None) -> None:
    """Never send the parked events. They can still be replayed."""
    print(f"{_free('discard', charger)} events will not be sent; `csms events replay` has them.")


def _free(how: str, charger: str | None) -> int:
    body = {} if charger is None else {"clientId": charger}
    return int(ApiClient().call("POST", f"/events/parked/{how}", json=body).json()["events"])
