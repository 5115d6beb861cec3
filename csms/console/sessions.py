"""Signing in: a bearer token becomes a signed cookie, which names the token but is none; forms are signed too."""

import hashlib
import hmac
import secrets
from datetime import datetime, timedelta

from msgspec import Struct
from starlette.requests import HTTPConnection
from starlette.responses import Response

COOKIE = "csms_session"
_LASTS = timedelta(hours=12)
_TICKET_LASTS = timedelta(hours=1)


class SignedIn(Struct, frozen=True):
    """What the cookie says: which token, until when, and a secret of this session."""

    token_id: int
    expires_at: int
    nonce: str


class Sessions:
    """Signs with a key made of the administrator's token: every node has the same, and a new token ends all
    sessions. Whether the session's token is still good must be asked at every request."""

    def __init__(self, admin_token: str) -> None:
        self._key = _key(admin_token)
        self._used_tickets: set[str] = set()

    def begin(self, response: Response, token_id: int, now: datetime, *, secure: bool) -> None:
        session = f"{token_id}.{int((now + _LASTS).timestamp())}.{secrets.token_urlsafe(16)}"
        response.set_cookie(
            COOKIE,
            f"{session}.{_signature(self._key, 'session', session)}",
            max_age=int(_LASTS.total_seconds()),
            httponly=True,
            samesite="strict",
            secure=secure,
        )

    @staticmethod
    def end(response: Response) -> None:
        response.delete_cookie(COOKIE, httponly=True, samesite="strict")

    def read(self, connection: HTTPConnection, now: datetime) -> SignedIn | None:
        """None: no cookie, not ours, or too old."""
        session, _, signature = connection.cookies.get(COOKIE, "").rpartition(".")
        if not _same(signature, _signature(self._key, "session", session)):
            return None
        token_id, expires_at, nonce = session.split(".")
        signed_in = SignedIn(int(token_id), int(expires_at), nonce)
        return signed_in if signed_in.expires_at > now.timestamp() else None

    def form_token(self, session: SignedIn) -> str:
        """What a form of this session must carry: another site cannot know it."""
        return _signature(self._key, "form", f"{session.token_id}.{session.nonce}")

    def good_form(self, session: SignedIn, token: str) -> bool:
        return _same(token, self.form_token(session))

    def take_ticket(self, ticket: str, now: datetime) -> bool:
        """Whether this is a ticket of `ticket()`, in time, and used for the first time on this node."""
        content, _, signature = ticket.rpartition(".")
        if not _same(signature, _signature(self._key, "ticket", content)) or content in self._used_tickets:
            return False
        self._used_tickets.add(content)
        return int(content.partition(".")[0]) > now.timestamp()


def ticket(admin_token: str, now: datetime) -> str:
    """For an address that signs its first visitor in as administrator: `/sign-in?ticket=…`, good for an hour."""
    content = f"{int((now + _TICKET_LASTS).timestamp())}.{secrets.token_urlsafe(16)}"
    return f"{content}.{_signature(_key(admin_token), 'ticket', content)}"


def _key(admin_token: str) -> bytes:
    return hashlib.sha256(b"csms console\0" + admin_token.encode()).digest()


def _signature(key: bytes, purpose: str, content: str) -> str:
    return hmac.new(key, f"{purpose}\0{content}".encode(), hashlib.sha256).hexdigest()


def _same(given: str, expected: str) -> bool:
    return hmac.compare_digest(given.encode(errors="replace"), expected.encode())
