"""A renter's request, and what is read from requests: languages, sums, the address to return to."""

import hashlib
import hmac
from decimal import Decimal, InvalidOperation
from typing import Final

from msgspec import Struct
from starlette.requests import Request

from csms.core.currencies import minor_digits
from csms.db.accounts import AccountView
from csms.rental import translations

LANGUAGE_COOKIE: Final = "csms_rental_lang"
_MOST_TOP_UP: Final = 100_000
RentalKey = tuple[str, str]  # an account, and a charger


class RentalRequest(Struct, frozen=True, kw_only=True):
    """A request of a signed-in renter. `secret` is the session's."""

    http: Request
    account: AccountView
    secret: str
    language: str

    @property
    def uid(self) -> str:
        return self.account.account.id

    @property
    def charger_id(self) -> str:
        return str(self.http.path_params["charger_id"])

    @property
    def key(self) -> RentalKey:
        return self.uid, self.charger_id

    @property
    def form_token(self) -> str:
        """What a form of this session must carry: no other site can know it."""
        return hmac.new(self.secret.encode(), b"form", hashlib.sha256).hexdigest()


def wants_json(request: Request) -> bool:
    """Whether an app sent the request rather than a browser."""
    accepted = request.headers.get("accept", "")
    return "text/html" not in accepted and "json" in accepted


def request_language(request: Request) -> str:
    chosen = request.query_params.get("lang") or request.cookies.get(LANGUAGE_COOKIE)
    return translations.language_of(request.headers.get("accept-language", ""), chosen)


def parse_amount_minor(text: str, currency: str) -> int | None:
    """Return a sum of 1 to 100,000 of the currency in its minor unit; None for anything else."""
    try:
        amount = Decimal(text.strip().replace(",", "."))
        minor = amount.scaleb(minor_digits(currency))
    except InvalidOperation:
        return None
    good = amount.is_finite() and 1 <= amount <= _MOST_TOP_UP and minor == minor.to_integral_value()
    return int(minor) if good else None


def next_path(request: Request) -> str:
    """Return the page to go to afterwards, as the request names it."""
    return request.query_params.get("next", "")


def safe_path(path: str) -> str:
    """Return the path if it is one of the rental pages, else the sign-in page: a redirect must not leave this site."""
    good = path.startswith("/r/") and "\\" not in path and not path.startswith(("/r/sign-", "/r//"))
    return path if good and path.isprintable() else "/r/sign-in"
