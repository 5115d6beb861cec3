"""`csms accounts`: balances of people who pay from one."""

from typing import Annotated
from uuid import uuid4

import typer

from csms.cli.client import ApiClient, segment
from csms.cli.lists import pages, table

app = typer.Typer(
    help="Accounts: balances, top-ups, sign-in links for the rental page.", no_args_is_help=True
)


@app.command(epilog="Example:  csms accounts add lDpl3b3d21Ma0vUBoMYdJuoOsVI3 --currency UAH")
def add(
    account: Annotated[str, typer.Argument(metavar="ACCOUNT", help="The user's id.")],
    currency: Annotated[str, typer.Option(help="ISO 4217; it cannot be changed later.")] = "UAH",
    blocked: Annotated[bool, typer.Option("--blocked/--allowed", help="May it rent?")] = False,
) -> None:
    """Make an account, or block a known one."""
    body = {"currency": currency, "blocked": blocked}
    ApiClient().call("PUT", f"/accounts/{segment(account)}", json=body)
    print(f"{account}: {'blocked' if blocked else 'may rent'}")


@app.command(epilog="Example:  csms accounts top-up lDpl3b3d21Ma0vUBoMYdJuoOsVI3 200 --key receipt-17")
def top_up(
    account: Annotated[str, typer.Argument(metavar="ACCOUNT")],
    amount: Annotated[str, typer.Argument(metavar="AMOUNT", help="In the account's currency.")],
    key: Annotated[
        str | None, typer.Option(help="Your own number of it: the same again changes nothing more.")
    ] = None,
    note: Annotated[str | None, typer.Option(help="What it is for.")] = None,
) -> None:
    """Add money to an account."""
    body = {"key": key or uuid4().hex, "amount": amount, "note": note}
    entry = ApiClient().call("POST", f"/accounts/{segment(account)}/entries", json=body).json()
    print(f"{account}: {entry['amount']}, balance {entry['balance']}")


@app.command(epilog="Example:  csms accounts link lDpl3b3d21Ma0vUBoMYdJuoOsVI3")
def link(
    account: Annotated[str, typer.Argument(metavar="ACCOUNT")],
    expires: Annotated[int, typer.Option(min=10, help="Seconds.")] = 600,
) -> None:
    """Make a link that signs this user in to the rental page, once."""
    client = ApiClient()
    made = client.call("POST", f"/accounts/{segment(account)}/links", json={"expiresInS": expires}).json()
    print(f"{client.url}{made['path']}")


@app.command("list", epilog="Example:  csms accounts list")
def list_accounts() -> None:
    """List the accounts."""
    rows = [
        [a["id"], f"{a['balance']} {a['currency']}", a["held"], "blocked" if a["blocked"] else ""]
        for a in pages(ApiClient(), "/accounts")
    ]
    table("Accounts", ("id", "balance", "held", ""), rows, "No accounts. Make one: csms accounts add ACCOUNT")
