"""What the audit reads: ended transactions by page, in the order of ids, and all that is stored about those of a page.

A page is one read-only transaction of a few statements. Readings are streamed: a long session has tens of thousands.
"""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
from msgspec import Struct
from sqlalchemy.ext.asyncio import AsyncEngine

from csms.core.audit import CARRIED_BY
from csms.core.closing import AUDIT
from csms.core.rebooking import RentalDebits
from csms.core.records import BilledState, Charger, Event, StoredReading, Transaction, TransactionRevision
from csms.core.tariffs import Tariff
from csms.db.driver import DriverConnection, driver_connection
from csms.db.record_sql import (
    CHARGER_SQL,
    EVENT_SQL,
    READING_SQL,
    REVISION_SQL,
    TRANSACTION_SELECT,
    transaction_of,
)

PAGE = 200
_MOST_FRAMES = 200  # of one kind in one window
_LATE_EVENT = timedelta(days=1)
_CLOCKS = timedelta(minutes=1)  # by which the nodes' clocks may differ

_PERIOD = (
    " ($1::timestamptz IS NULL OR accounting_at >= $1) AND ($2::timestamptz IS NULL OR accounting_at < $2)"
    " AND ($3::text IS NULL OR charger_id = $3)"
    " AND ($4::timestamptz IS NULL OR coalesce(stop_received_at, stopped_at) >= $4)"
)
_COUNTS = (
    "SELECT count(*) FILTER (WHERE stopped_at IS NOT NULL) AS ended,"
    f" count(*) FILTER (WHERE stopped_at IS NULL) AS open FROM transactions WHERE{_PERIOD}"
)
_TRANSACTIONS = (
    f"{TRANSACTION_SELECT} WHERE{_PERIOD} AND id > $5 AND stopped_at IS NOT NULL ORDER BY id LIMIT {PAGE}"
)
_IDS = f"SELECT id FROM transactions WHERE{_PERIOD} AND stopped_at IS NOT NULL ORDER BY id"
_NAMED = f"{TRANSACTION_SELECT} WHERE id = ANY($1::int4[]) AND stopped_at IS NOT NULL ORDER BY id"
_CHARGERS = f"{CHARGER_SQL.select.replace(' FROM', ', created_at FROM')} WHERE id = ANY($1::text[])"
_REVISIONS = (
    f"SELECT DISTINCT ON (transaction_id) {', '.join(REVISION_SQL.columns[:-1])}, state::text AS state,"
    " (SELECT author FROM transaction_revisions d WHERE d.transaction_id = r.transaction_id AND d.author <> $2"
    " ORDER BY d.revision DESC LIMIT 1) AS decided_by"
    " FROM transaction_revisions r WHERE transaction_id = ANY($1::int4[])"
    " ORDER BY transaction_id, revision DESC"
)
_TERMS = (
    "SELECT tariff_id, version, terms::text FROM tariff_versions WHERE (tariff_id, version) IN"
    " (SELECT * FROM unnest($1::text[], $2::int4[]))"
)
_RENTAL = (
    "SELECT r.account_id, r.debited_minor, a.balance_minor = coalesce((SELECT sum(e.amount_minor)"
    " FROM account_entries e WHERE e.account_id = a.id), 0) AS sound"
    " FROM rentals r JOIN accounts a ON a.id = r.account_id WHERE r.transaction_id = $1"
)
_READING_COLUMNS = ", ".join(f"r.{name}" for name in READING_SQL.columns if name != "samples")
# Rows of one commit have one time of receipt; COPY has written them in the order of arrival. The inner order keeps the
# planner from joining before it has the charger: then only the charger's rows of the session's days are read.
_READINGS = f"""
SELECT w.id, {_READING_COLUMNS}, r.samples
FROM unnest($1::int4[], $2::text[], $3::int4[], $4::timestamptz[], $5::timestamptz[])
    AS w (id, charger_id, connector_id, since, until)
CROSS JOIN LATERAL (
    SELECT {_READING_COLUMNS}, r.samples::text AS samples, r.tableoid AS part, r.ctid AS place FROM readings r
    WHERE r.charger_id = w.charger_id AND r.received_at >= w.since AND r.received_at <= w.until
        AND (r.transaction_id = w.id OR (r.transaction_id IS NULL AND r.connector_id = w.connector_id))
    ORDER BY r.received_at
) r
ORDER BY w.id, r.received_at, r.part, r.place
"""
_FRAMES = f"""
SELECT w.id, w.action, m.at, m.outgoing, m.frame
FROM unnest($1::int4[], $2::text[], $3::text[], $4::timestamptz[], $5::timestamptz[])
    AS w (id, charger_id, action, since, until)
CROSS JOIN LATERAL (
    SELECT at, outgoing, frame FROM messages
    WHERE messages.charger_id = w.charger_id AND at >= w.since AND at <= w.until AND action = w.action
    ORDER BY at DESC LIMIT {_MOST_FRAMES}
) m
ORDER BY w.id, m.at
"""
_STATUSES = """
SELECT w.id, max(s.recorded_at)
FROM unnest($1::int4[], $2::text[], $3::int4[], $4::timestamptz[], $5::timestamptz[])
    AS w (id, charger_id, connector_id, since, until)
JOIN status_history s ON s.charger_id = w.charger_id AND s.connector_id = w.connector_id
    AND s.recorded_at >= w.since AND s.recorded_at <= w.until
GROUP BY w.id
"""
_EVENT_COLUMNS = ", ".join(f"e.{name}" for name in EVENT_SQL.columns)
_EVENTS = f"""
SELECT {_EVENT_COLUMNS}
FROM unnest($1::int4[], $2::text[], $3::timestamptz[], $4::timestamptz[]) AS w (id, charger_id, since, until)
CROSS JOIN LATERAL (
    SELECT {_EVENT_COLUMNS} FROM events e
    WHERE e.charger_id = w.charger_id AND e.transaction_id = w.id AND e.event_type = ANY($5::text[])
        AND e.recorded_at >= w.since AND e.recorded_at <= w.until
    ORDER BY e.seq
) e
"""
_ENTRIES = (
    "SELECT transaction_id, sum(amount_minor)::int8 FROM account_entries"
    " WHERE account_id = ANY($1::text[]) AND transaction_id = ANY($2::int4[]) GROUP BY 1"
)
# None is deleted on its first day: in a new database the oldest one is the first that ever came.
_OLDEST_STATUS = "SELECT least(recorded_at, now() - interval '1 day') FROM status_history ORDER BY id LIMIT 1"
_OLDEST_PARTITIONS = (
    "SELECT parent.relname, min(right(child.relname, 8)) FROM pg_inherits"
    " JOIN pg_class child ON child.oid = inhrelid JOIN pg_class parent ON parent.oid = inhparent"
    " WHERE parent.relname IN ('readings', 'messages') AND child.relname ~ '_p[0-9]{8}$'"
    " AND child.relnamespace = current_schema()::regnamespace GROUP BY 1"
)
_terms_of = msgspec.json.Decoder(Tariff).decode
_state_of = msgspec.json.Decoder(BilledState).decode


class AuditPeriod(Struct, frozen=True, kw_only=True):
    """Which transactions to audit: `since` ≤ accounting time < `until`, of one charger or of all.

    `ended_since`: only those of which the end was received since then.
    """

    since: datetime | None = None
    until: datetime | None = None
    charger_id: str | None = None
    ended_since: datetime | None = None

    @property
    def parameters(self) -> tuple[Any, ...]:
        return self.since, self.until, self.charger_id, self.ended_since


class FrameWindow(Struct, frozen=True, kw_only=True):
    """The frames of one action of a charger to load for a transaction."""

    transaction: Transaction
    action: str
    since: datetime
    until: datetime


class StoredFrame(Struct, frozen=True, gc=False):
    action: str
    at: datetime
    outgoing: bool
    frame: bytes


class RetainedSince(Struct, frozen=True, kw_only=True):
    """From when on readings, statuses and frames are stored. None: nothing was deleted yet."""

    readings: datetime | None = None
    statuses: datetime | None = None
    messages: datetime | None = None


class KnownCharger(Struct, frozen=True):
    """A charger, and since when it is registered. One that was deleted and registered again has no log before that."""

    charger: Charger
    since: datetime


@asynccontextmanager
async def snapshot(engine: AsyncEngine) -> AsyncIterator[DriverConnection]:
    """A read-only transaction that sees one state of the database."""
    async with engine.connect() as connection:
        db = await driver_connection(connection)
        async with db.transaction(isolation="repeatable_read", readonly=True):
            yield db


async def count(db: DriverConnection, period: AuditPeriod) -> tuple[int, int]:
    """How many transactions of the period have ended, and how many are open."""
    row = await db.fetchrow(_COUNTS, *period.parameters)
    return row["ended"], row["open"]


async def transactions_after(db: DriverConnection, period: AuditPeriod, after_id: int) -> list[Transaction]:
    return [transaction_of(row) for row in await db.fetch(_TRANSACTIONS, *period.parameters, after_id)]


async def named(db: DriverConnection, ids: Sequence[int]) -> list[Transaction]:
    """The ended ones of these transactions."""
    return [transaction_of(row) for row in await db.fetch(_NAMED, ids)]


async def ids(db: DriverConnection, period: AuditPeriod) -> list[int]:
    """The ids of the ended transactions of a period."""
    return [row["id"] for row in await db.fetch(_IDS, *period.parameters)]


async def kept(db: DriverConnection) -> RetainedSince:
    oldest = {
        table: datetime.strptime(day, "%Y%m%d").replace(tzinfo=UTC)
        for table, day in await db.fetch(_OLDEST_PARTITIONS)
    }
    return RetainedSince(**oldest, statuses=await db.fetchval(_OLDEST_STATUS))


async def chargers(db: DriverConnection, page: Sequence[Transaction]) -> dict[str, KnownCharger]:
    found = {}
    for row in await db.fetch(_CHARGERS, sorted({t.charger_id for t in page})):
        values = dict(row)
        since = values.pop("created_at")
        found[row["id"]] = KnownCharger(Charger(**values), since)
    return found


async def newest_revisions(
    db: DriverConnection, page: Sequence[Transaction]
) -> dict[int, tuple[TransactionRevision, str | None]]:
    """Each with the author of the newest revision that is not by the audit."""
    found = {}
    for row in await db.fetch(_REVISIONS, [t.id for t in page], AUDIT):
        values = {**row, "state": _state_of(row["state"])}
        decided_by = values.pop("decided_by")
        found[row["transaction_id"]] = TransactionRevision(**values), decided_by
    return found


async def tariff_terms(db: DriverConnection, page: Sequence[Transaction]) -> dict[tuple[str, int], Tariff]:
    """The stored terms of the transactions' tariffs, by id and version."""
    places = sorted({(t.tariff.id, t.tariff.version) for t in page})
    rows = await db.fetch(_TERMS, *map(list, zip(*places, strict=True)))
    return {(tariff_id, version): _terms_of(terms) for tariff_id, version, terms in rows}


async def rental_debits(db: DriverConnection, transaction_id: int) -> RentalDebits | None:
    row = await db.fetchrow(_RENTAL, transaction_id)
    return None if row is None else RentalDebits(**row)


async def frames(db: DriverConnection, windows: Sequence[FrameWindow]) -> dict[int, list[StoredFrame]]:
    """By transaction, in the order of time."""
    found: dict[int, list[StoredFrame]] = {}
    for number, *frame in await db.fetch(
        _FRAMES,
        [w.transaction.id for w in windows],
        [w.transaction.charger_id for w in windows],
        [w.action for w in windows],
        [w.since for w in windows],
        [w.until for w in windows],
    ):
        found.setdefault(number, []).append(StoredFrame(*frame))
    return found


async def last_statuses(db: DriverConnection, page: Sequence[Transaction]) -> dict[int, datetime]:
    """When the last status of each transaction's connector was recorded, from its start to its end."""
    return dict(tuple(row) for row in await db.fetch(_STATUSES, *_sessions(page))) if page else {}


async def carriers(
    db: DriverConnection,
    page: Sequence[Transaction],
    revisions: Mapping[int, tuple[TransactionRevision, str | None]],
) -> dict[int, list[Event]]:
    """The events of ends and costs that were recorded with the newest revision."""
    booked = [
        max(_ended_at(t), revisions[t.id][0].recorded_at) if t.id in revisions else _ended_at(t) for t in page
    ]
    found: dict[int, list[Event]] = {}
    for row in await db.fetch(
        _EVENTS,
        [t.id for t in page],
        [t.charger_id for t in page],
        [at - _CLOCKS for at in booked],
        [at + _LATE_EVENT for at in booked],
        list(CARRIED_BY),
    ):
        found.setdefault(row["transaction_id"], []).append(Event(**row))
    return found


async def entries(db: DriverConnection, page: Sequence[Transaction]) -> dict[int, int]:
    """What the account entries of each transaction add up to."""
    paid = [(t.account_id, t.id) for t in page if t.account_id is not None]
    if not paid:
        return {}
    accounts, ids = map(list, zip(*paid, strict=True))
    return dict(tuple(row) for row in await db.fetch(_ENTRIES, accounts, ids))


async def readings(
    db: DriverConnection, page: Sequence[Transaction]
) -> AsyncIterator[tuple[int, StoredReading]]:
    """Each transaction's readings up to its end, in the order of ids and of arrival."""
    if not page:
        return
    async for row in db.cursor(_READINGS, *_sessions(page), prefetch=1000):
        values = dict(row)
        yield values.pop("id"), StoredReading(**values)


def _sessions(page: Sequence[Transaction]) -> list[list[Any]]:
    return [
        [t.id for t in page],
        [t.charger_id for t in page],
        [t.connector_id for t in page],
        [t.start_received_at for t in page],
        [_ended_at(t) for t in page],
    ]


def _ended_at(ended: Transaction) -> datetime:
    return ended.stop_received_at or ended.stopped_at or ended.start_received_at
