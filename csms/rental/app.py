"""The rental page as an ASGI application of its own, to be mounted below /r/."""

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
from csms.aio import TaskSet
from csms.core.currencies import minor_digits
from csms.db import accounts
from csms.db.outages import DATABASE_ERRORS, is_away, reason
from csms.errors import ChargerOffline, ChargerTimeout, CommandError
from csms.rental.command_limit import CommandLimiter
from csms.rental.page_state import OPEN, STOP, PageState, page_state
from csms.rental.payments import PaymentOrder, PaymentProvider
from csms.rental.requests import (
    RentalKey,
    RentalRequest,
    next_path,
    parse_amount_minor,
    safe_path,
    wants_json,
)
from csms.rental.responses import RENTAL_FILES, RentalRefusal, RentalTemplates, page_address, state_json
from csms.rental.sign_in import RentalLogin
from csms.rental.station_watch import StationWatcher
from csms.service.context import ServiceContext
from csms.service.security_headers import SecurityHeaders

log = structlog.get_logger()
_COMMAND_TIMEOUT_S: Final = 45.0
_FAILURE_SHOWN_S: Final = 30.0
# The message for each reason with which a bridge rejects a command (statusInfo.reasonCode).
_MESSAGES: Final = {
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


class RentalPage:
    """The rental page of one node.

    It holds the commands under way and the messages of those that failed; everything else is in the database and at
    the station.
    """

    def __init__(
        self,
        context: ServiceContext,
        *,
        provider: PaymentProvider | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.watcher = StationWatcher(context.node, clock=clock)
        self.templates = RentalTemplates()
        self.login = RentalLogin(context, self.templates)
        self.pending: dict[RentalKey, str] = {}  # the button whose command is under way
        self._context = context
        self._provider = provider
        self._clock = clock
        self._limiter = CommandLimiter(clock=clock)
        self._failures: dict[RentalKey, tuple[float, str]] = {}
        self._tasks = TaskSet()

    async def run(self) -> None:
        """Receive the status of the stations whose pages are open, until cancelled."""
        await self.watcher.run()

    # --- pages -----------------------------------------------------------------------------------

    async def page(self, request: RentalRequest) -> Response:
        """Show the whole page, and have the station asked for its status as this user."""
        again = "again" in request.http.query_params  # the page reloads itself where scripts are off
        view = await self._view(request)
        await self.watcher.watch(request.charger_id, request.uid, anew=not again)
        return self._station(request, view, whole=True)

    async def state(self, request: RentalRequest) -> Response:
        """Show the part of the page that changes."""
        view = await self._view(request)
        await self.watcher.watch(request.charger_id, request.uid, anew=False)
        return self._station(request, view)

    async def open(self, request: RentalRequest) -> Response:
        return await self._press(request, OPEN)

    async def stop(self, request: RentalRequest) -> Response:
        return await self._press(request, STOP)

    async def _view(self, request: RentalRequest) -> accounts.RentalView:
        async with self._context.engine.connect() as db:
            view = await accounts.rental_view(db, request.charger_id, request.uid)
        if view is None:
            raise RentalRefusal(404, "no_station")
        return view

    def _station(
        self,
        request: RentalRequest,
        view: accounts.RentalView,
        *,
        whole: bool = False,
        message: str | None = None,
    ) -> Response:
        state = page_state(
            view,
            request.account,
            self.watcher.station(request.charger_id, request.uid),
            now=self._context.now(),
            pending=self.pending.get(request.key),
            failure=message or self._failure(request.key),
        )
        if wants_json(request.http):
            return state_json(state, request.account.money, request.language)
        return self._rendered(request, view, state, whole=whole)

    def _rendered(
        self, request: RentalRequest, view: accounts.RentalView, state: PageState, *, whole: bool
    ) -> Response:
        values = {
            "page": state,
            "view": view,
            "account": request.account,
            "form_token": request.form_token,
            "may_pay": self._provider is not None,
            "charger_id": request.charger_id,
        }
        if whole:
            return self.templates.page("station.html", request.language, **values)
        if request.http.query_params.get("seen") == state.key:
            # Only the numbers: replacing the form would take away a button while it is pressed.
            text = self.templates.text("_numbers.html", request.language, **values, oob=True)
            return HTMLResponse(text, headers={"HX-Reswap": "none"})
        return self.templates.page("_state.html", request.language, **values)

    # --- buttons ---------------------------------------------------------------------------------

    async def _press(self, request: RentalRequest, button: str) -> Response:
        """Start the button's command and answer at once: the page shows what comes of it, also over a slow link."""
        view = await self._view(request)
        try:
            self._start(request, view, button)
        except RentalRefusal as refusal:
            if "hx-request" not in request.http.headers:
                raise
            answer = self._station(request, view, message=refusal.message)
            answer.status_code = refusal.status
            answer.headers.update(refusal.headers)
            return answer
        if "hx-request" in request.http.headers:
            return self._station(request, view)
        if wants_json(request.http):
            return JSONResponse({"pending": self.pending.get(request.key)}, 202)
        return RedirectResponse(page_address(request.charger_id), 303)

    def _start(self, request: RentalRequest, view: accounts.RentalView, button: str) -> None:
        """Start the command, unless one is under way: a second tap changes nothing. Raises RentalRefusal."""
        if request.key in self.pending:
            return
        command = self._command(request, view, button)
        if (wait_s := self._limiter.wait_s(request.uid)) > 0:
            raise RentalRefusal(429, "too_often", retry_after_s=wait_s)
        if command is None:
            return
        self._failures.pop(request.key, None)
        self.pending[request.key] = button
        self._tasks.spawn(self._perform(request.key, command), f"rental {command.action}")

    @staticmethod
    def _command(request: RentalRequest, view: accounts.RentalView, button: str) -> Command | None:
        """Return what this user may send: a stop only for their own rental. None: the rental has ended already."""
        if button == OPEN:
            action, payload = "RemoteStartTransaction", {"idTag": request.uid, "connectorId": 1}
        elif view.running is None:
            return None
        elif view.running.id_tag != request.uid:
            raise RentalRefusal(403, "M1")
        else:
            action, payload = "RemoteStopTransaction", {"transactionId": view.running.id}
        return Command(
            action=action,
            payload=payload,
            timeout_s=_COMMAND_TIMEOUT_S,
            requested_by=f"account {request.uid}",
        )

    async def _perform(self, key: RentalKey, command: Command) -> None:
        message: str | None = None
        _, charger_id = key
        try:
            answer = await self._context.node.send(charger_id, command)
            if answer.get("status") != "Accepted":
                code = (answer.get("statusInfo") or {}).get("reasonCode", "")
                message = _MESSAGES.get(code, "gone_wrong")
        except (ChargerOffline, ChargerTimeout):
            message = "M2"
        except Exception as error:
            message = "gone_wrong"
            log.warning(
                "rental_command_failed",
                charger=charger_id,
                action=command.action,
                error=str(error),
                exc_info=not isinstance(error, CommandError),
            )
        finally:
            self.pending.pop(key, None)
        if message is not None:
            self._failures[key] = (self._clock(), message)

    def _failure(self, key: RentalKey) -> str | None:
        """Return the message of this user's last command, while it is to be shown."""
        at, message = self._failures.get(key, (0.0, ""))
        if message and self._clock() - at < _FAILURE_SHOWN_S:
            return message
        self._failures.pop(key, None)
        return None

    # --- money -----------------------------------------------------------------------------------

    async def top_up(self, request: RentalRequest) -> Response:
        """Send the renter to the payment provider. The money is entered when the provider reports it as paid."""
        account, form = request.account.account, await request.http.form()
        amount_minor = parse_amount_minor(str(form.get("amount", "")), account.currency)
        if self._provider is None or amount_minor is None:
            raise RentalRefusal(422, "gone_wrong")
        payment_id = uuid4().hex
        async with self._context.engine.begin() as db:
            await accounts.begin_payment(db, payment_id, account.id, self._provider.name, amount_minor)
        back = safe_path(next_path(request.http))
        order = PaymentOrder(
            payment_id=payment_id,
            amount=Decimal(amount_minor).scaleb(-minor_digits(account.currency)),
            currency=account.currency,
            return_url=str(request.http.base_url).rstrip("/") + back,
        )
        try:
            return RedirectResponse(await self._provider.begin(order), 303)
        except Exception:
            log.exception("payment_begin_failed", provider=self._provider.name)
            raise RentalRefusal(503, "gone_wrong") from None

    async def paid(self, request: Request) -> Response:
        """Take a report of the payment provider. A repeated report changes nothing."""
        if self._provider is None or request.path_params["provider"] != self._provider.name:
            return Response(status_code=404)
        outcome = await self._provider.outcome(dict(request.headers), await request.body())
        if outcome is None:
            return Response(status_code=403)
        if outcome.paid is None:
            return Response(status_code=204)
        async with self._context.engine.begin() as db:
            known = await accounts.settle_payment(
                db, outcome.payment_id, self._provider.name, paid=outcome.paid, now=self._context.now()
            )
        return Response(status_code=204 if known else 404)


def create_rental(rental: RentalPage) -> Starlette:
    """Return the rental page's application, to be mounted below /r."""
    login = rental.login

    def page(
        path: str, handler: Callable[[RentalRequest], Awaitable[Response]], method: str = "GET"
    ) -> Route:
        return Route(path, login.guarded(handler), methods=[method])

    async def not_found(request: Request, _error: Exception) -> Response:
        return rental.templates.problem(request, RentalRefusal(404, "no_station"))

    async def refused(request: Request, error: Any) -> Response:
        return rental.templates.problem(request, error)

    async def failed(request: Request, error: Exception) -> Response:
        if is_away(error):
            log.warning("request_without_database", error=reason(error))
        else:
            log.error("rental_page_failed", path=request.url.path, error=str(error), exc_info=error)
        return rental.templates.problem(request, RentalRefusal(503, "gone_wrong"))

    return Starlette(
        routes=[
            Route("/sign-in", login.show_sign_in, methods=["GET"]),
            Route("/sign-in", login.sign_in, methods=["POST"]),
            page("/sign-out", login.sign_out, "POST"),
            page("/top-up", rental.top_up, "POST"),
            Route("/payments/{provider}", rental.paid, methods=["POST"]),
            *RENTAL_FILES.routes(),
            page("/{charger_id:segment}", rental.page),
            page("/{charger_id:segment}/state", rental.state),
            page("/{charger_id:segment}/open", rental.open, "POST"),
            page("/{charger_id:segment}/stop", rental.stop, "POST"),
        ],
        middleware=[Middleware(SecurityHeaders), Middleware(GZipMiddleware, minimum_size=700)],
        exception_handlers={
            404: not_found,
            RentalRefusal: refused,
            **dict.fromkeys((*DATABASE_ERRORS, Exception), failed),
        },
    )
