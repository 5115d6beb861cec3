"""`csms accounts`: the balances from which renters pay."""

from typing import Annotated
from uuid import uuid4

import typer

from csms.cli.client import RestClient, segment
from csms.cli.output import print_table, say

app = typer.Typer(
    help="Accounts: balances, top-ups, sign-in links for the rental page.", no_args_is_help=True
)
_ACCOUNT = Annotated[str, typer.Argument(metavar="ACCOUNT", help="The user's id.")]


@app.command(epilog="Example:  csms accounts add lDpl3b3d21Ma0vUBoMYdJuoOsVI3 --currency UAH")
def add(
    account: _ACCOUNT,
    currency: Annotated[
        str, typer.Option(help="The currency (ISO 4217). It cannot be changed later.")
    ] = "UAH",
    blocked: Annotated[
        bool, typer.Option("--blocked/--allowed", help="Whether the account may rent.")
    ] = False,
) -> None:
    """Create an account, or block or allow an existing one."""
    body = {"currency": currency, "blocked": blocked}
    RestClient().call("PUT", f"/accounts/{segment(account)}", json=body)
    say(f"{account}: {'blocked' if blocked else 'may rent'}")


@app.command(epilog="Example:  csms accounts top-up lDpl3b3d21Ma0vUBoMYdJuoOsVI3 200 --key receipt-17")
def top_up(
    account: _ACCOUNT,
    amount: Annotated[str, typer.Argument(metavar="AMOUNT", help="The amount in the account's currency.")],
    key: Annotated[
        str | None,
        typer.Option(help="Your reference for the top-up. The same reference enters it only once."),
    ] = None,
    note: Annotated[str | None, typer.Option(help="A note, stored with the entry.")] = None,
) -> None:
    """Add money to an account."""
    body = {"key": key or uuid4().hex, "amount": amount, "note": note}
    entry = RestClient().call("POST", f"/accounts/{segment(account)}/entries", json=body).json()
    say(f"{account}: {entry['amount']}, balance {entry['balance']}")


@app.command(epilog="Example:  csms accounts link lDpl3b3d21Ma0vUBoMYdJuoOsVI3")
def link(
    account: _ACCOUNT,
    expires: Annotated[int, typer.Option(min=10, help="For how many seconds the link is valid.")] = 600,
) -> None:
    """Print a link that signs this user in to the rental page once."""
    client = RestClient()
    made = client.call("POST", f"/accounts/{segment(account)}/links", json={"expiresInS": expires}).json()
    say(f"{client.url}{made['path']}")


@app.command("list", epilog="Example:  csms accounts list")
def list_accounts() -> None:
    """List the accounts."""
    rows = [
        [a["id"], f"{a['balance']} {a['currency']}", a["held"], "blocked" if a["blocked"] else ""]
        for a in RestClient().items("/accounts")
    ]
    print_table(
        "Accounts", ("id", "balance", "held", ""), rows, "No accounts. Create one: csms accounts add ACCOUNT"
    )
