"""`csms tokens`: access to the API and the console."""

from typing import Annotated

import typer

from csms.cli.client import RestClient
from csms.cli.output import in_seconds, print_table, say
from csms.errors import CsmsError

app = typer.Typer(help="API tokens: access as viewer, operator or admin.", no_args_is_help=True)


@app.command(epilog="Example:  csms tokens add billing --role viewer")
def add(
    name: Annotated[str, typer.Argument(help="A name that says what the token is for.")],
    role: Annotated[
        str,
        typer.Option(help="viewer (reads), operator (also commands, chargers, tags), admin (everything)."),
    ] = "viewer",
) -> None:
    """Create a token. Its secret is printed once, here."""
    say(RestClient().call("POST", "/tokens", json={"name": name, "role": role}).json()["token"])


@app.command("list", epilog="Example:  csms tokens list")
def list_tokens() -> None:
    """List the tokens, without their secrets."""
    rows = [
        [
            str(t["id"]),
            t["name"],
            t["role"],
            in_seconds(t["createdAt"]),
            "revoked" if t.get("revokedAt") else "valid",
        ]
        for t in RestClient().get("/tokens")["items"]
    ]
    print_table("Tokens", ("id", "name", "role", "created (UTC)", ""), rows, "No tokens but the admin token.")


@app.command(epilog="Example:  csms tokens revoke billing")
def revoke(name: Annotated[str, typer.Argument(help="The token's name.")]) -> None:
    """Revoke a token: it is refused from now on."""
    client = RestClient()
    for token in client.get("/tokens")["items"]:
        if token["name"] == name and not token.get("revokedAt"):
            client.call("DELETE", f"/tokens/{token['id']}")
            say(f"{name}: revoked")
            return
    raise CsmsError(f"there is no valid token named {name}: see `csms tokens list`.")
