"""`csms qr`: QR codes of rental pages, to be put on stations."""

from pathlib import Path
from typing import Annotated

import typer

from csms.cli.output import say
from csms.errors import CsmsError
from csms.service import qr as codes

EXAMPLE = "Example:  csms qr coinop-17 coinop-18 --url https://rent.example.org --format pdf --out labels/"


def qr(
    chargers: Annotated[
        list[str], typer.Argument(help="Charger ids, such as coinop-17.", metavar="CHARGER…")
    ],
    url: Annotated[str, typer.Option(help="The address at which renters reach the rental page.")],
    kind: Annotated[str, typer.Option("--format", help="The format: svg or pdf.")] = codes.SVG,
    out: Annotated[
        Path, typer.Option(help="The directory to write the files to, CHARGER.svg or CHARGER.pdf.")
    ] = Path(),
) -> None:
    """Write a printable QR code of each charger's rental page."""
    if kind not in codes.MEDIA_TYPES:
        raise typer.BadParameter(f"{kind!r} is neither svg nor pdf", param_hint="--format")
    if not url.startswith(("https://", "http://")):
        raise typer.BadParameter(
            f"{url!r} is not an address such as https://rent.example.org", param_hint="--url"
        )
    try:
        out.mkdir(parents=True, exist_ok=True)
        for charger in chargers:
            safe = "".join(c if c.isalnum() or c in "-_." else "_" for c in charger)
            path = out / f"{safe}.{kind}"
            path.write_bytes(codes.code(codes.address(url, charger), kind))
            say(path)
    except OSError as error:
        raise CsmsError(f"{out} cannot be written: {error.strerror}.") from None
