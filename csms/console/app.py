"""The console as an ASGI application, for every address that the REST interface does not answer."""

from functools import partial
from typing import Final

import structlog
from starlette.applications import Starlette
from starlette.convertors import IntegerConvertor, register_url_convertor
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route

from csms.console import accounts, actions, corrections, sign_in
from csms.console.base import CONSOLE_FILES, Console, PageHandler
from csms.console.live_pages import LivePages
from csms.console.pages import ConsolePages
from csms.db.outages import DATABASE_ERRORS, is_away, reason
from csms.service.access import ADMIN, OPERATOR, VIEWER
from csms.service.context import ServiceContext
from csms.service.security_headers import SecurityHeaders

log = structlog.get_logger()
_SENTENCES: Final = {404: "There is nothing at this address.", 413: "What was sent is too large."}


class _NumberConvertor(IntegerConvertor):
    """An integer that the database could have; Python refuses to read one of thousands of digits."""

    regex = "[0-9]{1,18}"


register_url_convertor("number", _NumberConvertor())


def create_console(context: ServiceContext, *, page_size: int = 50) -> Starlette:
    """Return the console's application: `create_app(context, console=create_console(context))`."""
    console = Console(context, page_size=page_size)
    pages = ConsolePages(LivePages(console))

    def page(path: str, handler: PageHandler) -> Route:
        return Route(path, console.guarded(handler), methods=["GET"])

    def action(path: str, handler: PageHandler, role: str = OPERATOR) -> Route:
        return Route(path, console.guarded(handler, role), methods=["POST"])

    return Starlette(
        routes=[
            page("/", pages.overview),
            page("/stream/overview", pages.stream_overview),
            page("/stream/events", pages.stream_events),
            page("/stream/chargers/{charger_id:segment}", pages.stream_charger),
            page("/transactions", pages.transactions),
            page("/transactions/{transaction_id:number}", pages.transaction),
            action("/transactions/{transaction_id:number}/{kind}/preview", corrections.preview),
            action("/transactions/{transaction_id:number}/{kind}", corrections.revise),
            page("/attention", corrections.attention),
            page("/events", pages.events),
            page("/quarantine", pages.quarantine),
            page("/tariffs", pages.tariffs),
            page("/accounts", accounts.list_accounts),
            action("/accounts/{account_id:segment}/entries", accounts.enter, ADMIN),
            page("/accounts/{account_id:segment}", accounts.account),
            action("/quarantine/{held_id:number}/resolve", actions.resolve),
            action("/quarantine/{held_id:number}/repair", actions.repair),
            action("/events/revive", actions.revive),
            action("/chargers/{charger_id:segment}/commands", actions.command),
            action("/chargers/{charger_id:segment}/settings", actions.settings),
            page("/chargers/{charger_id:segment}/qr.{kind}", pages.qr_code),
            page("/chargers/{charger_id:segment}/plan", pages.plan),
            page("/chargers/{charger_id:segment}", pages.charger),
            Route("/sign-in", partial(sign_in.sign_in_page, console), methods=["GET"]),
            Route("/sign-in", partial(sign_in.sign_in, console), methods=["POST"]),
            action("/sign-out", sign_in.sign_out, VIEWER),
            *CONSOLE_FILES.routes(),
        ],
        middleware=[Middleware(SecurityHeaders)],
        exception_handlers=dict.fromkeys(
            (HTTPException, *DATABASE_ERRORS, Exception), partial(_failed, console)
        ),
    )


async def _failed(console: Console, request: Request, error: Exception) -> Response:
    """Answer an error with a page; without the navigation where the request has no session."""
    status, sentence = 500, "Something went wrong here; the log says what."
    if isinstance(error, HTTPException):
        status, sentence = error.status_code, _SENTENCES.get(error.status_code, str(error.detail))
    elif is_away(error):
        status, sentence = 503, "The database is not available. Try again in a few seconds."
        log.warning("request_without_database", error=reason(error))
    else:
        log.error("console_page_failed", path=request.url.path, error=str(error), exc_info=error)
    try:
        signed_in = await console.signed_in(request)
    except Exception:  # the database again
        signed_in = None
    if signed_in is None:
        return HTMLResponse(console.fragment("problem.html", who=None, sentence=sentence), status)
    return console.problem(signed_in, status, sentence)
