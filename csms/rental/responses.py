"""What a renter's request is answered with: a page, a piece of one, or JSON for an app; errors in both languages."""

import math
from typing import Any, Final

from jinja2 import Environment, PackageLoader, StrictUndefined
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response

from csms.core.pricing import Cost
from csms.rental import translations
from csms.rental.page_state import PageState, RentalNumbers
from csms.rental.requests import RENTAL_FILES, language_of, money, page_address

_PROBLEM: Final = "application/problem+json"


class RentalRefusal(Exception):
    """Something that a renter may not do, or not now; `message` is the id of what they are told."""

    def __init__(self, status: int, message: str, *, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.headers = {} if retry_after_s is None else {"Retry-After": str(math.ceil(retry_after_s))}


def wants_json(request: Request) -> bool:
    """An app rather than a browser asks."""
    accepted = request.headers.get("accept", "")
    return "text/html" not in accepted and "json" in accepted


def in_both_languages(message: str) -> dict[str, str]:
    return {language: translations.text(message, language) for language in translations.LANGUAGES}


def state_json(what: PageState, balance: Cost, language: str) -> Response:
    return JSONResponse(
        {
            "state": what.state,
            "title": translations.text(what.state, language),
            "messages": [
                {
                    "id": message,
                    "text": translations.text(message, language),
                    "texts": in_both_languages(message),
                }
                for message in what.messages
            ],
            "button": what.button,
            "numbers": None if what.numbers is None else _numbers(what.numbers),
            "final": what.final,
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
    """As text, exact."""
    return {"amount": str(cost.amount), "currency": cost.currency}


class RentalTemplates:
    """The templates."""

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

    def text(self, template: str, language: str, /, **context: Any) -> str:
        return self._templates.get_template(template).render(
            context | {"language": language, "t": lambda name: translations.text(name, language)}
        )

    def page(self, template: str, language: str, status: int = 200, /, **context: Any) -> Response:
        return HTMLResponse(self.text(template, language, **context), status)

    def problem(self, request: Request, refusal: RentalRefusal) -> Response:
        """RFC 9457 for apps, with the message's id and both languages; for browsers a page."""
        language, message = language_of(request), refusal.message
        if wants_json(request):
            content = {
                "type": f"urn:csms:problem:rental:{message}",
                "title": translations.text(message, translations.ENGLISH),
                "status": refusal.status,
                "detail": translations.text(message, language),
                "id": message,
                "messages": in_both_languages(message),
            }
            return JSONResponse(
                content,
                refusal.status,
                {**refusal.headers, "Content-Language": language, "Vary": "Accept, Accept-Language"},
                _PROBLEM,
            )
        back = request.path_params.get("charger_id")
        answer = self.page("problem.html", language, refusal.status, message=message, back=back)
        answer.headers.update(refusal.headers)
        return answer
