"""Signing in with an API token or a one-time link, and signing out."""

from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from csms.console.base import Console, ConsoleRequest


async def sign_in_page(console: Console, request: Request) -> Response:
    """Show the form, or sign in by the link's ticket."""
    ticket = request.query_params.get("ticket")
    if ticket is not None and console.sessions.take_ticket(ticket, console.context.now()):
        return _signed_in(console, request, 0, "/")
    wrong = "This link has been used or is too old." if ticket is not None else ""
    return _form(console, request.query_params.get("next", ""), wrong)


async def sign_in(console: Console, request: Request) -> Response:
    """Begin a session for the token in the form."""
    form = await request.form()
    identity = await console.context.access.identify(str(form.get("token", "")).strip())
    following = str(form.get("next", ""))
    if identity is None:
        return _form(console, following, "This token is unknown or has been revoked.", status=401)
    return _signed_in(console, request, identity.token_id, following)


async def sign_out(console: Console, _request: ConsoleRequest) -> Response:
    """End the session."""
    response = RedirectResponse("/sign-in", 303)
    console.sessions.end(response)
    return response


def _form(console: Console, following: str, wrong: str, status: int = 200) -> Response:
    return HTMLResponse(console.fragment("sign_in.html", who=None, next=following, wrong=wrong), status)


def _signed_in(console: Console, request: Request, token_id: int, following: str) -> Response:
    # Only to an address of this site: browsers take `//host` and `/\host` for another one.
    own = following.startswith("/") and not following.startswith(("//", "/\\"))
    response = RedirectResponse(following if own else "/", 303)
    console.sessions.begin(response, token_id, console.context.now(), secure=request.url.scheme == "https")
    return response
