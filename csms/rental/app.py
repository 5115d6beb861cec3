"""The rental page as an ASGI application of its own, below /r/."""

import asyncio
import hmac
import time
from collections.abc import Awaitable, Callable
from datetime import timedelta
from decimal import Decimal
from typing import Any, Final
from urllib.parse import quote
from uuid import uuid4

import structlog
from jinja2 import Environment, PackageLoader, StrictUndefined
from msgspec import Struct
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from csms.adapter import Command, Node
from csms.api.access import digest_of, new_secret
from csms.api.deps import Api
from csms.console.app import Headers
from csms.core.currencies import minor_digits
from csms.db import accounts
from csms.errors import ChargerOffline, ChargerTimeout, CommandError
from csms.rental import words
from csms.rental.live import Watcher
from csms.rental.payments import Order, PaymentProvider
from csms.rental.requests import (
    LANGUAGE_COOKIE,
    OWN,
    VENDOR,
    address,
    amount_minor_of,
    asset,
    form_token_of,
    language_of,
    money,
    next_of,
    safe,
)
from csms.rental.shown import OPEN, STOP, Shown, shown

log = structlog.get_logger()
COOKIE: Final = "csms_rental"
_SESSION: Final = timedelta(days=30)
_PATIENCE_S: Final = 45.0
_A_COMMAND_S: Final = 1.0
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
    "TooOften": "not_now",
}

Place = tuple[str, str]


class Visit(Struct, frozen=True, kw_only=True):
    """A request of somebody who has signed in."""

    request: Request
    account: accounts.AccountView
    form_token: str
    language: str

    @property
    def uid(self) -> str:
        return self.account.account.id

    @property
    def charger_id(self) -> str:
        return str(self.request.path_params["charger_id"])

    @property
    def place(self) -> Place:
        return self.uid, self.charger_id


class Rental:
    """One for each node. What is under way lives here; what is true, in the database and at the station."""

    def __init__(self, api: Api, node: Node | None, *, provider: PaymentProvider | None = None) -> None:
        self.api = api
        self.provider = provider
        self.watcher = Watcher(node)
        self._pending: dict[Place, str] = {}
        self._notes: dict[Place, tuple[float, str]] = {}
        self._commanded: dict[str, float] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._templates = Environment(
            loader=PackageLoader("csms.rental"),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._templates.globals |= {"asset": asset, "clock": words.clock, "money": money, "address": address}

    async def run(self) -> None:
        await self.watcher.run()

    # --- pages -----------------------------------------------------------------------------------

    async def page(self, visit: Visit) -> Response:
        """A scan, or a reload: the station is asked how it is, as this user."""
        await self.watcher.look(visit.charger_id, visit.uid, anew=True)
        return await self._station(visit, whole=True)

    async def state(self, visit: Visit) -> Response:
        await self.watcher.look(visit.charger_id, visit.uid, anew=False)
        return await self._station(visit, whole=False)

    async def open(self, visit: Visit) -> Response:
        return await self._press(visit, OPEN)

    async def stop(self, visit: Visit) -> Response:
        return await self._press(visit, STOP)

    async def sign_out(self, visit: Visit) -> Response:
        async with self.api.engine.begin() as db:
            await accounts.forget_token(db, digest_of(visit.request.cookies[COOKIE]))
        answer = RedirectResponse(f"/r/sign-in?next={quote(next_of(visit.request))}", 303)
        answer.delete_cookie(COOKIE, path="/r")
        return answer

    async def _station(self, visit: Visit, *, whole: bool) -> Response:
        async with self.api.engine.connect() as db:
            view = await accounts.rental_view(db, visit.charger_id, visit.uid)
        if view is None:
            return self.problem(visit.language, 404, "no_station")
        now = self.api.now()
        what = shown(
            view,
            visit.account,
            self.watcher.figures(visit.charger_id),
            silent=self.watcher.silent(visit.charger_id),
            now=now,
            pending=self._pending.get(visit.place),
            note=self._note(visit.place),
        )
        return self._rendered(visit, view, what, whole=whole)

    def _rendered(self, visit: Visit, view: accounts.RentalView, what: Shown, *, whole: bool) -> Response:
        language = visit.language
        context = {
            "what": what,
            "view": view,
            "account": visit.account,
            "language": language,
            "t": lambda name: words.text(name, language),
            "form_token": visit.form_token,
            "may_pay": self.provider is not None,
            "charger_id": visit.charger_id,
        }
        if whole:
            return HTMLResponse(self._templates.get_template("station.html").render(context))
        if visit.request.query_params.get("seen") == what.key:
            # Only the numbers: a button that is being pressed is not taken away.
            text = self._templates.get_template("_numbers.html").render(context | {"oob": True})
            return HTMLResponse(text, headers={"HX-Reswap": "none"})
        return HTMLResponse(self._templates.get_template("_state.html").render(context))

    # --- buttons ---------------------------------------------------------------------------------

    async def _press(self, visit: Visit, button: str) -> Response:
        """Have it done, and answer at once: the page shows what comes of it, also over a slow link."""
        now = time.monotonic()
        hasty = now - self._commanded.get(visit.uid, -_A_COMMAND_S) < _A_COMMAND_S
        if visit.place not in self._pending and not hasty:
            self._commanded[visit.uid] = now
            command = await self._command(visit, button)
            if command is not None:
                self._notes.pop(visit.place, None)
                self._pending[visit.place] = button
                task = asyncio.create_task(self._perform(visit.place, command))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)
        if "hx-request" in visit.request.headers:
            return await self._station(visit, whole=False)
        return RedirectResponse(address(visit.charger_id), 303)

    async def _command(self, visit: Visit, button: str) -> Command | None:
        """What may be sent for this user: a stop only for a rental of their own."""
        if button == OPEN:
            payload: dict[str, Any] = {"idTag": visit.uid, "connectorId": 1}
            return Command(
                action="RemoteStartTransaction",
                payload=payload,
                timeout_s=_PATIENCE_S,
                requested_by=f"account {visit.uid}",
            )
        async with self.api.engine.connect() as db:
            view = await accounts.rental_view(db, visit.charger_id, visit.uid)
        if view is None or view.running is None or view.running.id_tag != visit.uid:
            return None
        return Command(
            action="RemoteStopTransaction",
            payload={"transactionId": view.running.id},
            timeout_s=_PATIENCE_S,
            requested_by=f"account {visit.uid}",
        )

    async def _perform(self, place: Place, command: Command) -> None:
        note: str | None = None
        try:
            answer = await self.api.send(place[1], command)
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
            self._notes[place] = (time.monotonic(), note)

    def _note(self, place: Place) -> str | None:
        at, note = self._notes.get(place, (0.0, ""))
        if note and time.monotonic() - at < _NOTED_S:
            return note
        self._notes.pop(place, None)
        return None

    # --- money -----------------------------------------------------------------------------------

    async def top_up(self, visit: Visit) -> Response:
        """Off to the payment provider; the money is entered when the provider says that it was paid."""
        account = visit.account.account
        amount_minor = amount_minor_of(str((await visit.request.form()).get("amount", "")), account.currency)
        if self.provider is None or amount_minor is None:
            return self.problem(visit.language, 422, "gone_wrong")
        payment_id = uuid4().hex
        async with self.api.engine.begin() as db:
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
            return self.problem(visit.language, 503, "gone_wrong")

    async def paid(self, request: Request) -> Response:
        """The provider's report; told again, it changes nothing more."""
        if self.provider is None or request.path_params["provider"] != self.provider.name:
            return Response(status_code=404)
        outcome = await self.provider.outcome(dict(request.headers), await request.body())
        if outcome is None:
            return Response(status_code=403)
        if outcome.paid is None:
            return Response(status_code=204)
        async with self.api.engine.begin() as db:
            known = await accounts.settle_payment(
                db, outcome.payment_id, self.provider.name, paid=outcome.paid, now=self.api.now()
            )
        return Response(status_code=204 if known else 404)

    # --- who is there ----------------------------------------------------------------------------

    def guarded(self, handler: Callable[[Visit], Awaitable[Response]]) -> Any:
        """Only for those who have signed in; POST only with this session's form token."""

        async def endpoint(request: Request) -> Response:
            language = language_of(request)
            secret = request.cookies.get(COOKIE, "")
            account = None
            if secret:
                async with self.api.engine.connect() as db:
                    account = await accounts.session(db, digest_of(secret), self.api.now())
            if account is None:
                return self._to_sign_in(request)
            visit = Visit(
                request=request, account=account, form_token=form_token_of(secret), language=language
            )
            if request.method == "POST":
                form = await request.form()
                if not hmac.compare_digest(str(form.get("csrf", "")).encode(), visit.form_token.encode()):
                    return self.problem(language, 403, "gone_wrong")
            answer = await handler(visit)
            if "lang" in request.query_params:
                answer.set_cookie(LANGUAGE_COOKIE, language, path="/r", samesite="lax")
            return answer

        return endpoint

    @staticmethod
    def _to_sign_in(request: Request) -> Response:
        path = f"/r/sign-in?next={quote(request.url.path)}"
        if "hx-request" in request.headers:
            return Response(status_code=401, headers={"HX-Redirect": path})
        return RedirectResponse(path, 303)

    async def show_sign_in(self, request: Request) -> Response:
        """A form: whoever only looks at the link, as previews do, does not use it up."""
        return self._sign_in_page(request, token=request.query_params.get("token", ""))

    async def sign_in(self, request: Request) -> Response:
        form = await request.form()
        now = self.api.now()
        secret = new_secret()
        async with self.api.engine.begin() as db:
            account_id = await accounts.use_link(db, digest_of(str(form.get("token", "")).strip()), now)
            if account_id is not None:
                await accounts.forget_tokens(db, now)
                await accounts.add_token(db, account_id, accounts.SESSION, digest_of(secret), now + _SESSION)
        if account_id is None:
            return self._sign_in_page(request, wrong=True, status=403)
        answer = RedirectResponse(safe(str(form.get("next", ""))), 303)
        answer.set_cookie(
            COOKIE,
            secret,
            max_age=int(_SESSION.total_seconds()),
            path="/r",
            httponly=True,
            samesite="lax",
            secure=request.url.scheme == "https",
        )
        return answer

    def _sign_in_page(
        self, request: Request, *, token: str = "", wrong: bool = False, status: int = 200
    ) -> Response:
        language = language_of(request)
        text = self._templates.get_template("sign_in.html").render(
            t=lambda name: words.text(name, language),
            language=language,
            token=token,
            wrong=wrong,
            next=safe(next_of(request)),
        )
        return HTMLResponse(text, status)

    def problem(self, language: str, status: int, message: str) -> Response:
        text = self._templates.get_template("problem.html").render(
            t=lambda name: words.text(name, language), language=language, message=message
        )
        return HTMLResponse(text, status)


def create_rental(rental: Rental) -> Starlette:
    """Pages for renters: everything below /r/."""

    def page(path: str, handler: Callable[[Visit], Awaitable[Response]], method: str = "GET") -> Route:
        return Route(path, rental.guarded(handler), methods=[method])

    async def not_found(request: Request, _error: Exception) -> Response:
        return rental.problem(language_of(request), 404, "no_station")

    async def failed(request: Request, error: Exception) -> Response:
        log.error("rental page failed", path=request.url.path, error=str(error), exc_info=error)
        return rental.problem(language_of(request), 503, "gone_wrong")

    return Starlette(
        routes=[
            Route("/r/sign-in", rental.show_sign_in, methods=["GET"]),
            Route("/r/sign-in", rental.sign_in, methods=["POST"]),
            page("/r/sign-out", rental.sign_out, "POST"),
            page("/r/top-up", rental.top_up, "POST"),
            Route("/r/payments/{provider}", rental.paid, methods=["POST"]),
            Mount("/r/static/vendor", StaticFiles(directory=VENDOR)),
            Mount("/r/static", StaticFiles(directory=OWN)),
            page("/r/{charger_id}", rental.page),
            page("/r/{charger_id}/state", rental.state),
            page("/r/{charger_id}/open", rental.open, "POST"),
            page("/r/{charger_id}/stop", rental.stop, "POST"),
        ],
        middleware=[Middleware(Headers), Middleware(GZipMiddleware, minimum_size=700)],
        exception_handlers={404: not_found, Exception: failed},
    )
