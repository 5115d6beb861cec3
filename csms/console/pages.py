"""The pages themselves."""

from datetime import datetime, timedelta

from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from csms.console import sessions
from csms.console.live import FRAMES, Live
from csms.console.site import Site, Visit
from csms.core.clocks import suspect
from csms.core.quarantine import REPAIRABLE
from csms.core.text import storable
from csms.db import charger_views, logs, outbox, plans, tariffs, transaction_views
from csms.db.driver import driver_connection
from csms.service import cursors, qr
from csms.service.chargers import usable
from csms.service.event_stream import EventStream
from csms.service.problems import Problem

_PAGE = 50
_EVENTS_BEFORE = timedelta(minutes=1)


class Pages:
    def __init__(self, live: Live) -> None:
        self._live = live

    # --- overview --------------------------------------------------------------------------------

    async def overview(self, site: Site, visit: Visit) -> Response:
        containing = storable(visit.request.query_params.get("q", "")[:100])
        fragments = await self._live.overview(containing).get()
        return site.page("overview.html", visit, fragments=fragments, containing=containing)

    async def stream_overview(self, site: Site, visit: Visit) -> Response:
        return EventStream(self._live.stream_overview(visit))

    # --- charger ---------------------------------------------------------------------------------

    async def charger(self, site: Site, visit: Visit) -> Response:
        charger_id = usable(visit.request.path_params["charger_id"])
        async with site.context.engine.connect() as db:
            view = await charger_views.get_charger(db, charger_id)
            if view is None:
                return site.problem(visit, 404, f"There is no charger {charger_id!r}.")
            messages = await logs.list_frames(db, charger_id, limit=FRAMES)
            deviations = await logs.list_deviations(db, charger_id)
            known = await tariffs.list_tariffs(db)
            planned = await plans.list_views(db, charger_id)
        return site.page(
            "charger.html",
            visit,
            view=view,
            messages=messages,
            deviations=deviations,
            tariffs=[view.tariff for view in known],
            planned=planned,
            fragments=await self._live.charger_fragments(charger_id),
        )

    async def plan(self, site: Site, visit: Visit) -> Response:
        charger_id = usable(visit.request.path_params["charger_id"])
        async with site.context.engine.connect() as db:
            view = await charger_views.get_charger(db, charger_id)
            if view is None:
                return site.problem(visit, 404, f"There is no charger {charger_id!r}.")
            plan, shown = await plans.get(db, charger_id), await plans.list_views(db, charger_id)
        ocpp = view.charger.protocol.startswith("ocpp")
        return site.page(
            "plan.html", visit, view=view, plan=plan, shown=shown, ocpp=ocpp, now=site.context.now()
        )

    async def qr_code(self, site: Site, visit: Visit) -> Response:
        """The code to be glued to a charger: the address of its rental page, as this console is reached."""
        charger_id = usable(visit.request.path_params["charger_id"])
        kind = visit.request.path_params["kind"]
        async with site.context.engine.connect() as db:
            known = await charger_views.charger_exists(db, charger_id)
        if not known or kind not in qr.MEDIA_TYPES:
            return site.problem(visit, 404, f"There is no charger {charger_id!r}.")
        base = visit.request.query_params.get("url") or str(visit.request.base_url)
        code = qr.code(qr.address(base[:200], charger_id), kind)
        return Response(code, media_type=qr.MEDIA_TYPES[kind])

    async def stream_charger(self, site: Site, visit: Visit) -> Response:
        charger_id = usable(visit.request.path_params["charger_id"])
        async with site.context.engine.connect() as db:
            if not await charger_views.charger_exists(db, charger_id):
                return Response(status_code=404)
        return EventStream(self._live.stream_charger(visit, charger_id))

    # --- transactions ----------------------------------------------------------------------------

    async def transactions(self, site: Site, visit: Visit) -> Response:
        query = visit.request.query_params
        charger_id = storable(query.get("charger", "").strip()[:255])
        only = query.get("only", "")
        try:
            before = cursors.decode(query.get("cursor"), tuple[datetime, int])
        except Problem as problem:
            return site.problem(visit, 422, problem.detail)
        async with site.context.engine.connect() as db:
            found = await transaction_views.list_transactions(
                db,
                charger_id=charger_id or None,
                active={"running": True, "finished": False}.get(only),
                before=before,
                limit=_PAGE + 1,
            )
        last = found[_PAGE - 1].transaction if len(found) > _PAGE else None
        return site.page(
            "transactions.html",
            visit,
            sessions=found[:_PAGE],
            charger_id=charger_id,
            only=only,
            next_cursor=cursors.encode(last.started_at, last.id) if last else None,
        )

    async def transaction(self, site: Site, visit: Visit) -> Response:
        transaction_id = visit.request.path_params["transaction_id"]
        async with site.context.engine.connect() as db:
            session = await transaction_views.get_transaction(db, transaction_id)
            if session is None:
                return site.problem(visit, 404, f"There is no transaction {transaction_id}.")
            t = session.transaction
            points = await transaction_views.plot_points(db, [t])
            events = await logs.events_of_transaction(
                db, t.charger_id, t.id, t.start_received_at - _EVENTS_BEFORE, 100
            )
        return site.page(
            "transaction.html",
            visit,
            session=session,
            points=points[t.id],
            events=events,
            stop_suspect=t.stopped_at is not None
            and t.stop_received_at is not None
            and suspect(t.stopped_at, t.stop_received_at),
        )

    # --- events, quarantine ----------------------------------------------------------------------

    async def events(self, site: Site, visit: Visit) -> Response:
        async with site.context.engine.connect() as db:
            parked = await outbox.list_parked(await driver_connection(db), _PAGE)
        return site.page("events.html", visit, events=await self._live.recent_events(), parked=parked)

    async def stream_events(self, site: Site, visit: Visit) -> Response:
        return EventStream(self._live.stream_events(visit))

    async def tariffs(self, site: Site, visit: Visit) -> Response:
        async with site.context.engine.connect() as db:
            known = await tariffs.list_tariffs(db)
            groups = await tariffs.list_groups(db)
        return site.page("tariffs.html", visit, known=known, groups=groups)

    async def quarantine(self, site: Site, visit: Visit) -> Response:
        resolved = visit.request.query_params.get("resolved") == "true"
        async with site.context.engine.connect() as db:
            held = await logs.list_quarantine(db, resolved=resolved, limit=_PAGE)
        return site.page("quarantine.html", visit, held=held, resolved=resolved, repairable=REPAIRABLE)


# --- signing in and out ----------------------------------------------------------------------------------


async def show_sign_in(site: Site, request: Request) -> Response:
    ticket = request.query_params.get("ticket")
    if ticket is not None and site.sessions.take_ticket(ticket, site.context.now()):
        return _signed_in(site, request, 0, "/")
    wrong = "This link has been used or is too old." if ticket is not None else ""
    return _sign_in_form(site, request.query_params.get("next", ""), wrong)


async def sign_in(site: Site, request: Request) -> Response:
    form = await request.form()
    identity = await site.context.access.identify(str(form.get("token", "")).strip())
    following = str(form.get("next", ""))
    if identity is None:
        return _sign_in_form(site, following, "This token is unknown or has been revoked.", status=401)
    return _signed_in(site, request, identity.token_id, following)


def _sign_in_form(site: Site, following: str, wrong: str, status: int = 200) -> Response:
    return HTMLResponse(site.fragment("sign_in.html", who=None, next=following, wrong=wrong), status)


def _signed_in(site: Site, request: Request, token_id: int, following: str) -> Response:
    # Only to an address of our own: `//elsewhere` and `/\elsewhere` are somebody else's.
    own = following.startswith("/") and not following.startswith(("//", "/\\"))
    response = RedirectResponse(following if own else "/", 303)
    site.sessions.begin(response, token_id, site.context.now(), secure=request.url.scheme == "https")
    return response


async def sign_out(site: Site, visit: Visit) -> Response:
    response = RedirectResponse("/sign-in", 303)
    sessions.ConsoleSessions.end(response)
    return response
