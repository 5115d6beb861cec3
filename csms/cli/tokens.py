"""`csms tokens`: who may use the API and the console."""

from typing import Annotated

import typer

from csms.cli.client import ApiClient
from csms.cli.lists import table
from csms.errors import CsmsError

app = typer.Typer(help="API tokens: who may look, operate, administer.", no_args_is_help=True)


@app.command(epilog="Example:  csms tokens add billing --role viewer")
def add(
    name: Annotated[str, typer.Argument(help="What it is for.")],
    role: Annotated[
        str,
        typer.Option(help="viewer (reads), operator (also commands, chargers, tags), admin (everything)."),
    ] = "viewer",
) -> None:
    """Make a token; its secret is shown once, here."""
    print(ApiClient().call("POST", "/tokens", json={"name": name, "role": role}).json()["token"])


@app.command("list", epilog="Example:  csms tokens list")
def list_tokens() -> None:
    """List the tokens, without their secrets."""
    rows = [
        [
            str(t["id"]),
            t["name"],
            t["role"],
            t["createdAt"][:19].replace("T", " "),
            "revoked" if t.get("revokedAt") else "valid",
        ]
        for t in ApiClient().get("/tokens")["items"]
    ]
    table("Tokens", ("id", "name", "role", "created (UTC)", ""), rows, "No tokens but the admin token.")


@app.command(epilog="Example:  csms tokens revoke billing")
def revoke(name: Annotated[str, typer.Argument(help="The token's name.")]) -> None:
    """Make a token worthless at once."""
    client = ApiClient()
    for token in client.get("/tokens")["items"]:
        if token["name"] == name and not token.get("revokedAt"):
            client.call("DELETE", f"/tokens/{token['id']}")
            print(f"{name}: revoked")
            return
    raise CsmsError(f"there is no valid token named {name}: see `csms tokens list`.")
