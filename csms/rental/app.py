"""The rental page as an ASGI application of its own, below /r/."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from decimal import Decimal
from typing import Any, Final
from uuid import uuid4

import structlog
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response
from starlette.routing import Route

from csms.adapter import Command
from csms.core.currencies import minor_digits
from csms.db import accounts
from csms.db.outages import DATABASE_ERRORS, is_away, reason
from csms.errors import ChargerOffline, ChargerTimeout, CommandError
from csms.rental.answers import Pages, Refusal, in_json, wants_json
from csms.rental.gate import Gate, Place, Visit
from csms.rental.limits import Limiter
from csms.rental.live import Watcher
from csms.rental.page_state import OPEN, STOP, Shown, shown
from csms.rental.payments import Order, PaymentProvider
from csms.rental.requests import FILES, address, amount_minor_of, next_of, safe
from csms.service.context import ServiceContext
from csms.service.security_headers import SecurityHeaders

log = structlog.get_logger()
_PATIENCE_S: Final = 45.0
_NOTED_S: Final = 30.0
_NOTES: Final = {
    "NoMoney": "M5",
    "OtherCurrency": "M5",
    "Occupied": "M1",
    "RentsElsewhere": "elsewhere",
    "NoReaction": "M2",
    "NoAccount": "no_account",
    "Blocked": "not_now",
    "Inoperative": "not_now",
    "Faulted": "not_now",
    "TooOften": "too_often",
}


class Rental:
    """One for each node. What is under way lives here; what is true, in the database and at the station."""

    def __init__(
        self,
        context: ServiceContext,
        *,
        provider: PaymentProvider | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.context = context
        self.provider = provider
        self.clock = clock
        self.watcher = Watcher(context.node, clock=clock)
        self.pages = Pages()
        self.gate = Gate(context, self.pages)
        self.limiter = Limiter(clock=clock)
        self._pending: dict[Place, str] = {}
        self._notes: dict[Place, tuple[float, str]] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        await self.watcher.run()

    # --- pages -----------------------------------------------------------------------------------

    async def page(self, visit: Visit) -> Response:
        """A scan, or a reload: the station is asked how it is, as this user."""
        again = "again" in visit.request.query_params  # without script the page only comes again
        view = await self._view(visit)
        await self.watcher.look(visit.charger_id, visit.uid, anew=not again)
        return self._station(visit, view, whole=True)

    async def state(self, visit: Visit) -> Response:
        view = await self._view(visit)
        await self.watcher.look(visit.charger_id, visit.uid, anew=False)
        return self._station(visit, view)

    async def open(self, visit: Visit) -> Response:
        return await self._press(visit, OPEN)

    async def stop(self, visit: Visit) -> Response:
        return await self._press(visit, STOP)

    async def _view(self, visit: Visit) -> accounts.RentalView:
        async with self.context.engine.connect() as db:
            view = await accounts.rental_view(db, visit.charger_id, visit.uid)
        if view is None:
            raise Refusal(404, "no_station")
        return view

    def _station(
        self, visit: Visit, view: accounts.RentalView, *, whole: bool = False, note: str | None = None
    ) -> Response:
        what = shown(
            view,
            visit.account,
            self.watcher.sight(visit.charger_id, visit.uid),
            now=self.context.now(),
            pending=self._pending.get(visit.place),
            note=note or self._note(visit.place),
        )
        if wants_json(visit.request):
            return in_json(what, visit.account.money, visit.language)
        return self._rendered(visit, view, what, whole=whole)

    def _rendered(self, visit: Visit, view: accounts.RentalView, what: Shown, *, whole: bool) -> Response:
        context = {
            "what": what,
            "view": view,
            "account": visit.account,
            "form_token": visit.form_token,
            "may_pay": self.provider is not None,
            "charger_id": visit.charger_id,
        }
        if whole:
            return self.pages.page("station.html", visit.language, **context)
        if visit.request.query_params.get("seen") == what.key:
            # Only the numbers: a button that is being pressed is not taken away.
            text = self.pages.text("_numbers.html", visit.language, **context, oob=True)
            return HTMLResponse(text, headers={"HX-Reswap": "none"})
        return self.pages.page("_state.html", visit.language, **context)

    # --- buttons ---------------------------------------------------------------------------------

    async def _press(self, visit: Visit, button: str) -> Response:
        """Have it done, and answer at once: the page shows what comes of it, also over a slow link."""
        view = await self._view(visit)
        try:
            self._begin(visit, view, button)
        except Refusal as refusal:
            if "hx-request" not in visit.request.headers:
                raise
            answer = self._station(visit, view, note=refusal.message)
            answer.status_code = refusal.status
            answer.headers.update(refusal.headers)
            return answer
        if "hx-request" in visit.request.headers:
            return self._station(visit, view)
        if wants_json(visit.request):
            return JSONResponse({"pending": self._pending.get(visit.place)}, 202)
        return RedirectResponse(address(visit.charger_id), 303)

    def _begin(self, visit: Visit, view: accounts.RentalView, button: str) -> None:
        """A second tap while the first is under way changes nothing. Raises Refusal."""
        if visit.place in self._pending:
            return
        command = self._command(visit, view, button)
        if (wait_s := self.limiter.wait_s(visit.uid)) > 0:
            raise Refusal(429, "too_often", retry_after_s=wait_s)
        if command is None:
            return
        self._notes.pop(visit.place, None)
        self._pending[visit.place] = button
        task = asyncio.create_task(self._perform(visit.place, command))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    @staticmethod
    def _command(visit: Visit, view: accounts.RentalView, button: str) -> Command | None:
        """What may be sent for this user: a stop only for a rental of their own. None: it has ended already."""
        if button == OPEN:
            action, payload = "RemoteStartTransaction", {"idTag": visit.uid, "connectorId": 1}
        elif view.running is None:
            return None
        elif view.running.id_tag != visit.uid:
            raise Refusal(403, "M1")
        else:
            action, payload = "RemoteStopTransaction", {"transactionId": view.running.id}
        return Command(
            action=action, payload=payload, timeout_s=_PATIENCE_S, requested_by=f"account {visit.uid}"
        )

    async def _perform(self, place: Place, command: Command) -> None:
        note: str | None = None
        try:
            answer = await self.context.node.send(place[1], command)
            if answer.get("status") != "Accepted":
                reason = (answer.get("statusInfo") or {}).get("reasonCode", "")
                note = _NOTES.get(reason, "gone_wrong")
        except (ChargerOffline, ChargerTimeout):
            note = "M2"
        except CommandError as error:
            log.warning("rental command failed", charger=place[1], action=command.action, error=str(error))
            note = "gone_wrong"
        except Exception:
            log.exception("rental command failed", charger=place[1], action=command.action)
            note = "gone_wrong"
        finally:
            self._pending.pop(place, None)
        if note is not None:
            self._notes[place] = (self.clock(), note)

    def _note(self, place: Place) -> str | None:
        at, note = self._notes.get(place, (0.0, ""))
        if note and self.clock() - at < _NOTED_S:
            return note
        self._notes.pop(place, None)
        return None

    # --- money -----------------------------------------------------------------------------------

    async def top_up(self, visit: Visit) -> Response:
        """Off to the payment provider; the money is entered when the provider says that it was paid."""
        account = visit.account.account
        amount_minor = amount_minor_of(str((await visit.request.form()).get("amount", "")), account.currency)
        if self.provider is None or amount_minor is None:
            raise Refusal(422, "gone_wrong")
        payment_id = uuid4().hex
        async with self.context.engine.begin() as db:
            await accounts.begin_payment(db, payment_id, account.id, self.provider.name, amount_minor)
        back = safe(next_of(visit.request))
        order = Order(
            payment_id=payment_id,
            amount=Decimal(amount_minor).scaleb(-minor_digits(account.currency)),
            currency=account.currency,
            return_url=str(visit.request.base_url).rstrip("/") + back,
        )
        try:
            return RedirectResponse(await self.provider.begin(order), 303)
        except Exception:
            log.exception("payment not begun", provider=self.provider.name)
            raise Refusal(503, "gone_wrong") from None

    async def paid(self, request: Request) -> Response:
        """The provider's report; told again, it changes nothing more."""
        if self.provider is None or request.path_params["provider"] != self.provider.name:
            return Response(status_code=404)
        outcome = await self.provider.outcome(dict(request.headers), await request.body())
        if outcome is None:
            return Response(status_code=403)
        if outcome.paid is None:
            return Response(status_code=204)
        async with self.context.engine.begin() as db:
            known = await accounts.settle_payment(
                db, outcome.payment_id, self.provider.name, paid=outcome.paid, now=self.context.now()
            )
        return Response(status_code=204 if known else 404)


def create_rental(rental: Rental) -> Starlette:
    """Pages for renters, to be mounted below /r."""
    gate = rental.gate

    def page(path: str, handler: Callable[[Visit], Awaitable[Response]], method: str = "GET") -> Route:
        return Route(path, gate.guarded(handler), methods=[method])

    async def not_found(request: Request, _error: Exception) -> Response:
        return rental.pages.problem(request, Refusal(404, "no_station"))

    async def refused(request: Request, error: Any) -> Response:
        return rental.pages.problem(request, error)

    async def failed(request: Request, error: Exception) -> Response:
        if is_away(error):
            log.warning("request_without_database", error=reason(error))
        else:
            log.error("rental page failed", path=request.url.path, error=str(error), exc_info=error)
        return rental.pages.problem(request, Refusal(503, "gone_wrong"))

    return Starlette(
        routes=[
            Route("/sign-in", gate.show_sign_in, methods=["GET"]),
            Route("/sign-in", gate.sign_in, methods=["POST"]),
            page("/sign-out", gate.sign_out, "POST"),
            page("/top-up", rental.top_up, "POST"),
            Route("/payments/{provider}", rental.paid, methods=["POST"]),
            *FILES.routes(),
            page("/{charger_id}", rental.page),
            page("/{charger_id}/state", rental.state),
            page("/{charger_id}/open", rental.open, "POST"),
            page("/{charger_id}/stop", rental.stop, "POST"),
        ],
        middleware=[Middleware(SecurityHeaders), Middleware(GZipMiddleware, minimum_size=700)],
        exception_handlers={
            404: not_found,
            Refusal: refused,
            **dict.fromkeys((*DATABASE_ERRORS, Exception), failed),
        },
    )
