"""Signing in with a one-time link, sessions in a cookie or (for apps) as a bearer token, and the guard of the pages."""

import hmac
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any, Final
from urllib.parse import quote

from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response

from csms.db import accounts
from csms.rental.requests import (
    LANGUAGE_COOKIE,
    RentalRequest,
    next_path,
    request_language,
    safe_path,
    wants_json,
)
from csms.rental.responses import RentalRefusal, RentalTemplates
from csms.service.access import digest_of, new_secret
from csms.service.client_requests import address_of, from_another_site
from csms.service.context import ServiceContext

_COOKIE: Final = "csms_rental"
_SESSION: Final = timedelta(days=30)
_MOST_BYTES: Final = 16 * 1024


class RentalLogin:
    """Tells which account a request is of."""

    def __init__(self, context: ServiceContext, templates: RentalTemplates) -> None:
        self._context = context
        self._templates = templates

    def guarded(self, handler: Callable[[RentalRequest], Awaitable[Response]]) -> Any:
        """Return an endpoint that calls `handler` for signed-in renters; a POST by cookie needs the form token."""

        async def endpoint(http: Request) -> Response:
            scheme, _, given = http.headers.get("authorization", "").partition(" ")
            bearer = given.strip() if scheme.lower() == "bearer" else ""
            secret = bearer or http.cookies.get(_COOKIE, "")
            account = None
            if secret:
                async with self._context.engine.connect() as db:
                    account = await accounts.signed_in_account(db, digest_of(secret), self._context.now())
            if account is None:
                if bearer:
                    self._count_wrong(http)
                return self._to_sign_in(http)
            request = RentalRequest(
                http=http, account=account, secret=secret, language=request_language(http)
            )
            # No other site can make a browser send a bearer token.
            if http.method == "POST" and not bearer:
                form = await http.form()
                if from_another_site(http) or not hmac.compare_digest(
                    str(form.get("csrf", "")).encode(), request.form_token.encode()
                ):
                    raise RentalRefusal(403, "gone_wrong")
            answer = await handler(request)
            if "lang" in http.query_params:
                answer.set_cookie(LANGUAGE_COOKIE, request.language, path="/r", samesite="lax")
            return answer

        return endpoint

    def _count_wrong(self, request: Request) -> None:
        """Count a wrong token. Raises RentalRefusal where its address has sent too many."""
        wait_s = self._context.wrong_tokens.add(address_of(request))
        if wait_s is not None:
            raise RentalRefusal(429, "too_often", retry_after_s=wait_s)

    @staticmethod
    def _to_sign_in(request: Request) -> Response:
        if wants_json(request):
            raise RentalRefusal(401, "sign_in_hint")
        path = f"/r/sign-in?next={quote(request.url.path)}"
        if "hx-request" in request.headers:
            return Response(status_code=401, headers={"HX-Redirect": path})
        return RedirectResponse(path, 303)

    async def show_sign_in(self, request: Request) -> Response:
        """Show the form. Reading the link, as a messenger's preview does, does not use it up."""
        return self._page(request, token=request.query_params.get("token", ""))

    async def sign_in(self, request: Request) -> Response:
        """Use up the link's token and begin a session: a cookie for browsers, a token in JSON for apps."""
        if from_another_site(request):
            raise RentalRefusal(403, "gone_wrong")
        form = await request.form(max_part_size=_MOST_BYTES)
        now = self._context.now()
        secret = new_secret()
        async with self._context.engine.begin() as db:
            account_id = await accounts.use_link(db, digest_of(str(form.get("token", "")).strip()), now)
            if account_id is not None:
                await accounts.forget_tokens(db, now)
                await accounts.add_token(db, account_id, accounts.SESSION, digest_of(secret), now + _SESSION)
        if account_id is None:
            self._count_wrong(request)
            if wants_json(request):
                raise RentalRefusal(403, "bad_code")
            return self._page(request, wrong=True, status=403)
        if wants_json(request):
            return JSONResponse({"token": secret, "expiresAt": (now + _SESSION).isoformat()})
        answer = RedirectResponse(safe_path(str(form.get("next", ""))), 303)
        answer.set_cookie(
            _COOKIE,
            secret,
            max_age=int(_SESSION.total_seconds()),
            path="/r",
            httponly=True,
            samesite="lax",
            secure=request.url.scheme == "https",
        )
        return answer

    async def sign_out(self, request: RentalRequest) -> Response:
        """End the session."""
        async with self._context.engine.begin() as db:
            await accounts.forget_token(db, digest_of(request.secret))
        if wants_json(request.http):
            return Response(status_code=204)
        answer = RedirectResponse(f"/r/sign-in?next={quote(next_path(request.http))}", 303)
        answer.delete_cookie(_COOKIE, path="/r")
        return answer

    def _page(self, request: Request, *, token: str = "", wrong: bool = False, status: int = 200) -> Response:
        return self._templates.page(
            "sign_in.html",
            request_language(request),
            status,
            token=token,
            wrong=wrong,
            next=safe_path(next_path(request)),
        )
