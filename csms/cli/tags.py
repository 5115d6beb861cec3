"""`csms tags`: who may charge."""

from typing import Annotated

import typer

from csms.cli.client import ApiClient, segment
from csms.cli.lists import pages, table

app = typer.Typer(help="idTags: who may charge.", no_args_is_help=True)
ADD = "Example:  csms tags add 04E8A1B2 --parent FLEET --limit 1"


@app.command(epilog=ADD)
def add(
    id_tag: Annotated[str, typer.Argument(metavar="IDTAG")],
    status: Annotated[str, typer.Option(help="Accepted, Blocked, Expired or Invalid.")] = "Accepted",
    expires: Annotated[
        str | None, typer.Option(help="End of validity (ISO 8601, e.g. 2027-01-01T00:00:00Z).")
    ] = None,
    parent: Annotated[str | None, typer.Option(help="The group it belongs to (parentIdTag).")] = None,
    limit: Annotated[int | None, typer.Option(min=0, help="Most transactions at the same time.")] = None,
    tariff: Annotated[str | None, typer.Option(help="Its own tariff, wherever it charges.")] = None,
) -> None:
    """Add a tag, or replace what is known of it."""
    body = {
        "status": status,
        "expiryDate": expires,
        "parentIdTag": parent,
        "maxActiveTransactions": limit,
        "tariffId": tariff,
    }
    given = {name: value for name, value in body.items() if value is not None}
    ApiClient().call("PUT", f"/tags/{segment(id_tag)}", json=given)
    print(f"{id_tag}: {status}")


@app.command(epilog="Example:  csms tags block 04E8A1B2")
def block(id_tag: Annotated[str, typer.Argument(metavar="IDTAG")]) -> None:
    """Let a tag charge no more."""
    ApiClient().call("PATCH", f"/tags/{segment(id_tag)}", json={"status": "Blocked"})
    print(f"{id_tag}: Blocked")


@app.command(epilog="Example:  csms tags remove 04E8A1B2")
def remove(id_tag: Annotated[str, typer.Argument(metavar="IDTAG")]) -> None:
    """Forget a tag; what unknown tags may do then decides (CSMS_UNKNOWN_TAGS)."""
    ApiClient().call("DELETE", f"/tags/{segment(id_tag)}")
    print(f"{id_tag}: removed")


@app.command("list", epilog="Example:  csms tags list")
def list_tags() -> None:
    """List the tags."""
    rows = [
        [
            t["idTag"],
            t["status"],
            t.get("expiryDate") or "–",
            t.get("parentIdTag") or "–",
            _shown(t.get("maxActiveTransactions")),
            t.get("tariffId") or "–",
        ]
        for t in pages(ApiClient(), "/tags")
    ]
    table(
        "Tags",
        ("idTag", "status", "expires", "parent", "limit", "tariff"),
        rows,
        "No tags. Add one: csms tags add IDTAG",
    )


def _shown(value: int | None) -> str:
    return "–" if value is None else str(value)
