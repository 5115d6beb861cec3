"""Chargers with their connectors and running transactions, for REST and the console. Read-only.

Lists are paged by key, never by offset: a page stays the same while rows are added.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from msgspec import Struct
from sqlalchemy import Select, func, or_, select
from sqlalchemy.ext.asyncio import AsyncConnection

from csms.core.records import Charger, ChargerState, Connector
from csms.db.record_sql import connector_of, transaction_of
from csms.db.rows import all_rows, from_row
from csms.db.tables import charger_states, chargers, connectors, transactions
from csms.db.transaction_views import TransactionView, with_connectors


class ChargerView(Struct, frozen=True, kw_only=True):
    """A charger as an operator sees it. Connectors by number, 0 (the charger as a whole) first."""

    charger: Charger
    state: ChargerState
    display_name: str | None
    has_password: bool
    password_pending: bool = False
    security_profile: int | None = None
    pending_security_profile: int | None = None
    certificate_name: str | None = None
    created_at: datetime
    connectors: tuple[Connector, ...] = ()
    sessions: tuple[TransactionView, ...] = ()

    @property
    def id(self) -> str:
        return self.charger.id


def _chargers_select() -> Select[Any]:
    state = [column.label(f"state_{column.name}") for column in charger_states.c]
    return select(chargers, *state).outerjoin(charger_states, charger_states.c.charger_id == chargers.c.id)


async def list_chargers(
    db: AsyncConnection,
    *,
    after_id: str = "",
    limit: int = 500,
    online: bool | None = None,
    enrollment: str | None = None,
    containing: str | None = None,
) -> list[ChargerView]:
    """Chargers by id, from the one after `after_id`. `containing` is searched in ids and names."""
    query = _chargers_select().where(chargers.c.id > after_id).order_by(chargers.c.id).limit(limit)
    if online is not None:
        query = query.where(func.coalesce(charger_states.c.online, False) == online)
    if enrollment is not None:
        query = query.where(chargers.c.enrollment == enrollment)
    if containing:
        query = query.where(
            or_(
                chargers.c.id.icontains(containing, autoescape=True),
                chargers.c.display_name.icontains(containing, autoescape=True),
            )
        )
    return await _load(db, query)


async def get_charger(db: AsyncConnection, charger_id: str) -> ChargerView | None:
    found = await _load(db, _chargers_select().where(chargers.c.id == charger_id))
    return found[0] if found else None


async def charger_exists(db: AsyncConnection, charger_id: str) -> bool:
    return await get_enrollment(db, charger_id) is not None


async def get_time_zone(db: AsyncConnection, charger_id: str) -> str | None:
    """The time zone that an operator has set for a charger."""
    zone: str | None = await db.scalar(select(chargers.c.time_zone).where(chargers.c.id == charger_id))
    return zone


async def get_enrollment(db: AsyncConnection, charger_id: str) -> str | None:
    """Accepted, Pending or Rejected; None for an unknown charger."""
    return await db.scalar(select(chargers.c.enrollment).where(chargers.c.id == charger_id))


async def _load(db: AsyncConnection, query: Select[Any]) -> list[ChargerView]:
    rows = await all_rows(db, query)
    ids = [row["id"] for row in rows]
    if not ids:
        return []
    query = (
        select(connectors)
        .where(connectors.c.charger_id.in_(ids))
        .order_by(connectors.c.charger_id, connectors.c.connector_id)
    )
    own = [connector_of(row) for row in await all_rows(db, query)]
    running = await all_rows(
        db,
        select(transactions)
        .where(transactions.c.charger_id.in_(ids), transactions.c.stopped_at.is_(None))
        .order_by(transactions.c.connector_id),
    )
    connectors_of: dict[str, list[Connector]] = defaultdict(list)
    for connector in own:
        connectors_of[connector.charger_id].append(connector)
    sessions_of: dict[str, list[TransactionView]] = defaultdict(list)
    for view in await with_connectors(db, [transaction_of(row) for row in running], own):
        sessions_of[view.transaction.charger_id].append(view)
    return [_view(row, connectors_of[row["id"]], sessions_of[row["id"]]) for row in rows]


def _view(
    row: Mapping[Any, Any], own: Sequence[Connector], sessions: Sequence[TransactionView]
) -> ChargerView:
    return ChargerView(
        charger=from_row(Charger, row),
        state=ChargerState(charger_id=row["id"])
        if row["state_charger_id"] is None
        else from_row(ChargerState, row, prefix="state_"),
        display_name=row["display_name"],
        has_password=row["password_hash"] is not None,
        password_pending=bool(row["pending_password_hashes"]),
        security_profile=row["security_profile"],
        pending_security_profile=row["pending_security_profile"],
        certificate_name=row["certificate_name"],
        created_at=row["created_at"],
        connectors=tuple(own),
        sessions=tuple(sessions),
    )
