"""Bearer tokens and three roles, each including the one before it: viewer, operator, admin.

What a role may do stands at each route (api/) and page (console/app.py); docs/api.md has the table.
"""

import hashlib
import hmac
import secrets
import time
from typing import Final

from msgspec import Struct
from sqlalchemy.ext.asyncio import AsyncEngine

from csms.db import admin

VIEWER, OPERATOR, ADMIN = ROLES = ("viewer", "operator", "admin")
_KEPT_S = 5.0
_MOST_KEPT = 1000
_BOOTSTRAP_ID: Final = 0


class Identity(Struct, frozen=True, kw_only=True):
    """The holder of a token; id 0 is the token of the settings, which is in no table."""

    token_id: int
    name: str
    role: str

    def may(self, role: str) -> bool:
        return ROLES.index(self.role) >= ROLES.index(role)


def new_secret() -> str:
    """A bearer token: 256 random bits, recognisable in a log or a repository scan."""
    return f"csms_{secrets.token_urlsafe(32)}"


def digest_of(secret: str) -> bytes:
    """Return what is stored instead of a token. The secret is random, so a plain hash is enough."""
    return hashlib.sha256(secret.encode(errors="surrogateescape")).digest()


class Access:
    """Turns bearer tokens into identities, cached for five seconds."""

    def __init__(self, engine: AsyncEngine, admin_token: str) -> None:
        self._engine = engine
        self._admin_digest = digest_of(admin_token)
        self._admin = Identity(token_id=_BOOTSTRAP_ID, name="admin", role=ADMIN)
        self._kept: dict[bytes | int, tuple[float, Identity]] = {}

    async def identify(self, secret: str) -> Identity | None:
        """None: no such token, or revoked."""
        digest = digest_of(secret)
        if hmac.compare_digest(digest, self._admin_digest):
            return self._admin
        if (known := self._remembered(digest)) is not None:
            return known
        async with self._engine.connect() as db:
            return self._remember(digest, await admin.find_token(db, digest))

    async def by_id(self, token_id: int) -> Identity | None:
        """Return the holder of the token with this id; None: it has been revoked."""
        if token_id == _BOOTSTRAP_ID:
            return self._admin
        if (known := self._remembered(token_id)) is not None:
            return known
        async with self._engine.connect() as db:
            return self._remember(token_id, await admin.get_token(db, token_id))

    def forget(self) -> None:
        """Drop the cache: tokens have changed."""
        self._kept.clear()

    def _remembered(self, key: bytes | int) -> Identity | None:
        kept = self._kept.get(key)
        return kept[1] if kept is not None and time.monotonic() - kept[0] < _KEPT_S else None

    def _remember(self, key: bytes | int, token: admin.AccessToken | None) -> Identity | None:
        if token is None or token.revoked_at is not None:
            return None
        if len(self._kept) >= _MOST_KEPT:
            self._kept.clear()
        identity = Identity(token_id=token.id, name=token.name, role=token.role)
        self._kept[key] = time.monotonic(), identity
        return identity
