"""The cookie of a console session. It holds the session's secret, of which the database has a digest, and no token."""

import hashlib
import hmac

from msgspec import Struct
from starlette.requests import HTTPConnection
from starlette.responses import Response

from csms.service.access import SESSION_LASTS

SESSION_COOKIE = "csms_session"


class ConsoleSession(Struct, frozen=True):
    """The secret of a session. Whether it has ended must be asked at every request (service/access.py)."""

    secret: str

    def form_token(self) -> str:
        """Return what a form of this session must carry; another site cannot know it."""
        return hmac.new(self.secret.encode(errors="surrogateescape"), b"form", hashlib.sha256).hexdigest()

    def good_form(self, token: str) -> bool:
        return hmac.compare_digest(token.encode(errors="replace"), self.form_token().encode())


def session_of(connection: HTTPConnection) -> ConsoleSession | None:
    """Return the session that a request names; None: it names none."""
    secret = connection.cookies.get(SESSION_COOKIE, "")
    return ConsoleSession(secret) if secret else None


def set_cookie(response: Response, secret: str, *, secure: bool) -> None:
    response.set_cookie(
        SESSION_COOKIE,
        secret,
        max_age=int(SESSION_LASTS.total_seconds()),
        httponly=True,
        samesite="strict",
        secure=secure,
    )


def delete_cookie(response: Response) -> None:
    response.delete_cookie(SESSION_COOKIE, httponly=True, samesite="strict")
