"""`csms tags`: the idTags that may charge."""

from typing import Annotated

import typer

from csms.cli.client import RestClient, segment
from csms.cli.output import DASH, print_table, say

app = typer.Typer(help="idTags: which may charge.", no_args_is_help=True)
_IDTAG = Annotated[str, typer.Argument(metavar="IDTAG", help="The idTag.")]


@app.command(epilog="Example:  csms tags add 04E8A1B2 --parent FLEET --limit 1")
def add(
    id_tag: _IDTAG,
    status: Annotated[
        str, typer.Option(help="Its status: Accepted, Blocked, Expired or Invalid.")
    ] = "Accepted",
    expires: Annotated[
        str | None, typer.Option(help="End of validity (ISO 8601, e.g. 2027-01-01T00:00:00Z).")
    ] = None,
    parent: Annotated[
        str | None,
        typer.Option(help="The parentIdTag: tags of the same parent may stop each other's transactions."),
    ] = None,
    limit: Annotated[int | None, typer.Option(min=0, help="The most transactions at the same time.")] = None,
    tariff: Annotated[str | None, typer.Option(help="The tariff of this tag, at every charger.")] = None,
) -> None:
    """Add a tag, or replace an existing one."""
    body = {
        "status": status,
        "expiryDate": expires,
        "parentIdTag": parent,
        "maxActiveTransactions": limit,
        "tariffId": tariff,
    }
    given = {name: value for name, value in body.items() if value is not None}
    RestClient().call("PUT", f"/tags/{segment(id_tag)}", json=given)
    say(f"{id_tag}: {status}")


@app.command(epilog="Example:  csms tags block 04E8A1B2")
def block(id_tag: _IDTAG) -> None:
    """Block a tag: it may not charge any more."""
    RestClient().call("PATCH", f"/tags/{segment(id_tag)}", json={"status": "Blocked"})
    say(f"{id_tag}: Blocked")


@app.command(epilog="Example:  csms tags remove 04E8A1B2")
def remove(id_tag: _IDTAG) -> None:
    """Remove a tag. CSMS_UNKNOWN_TAGS then decides whether it may charge."""
    RestClient().call("DELETE", f"/tags/{segment(id_tag)}")
    say(f"{id_tag}: removed")


@app.command("list", epilog="Example:  csms tags list")
def list_tags() -> None:
    """List the tags."""
    rows = [
        [
            t["idTag"],
            t["status"],
            t.get("expiryDate") or DASH,
            t.get("parentIdTag") or DASH,
            _shown(t.get("maxActiveTransactions")),
            t.get("tariffId") or DASH,
        ]
        for t in RestClient().items("/tags")
    ]
    print_table(
        "Tags",
        ("idTag", "status", "expires", "parent", "limit", "tariff"),
        rows,
        "No tags. Add one: csms tags add IDTAG",
    )


def _shown(value: int | None) -> str:
    return DASH if value is None else str(value)
