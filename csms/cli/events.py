"""`csms events`: the business events, byte for byte as they are published over MQTT."""

import json
import time
from collections import deque
from typing import Annotated

import typer

from csms.cli.client import RestClient
from csms.cli.output import DASH, in_seconds, pass_on_json, print_table, say

app = typer.Typer(
    help="Business events: replay them, follow them, and handle those that the broker refused.",
    no_args_is_help=True,
)
_OneCharger = Annotated[str | None, typer.Argument(help="Only events of this charger (clientId).")]
_PAGE = 500
_RECENT = 1000


def _page(client: RestClient, charger: str, after: int) -> list[str]:
    """Return the next events after the seq `after`, each as its own line, unchanged."""
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
        int, typer.Option(min=0, help="The last seq that you have; 0 replays from the beginning.")
    ] = 0,
) -> None:
    """Print a charger's events in order, one per line, and stop at the newest."""
    client = RestClient()
    while lines := _page(client, charger, after):
        pass_on_json("\n".join(lines) + "\n")
        after = _seq(lines[-1])


@app.command(epilog="Example:  csms events tail CP1")
def tail(
    charger: _OneCharger = None,
    last: Annotated[int, typer.Option(min=0, help="How many earlier events to print first.")] = 10,
    every: Annotated[float, typer.Option(min=0.1, help="Seconds between two requests.")] = 1,
) -> None:
    """Print the newest events, then each new one, until Ctrl-C."""
    client = RestClient()
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
            pass_on_json(f"{line}\n")
        first = False
        time.sleep(every)


@app.command(epilog="Example:  csms events parked")
def parked(charger: _OneCharger = None) -> None:
    """List the parked events, which the broker has refused repeatedly, with its reason."""
    found = RestClient().get("/events/parked", clientId=charger, limit=1000)["items"]
    rows = [
        [
            event["clientId"],
            str(event["seq"]),
            event["eventId"] or "(no longer stored)",
            in_seconds(event["recordedAt"]),
            event["error"] or DASH,
        ]
        for event in found
    ]
    columns = ("charger", "seq", "event", "recorded (UTC)", "refused because")
    print_table("Parked events", columns, rows, "No event is parked.")


@app.command(epilog="Example:  csms events revive CP1")
def revive(charger: _OneCharger = None) -> None:
    """Send parked events again, once the cause is removed: the broker's access list, its size limit."""
    say(f"{_unpark('revive', charger)} events will be sent.")


@app.command(epilog="Example:  csms events discard CP1")
def discard(charger: _OneCharger = None) -> None:
    """Give up sending the parked events. They can still be replayed."""
    say(f"{_unpark('discard', charger)} events will not be sent; `csms events replay` has them.")


def _unpark(how: str, charger: str | None) -> int:
    body = {} if charger is None else {"clientId": charger}
    return int(RestClient().call("POST", f"/events/parked/{how}", json=body).json()["events"])
