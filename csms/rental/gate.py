"""Who is there: one-time links, sessions in a cookie or (for apps) as a bearer token, and the guard before each page."""

import hmac
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any, Final
from urllib.parse import quote

from msgspec import Struct
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response

from csms.db import accounts
from csms.rental.answers import Pages, Refusal, wants_json
from csms.rental.requests import LANGUAGE_COOKIE, form_token_of, language_of, next_of, safe
from csms.service.access import digest_of, new_secret
from csms.service.context import ServiceContext

COOKIE: Final = "csms_rental"
_SESSION: Final = timedelta(days=30)
Place = tuple[str, str]


class Visit(Struct, frozen=True, kw_only=True):
    """A request of somebody who has signed in."""

    request: Request
    account: accounts.AccountView
    secret: str
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

    @property
    def form_token(self) -> str:
        return form_token_of(self.secret)


class Gate:
    def __init__(self, context: ServiceContext, pages: Pages) -> None:
        self._context = context
        self._pages = pages

    def guarded(self, handler: Callable[[Visit], Awaitable[Response]]) -> Any:
        """Only for those who have signed in; POST by cookie only with this session's form token."""

        async def endpoint(request: Request) -> Response:
            scheme, _, given = request.headers.get("authorization", "").partition(" ")
            bearer = given.strip() if scheme.lower() == "bearer" else ""
            secret = bearer or request.cookies.get(COOKIE, "")
            account = None
            if secret:
                async with self._context.engine.connect() as db:
                    account = await accounts.signed_in_account(db, digest_of(secret), self._context.now())
            if account is None:
                return self._to_sign_in(request)
            visit = Visit(request=request, account=account, secret=secret, language=language_of(request))
            # No other site can have a browser send a bearer token.
            if request.method == "POST" and not bearer:
                form = await request.form()
                if not hmac.compare_digest(str(form.get("csrf", "")).encode(), visit.form_token.encode()):
                    raise Refusal(403, "gone_wrong")
            answer = await handler(visit)
            if "lang" in request.query_params:
                answer.set_cookie(LANGUAGE_COOKIE, visit.language, path="/r", samesite="lax")
            return answer

        return endpoint

    @staticmethod
    def _to_sign_in(request: Request) -> Response:
        if wants_json(request):
            raise Refusal(401, "sign_in_hint")
        path = f"/r/sign-in?next={quote(request.url.path)}"
        if "hx-request" in request.headers:
            return Response(status_code=401, headers={"HX-Redirect": path})
        return RedirectResponse(path, 303)

    async def show_sign_in(self, request: Request) -> Response:
        """A form: whoever only looks at the link, as previews do, does not use it up."""
        return self._page(request, token=request.query_params.get("token", ""))

    async def sign_in(self, request: Request) -> Response:
        form = await request.form()
        now = self._context.now()
        secret = new_secret()
        async with self._context.engine.begin() as db:
            account_id = await accounts.use_link(db, digest_of(str(form.get("token", "")).strip()), now)
            if account_id is not None:
                await accounts.forget_tokens(db, now)
                await accounts.add_token(db, account_id, accounts.SESSION, digest_of(secret), now + _SESSION)
        if account_id is None:
            if wants_json(request):
                raise Refusal(403, "bad_code")
            return self._page(request, wrong=True, status=403)
        if wants_json(request):
            return JSONResponse({"token": secret, "expiresAt": (now + _SESSION).isoformat()})
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

    async def sign_out(self, visit: Visit) -> Response:
        async with self._context.engine.begin() as db:
            await accounts.forget_token(db, digest_of(visit.secret))
        if wants_json(visit.request):
            return Response(status_code=204)
        answer = RedirectResponse(f"/r/sign-in?next={quote(next_of(visit.request))}", 303)
        answer.delete_cookie(COOKIE, path="/r")
        return answer

    def _page(self, request: Request, *, token: str = "", wrong: bool = False, status: int = 200) -> Response:
        return self._pages.page(
            "sign_in.html",
            language_of(request),
            status,
            token=token,
            wrong=wrong,
            next=safe(next_of(request)),
        )
