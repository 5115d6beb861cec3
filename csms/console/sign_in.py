"""Signing in with an API token, and signing out."""

from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from csms.console import sessions
from csms.console.base import Console, ConsoleRequest
from csms.service.client_requests import address_of, from_another_site

_MOST_BYTES = 16 * 1024


async def sign_in_page(console: Console, request: Request) -> Response:
    return _form(console, request.query_params.get("next", ""), "")


async def sign_in(console: Console, request: Request) -> Response:
    """Begin a session for the token in the form."""
    if from_another_site(request):
        return _form(console, "", "This form was sent by another site. Sign in here.", status=403)
    form = await request.form(max_part_size=_MOST_BYTES)
    identity = await console.context.access.identify(str(form.get("token", "")).strip())
    following = str(form.get("next", ""))
    if identity is None:
        wait_s = console.context.wrong_tokens.add(address_of(request))
        if wait_s is not None:
            sentence = f"Too many wrong tokens from this address. Try again in {wait_s} seconds."
            return _form(console, following, sentence, status=429, headers={"Retry-After": str(wait_s)})
        sentence = "This token is unknown, has been revoked or has expired."
        return _form(console, following, sentence, status=401)
    # Only to an address of this site: browsers take `//host` and `/\host` for another one.
    own = following.startswith("/") and not following.startswith(("//", "/\\"))
    response = RedirectResponse(following if own else "/", 303)
    secret = await console.context.access.begin_session(identity)
    sessions.set_cookie(response, secret, secure=request.url.scheme == "https")
    return response


async def sign_out(console: Console, request: ConsoleRequest) -> Response:
    """End the session, on the server and in the browser."""
    await console.context.access.end_session(request.session.secret)
    response = RedirectResponse("/sign-in", 303)
    sessions.delete_cookie(response)
    return response


def _form(
    console: Console,
    following: str,
    wrong: str,
    *,
    status: int = 200,
    headers: dict[str, str] | None = None,
) -> Response:
    text = console.fragment("sign_in.html", who=None, next=following, wrong=wrong)
    return HTMLResponse(text, status, headers)
