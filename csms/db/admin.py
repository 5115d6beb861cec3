"""What operators write: chargers, tags, notes on quarantine. Tariffs: csms/db/tariffs.py.

A charger is changed under its row lock in charger_states, as in the ledger: neither overwrites the other.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from msgspec import Struct
from msgspec.structs import asdict
from sqlalchemy import delete, func, literal_column, select, true, update
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.ext.asyncio import AsyncConnection

from csms.adapter import Admission
from csms.core.records import Tag
from csms.core.work import tag_key
from csms.db import deferred_messages, event_tables, security, security_tables, tables
from csms.db.rows import all_rows, first_row, from_row
from csms.db.tables import (
    charger_groups,
    charger_states,
    chargers,
    quarantine,
    tags,
    tariffs,
    transactions,
)
from csms.errors import CsmsError

_TAG_KEY: Any = literal_column('lower(id_tag COLLATE "C")')


class Missing(CsmsError):
    """What is asked for does not exist."""


class Conflict(CsmsError):
    """The request contradicts the stored state."""


class TagView(Struct, frozen=True, kw_only=True):
    tag: Tag
    created_at: datetime


# --- chargers --------------------------------------------------------------------------------------------


async def register_charger(db: AsyncConnection, charger_id: str, values: Mapping[str, Any]) -> bool:
    """Register a charger, or change the settings of a known one. True: it is new."""
    await lock_referenced(db, values)
    made = await db.scalar(
        upsert(chargers).values(id=charger_id, **values).on_conflict_do_nothing().returning(chargers.c.id)
    )
    await _lock(db, charger_id)
    if made is None:
        await _update(db, charger_id, values)
    return made is not None


async def change_charger(db: AsyncConnection, charger_id: str, values: Mapping[str, Any]) -> None:
    """Set some of a charger's columns. Raises Missing."""
    await lock_referenced(db, values)
    known = await db.scalar(select(chargers.c.id).where(chargers.c.id == charger_id))
    if known is None:
        raise Missing(f"There is no charger {charger_id!r}.")
    await _lock(db, charger_id)
    await _update(db, charger_id, values)


async def lock_profile(db: AsyncConnection, charger_id: str) -> int | None:
    """Lock a charger and return the security profile that it must reach; None for an unknown one."""
    columns = (chargers.c.security_profile, chargers.c.password_hash)
    if await db.scalar(select(chargers.c.id).where(chargers.c.id == charger_id)) is None:
        return None
    await _lock(db, charger_id)
    row = (await db.execute(select(*columns).where(chargers.c.id == charger_id))).one_or_none()
    if row is None:
        return None
    return Admission(charger_id=charger_id, enrollment="", **row._asdict()).required_profile


async def delete_charger(db: AsyncConnection, charger_id: str) -> None:
    """Delete a charger and its log. Its transactions and their readings stay: they are billing records.

    Raises Missing, and Conflict while it is connected, charging, or has events in the outbox: a charger that is
    registered again numbers its events from 1, and the two sequences must not meet.
    """
    known = await db.scalar(select(chargers.c.id).where(chargers.c.id == charger_id))
    if known is None:
        raise Missing(f"There is no charger {charger_id!r}.")
    await _lock(db, charger_id)
    online = await db.scalar(select(charger_states.c.online).where(charger_states.c.charger_id == charger_id))
    if online:
        raise Conflict(f"Charger {charger_id!r} is connected; disconnect or reject it first.")
    for table, condition, obstacle in (
        (transactions, transactions.c.stopped_at.is_(None), "has a running transaction"),
        (event_tables.outbox, true(), "has events that the broker has not taken yet"),
    ):
        found = await db.scalar(
            select(table.c.charger_id).where(table.c.charger_id == charger_id, condition).limit(1)
        )
        if found is not None:
            raise Conflict(f"Charger {charger_id!r} {obstacle}.")
    for table in (
        tables.connectors,
        tables.status_history,
        tables.deviations,
        event_tables.messages,
        event_tables.events,
        tables.answers,
        security_tables.security_events,
    ):
        await db.execute(delete(table).where(table.c.charger_id == charger_id))
    await deferred_messages.forget(db, charger_id)
    await security.revoke_all(db, charger_id, "the charger was deleted")
    await db.execute(delete(chargers).where(chargers.c.id == charger_id))


async def _lock(db: AsyncConnection, charger_id: str) -> None:
    await db.execute(upsert(charger_states).values(charger_id=charger_id).on_conflict_do_nothing())
    await db.execute(
        select(charger_states.c.charger_id).where(charger_states.c.charger_id == charger_id).with_for_update()
    )


async def _update(db: AsyncConnection, charger_id: str, values: Mapping[str, Any]) -> None:
    if values:
        await db.execute(update(chargers).where(chargers.c.id == charger_id).values(**values))
    if values.get("enrollment") == "Rejected":
        await deferred_messages.reject(db, charger_id)


async def lock_referenced(db: AsyncConnection, values: Mapping[str, Any]) -> None:
    """Lock the tariff and the group that a row will refer to against deletion. Raises Conflict if one is missing."""
    for table, kind, key in (
        (tariffs, "tariff", values.get("tariff_id")),
        (charger_groups, "group", values.get("group_id")),
    ):
        if key is not None:
            query = select(table.c.id).where(table.c.id == key).with_for_update(key_share=True, read=True)
            if await db.scalar(query) is None:
                raise Conflict(f"There is no {kind} {key!r}; make it first.")


# --- tags ------------------------------------------------------------------------------------------------


def _tag(row: Mapping[Any, Any]) -> TagView:
    return TagView(tag=from_row(Tag, row), created_at=row["created_at"])


async def list_tags(
    db: AsyncConnection, *, after_key: str = "", containing: str | None = None, limit: int = 100
) -> list[TagView]:
    """Tags by their key (idTags are compared without regard to case), from the one after `after_key`."""
    query = select(tags).where(after_key < _TAG_KEY).order_by(_TAG_KEY).limit(limit)
    if containing:
        query = query.where(tags.c.id_tag.icontains(containing, autoescape=True))
    return [_tag(row) for row in await all_rows(db, query)]


async def get_tag(db: AsyncConnection, id_tag: str) -> TagView | None:
    row = await first_row(db, select(tags).where(tag_key(id_tag) == _TAG_KEY))
    return None if row is None else _tag(row)


async def put_tag(db: AsyncConnection, tag: Tag) -> bool:
    """Create or replace a tag; an existing one keeps its spelling. True: it is new.

    Raises Conflict when its tariff is unknown.
    """
    values = asdict(tag)
    del values["id_tag"]
    await lock_referenced(db, values)
    made = await db.scalar(
        upsert(tags)
        .values(id_tag=tag.id_tag, **values)
        .on_conflict_do_update(index_elements=[_TAG_KEY], set_=values)
        .returning(literal_column("xmax = 0"))
    )
    return bool(made)


async def change_tag(db: AsyncConnection, id_tag: str, values: Mapping[str, Any]) -> TagView:
    """Raises Missing, and Conflict when its tariff is unknown."""
    await lock_referenced(db, values)
    if values:
        await db.execute(update(tags).where(tag_key(id_tag) == _TAG_KEY).values(**values))
    found = await get_tag(db, id_tag)
    if found is None:
        raise Missing(f"There is no tag {id_tag!r}.")
    return found


async def delete_tag(db: AsyncConnection, id_tag: str) -> None:
    """Raises Missing."""
    gone = await db.execute(delete(tags).where(tag_key(id_tag) == _TAG_KEY))
    if not gone.rowcount:
        raise Missing(f"There is no tag {id_tag!r}.")


# --- quarantine ------------------------------------------------------------------------------------------


async def resolve_quarantined(db: AsyncConnection, quarantine_id: int, note: str) -> None:
    """Mark a quarantined message as resolved. Raises Missing, and Conflict when it is already."""
    if 0 < quarantine_id < 2**63:
        done = await db.execute(
            update(quarantine)
            .where(quarantine.c.id == quarantine_id, quarantine.c.resolved_at.is_(None))
            .values(resolved_at=func.now(), resolution=note)
        )
        if done.rowcount:
            return
        if await db.scalar(select(quarantine.c.id).where(quarantine.c.id == quarantine_id)) is not None:
            raise Conflict(f"Message {quarantine_id} has been dealt with already.")
    raise Missing(f"There is no message {quarantine_id} in quarantine.")
