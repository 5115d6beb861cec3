"""The console as an ASGI application, to be served below everything the REST interface does not answer."""

import os

import asyncpg
import structlog
from sqlalchemy.exc import SQLAlchemyError
from starlette.applications import Starlette
from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from csms.api.deps import Api
from csms.api.problems import Problem, database_away
from csms.console import accounts, actions, pages
from csms.console.live import Live
from csms.console.site import STATIC, Handler, Site

log = structlog.get_logger()
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self';"
    " form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)


def create_console(deps: Api) -> Starlette:
    """Pages for people: `create_app(deps, console=create_console(deps))`."""
    site = Site(deps)
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
            Mount("/static", _Static(directory=STATIC)),
        ],
        middleware=[Middleware(Headers)],
        exception_handlers=dict.fromkeys(
            (
                HTTPException,
                Problem,
                SQLAlchemyError,
                OSError,
                asyncpg.PostgresError,
                asyncpg.InterfaceError,
                Exception,
            ),
            failed,
        ),
    )


async def _failed(site: Site, request: Request, error: Exception) -> Response:
    """An error as a page, or as a bare page for those who have not signed in."""
    status, sentence = 500, "Something went wrong here; the log says what."
    if isinstance(error, Problem):
        status, sentence = error.status, error.detail
    elif isinstance(error, HTTPException):
        status, sentence = error.status_code, "There is nothing at this address."
    elif database_away(error):
        status, sentence = 503, "The database does not answer. Try again in a few seconds."
    else:
        log.error("page failed", path=request.url.path, error=str(error), exc_info=error)
    try:
        visit = await site.visit(request)
    except Exception:  # the database again
        visit = None
    if visit is None:
        return HTMLResponse(site.fragment("bare_problem.html", who=None, sentence=sentence), status)
    return site.problem(visit, status, sentence)


class _Static(StaticFiles):
    """Addresses carry the content's digest, so what is behind one never changes."""

    def file_response(
        self,
        full_path: str | os.PathLike[str],
        stat_result: os.stat_result,
        scope: Scope,
        status_code: int = 200,
    ) -> Response:
        response = super().file_response(full_path, stat_result, scope, status_code)
        kept = "public, max-age=31536000, immutable" if scope["query_string"] else "no-cache"
        response.headers["Cache-Control"] = kept
        return response


class Headers:
    """A page runs no script and loads nothing but ours, and stands in nobody's frame."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers["Content-Security-Policy"] = _POLICY
                headers["Referrer-Policy"] = "same-origin"
                headers["X-Frame-Options"] = "DENY"
                headers["X-Content-Type-Options"] = "nosniff"
                headers.setdefault("Cache-Control", "no-store")
            await send(message)

        await self._app(scope, receive, with_headers)
