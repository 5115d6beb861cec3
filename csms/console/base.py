"""What every console page needs: the templates, the signed-in request, and the check of its role and form token."""

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

from jinja2 import Environment, PackageLoader, StrictUndefined
from msgspec import Struct
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from csms.console import formatting, plan_chart, plan_table, readings_chart, week_chart
from csms.console.revision_forms import FORM_FIELDS
from csms.console.sessions import ConsoleSession, session_of
from csms.db import admin
from csms.db.charger_views import ChargerView
from csms.db.transaction_views import TransactionView
from csms.service.access import VIEWER, Identity
from csms.service.client_requests import from_another_site
from csms.service.context import ServiceContext
from csms.service.problems import Problem
from csms.service.session_progress import progress, summary
from csms.service.static_files import PageFiles

CONSOLE_FILES = PageFiles("/static", Path(__file__).resolve().parent / "static")


class ConsoleRequest(Struct, frozen=True):
    """A request of a signed-in operator."""

    http: Request
    identity: Identity
    session: ConsoleSession


PageHandler = Callable[["Console", ConsoleRequest], Awaitable[Response]]


class Console:
    """The console of one node: what its pages are made from.

    `page_size` is the number of rows of a list before the link to the next page.
    """

    def __init__(self, context: ServiceContext, *, page_size: int = 50) -> None:
        self.context = context
        self.page_size = page_size
        self.templates = Environment(
            loader=PackageLoader("csms.console"),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self.templates.filters |= formatting.FILTERS
        self.templates.globals |= {
            "asset": CONSOLE_FILES.url,
            "progress": lambda session: progress(session, context.now()),
            "summary": summary,
            "ago": lambda at: formatting.ago(at, context.now()),
            "session_on": _session_on,
            "figures": formatting.figures,
            "form_fields": FORM_FIELDS,
            "sparkline": readings_chart.sparkline,
            "readings_chart": readings_chart.plot,
            "plan_chart": plan_chart.plot,
            "plan_table": plan_table,
            "week_chart": lambda tariff: week_chart.plot(tariff, formatting.band_prices(tariff)),
        }

    def fragment(self, template: str, **values: Any) -> str:
        """Render a template by itself, without the page around it."""
        return self.templates.get_template(template).render(**values)

    def page(
        self, template: str, request: ConsoleRequest, *, status: int = 200, **values: Any
    ) -> HTMLResponse:
        """Render a page for its reader: name, role and form token are in the template's values."""
        text = self.fragment(
            template,
            who=request.identity,
            csrf=request.session.form_token(),
            path=request.http.url.path,
            **values,
        )
        return HTMLResponse(text, status)

    async def signed_in(self, request: Request) -> ConsoleRequest | None:
        """Return the request with its operator; None without a session, or where it has ended."""
        session = session_of(request)
        if session is None:
            return None
        identity = await self.context.access.of_session(session.secret)
        return None if identity is None else ConsoleRequest(request, identity, session)

    def guarded(self, handler: PageHandler, role: str = VIEWER) -> Callable[[Request], Awaitable[Response]]:
        """Return an endpoint that calls `handler` for operators with `role`; a POST needs the session's form token.

        Errors of the use cases (Problem, Missing, Conflict) become a page, or the fragment that htmx shows.
        """

        async def endpoint(http: Request) -> Response:
            request = await self.signed_in(http)
            if request is None:
                return _to_sign_in(http)
            if not request.identity.may(role):
                return self.problem(
                    request, 403, f"This needs the role {role}; you have {request.identity.role}."
                )
            if http.method == "POST":
                form = await http.form()
                if from_another_site(http) or not request.session.good_form(str(form.get("csrf", ""))):
                    return self.problem(
                        request, 403, "This form is out of date. Reload the page and try again."
                    )
            try:
                return await handler(self, request)
            except Problem as problem:
                return self.problem(request, problem.status, problem.detail)
            except admin.Missing as error:
                return self.problem(request, 404, str(error))
            except admin.Conflict as error:
                return self.problem(request, 409, str(error))

        endpoint.role = role  # type: ignore[attr-defined] # for those who list the pages
        return endpoint

    def problem(self, request: ConsoleRequest, status: int, sentence: str) -> Response:
        """Answer with an error page. htmx gets a fragment with status 200: it shows no other."""
        if "hx-request" in request.http.headers:
            return HTMLResponse(self.fragment("_answer.html", good=False, headline=sentence, answer=None))
        return self.page("problem.html", request, status=status, sentence=sentence)


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
