"""Small things that the rental page's requests and pages are made of: addresses, sums, languages."""

import hashlib
import hmac
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Final
from urllib.parse import quote

from starlette.requests import Request

from csms.core.currencies import minor_digits
from csms.core.pricing import Cost
from csms.rental import translations
from csms.service.static_files import PageFiles

RENTAL_FILES: Final = PageFiles("/r/static", Path(__file__).resolve().parent / "static")
LANGUAGE_COOKIE: Final = "csms_rental_lang"
_MOST_TOP_UP: Final = 100_000


def page_address(charger_id: str) -> str:
    return f"/r/{quote(charger_id, safe='')}"


def money(cost: Cost) -> str:
    return f"{cost.amount:.{minor_digits(cost.currency)}f} {cost.currency}"


def parse_amount_minor(text: str, currency: str) -> int | None:
    """A sum as people type it, 1 to 100,000 of the currency; None for anything else."""
    try:
        amount = Decimal(text.strip().replace(",", "."))
        minor = amount.scaleb(minor_digits(currency))
    except InvalidOperation:
        return None
    good = amount.is_finite() and 1 <= amount <= _MOST_TOP_UP and minor == minor.to_integral_value()
    return int(minor) if good else None


def form_token(secret: str) -> str:
    return hmac.new(secret.encode(), b"form", hashlib.sha256).hexdigest()


def language_of(request: Request) -> str:
    chosen = request.query_params.get("lang") or request.cookies.get(LANGUAGE_COOKIE)
    return translations.language_of(request.headers.get("accept-language", ""), chosen)


def next_path(request: Request) -> str:
    return request.query_params.get("next", "")


def safe_path(path: str) -> str:
    """Only our own pages may be gone to after signing in."""
    good = path.startswith("/r/") and "\\" not in path and not path.startswith(("/r/sign-", "/r//"))
    return path if good and path.isprintable() else "/r/sign-in"
