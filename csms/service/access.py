"""Bearer tokens and three roles, each including the one before it: viewer, operator, admin.

What a role may do stands at each route (api/) and page (console/app.py); docs/api.md has the table.
"""

import asyncio
import contextlib
import hashlib
import hmac
import math
import secrets
import time
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from typing import Final

import structlog
from msgspec import Struct
from prometheus_client import Counter
from sqlalchemy.ext.asyncio import AsyncEngine

from csms.core.login_attempts import FailureWindow, network_of
from csms.db import access_tokens
from csms.db.access_tokens import AccessToken
from csms.db.outages import DATABASE_ERRORS

log = structlog.get_logger()
VIEWER, OPERATOR, ADMIN = ROLES = ("viewer", "operator", "admin")
SESSION_LASTS: Final = timedelta(hours=12)
_FAILED = Counter("csms_http_logins_failed_total", "Requests and sign-ins with a wrong token.")
_LIMITED = Counter("csms_http_logins_limited_total", "Wrong tokens above the limit, answered with 429.")
_KEPT_S = 5.0
_MOST_KEPT = 1000
_LOOKUPS_AT_ONCE = 2
_BOOTSTRAP_ID: Final = 0


class Identity(Struct, frozen=True, kw_only=True):
    """The holder of a token, until `expires_at` (None: without end). Id 0 is the token of the settings, in no table."""

    token_id: int
    name: str
    role: str
    expires_at: datetime | None = None

    def may(self, role: str) -> bool:
        return ROLES.index(self.role) >= ROLES.index(role)


def new_secret() -> str:
    """A bearer token: 256 random bits, recognisable in a log or a repository scan."""
    return f"csms_{secrets.token_urlsafe(32)}"


def digest_of(secret: str) -> bytes:
    """Return what is stored instead of a token. The secret is random, so a plain hash is enough."""
    return hashlib.sha256(secret.encode(errors="surrogateescape")).digest()


class WrongTokens:
    """Limits wrong tokens by address: `limit` in a sliding minute, 0: no limit.

    Every token is verified, and the right one always works, since no number of guesses finds 128 random bits. The limit
    bounds what wrong ones cost, and tells clients and proxies to stop.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._failures = FailureWindow()

    def add(self, address: str) -> int | None:
        """Count a wrong token. Returns the seconds to wait where it is above the limit, for `Retry-After`."""
        key, now = (network_of(address), ""), time.monotonic()
        wait_s = self._failures.wait_s(key, self._limit, now) if self._limit else 0.0
        if wait_s:
            _LIMITED.inc()
            return max(1, math.ceil(wait_s))
        _FAILED.inc()
        log.info("token_refused", address=address)
        if self._limit:
            self._failures.add(key, self._limit, now)
        return None


class Access:
    """Turns bearer tokens and sessions of the console into identities, cached for five seconds."""

    def __init__(self, engine: AsyncEngine, admin_token: str, now: Callable[[], datetime]) -> None:
        self._engine = engine
        self._admin_token = admin_token.encode()
        self._admin_digest = digest_of(admin_token)
        self._admin = Identity(token_id=_BOOTSTRAP_ID, name="admin", role=ADMIN)
        self._now = now
        self._kept: dict[bytes | int, tuple[float, Identity]] = {}
        # Wrong secrets are never cached: they must not take all connections to the database.
        self._lookups = asyncio.Semaphore(_LOOKUPS_AT_ONCE)

    async def identify(self, secret: str) -> Identity | None:
        """None: no such token, or it is revoked or has expired."""
        digest = digest_of(secret)
        if hmac.compare_digest(digest, self._admin_digest):
            return self._admin

        async def find() -> Identity | None:
            async with self._engine.connect() as db:
                token = await access_tokens.find_token(db, digest)
            return await self._holder(token)

        return await self._cached(digest, find)

    async def still(self, identity: Identity) -> bool:
        """Whether the identity's token is valid and has the same role."""
        if identity.token_id == _BOOTSTRAP_ID:
            return True

        async def get() -> Identity | None:
            async with self._engine.connect() as db:
                token = await access_tokens.get_token(db, identity.token_id)
            return await self._holder(token)

        now = await self._cached(identity.token_id, get)
        return now is not None and now.role == identity.role

    async def begin_session(self, identity: Identity) -> str:
        """Store a session of the console and return its secret."""
        secret, now = secrets.token_urlsafe(32), self._now()
        token_id = None if identity.token_id == _BOOTSTRAP_ID else identity.token_id
        async with self._engine.begin() as db:
            await access_tokens.begin_session(
                db,
                self._session_digest(secret),
                token_id,
                identity.role,
                now=now,
                expires_at=now + SESSION_LASTS,
            )
        return secret

    async def of_session(self, secret: str) -> Identity | None:
        """Return the holder of a session's token. None: the session has ended, or its token is no longer what it was."""
        digest = self._session_digest(secret)

        async def find() -> Identity | None:
            async with self._engine.connect() as db:
                session = await access_tokens.find_session(db, digest)
            if session is None:
                return None
            holder = self._admin if session.token is None else await self._holder(session.token)
            if holder is None or holder.role != session.role:
                return None
            ends = [session.expires_at, *([holder.expires_at] if holder.expires_at else [])]
            return Identity(
                token_id=holder.token_id, name=holder.name, role=holder.role, expires_at=min(ends)
            )

        return await self._cached(digest, find)

    async def end_session(self, secret: str) -> None:
        """End a session: at once on this node, within five seconds on the others."""
        async with self._engine.begin() as db:
            await access_tokens.end_session(db, self._session_digest(secret))
        self.forget()

    def forget(self) -> None:
        """Drop the cache: tokens have changed."""
        self._kept = {}

    def _session_digest(self, secret: str) -> bytes:
        """Keyed with the token of the settings: a new one ends all sessions."""
        return hmac.digest(self._admin_token, secret.encode(errors="surrogateescape"), "sha256")

    async def _holder(self, token: AccessToken | None) -> Identity | None:
        now = self._now()
        if token is None or not token.valid(now):
            return None
        if token.last_used_at is None or token.last_used_at <= now - access_tokens.USE_RECORDED_EVERY:
            # Of a database that takes no writes (a standby, a full disk) tokens can still read.
            with contextlib.suppress(*DATABASE_ERRORS):
                async with self._engine.begin() as db:
                    await access_tokens.record_use(db, token.id, now)
        return Identity(token_id=token.id, name=token.name, role=token.role, expires_at=token.expires_at)

    async def _cached(
        self, key: bytes | int, find: Callable[[], Awaitable[Identity | None]]
    ) -> Identity | None:
        kept = self._kept  # what is found out before `forget` is not kept after it
        at, identity = kept.get(key, (-math.inf, None))
        if time.monotonic() - at >= _KEPT_S:
            async with self._lookups:
                identity = await find()
            if identity is None:
                kept.pop(key, None)
                return None
            if len(kept) >= _MOST_KEPT:
                kept.clear()
            kept[key] = time.monotonic(), identity
        ended = (
            identity is not None and identity.expires_at is not None and identity.expires_at <= self._now()
        )
        return None if ended else identity
