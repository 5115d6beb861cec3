"""QR codes for the rental page, to be printed: SVG and PDF."""

import io
from typing import Final
from urllib.parse import quote

import segno

SVG, PDF = "svg", "pdf"
MEDIA_TYPES: Final = {SVG: "image/svg+xml", PDF: "application/pdf"}


def address(base_url: str, charger_id: str) -> str:
    """Return the address of a charger's rental page."""
    return f"{base_url.rstrip('/')}/r/{quote(charger_id, safe='')}"


def code(text: str, kind: str) -> bytes:
    """Return the code as a file of type `kind`. It is readable with a quarter of it damaged (error correction level Q)."""
    drawn = segno.make(text, error="q", micro=False)
    out = io.BytesIO()
    if kind == PDF:
        drawn.save(out, kind=PDF, scale=12, border=4)
    else:
        drawn.save(out, kind=SVG, scale=10, border=4, xmldecl=False, svgns=True, title=text)
    return out.getvalue()
