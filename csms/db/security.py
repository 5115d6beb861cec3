"""Credentials of chargers: passwords and profiles, offered and confirmed; certificates; security events."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from msgspec import Struct
from msgspec.structs import asdict
from sqlalchemy import case, func, literal, select, text, update
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.ext.asyncio import AsyncConnection

from csms.core.records import StoredSecurityEvent
from csms.db.rows import all_structs, first_struct
from csms.db.security_tables import security_events, station_certificates
from csms.db.tables import charger_states, chargers

_PENDING_KEPT = 3


class StationCertificate(Struct, frozen=True, kw_only=True):
    """A charger's client certificate. `status`: issued, accepted or rejected (by the charger), revoked."""

    serial: str
    charger_id: str | None
    status: str
    subject: str | None
    pem: str | None
    not_before: datetime | None
    not_after: datetime | None
    issued_at: datetime
    answered_at: datetime | None = None
    revoked_at: datetime | None = None
    reason: str | None = None


class IssuedCount(Struct, frozen=True, kw_only=True):
    """How many certificates csms has issued in some time."""

    to_charger: int
    in_all: int


class SecurityEventView(StoredSecurityEvent, frozen=True, kw_only=True):
    """A security event that a charger reported; `reported_at` by its own clock."""

    id: int


# --- keys ------------------------------------------------------------------------------------------------


async def offer_password(db: AsyncConnection, charger_id: str, password_hash: str) -> None:
    """Store a key that is about to be sent: until it is settled it is accepted beside the old one."""
    pending = func.array_append(chargers.c.pending_password_hashes, password_hash)
    size = func.cardinality(chargers.c.pending_password_hashes)
    newest = chargers.c.pending_password_hashes[size - _PENDING_KEPT + 2 : size]
    kept = case((size >= _PENDING_KEPT, func.array_append(newest, password_hash)), else_=pending)
    await _change(db, charger_id, {"pending_password_hashes": kept})


async def confirm_password(db: AsyncConnection, charger_id: str, password_hash: str) -> None:
    """The charger has accepted or used this key: from now on it is the only one."""
    await _change(db, charger_id, {"password_hash": password_hash, "pending_password_hashes": []})


async def withdraw_passwords(db: AsyncConnection, charger_id: str, password_hash: str | None = None) -> None:
    """The charger has refused this key, or used the old one (None: then none of those sent is accepted)."""
    left: Any = (
        []
        if password_hash is None
        else func.array_remove(chargers.c.pending_password_hashes, literal(password_hash))
    )
    await _change(db, charger_id, {"pending_password_hashes": left})


# --- profiles --------------------------------------------------------------------------------------------


async def offer_profile(db: AsyncConnection, charger_id: str, profile: int) -> None:
    await _change(db, charger_id, {"pending_security_profile": profile})


async def confirm_profile(db: AsyncConnection, charger_id: str, profile: int) -> None:
    """The charger has used this profile: from now on a lower one is refused (white paper, A05.FR.09)."""
    raised = func.greatest(func.coalesce(chargers.c.security_profile, 0), profile)
    await _change(db, charger_id, {"security_profile": raised, "pending_security_profile": None})


async def withdraw_profile(db: AsyncConnection, charger_id: str, profile: int) -> None:
    await db.execute(
        update(chargers)
        .where(chargers.c.id == charger_id, chargers.c.pending_security_profile == profile)
        .values(pending_security_profile=None)
    )


async def _change(db: AsyncConnection, charger_id: str, values: Mapping[str, Any]) -> None:
    await db.execute(update(chargers).where(chargers.c.id == charger_id).values(**values))


# --- certificates ----------------------------------------------------------------------------------------


async def count_issued(db: AsyncConnection, charger_id: str, since: datetime) -> IssuedCount:
    """How many certificates were issued since then. Until the transaction ends no other one is counted or added."""
    await db.execute(text("SELECT pg_advisory_xact_lock(hashtext('csms.certificates'))"))
    table = station_certificates
    query = select(
        func.count().filter(table.c.charger_id == charger_id).label("to_charger"),
        func.count().label("in_all"),
    ).where(table.c.issued_at > since, table.c.pem.is_not(None))
    found = await first_struct(db, IssuedCount, query)
    assert found is not None, "an aggregate has one row"
    return found


async def add_certificate(db: AsyncConnection, certificate: StationCertificate) -> None:
    await db.execute(upsert(station_certificates).values(asdict(certificate)))


async def certificate_by_serial(db: AsyncConnection, serial: str) -> StationCertificate | None:
    query = select(station_certificates).where(station_certificates.c.serial == serial)
    return await first_struct(db, StationCertificate, query)


async def certificates_of(db: AsyncConnection, charger_id: str, limit: int = 100) -> list[StationCertificate]:
    """A charger's certificates, newest first."""
    query = (
        select(station_certificates)
        .where(station_certificates.c.charger_id == charger_id)
        .order_by(station_certificates.c.issued_at.desc(), station_certificates.c.serial)
        .limit(limit)
    )
    return await all_structs(db, StationCertificate, query)


async def answer_certificate(db: AsyncConnection, serial: str, status: str) -> None:
    """The charger has accepted or rejected a certificate. A revoked one stays revoked."""
    await db.execute(
        update(station_certificates)
        .where(station_certificates.c.serial == serial, station_certificates.c.status != "revoked")
        .values(status=status, answered_at=func.now())
    )


async def revoke_certificate(db: AsyncConnection, serial: str, reason: str | None) -> StationCertificate:
    """Revoke a certificate; one that csms has not issued is stored as revoked. Safe to repeat."""
    again = {"status": "revoked", "revoked_at": func.now(), "reason": reason}
    table = station_certificates
    await db.execute(
        upsert(table)
        .values(serial=serial, **again)
        .on_conflict_do_update(index_elements=[table.c.serial], set_=again, where=table.c.status != "revoked")
    )
    found = await certificate_by_serial(db, serial)
    assert found is not None
    return found


async def revoke_all(db: AsyncConnection, charger_id: str, reason: str) -> None:
    await db.execute(
        update(station_certificates)
        .where(station_certificates.c.charger_id == charger_id, station_certificates.c.status != "revoked")
        .values(status="revoked", revoked_at=func.now(), reason=reason)
    )


async def revoked_certificates(db: AsyncConnection) -> list[tuple[str, datetime]]:
    """Serial and time of revocation, for the CRL. Expired certificates need no entry."""
    table = station_certificates
    rows = await db.execute(
        select(table.c.serial, table.c.revoked_at)
        .where(table.c.status == "revoked", func.coalesce(table.c.not_after, func.now()) >= func.now())
        .order_by(table.c.serial)
    )
    return [(row.serial, row.revoked_at) for row in rows]


async def due_for_renewal(
    db: AsyncConnection, node: str, before: datetime, reminded_before: datetime, limit: int = 100
) -> list[StationCertificate]:
    """Accepted certificates that expire before `before`, of chargers connected to `node`, not reminded lately.

    Only the newest of a charger: one that has been replaced may expire.
    """
    table = station_certificates
    newer = table.alias("newer")
    replaced = (
        select(newer.c.serial)
        .where(
            newer.c.charger_id == table.c.charger_id,
            newer.c.status == "accepted",
            newer.c.not_after > table.c.not_after,
        )
        .exists()
    )
    query = (
        select(table)
        .join(charger_states, charger_states.c.charger_id == table.c.charger_id)
        .where(
            table.c.status == "accepted",
            table.c.not_after < before,
            func.coalesce(table.c.reminded_at, reminded_before) <= reminded_before,
            charger_states.c.online,
            charger_states.c.node == node,
            ~replaced,
        )
        .order_by(table.c.not_after)
        .limit(limit)
    )
    return await all_structs(db, StationCertificate, query)


async def note_reminder(db: AsyncConnection, serial: str, at: datetime) -> None:
    await db.execute(
        update(station_certificates).where(station_certificates.c.serial == serial).values(reminded_at=at)
    )


# --- security events -------------------------------------------------------------------------------------


async def list_security_events(
    db: AsyncConnection, charger_id: str, *, before_id: int | None = None, limit: int = 100
) -> list[SecurityEventView]:
    """Newest first, from the one before `before_id`."""
    table = security_events
    query = select(table).where(table.c.charger_id == charger_id).order_by(table.c.id.desc()).limit(limit)
    if before_id is not None:
        query = query.where(table.c.id < before_id)
    return await all_structs(db, SecurityEventView, query)
