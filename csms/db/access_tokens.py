"""API tokens, and the sessions of the console that were begun with them. Of each secret only a digest is stored."""

from datetime import datetime, timedelta
from typing import Final

from msgspec import Struct
from sqlalchemy import delete, func, insert, or_, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from csms.db.admin import Conflict, Missing
from csms.db.rows import all_structs, first_row, first_struct, from_row
from csms.db.tables import console_sessions, tokens

USE_RECORDED_EVERY: Final = timedelta(minutes=1)


class AccessToken(Struct, frozen=True, kw_only=True):
    """An API token. `last_used_at` is up to `USE_RECORDED_EVERY` old."""

    id: int
    name: str
    role: str
    created_at: datetime
    expires_at: datetime | None
    last_used_at: datetime | None
    revoked_at: datetime | None

    def valid(self, now: datetime) -> bool:
        return self.revoked_at is None and (self.expires_at is None or self.expires_at > now)


class StoredSession(Struct, frozen=True, kw_only=True):
    """A session of the console. `token` None: it was begun with the token of the settings."""

    role: str
    expires_at: datetime
    token: AccessToken | None


async def list_tokens(db: AsyncConnection, *, revoked: bool | None = None) -> list[AccessToken]:
    """All tokens, in the order in which they were made; only those that are `revoked`, or are not."""
    query = select(tokens).order_by(tokens.c.id)
    if revoked is not None:
        query = query.where(tokens.c.revoked_at.is_not(None) if revoked else tokens.c.revoked_at.is_(None))
    return await all_structs(db, AccessToken, query)


async def get_token(db: AsyncConnection, token_id: int) -> AccessToken | None:
    if not 0 < token_id < 2**31:
        return None
    return await first_struct(db, AccessToken, select(tokens).where(tokens.c.id == token_id))


async def find_token(db: AsyncConnection, digest: bytes) -> AccessToken | None:
    return await first_struct(db, AccessToken, select(tokens).where(tokens.c.digest == digest))


async def add_token(
    db: AsyncConnection, name: str, role: str, digest: bytes, expires_at: datetime | None = None
) -> AccessToken:
    """Add a token. One of the same name that has expired is revoked. Raises Conflict when a valid one has that name."""
    await db.execute(
        update(tokens)
        .where(tokens.c.name == name, tokens.c.revoked_at.is_(None), tokens.c.expires_at <= func.now())
        .values(revoked_at=tokens.c.expires_at)
    )
    values = {"name": name, "role": role, "digest": digest, "expires_at": expires_at}
    try:
        async with db.begin_nested():
            made = await db.execute(insert(tokens).values(values).returning(tokens))
            return from_row(AccessToken, made.mappings().one())
    except IntegrityError:
        raise Conflict(f"There is a token named {name!r} already.") from None


async def revoke_token(db: AsyncConnection, token_id: int) -> None:
    """Revoke a token, which ends its sessions. Raises Missing. Safe to repeat."""
    if await get_token(db, token_id) is None:
        raise Missing(f"There is no token {token_id}.")
    await db.execute(
        update(tokens)
        .where(tokens.c.id == token_id, tokens.c.revoked_at.is_(None))
        .values(revoked_at=func.now())
    )
    await db.execute(delete(console_sessions).where(console_sessions.c.token_id == token_id))


async def record_use(db: AsyncConnection, token_id: int, now: datetime) -> None:
    """Store that a token is in use, if that was not stored within `USE_RECORDED_EVERY`."""
    earlier = now - USE_RECORDED_EVERY
    await db.execute(
        update(tokens)
        .where(
            tokens.c.id == token_id, or_(tokens.c.last_used_at.is_(None), tokens.c.last_used_at <= earlier)
        )
        .values(last_used_at=now)
    )


# --- sessions --------------------------------------------------------------------------------------------


async def begin_session(
    db: AsyncConnection,
    digest: bytes,
    token_id: int | None,
    role: str,
    *,
    now: datetime,
    expires_at: datetime,
) -> None:
    """Store a session, and delete those that have expired."""
    await db.execute(delete(console_sessions).where(console_sessions.c.expires_at <= now))
    await db.execute(
        insert(console_sessions).values(digest=digest, token_id=token_id, role=role, expires_at=expires_at)
    )


async def find_session(db: AsyncConnection, digest: bytes) -> StoredSession | None:
    row = await first_row(db, select(console_sessions).where(console_sessions.c.digest == digest))
    if row is None:
        return None
    token = None if row["token_id"] is None else await get_token(db, row["token_id"])
    return StoredSession(role=row["role"], expires_at=row["expires_at"], token=token)


async def end_session(db: AsyncConnection, digest: bytes) -> None:
    await db.execute(delete(console_sessions).where(console_sessions.c.digest == digest))
