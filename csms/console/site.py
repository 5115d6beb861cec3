"""What every page needs: templates, who is looking, and the guard before the door."""

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

from jinja2 import Environment, PackageLoader, StrictUndefined
from msgspec import Struct
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from csms.console import formatting, planned, plots, weeks
from csms.console.sessions import ConsoleSession, ConsoleSessions
from csms.db.charger_views import ChargerView
from csms.db.transaction_views import TransactionView
from csms.service.access import Identity
from csms.service.context import ServiceContext
from csms.service.session_progress import progress, summary
from csms.service.static_files import PageFiles

FILES = PageFiles("/static", Path(__file__).resolve().parent / "static")


class Visit(Struct, frozen=True):
    """A request of somebody who has signed in."""

    request: Request
    identity: Identity
    session: ConsoleSession


Handler = Callable[["Site", Visit], Awaitable[Response]]


class Site:
    """One per console: the node's interface, sessions, templates."""

    def __init__(self, context: ServiceContext) -> None:
        self.context = context
        self.sessions = ConsoleSessions(context.admin_token)
        self.templates = Environment(
            loader=PackageLoader("csms.console"),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self.templates.filters |= {
            name: getattr(formatting, name)
            for name in (
                "kwh",
                "kw",
                "money",
                "prices",
                "base_prices",
                "band_prices",
                "component",
                "minor",
                "duration",
                "moment",
                "spaced",
                "charger_url",
                "account_url",
                "dom_id",
                "mendable",
                "pretty",
                "told",
            )
        }
        self.templates.globals |= {
            "asset": FILES.url,
            "progress": lambda session: progress(session, context.now()),
            "summary": summary,
            "ago": lambda at: formatting.ago(at, context.now()),
            "session_on": _session_on,
            "sparkline": plots.sparkline,
            "plot": plots.plot,
            "planned": planned,
            "week": lambda tariff: weeks.plot(tariff, formatting.band_prices(tariff)),
        }

    def fragment(self, template: str, **context: Any) -> str:
        return self.templates.get_template(template).render(**context)

    def page(self, template: str, visit: Visit, *, status: int = 200, **context: Any) -> HTMLResponse:
        text = self.fragment(
            template,
            who=visit.identity,
            csrf=self.sessions.form_token(visit.session),
            path=visit.request.url.path,
            **context,
        )
        return HTMLResponse(text, status)

    async def visit(self, request: Request) -> Visit | None:
        """None: not signed in, too long ago, or with a token that has been revoked since."""
        session = self.sessions.read(request, self.context.now())
        if session is None:
            return None
        identity = await self.context.access.by_id(session.token_id)
        return None if identity is None else Visit(request, identity, session)

    def guarded(self, handler: Handler, role: str = "viewer") -> Callable[[Request], Awaitable[Response]]:
        """Only for those who have signed in and have the role; POST only with this session's form token."""

        async def endpoint(request: Request) -> Response:
            visit = await self.visit(request)
            if visit is None:
                return _to_sign_in(request)
            if not visit.identity.may(role):
                return self.problem(
                    visit, 403, f"This needs the role {role}; you have {visit.identity.role}."
                )
            if request.method == "POST":
                form = await request.form()
                if not self.sessions.good_form(visit.session, str(form.get("csrf", ""))):
                    return self.problem(
                        visit, 403, "This form is out of date. Reload the page and try again."
                    )
            return await handler(self, visit)

        return endpoint

    def problem(self, visit: Visit, status: int, sentence: str) -> Response:
        if "hx-request" in visit.request.headers:
            # htmx shows what it is given only for 2xx.
            return HTMLResponse(self.fragment("_answer.html", good=False, headline=sentence, answer=None))
        return self.page("problem.html", visit, status=status, sentence=sentence)


def _session_on(view: ChargerView, connector_id: int) -> TransactionView | None:
    return next((s for s in view.sessions if s.transaction.connector_id == connector_id), None)


def _to_sign_in(request: Request) -> Response:
    path = request.url.path
    address = "/sign-in" if path == "/" or request.method != "GET" else f"/sign-in?next={quote(path)}"
    if "hx-request" in request.headers:
        return Response(status_code=401, headers={"HX-Redirect": address})
    if path.startswith("/stream/"):
        return Response(status_code=401)
    return RedirectResponse(address, 303)
