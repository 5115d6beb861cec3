"""Transactions and their readings, for REST and the console. Read-only.

Lists are paged by key, never by offset: a page stays the same while rows are added.
"""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
from msgspec import Struct
from sqlalchemy import Select, Text, cast, func, or_, select, tuple_
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.ext.asyncio import AsyncConnection

from csms.core import session_timeline
from csms.core.records import BilledState, Connector, Transaction, TransactionRevision
from csms.core.usage import Evidence
from csms.db import readings_window
from csms.db.driver import driver_connection
from csms.db.record_sql import connector_of, transaction_of
from csms.db.rows import all_rows, all_structs, first_row
from csms.db.tables import connectors, readings, transaction_revisions, transactions

# Readings that arrive after the stop belong to their transaction for this long, which bounds the partitions to read.
_LATE_READINGS = timedelta(days=7)
_LARGEST_INT4 = 2**31 - 1


class TransactionView(Struct, frozen=True, kw_only=True):
    """A transaction and, while it runs, its connector with the last reading.

    `evidence`: what the timeline of the session so far is made of, if its price depends on that.
    """

    transaction: Transaction
    connector: Connector | None = None
    evidence: Evidence = Evidence()


class ReadingView(Struct, frozen=True, kw_only=True):
    """A stored reading; `samples` are the OCPP samples as received."""

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


def transactions_select(
    *,
    charger_id: str | None = None,
    active: bool | None = None,
    accounted_from: datetime | None = None,
    accounted_before: datetime | None = None,
    id_tag: str | None = None,
    billing: str | None = None,
    before: tuple[datetime, int] | None = None,
    limit: int = 100,
) -> Select[Any]:
    """Newest accounting time first. `before` is the (accounting_at, id) of the last row of the page before."""
    accounting_at = transactions.c.accounting_at
    query = select(transactions).order_by(accounting_at.desc(), transactions.c.id.desc()).limit(limit)
    if charger_id is not None:
        query = query.where(transactions.c.charger_id == charger_id)
    if active is not None:
        ended = transactions.c.stopped_at
        query = query.where(ended.is_(None) if active else ended.is_not(None))
    if accounted_from is not None:
        query = query.where(accounting_at >= accounted_from)
    if accounted_before is not None:
        query = query.where(accounting_at < accounted_before)
    if billing is not None:
        query = query.where(transactions.c.billing == billing)
    if id_tag is not None:
        query = query.where(func.lower(transactions.c.id_tag.collate("C")) == id_tag.lower())
    if before is not None:
        query = query.where(tuple_(accounting_at, transactions.c.id) < tuple_(*before))
    return query


async def list_transactions(db: AsyncConnection, **filters: Any) -> list[TransactionView]:
    """See `transactions_select` for the filters."""
    return await _load(db, transactions_select(**filters))


async def get_transaction(db: AsyncConnection, transaction_id: int) -> TransactionView | None:
    return (await get_transactions(db, [transaction_id])).get(transaction_id)


async def get_transactions(
    db: AsyncConnection, transaction_ids: Sequence[int | None]
) -> dict[int, TransactionView]:
    """By id. None and ids without a transaction are left out."""
    ids = [number for number in transaction_ids if number is not None and 0 < number <= _LARGEST_INT4]
    if not ids:
        return {}
    views = await _load(db, select(transactions).where(transactions.c.id.in_(ids)))
    return {view.transaction.id: view for view in views}


async def last_ended(db: AsyncConnection, charger_id: str, id_tag: str) -> Transaction | None:
    """The last ended transaction of an idTag, spelled like that, at a charger."""
    query = transactions_select(charger_id=charger_id, active=False, limit=1)
    row = await first_row(db, query.where(transactions.c.id_tag == id_tag))
    return None if row is None else transaction_of(row)


async def _load(db: AsyncConnection, query: Select[Any]) -> list[TransactionView]:
    found = [transaction_of(row) for row in await all_rows(db, query)]
    places = [(t.charger_id, t.connector_id) for t in found if t.open]
    own: list[Connector] = []
    if places:
        key = tuple_(connectors.c.charger_id, connectors.c.connector_id)
        own = [connector_of(row) for row in await all_rows(db, select(connectors).where(key.in_(places)))]
    return await with_connectors(db, found, own)


async def with_connectors(
    db: AsyncConnection, found: Sequence[Transaction], own: Sequence[Connector]
) -> list[TransactionView]:
    """Views of transactions, each with its connector from `own` while it runs."""
    at = {(connector.charger_id, connector.connector_id): connector for connector in own}
    now = datetime.now(UTC)
    windows = [session_timeline.running_window(t, now) for t in found if t.open and t.tariff.needs_timeline]
    evidence: Mapping[int, Evidence] = {}
    if windows:
        evidence = await readings_window.load(await driver_connection(db), windows)
    return [
        TransactionView(
            transaction=t,
            connector=at.get((t.charger_id, t.connector_id)) if t.open else None,
            evidence=evidence.get(t.id, Evidence()),
        )
        for t in found
    ]


async def list_irregular(
    db: AsyncConnection, since: datetime, anomalies: Sequence[str], *, limit: int = 100
) -> list[TransactionView]:
    """Transactions since a moment whose stop was inferred, whose clock is suspect, or with one of the anomalies.

    Newest first, without those that an operator has corrected or made void.
    """
    t = transactions.c
    query = transactions_select(accounted_from=since, limit=limit).where(
        or_(t.inferred, t.clock_suspect, t.anomalies.op("&&")(cast(list(anomalies), ARRAY(Text)))),
        t.energy_source.is_distinct_from("operator"),
        t.billing.is_distinct_from("void"),
    )
    return await _load(db, query)


async def list_revisions(db: AsyncConnection, transaction_id: int) -> list[TransactionRevision]:
    """The revisions of a transaction, the first one first; empty if it was never revised."""
    query = (
        select(transaction_revisions)
        .where(transaction_revisions.c.transaction_id == transaction_id)
        .order_by(transaction_revisions.c.revision)
    )
    return [
        TransactionRevision(**{**row, "state": msgspec.convert(row["state"], BilledState)})
        for row in await all_rows(db, query)
    ]


# --- readings --------------------------------------------------------------------------------------------


async def list_readings(
    db: AsyncConnection,
    transaction: Transaction,
    *,
    after: tuple[datetime, bytes] | None = None,
    limit: int = 1000,
) -> list[ReadingView]:
    """A transaction's readings by the charger's clock, oldest first."""
    query = select(readings).where(
        readings.c.charger_id == transaction.charger_id,
        readings.c.transaction_id == transaction.id,
        readings.c.received_at >= transaction.start_received_at,
    )
    if transaction.stop_received_at is not None:
        query = query.where(readings.c.received_at < transaction.stop_received_at + _LATE_READINGS)
    if after is not None:
        query = query.where(tuple_(readings.c.sampled_at, readings.c.digest) > tuple_(*after))
    query = query.order_by(readings.c.sampled_at, readings.c.digest).limit(limit)
    return await all_structs(db, ReadingView, query)


async def plot_points(
    db: AsyncConnection, plotted: Sequence[Transaction], *, limit: int = 4000
) -> dict[int, list[PlotPoint]]:
    """The readings of transactions of one charger, oldest first, by transaction; the newest `limit` at most."""
    points: dict[int, list[PlotPoint]] = {t.id: [] for t in plotted}
    if not plotted:
        return points
    charger_id, first = plotted[0].charger_id, min(t.start_received_at for t in plotted)
    query = (
        select(readings.c.transaction_id, readings.c.sampled_at, readings.c.energy_wh, readings.c.power_w)
        .where(
            readings.c.charger_id == charger_id,
            readings.c.transaction_id.in_(list(points)),
            readings.c.received_at >= first,
        )
        .order_by(readings.c.sampled_at.desc())
        .limit(limit)
    )
    for transaction_id, at, energy_wh, power_w in reversed((await db.execute(query)).all()):
        points[transaction_id].append(PlotPoint(at, energy_wh, power_w))
    return points
