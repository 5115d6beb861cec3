"""What is the case now: chargers with connectors and running transactions, transactions, readings, totals.

Read-only, for the REST interface and the console. Lists are paged by key, never by offset: a page stays the
same page while rows are added.
"""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from msgspec import Struct
from sqlalchemy import Select, and_, func, or_, select, tuple_
from sqlalchemy.ext.asyncio import AsyncConnection

from csms.core import session_course
from csms.core.records import Charger, ChargerState, Connector, Transaction
from csms.core.usage import Evidence
from csms.db import event_tables, readings_window, tables
from csms.db.driver import driver_connection
from csms.db.record_sql import transaction_of
from csms.db.statements import from_row
from csms.db.tables import charger_states, chargers, connectors, readings, transactions

# Readings that come after the stop belong to it for this long; bounds the partitions to look into.
_LATE_READINGS = timedelta(days=7)
# Today's totals look at transactions that began at most this long ago.
_LONGEST_SESSION = timedelta(days=3)
MOST_COUNTED = 100_000
_LARGEST_INT4 = 2**31 - 1


class TransactionView(Struct, frozen=True, kw_only=True):
    """A transaction and, while it runs, the connector whose last reading belongs to it.

    `evidence`: its course so far, if its price depends on that.
    """

    transaction: Transaction
    connector: Connector | None = None
    evidence: Evidence = Evidence()


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


class ReadingView(Struct, frozen=True, kw_only=True):
    """A stored reading; `samples` are the OCPP samples as they came."""

    connector_id: int
    sampled_at: datetime
    received_at: datetime
    energy_wh: int | None
    power_w: int | None
    soc_percent: float | None
    samples: list[dict[str, Any]]
    digest: bytes


class PlotPoint(Struct, frozen=True, gc=False):
    """A reading reduced to what a plot needs."""

    at: datetime
    energy_wh: int | None
    power_w: int | None


class NetworkTotals(Struct, frozen=True, kw_only=True):
    """Sums over the whole network. `energy_today_wh`: sessions that ended since `since`, and running ones."""

    chargers: int
    online: int
    pending: int
    active: int
    power_w: int
    energy_today_wh: int


# --- chargers --------------------------------------------------------------------------------------------


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
    """Chargers by id, from the one after `after_id`. `containing` is looked for in ids and names."""
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
    return await _assembled(db, (await db.execute(query)).mappings().all())


async def get_charger(db: AsyncConnection, charger_id: str) -> ChargerView | None:
    rows = (await db.execute(_chargers_select().where(chargers.c.id == charger_id))).mappings().all()
    return (await _assembled(db, rows))[0] if rows else None


async def charger_exists(db: AsyncConnection, charger_id: str) -> bool:
    return (await db.scalar(select(chargers.c.id).where(chargers.c.id == charger_id))) is not None


async def enrollment(db: AsyncConnection, charger_id: str) -> str | None:
    """Accepted, Pending or Rejected; None for a stranger."""
    return await db.scalar(select(chargers.c.enrollment).where(chargers.c.id == charger_id))


async def _assembled(db: AsyncConnection, rows: Sequence[Mapping[Any, Any]]) -> list[ChargerView]:
    ids = [row["id"] for row in rows]
    if not ids:
        return []
    plugs: dict[str, list[Connector]] = {charger_id: [] for charger_id in ids}
    for row in (
        await db.execute(
            select(connectors)
            .where(connectors.c.charger_id.in_(ids))
            .order_by(connectors.c.charger_id, connectors.c.connector_id)
        )
    ).mappings():
        plugs[row["charger_id"]].append(from_row(Connector, row))
    running: dict[str, list[TransactionView]] = {charger_id: [] for charger_id in ids}
    query = (
        select(transactions)
        .where(transactions.c.charger_id.in_(ids), transactions.c.stopped_at.is_(None))
        .order_by(transactions.c.connector_id)
    )
    open_now = [transaction_of(row) for row in (await db.execute(query)).mappings()]
    course_of = await _evidence(db, open_now)
    for transaction in open_now:
        running[transaction.charger_id].append(
            TransactionView(
                transaction=transaction,
                connector=_reading_of(transaction, plugs[transaction.charger_id]),
                evidence=course_of.get(transaction.id, Evidence()),
            )
        )
    return [
        ChargerView(
            charger=from_row(Charger, row),
            state=from_row(ChargerState, row, prefix="state_")
            if row["state_charger_id"] is not None
            else ChargerState(charger_id=row["id"]),
            display_name=row["display_name"],
            has_password=row["password_hash"] is not None,
            password_pending=bool(row["pending_password_hashes"]),
            security_profile=row["security_profile"],
            pending_security_profile=row["pending_security_profile"],
            certificate_name=row["certificate_name"],
            created_at=row["created_at"],
            connectors=tuple(plugs[row["id"]]),
            sessions=tuple(running[row["id"]]),
        )
        for row in rows
    ]


def _reading_of(transaction: Transaction, plugs: Sequence[Connector]) -> Connector | None:
    return next((plug for plug in plugs if plug.connector_id == transaction.connector_id), None)


# --- transactions ----------------------------------------------------------------------------------------


def transactions_select(
    *,
    charger_id: str | None = None,
    active: bool | None = None,
    started_from: datetime | None = None,
    started_before: datetime | None = None,
    id_tag: str | None = None,
    before: tuple[datetime, int] | None = None,
    limit: int = 100,
) -> Select[Any]:
    """Newest start first. `before` is the (started_at, id) of the last row of the page before."""
    query = (
        select(transactions).order_by(transactions.c.started_at.desc(), transactions.c.id.desc()).limit(limit)
    )
    if charger_id is not None:
        query = query.where(transactions.c.charger_id == charger_id)
    if active is not None:
        ended = transactions.c.stopped_at
        query = query.where(ended.is_(None) if active else ended.is_not(None))
    if started_from is not None:
        query = query.where(transactions.c.started_at >= started_from)
    if started_before is not None:
        query = query.where(transactions.c.started_at < started_before)
    if id_tag is not None:
        query = query.where(func.lower(transactions.c.id_tag.collate("C")) == id_tag.lower())
    if before is not None:
        query = query.where(tuple_(transactions.c.started_at, transactions.c.id) < tuple_(*before))
    return query


async def list_transactions(db: AsyncConnection, **filters: Any) -> list[TransactionView]:
    """See `transactions_select` for the filters."""
    found = [transaction_of(row) for row in (await db.execute(transactions_select(**filters))).mappings()]
    return await _with_connectors(db, found)


async def get_transaction(db: AsyncConnection, transaction_id: int) -> TransactionView | None:
    if not 0 < transaction_id <= _LARGEST_INT4:
        return None
    row = (
        (await db.execute(select(transactions).where(transactions.c.id == transaction_id))).mappings().first()
    )
    return None if row is None else (await _with_connectors(db, [transaction_of(row)]))[0]


async def get_transactions(
    db: AsyncConnection, transaction_ids: Sequence[int | None]
) -> dict[int, TransactionView]:
    """By number; None and what is not there are left out."""
    wanted = [number for number in transaction_ids if number is not None]
    if not wanted:
        return {}
    rows = await db.execute(select(transactions).where(transactions.c.id.in_(wanted)))
    found = await _with_connectors(db, [transaction_of(row) for row in rows.mappings()])
    return {session.transaction.id: session for session in found}


async def _with_connectors(db: AsyncConnection, found: Sequence[Transaction]) -> list[TransactionView]:
    places = [(t.charger_id, t.connector_id) for t in found if t.open]
    plugs: dict[tuple[str, int], Connector] = {}
    if places:
        query = select(connectors).where(
            tuple_(connectors.c.charger_id, connectors.c.connector_id).in_(places)
        )
        for row in (await db.execute(query)).mappings():
            plugs[row["charger_id"], row["connector_id"]] = from_row(Connector, row)
    course_of = await _evidence(db, found)
    return [
        TransactionView(
            transaction=t,
            connector=plugs.get((t.charger_id, t.connector_id)) if t.open else None,
            evidence=course_of.get(t.id, Evidence()),
        )
        for t in found
    ]


async def _evidence(db: AsyncConnection, found: Sequence[Transaction]) -> dict[int, Evidence]:
    now = datetime.now(UTC)
    wanted = [session_course.running(t, now) for t in found if t.open and t.tariff.needs_course]
    if not wanted:
        return {}
    return await readings_window.load(await driver_connection(db), wanted)


# --- readings --------------------------------------------------------------------------------------------


def _readings_of(query: Select[Any], transaction: Transaction) -> Select[Any]:
    query = query.where(
        readings.c.charger_id == transaction.charger_id,
        readings.c.transaction_id == transaction.id,
        readings.c.received_at >= transaction.start_received_at,
    )
    if transaction.stop_received_at is not None:
        query = query.where(readings.c.received_at < transaction.stop_received_at + _LATE_READINGS)
    return query


async def list_readings(
    db: AsyncConnection,
    transaction: Transaction,
    *,
    after: tuple[datetime, bytes] | None = None,
    limit: int = 1000,
) -> list[ReadingView]:
    """A transaction's readings by the charger's clock, oldest first."""
    query = (
        _readings_of(select(readings), transaction)
        .order_by(readings.c.sampled_at, readings.c.digest)
        .limit(limit)
    )
    if after is not None:
        query = query.where(tuple_(readings.c.sampled_at, readings.c.digest) > tuple_(*after))
    return [from_row(ReadingView, row) for row in (await db.execute(query)).mappings()]


async def plot_points(
    db: AsyncConnection, sessions: Sequence[Transaction], *, limit: int = 4000
) -> dict[int, list[PlotPoint]]:
    """For each transaction of one charger its readings as a plot needs them; the newest `limit` at most."""
    found: dict[int, list[PlotPoint]] = {t.id: [] for t in sessions}
    if not sessions:
        return found
    charger_id, first = sessions[0].charger_id, min(t.start_received_at for t in sessions)
    query = (
        select(readings.c.transaction_id, readings.c.sampled_at, readings.c.energy_wh, readings.c.power_w)
        .where(
            readings.c.charger_id == charger_id,
            readings.c.transaction_id.in_(list(found)),
            readings.c.received_at >= first,
        )
        .order_by(readings.c.sampled_at.desc())
        .limit(limit)
    )
    for transaction_id, at, energy_wh, power_w in await db.execute(query):
        found[transaction_id].append(PlotPoint(at, energy_wh, power_w))
    for plotted in found.values():
        plotted.reverse()
    return found


# --- totals ----------------------------------------------------------------------------------------------


async def network_totals(db: AsyncConnection, since: datetime) -> NetworkTotals:
    """The figures at the top of the console; `since` is the beginning of the day."""
    counted = (
        await db.execute(
            select(
                func.count(),
                func.count().filter(charger_states.c.online),
                func.count().filter(chargers.c.enrollment == "Pending"),
            )
            .select_from(chargers)
            .outerjoin(charger_states, charger_states.c.charger_id == chargers.c.id)
        )
    ).one()
    gained = func.greatest(connectors.c.energy_wh - transactions.c.meter_start_wh, 0)
    running = (
        await db.execute(
            select(
                func.count(),
                func.coalesce(func.sum(connectors.c.power_w).filter(charger_states.c.online), 0),
                func.coalesce(func.sum(gained), 0),
            )
            .select_from(transactions)
            .outerjoin(
                connectors,
                and_(
                    connectors.c.charger_id == transactions.c.charger_id,
                    connectors.c.connector_id == transactions.c.connector_id,
                    connectors.c.reading_transaction_id == transactions.c.id,
                ),
            )
            .outerjoin(charger_states, charger_states.c.charger_id == transactions.c.charger_id)
            .where(transactions.c.stopped_at.is_(None))
        )
    ).one()
    ended = await db.scalar(
        select(func.coalesce(func.sum(transactions.c.energy_wh), 0)).where(
            transactions.c.started_at >= since - _LONGEST_SESSION, transactions.c.stopped_at >= since
        )
    )
    return NetworkTotals(
        chargers=counted[0],
        online=counted[1],
        pending=counted[2],
        active=running[0],
        power_w=int(running[1]),
        energy_today_wh=int(running[2]) + int(ended or 0),
    )


async def gauges(db: AsyncConnection) -> dict[str, int]:
    """For /metrics: connected chargers, open transactions, events waiting for the broker, open quarantine."""
    row = (
        await db.execute(
            select(
                select(func.count())
                .select_from(charger_states)
                .where(charger_states.c.online)
                .scalar_subquery(),
                select(func.count())
                .select_from(transactions)
                .where(transactions.c.stopped_at.is_(None))
                .scalar_subquery(),
                # A broker that is away for days leaves millions: counting stops where it only costs time.
                select(func.count())
                .select_from(select(event_tables.outbox.c.seq).limit(MOST_COUNTED).subquery())
                .scalar_subquery(),
                select(func.count())
                .select_from(tables.quarantine)
                .where(tables.quarantine.c.resolved_at.is_(None))
                .scalar_subquery(),
            )
        )
    ).one()
    return {
        "chargers_connected": row[0],
        "transactions_open": row[1],
        "outbox_events": row[2],
        "quarantine_open": row[3],
    }
