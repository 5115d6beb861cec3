"""The pages that operators read, and the event streams that keep them live."""

from datetime import datetime, timedelta

from starlette.responses import Response

from csms.console.base import Console, ConsoleRequest
from csms.console.live_pages import SHOWN_FRAMES, LivePages
from csms.core.clocks import is_suspect
from csms.core.quarantine import REPAIRABLE_ACTIONS
from csms.core.text import storable
from csms.db import logs, outbox, plans, tariffs, transaction_views
from csms.db.driver import driver_connection
from csms.service import cursors, qr
from csms.service.chargers import known, usable, view_of
from csms.service.event_stream import EventStream
from csms.service.transactions import revisions

# The transaction and its events are dated by one node; a margin costs nothing.
_EVENTS_BEFORE = timedelta(minutes=1)


class ConsolePages:
    """The handlers of one console's pages."""

    def __init__(self, live: LivePages) -> None:
        self._live = live

    # --- overview --------------------------------------------------------------------------------

    async def overview(self, console: Console, request: ConsoleRequest) -> Response:
        containing = storable(request.http.query_params.get("q", "")[:100])
        fragments = await self._live.overview(containing).get()
        return console.page("overview.html", request, fragments=fragments, containing=containing)

    async def stream_overview(self, console: Console, request: ConsoleRequest) -> Response:
        return EventStream(self._live.stream_overview(request))

    # --- charger ---------------------------------------------------------------------------------

    async def charger(self, console: Console, request: ConsoleRequest) -> Response:
        charger_id = usable(request.http.path_params["charger_id"])
        async with console.context.engine.connect() as db:
            view = await view_of(db, charger_id)
            messages = await logs.list_frames(db, charger_id, limit=SHOWN_FRAMES)
            deviations = await logs.list_deviations(db, charger_id)
            tariff_views = await tariffs.list_tariffs(db)
            planned = await plans.list_views(db, charger_id)
        return console.page(
            "charger.html",
            request,
            view=view,
            messages=messages,
            deviations=deviations,
            tariffs=[each.tariff for each in tariff_views],
            planned=planned,
            fragments=await self._live.charger_fragments(charger_id),
        )

    async def plan(self, console: Console, request: ConsoleRequest) -> Response:
        charger_id = usable(request.http.path_params["charger_id"])
        async with console.context.engine.connect() as db:
            view = await view_of(db, charger_id)
            plan, shown = await plans.get(db, charger_id), await plans.list_views(db, charger_id)
        ocpp = view.charger.protocol.startswith("ocpp")
        return console.page(
            "plan.html", request, view=view, plan=plan, shown=shown, ocpp=ocpp, now=console.context.now()
        )

    async def qr_code(self, console: Console, request: ConsoleRequest) -> Response:
        """Serve the QR code of a charger's rental page, at the host by which this console is reached or at `url`."""
        charger_id = usable(request.http.path_params["charger_id"])
        kind = request.http.path_params["kind"]
        await known(console.context, charger_id)
        if kind not in qr.MEDIA_TYPES:
            return console.problem(request, 404, f"There is no QR code in the format {kind!r}: svg or pdf.")
        base = request.http.query_params.get("url") or str(request.http.base_url)
        code = qr.code(qr.address(base[:200], charger_id), kind)
        return Response(code, media_type=qr.MEDIA_TYPES[kind])

    async def stream_charger(self, console: Console, request: ConsoleRequest) -> Response:
        charger_id = usable(request.http.path_params["charger_id"])
        await known(console.context, charger_id)
        return EventStream(self._live.stream_charger(request, charger_id))

    # --- transactions ----------------------------------------------------------------------------

    async def transactions(self, console: Console, request: ConsoleRequest) -> Response:
        query = request.http.query_params
        charger_id = storable(query.get("charger", "").strip()[:255])
        only = query.get("only", "")
        before = cursors.decode(query.get("cursor"), tuple[datetime, int])
        async with console.context.engine.connect() as db:
            found = await transaction_views.list_transactions(
                db,
                charger_id=charger_id or None,
                active={"running": True, "finished": False}.get(only),
                billing=only if only in {"held", "void"} else None,
                before=before,
                limit=console.page_size + 1,
            )
        sessions, next_cursor = cursors.cut(
            found, console.page_size, lambda s: (s.transaction.accounting_at, s.transaction.id)
        )
        return console.page(
            "transactions.html",
            request,
            sessions=sessions,
            charger_id=charger_id,
            only=only,
            next_cursor=next_cursor,
        )

    async def transaction(self, console: Console, request: ConsoleRequest) -> Response:
        transaction_id = request.http.path_params["transaction_id"]
        async with console.context.engine.connect() as db:
            session = await transaction_views.get_transaction(db, transaction_id)
            if session is None:
                return console.problem(request, 404, f"There is no transaction {transaction_id}.")
            t = session.transaction
            points = await transaction_views.plot_points(db, [t])
            events = await logs.events_of_transaction(
                db, t.charger_id, t.id, t.start_received_at - _EVENTS_BEFORE, 100
            )
        return console.page(
            "transaction.html",
            request,
            session=session,
            points=points[t.id],
            events=events,
            revisions=await revisions(console.context, t.id),
            stop_suspect=t.stopped_at is not None
            and t.stop_received_at is not None
            and is_suspect(t.stopped_at, t.stop_received_at),
        )

    # --- events, quarantine ----------------------------------------------------------------------

    async def events(self, console: Console, request: ConsoleRequest) -> Response:
        async with console.context.engine.connect() as db:
            parked = await outbox.list_parked(await driver_connection(db), console.page_size)
        return console.page("events.html", request, events=await self._live.recent_events(), parked=parked)

    async def stream_events(self, console: Console, request: ConsoleRequest) -> Response:
        return EventStream(self._live.stream_events(request))

    async def tariffs(self, console: Console, request: ConsoleRequest) -> Response:
        async with console.context.engine.connect() as db:
            tariff_views = await tariffs.list_tariffs(db)
            groups = await tariffs.list_groups(db)
        return console.page("tariffs.html", request, tariffs=tariff_views, groups=groups)

    async def quarantine(self, console: Console, request: ConsoleRequest) -> Response:
        resolved = request.http.query_params.get("resolved") == "true"
        deferred = request.http.query_params.get("deferred") == "true"
        async with console.context.engine.connect() as db:
            held = await logs.list_quarantine(
                db,
                resolved=resolved,
                deferred=deferred or None if resolved else deferred,
                limit=console.page_size,
            )
            waiting = await logs.count_quarantine(db, deferred=True)
        return console.page(
            "quarantine.html",
            request,
            held=held,
            resolved=resolved,
            deferred=deferred,
            waiting=waiting,
            repairable=REPAIRABLE_ACTIONS,
        )
