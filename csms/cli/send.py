"""`csms send`: send any OCPP 1.6 command to a charger."""

import json
import sys
from typing import Annotated, Any

import typer

from csms.cli.client import RestClient, segment
from csms.cli.output import say_json
from csms.errors import CsmsError

EXAMPLE = 'Example:  csms send CP1 Reset \'{"type": "Soft"}\''


def send(
    charger: Annotated[str, typer.Argument(help="The charger's identity.")],
    action: Annotated[
        str, typer.Argument(help="An OCPP 1.6 action: Reset, TriggerMessage, RemoteStartTransaction, …")
    ],
    payload: Annotated[
        str, typer.Argument(metavar="[JSON]", help="The payload in OCPP's own JSON; - reads stdin.")
    ] = "{}",
    timeout: Annotated[float, typer.Option(help="Seconds to wait for the answer.")] = 30,
) -> None:
    """Send a command to a charger and print its answer."""
    text = sys.stdin.read() if payload == "-" else payload
    try:
        body: Any = json.loads(text)
    except ValueError as error:
        raise CsmsError(
            f'the payload is not JSON ({error}): quote it, as in \'{{"type": "Soft"}}\'.'
        ) from None
    response = RestClient(timeout_s=timeout * 2 + 10).call(
        "POST",
        f"/chargers/{segment(charger)}/commands",
        json={"action": action, "payload": body, "timeout_s": timeout},
    )
    say_json(response.json()["response"])
