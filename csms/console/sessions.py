"""Signing in: a bearer token becomes a signed cookie, which names the token but does not contain it; forms are signed too."""

import hashlib
import hmac
import secrets
from datetime import datetime, timedelta
from typing import Any

from itsdangerous import BadData, URLSafeSerializer
from msgspec import Struct
from starlette.requests import HTTPConnection
from starlette.responses import Response

SESSION_COOKIE = "csms_session"
_LASTS = timedelta(hours=12)
_TICKET_LASTS = timedelta(hours=1)


class ConsoleSession(Struct, frozen=True):
    """The content of the cookie: which token, until when (Unix time), and a secret of this session."""

    token_id: int
    expires_at: int
    nonce: str


class ConsoleSessions:
    """Signs with a key derived from the administrator's token: it is the same on every node, and a new token ends
    all sessions. Whether the session's token is still valid must be asked at every request."""

    def __init__(self, admin_token: str) -> None:
        self._sessions = _signer(admin_token, "session")
        self._forms = _signer(admin_token, "form")
        self._tickets = _signer(admin_token, "ticket")
        self._used_tickets: set[str] = set()

    def begin(self, response: Response, token_id: int, now: datetime, *, secure: bool) -> None:
        """Set the cookie of a new session."""
        content = [token_id, int((now + _LASTS).timestamp()), secrets.token_urlsafe(16)]
        response.set_cookie(
            SESSION_COOKIE,
            _signed(self._sessions, content),
            max_age=int(_LASTS.total_seconds()),
            httponly=True,
            samesite="strict",
            secure=secure,
        )

    @staticmethod
    def end(response: Response) -> None:
        """Delete the cookie."""
        response.delete_cookie(SESSION_COOKIE, httponly=True, samesite="strict")

    def read(self, connection: HTTPConnection, now: datetime) -> ConsoleSession | None:
        """Return the session of a request; None: it has no cookie, a forged one, or one that has expired."""
        try:
            session = ConsoleSession(*self._sessions.loads(connection.cookies.get(SESSION_COOKIE, "")))
        except BadData:
            return None
        return session if session.expires_at > now.timestamp() else None

    def form_token(self, session: ConsoleSession) -> str:
        """Return what a form of this session must carry; another site cannot know it."""
        return _signed(self._forms, [session.token_id, session.nonce])

    def good_form(self, session: ConsoleSession, token: str) -> bool:
        return hmac.compare_digest(token.encode(errors="replace"), self.form_token(session).encode())

    def take_ticket(self, ticket: str, now: datetime) -> bool:
        """Whether this is a ticket of `ticket()`, in time, and used for the first time on this node."""
        try:
            expires_at, nonce = self._tickets.loads(ticket)
        except BadData:
            return False
        if nonce in self._used_tickets:
            return False
        self._used_tickets.add(nonce)
        return bool(expires_at > now.timestamp())


def ticket(admin_token: str, now: datetime) -> str:
    """Return the secret of a link that signs its first visitor in as administrator: `/sign-in?ticket=…`, good for an hour."""
    content = [int((now + _TICKET_LASTS).timestamp()), secrets.token_urlsafe(16)]
    return _signed(_signer(admin_token, "ticket"), content)


def _signer(admin_token: str, purpose: str) -> URLSafeSerializer:
    key = hashlib.sha256(b"csms console\0" + admin_token.encode()).digest()
    return URLSafeSerializer(key, salt=purpose, signer_kwargs={"digest_method": hashlib.sha256})


def _signed(signer: URLSafeSerializer, content: Any) -> str:
    signed = signer.dumps(content)
    return signed if isinstance(signed, str) else signed.decode()
