"""The console as an ASGI application, to be served below everything the REST interface does not answer."""

import structlog
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route

from csms.console import accounts, actions, pages
from csms.console.live import Live
from csms.console.site import FILES, Handler, Site
from csms.db.outages import DATABASE_ERRORS, is_away, reason
from csms.service.context import ServiceContext
from csms.service.problems import Problem
from csms.service.security_headers import SecurityHeaders

log = structlog.get_logger()


def create_console(context: ServiceContext) -> Starlette:
    """Pages for people: `create_app(context, console=create_console(context))`."""
    site = Site(context)
    shown = pages.Pages(Live(site))

    def page(path: str, handler: Handler) -> Route:
        return Route(path, site.guarded(handler), methods=["GET"])

    def action(path: str, handler: Handler, role: str = "operator") -> Route:
        return Route(path, site.guarded(handler, role), methods=["POST"])

    async def sign_in_form(request: Request) -> Response:
        return await pages.show_sign_in(site, request)

    async def sign_in(request: Request) -> Response:
        return await pages.sign_in(site, request)

    async def failed(request: Request, error: Exception) -> Response:
        return await _failed(site, request, error)

    return Starlette(
        routes=[
            page("/", shown.overview),
            page("/stream/overview", shown.stream_overview),
            page("/stream/events", shown.stream_events),
            page("/stream/chargers/{charger_id:path}", shown.stream_charger),
            page("/transactions", shown.transactions),
            page("/transactions/{transaction_id:int}", shown.transaction),
            page("/events", shown.events),
            page("/quarantine", shown.quarantine),
            page("/tariffs", shown.tariffs),
            page("/accounts", accounts.list_accounts),
            action("/accounts/{account_id:path}/entries", accounts.enter),
            page("/accounts/{account_id:path}", accounts.account),
            action("/quarantine/{held_id:int}/resolve", actions.resolve),
            action("/quarantine/{held_id:int}/repair", actions.repair),
            action("/events/revive", actions.revive),
            action("/chargers/{charger_id:path}/commands", actions.command),
            action("/chargers/{charger_id:path}/settings", actions.settings),
            page("/chargers/{charger_id:path}/qr.{kind}", shown.qr_code),
            page("/chargers/{charger_id:path}/plan", shown.plan),
            page("/chargers/{charger_id:path}", shown.charger),
            Route("/sign-in", sign_in_form, methods=["GET"]),
            Route("/sign-in", sign_in, methods=["POST"]),
            action("/sign-out", pages.sign_out, "viewer"),
            *FILES.routes(),
        ],
        middleware=[Middleware(SecurityHeaders)],
        exception_handlers=dict.fromkeys((HTTPException, Problem, *DATABASE_ERRORS, Exception), failed),
    )


async def _failed(site: Site, request: Request, error: Exception) -> Response:
    """An error as a page, or as a bare page for those who have not signed in."""
    status, sentence = 500, "Something went wrong here; the log says what."
    if isinstance(error, Problem):
        status, sentence = error.status, error.detail
    elif isinstance(error, HTTPException):
        status, sentence = error.status_code, "There is nothing at this address."
    elif is_away(error):
        status, sentence = 503, "The database is not available. Try again in a few seconds."
        log.warning("request_without_database", error=reason(error))
    else:
        log.error("page failed", path=request.url.path, error=str(error), exc_info=error)
    try:
        visit = await site.visit(request)
    except Exception:  # the database again
        visit = None
    if visit is None:
        return HTMLResponse(site.fragment("bare_problem.html", who=None, sentence=sentence), status)
    return site.problem(visit, status, sentence)
