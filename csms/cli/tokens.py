"""`csms tokens`: access to the API and the console."""

import re
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Final

import typer

from csms.cli.client import RestClient
from csms.cli.output import in_seconds, print_table, say
from csms.errors import CsmsError

app = typer.Typer(help="API tokens: access as viewer, operator or admin.", no_args_is_help=True)
_UNITS: Final = {"h": timedelta(hours=1), "d": timedelta(days=1), "w": timedelta(weeks=1)}


@app.command(epilog="Example:  csms tokens add billing --role viewer --expires 90d")
def add(
    name: Annotated[str, typer.Argument(help="A name that says what the token is for.")],
    role: Annotated[
        str,
        typer.Option(help="viewer (reads), operator (also commands, chargers, tags), admin (everything)."),
    ] = "viewer",
    expires: Annotated[
        str | None,
        typer.Option(
            help="When it ends: after 12h, 90d or 4w, or at 2027-01-31 or 2027-01-31T12:00Z (UTC). Unset: never."
        ),
    ] = None,
) -> None:
    """Create a token. Its secret is printed once, here."""
    body: dict[str, Any] = {"name": name, "role": role}
    if expires is not None:
        body["expiresAt"] = end_of(expires, datetime.now(UTC)).isoformat()
    say(RestClient().call("POST", "/tokens", json=body).json()["token"])


@app.command("list", epilog="Example:  csms tokens list --all")
def list_tokens(
    every: Annotated[bool, typer.Option("--all", help="Revoked tokens, too.")] = False,
) -> None:
    """List the tokens that are not revoked, without their secrets."""
    params = {} if every else {"revoked": "false"}
    rows = [
        [
            str(t["id"]),
            t["name"],
            t["role"],
            in_seconds(t["createdAt"]),
            in_seconds(t["expiresAt"]),
            in_seconds(t["lastUsedAt"]),
            state_of(t, datetime.now(UTC)),
        ]
        for t in RestClient().get("/tokens", **params)["items"]
    ]
    columns = ("id", "name", "role", "created (UTC)", "expires (UTC)", "last used (UTC)", "")
    print_table("Tokens", columns, rows, "No tokens but the admin token.")


@app.command(epilog="Example:  csms tokens revoke billing")
def revoke(name: Annotated[str, typer.Argument(help="The token's name.")]) -> None:
    """Revoke a token: it is refused from now on, and its sessions in the console end."""
    client = RestClient()
    for token in client.get("/tokens", revoked="false")["items"]:
        if token["name"] == name:
            client.call("DELETE", f"/tokens/{token['id']}")
            say(f"{name}: revoked")
            return
    raise CsmsError(f"there is no valid token named {name}: see `csms tokens list`.")


def end_of(text: str, now: datetime) -> datetime:
    """Return the moment that a period or a date names; a date without a zone is in UTC. Raises CsmsError."""
    if found := re.fullmatch(r"([1-9][0-9]{0,4})([hdw])", text):
        return now + int(found[1]) * _UNITS[found[2]]
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise CsmsError(
            f"--expires {text!r} is no time: give 12h, 90d, 4w, 2027-01-31 or 2027-01-31T12:00Z."
        ) from None
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment


def state_of(token: dict[str, Any], now: datetime) -> str:
    if token["revokedAt"]:
        return f"revoked {in_seconds(token['revokedAt'])}"
    expires_at = token["expiresAt"]
    return "expired" if expires_at and datetime.fromisoformat(expires_at) <= now else "valid"
