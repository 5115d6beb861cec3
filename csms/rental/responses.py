"""How a renter's request is answered: a page or a part of one for browsers, JSON for apps."""

import math
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

from jinja2 import Environment, PackageLoader, StrictUndefined
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response

from csms.core.currencies import minor_digits
from csms.core.pricing import Cost
from csms.rental import translations
from csms.rental.page_state import PageState, RentalNumbers
from csms.rental.requests import request_language, wants_json
from csms.service.static_files import PageFiles

RENTAL_FILES: Final = PageFiles("/r/static", Path(__file__).resolve().parent / "static")


class RentalRefusal(Exception):
    """A request that is not allowed, or not now. `message` is the id of the sentence that the renter reads."""

    def __init__(self, status: int, message: str, *, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.headers = {} if retry_after_s is None else {"Retry-After": str(math.ceil(retry_after_s))}


def page_address(charger_id: str) -> str:
    return f"/r/{quote(charger_id, safe='')}"


def money(cost: Cost) -> str:
    return f"{cost.amount:.{minor_digits(cost.currency)}f} {cost.currency}"


def in_both_languages(message: str) -> dict[str, str]:
    return {language: translations.text(message, language) for language in translations.LANGUAGES}


def state_json(state: PageState, balance: Cost, language: str) -> Response:
    """Return the page's state for an app. Amounts are strings, because they are exact."""
    return JSONResponse(
        {
            "state": state.state,
            "title": translations.text(state.state, language),
            "messages": [
                {
                    "id": message,
                    "text": translations.text(message, language),
                    "texts": in_both_languages(message),
                }
                for message in state.messages
            ],
            "button": state.button,
            "numbers": None if state.numbers is None else _numbers(state.numbers),
            "final": state.final,
            "balance": _cost(balance),
        }
    )


def _numbers(numbers: RentalNumbers) -> dict[str, Any]:
    return {
        "timeS": numbers.time_s,
        "energyWh": numbers.energy_wh,
        "powerW": numbers.power_w,
        "cost": None if numbers.cost is None else _cost(numbers.cost),
    }


def _cost(cost: Cost) -> dict[str, Any]:
    return {"amount": str(cost.amount), "currency": cost.currency}


class RentalTemplates:
    """Renders the templates in the renter's language."""

    def __init__(self) -> None:
        self._templates = Environment(
            loader=PackageLoader("csms.rental"),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._templates.globals |= {
            "asset": RENTAL_FILES.url,
            "clock": translations.clock,
            "money": money,
            "address": page_address,
        }

    def text(self, template: str, language: str, /, **values: Any) -> str:
        return self._templates.get_template(template).render(
            values | {"language": language, "t": lambda name: translations.text(name, language)}
        )

    def page(self, template: str, language: str, status: int = 200, /, **values: Any) -> Response:
        return HTMLResponse(self.text(template, language, **values), status)

    def problem(self, request: Request, refusal: RentalRefusal) -> Response:
        """Answer browsers with a page, apps with problem details (RFC 9457), the message's id and both languages."""
        language, message = request_language(request), refusal.message
        if wants_json(request):
            content = {
                "type": f"urn:csms:problem:rental:{message}",
                "title": translations.text(message, translations.ENGLISH),
                "status": refusal.status,
                "detail": translations.text(message, language),
                "id": message,
                "messages": in_both_languages(message),
            }
            headers = {**refusal.headers, "Content-Language": language, "Vary": "Accept, Accept-Language"}
            return JSONResponse(content, refusal.status, headers, "application/problem+json")
        back = request.path_params.get("charger_id")
        answer = self.page("problem.html", language, refusal.status, message=message, back=back)
        answer.headers.update(refusal.headers)
        return answer
