"""The ledger's SQL: load what a batch of reports needs, save what they decided.

This is the hot path: asyncpg's own COPY and array parameters on SQLAlchemy's connection, because they
cost half of what Core's statements cost (docs/decisions/0003). The number of statements does not grow
with the batch. Rule of correctness: a batch first locks the rows of its chargers, in order; whoever else
changes anything of a charger locks its row in charger_states before.
"""

from collections.abc import Sequence
from datetime import datetime
from functools import lru_cache
from operator import attrgetter
from typing import Any

import msgspec

from csms.core import reports, session_course
from csms.core.pricing import Bill
from csms.core.records import (
    Answered,
    Charger,
    ChargerState,
    Connector,
    DeviationCount,
    Event,
    QuarantineEntry,
    QuarantineResolution,
    StoredReading,
    StoredSecurityEvent,
    StoredStatus,
    Tag,
    Transaction,
)
from csms.core.tariffs import DEFAULT, Tariff
from csms.core.transactions import content_key, ended_by
from csms.core.work import Work, tag_key
from csms.db import account_rows, device_state, event_tables, readings_window, security_tables, tables
from csms.db.driver import DriverConnection
from csms.db.outbox import lane
from csms.db.statements import PartialUpdate, RecordSql, StatementBatch, record_sql

CHARGER_SQL = record_sql(
    Charger,
    tables.chargers,
    settings=("enrollment", "heartbeat_interval_s", "time_zone", "tariff_id", "group_id"),
)
STATE_SQL = record_sql(ChargerState, tables.charger_states)
CONNECTOR_SQL = record_sql(Connector, tables.connectors)
TRANSACTION_SQL = record_sql(Transaction, tables.transactions)
TAG_SQL = record_sql(Tag, tables.tags)
READING_SQL = record_sql(StoredReading, tables.readings)
STATUS_SQL = record_sql(StoredStatus, tables.status_history)
SECURITY_EVENT_SQL = record_sql(StoredSecurityEvent, security_tables.security_events)
EVENT_SQL = record_sql(Event, event_tables.events)
_COUNTED = PartialUpdate(STATE_SQL, ("event_seq",))
_READ = PartialUpdate(
    CONNECTOR_SQL,
    ("reading_transaction_id", "reading_at", "energy_wh", "power_w", "soc_percent", "newest_reading_at"),
)

_IN_TRANSACTION = (reports.Meter, reports.Stop)
_WITH_TAG = (reports.Start, reports.Authorize, reports.Stop)
_WITHOUT_CHARGER = (reports.Meter, reports.Status, reports.Seen)
# The tariff as text: SQLAlchemy's connection would decode it anew for every row, and there are few of them.
_TRANSACTIONS = TRANSACTION_SQL.select.replace("tariff", "tariff::text AS tariff")
_OPEN_OR_NAMED = (
    f"{_TRANSACTIONS} WHERE charger_id = ANY($1::text[]) AND stopped_at IS NULL"
    # Nearly always a report names the transaction that is running: not twice.
    f" UNION ALL {_TRANSACTIONS} WHERE id = ANY($2::int4[])"
    " AND NOT (charger_id = ANY($1::text[]) AND stopped_at IS NULL)"
    f" UNION ALL {_TRANSACTIONS} WHERE (charger_id, key) IN"
    " (SELECT * FROM unnest($3::text[], $4::text[]))"
)
_TAGS = f'{TAG_SQL.select} WHERE lower(id_tag COLLATE "C") = ANY($1::text[])'
_TAGS_LOCKED = f'{_TAGS} ORDER BY lower(id_tag COLLATE "C") FOR NO KEY UPDATE'
_OPEN_BY_TAG = f'{_TRANSACTIONS} WHERE lower(id_tag COLLATE "C") = ANY($1::text[]) AND stopped_at IS NULL'


async def load(db: DriverConnection, work: Work, batch: Sequence[reports.Report[Any]]) -> None:
    """Lock the batch's chargers and bring the rows its decisions may look at."""
    charger_ids = sorted({report.charger_id for report in batch})
    await _lock_states(db, work, charger_ids)
    strangers = [charger_id for charger_id in charger_ids if charger_id not in work.states]
    if strangers:
        # They have no row to lock yet: one node at a time makes them, the next one finds them made.
        await db.execute("SELECT pg_advisory_xact_lock(hashtext('csms.strangers'))")
        await _lock_states(db, work, strangers)
    # The most frequent reports look at nothing of the charger's own row: where there is a state, there is a charger.
    looked_at = {r.charger_id for r in batch if not isinstance(r, _WITHOUT_CHARGER)}
    looked_at.update(charger_id for charger_id in charger_ids if charger_id not in work.states)
    if looked_at:
        for row in await db.fetch(f"{CHARGER_SQL.select} WHERE id = ANY($1::text[])", sorted(looked_at)):
            work.load(Charger(**row))
    for row in await db.fetch(f"{CONNECTOR_SQL.select} WHERE charger_id = ANY($1::text[])", charger_ids):
        work.load(Connector(**row))
    await _load_transactions(db, work, batch, charger_ids)
    await _load_tags(db, work, batch)
    await account_rows.load(db, work, batch)
    await _load_tariffs(db, work, batch)
    if wanted := session_course.ending(work, batch):
        work.evidence = await readings_window.load(db, wanted)
    await _load_answers(db, work, batch)
    await _load_known_readings(db, work, batch)
    await _load_quarantined(db, work, batch)
    await device_state.load(db, work, batch)


async def _lock_states(db: DriverConnection, work: Work, charger_ids: Sequence[str]) -> None:
    for row in await db.fetch(
        f"{STATE_SQL.select} WHERE charger_id = ANY($1::text[]) ORDER BY charger_id FOR UPDATE", charger_ids
    ):
        work.load(ChargerState(**row))


async def _load_transactions(
    db: DriverConnection, work: Work, batch: Sequence[reports.Report[Any]], charger_ids: list[str]
) -> None:
    ids, owners, keys = [], [], []
    for report in batch:
        if isinstance(report, reports.Start):
            owners.append(report.charger_id)
            keys.append(report.key)
        elif isinstance(report, _IN_TRANSACTION):
            transaction_id = report.transaction_id
            if transaction_id is not None and 0 < transaction_id < 2**31:
                ids.append(transaction_id)
    for row in await db.fetch(_OPEN_OR_NAMED, charger_ids, ids, owners, keys):
        work.load(_transaction(row))


async def _load_tags(db: DriverConnection, work: Work, batch: Sequence[reports.Report[Any]]) -> None:
    wanted = {tag_key(report.id_tag) for report in batch if isinstance(report, _WITH_TAG) and report.id_tag}
    wanted |= {tag_key(report.account_id) for report in batch if isinstance(report, reports.Rent)}
    if not wanted:
        return
    for row in await db.fetch(_TAGS, sorted(wanted)):
        work.load(Tag(**row))
    starting = {tag_key(report.id_tag) for report in batch if isinstance(report, reports.Start)}
    limited = [key for key in starting if _is_limited(work.tags.get(key))]
    if limited:
        # Locked after the chargers, in order: two nodes that start such a tag at once count each other.
        for row in await db.fetch(_TAGS_LOCKED, limited):
            work.load(Tag(**row))
        for row in await db.fetch(_OPEN_BY_TAG, limited):
            if row["id"] not in work.transactions:
                work.load(_transaction(row))


def _is_limited(tag: Tag | None) -> bool:
    return tag is not None and tag.max_active_transactions is not None


async def _load_tariffs(db: DriverConnection, work: Work, batch: Sequence[reports.Report[Any]]) -> None:
    """Only where something starts, or shall: everything that runs has its tariff with it."""
    starting = {report.charger_id for report in batch if isinstance(report, reports.Start | reports.Rent)}
    if not starting:
        return
    chargers = [work.chargers[charger_id] for charger_id in starting & work.chargers.keys()]
    groups = {charger.group_id for charger in chargers if charger.group_id is not None}
    if groups:
        for row in await db.fetch(
            "SELECT id, tariff_id FROM charger_groups WHERE id = ANY($1::text[]) AND tariff_id IS NOT NULL",
            list(groups),
        ):
            work.group_tariffs[row["id"]] = row["tariff_id"]
    wanted = {DEFAULT, *work.group_tariffs.values()}
    wanted |= {charger.tariff_id for charger in chargers if charger.tariff_id is not None}
    wanted |= {tag.tariff_id for tag in work.tags.values() if tag.tariff_id is not None}
    for row in await db.fetch("SELECT id, terms FROM tariffs WHERE id = ANY($1::text[])", list(wanted)):
        work.tariffs[row["id"]] = _tariff(row["terms"])


async def _load_answers(db: DriverConnection, work: Work, batch: Sequence[reports.Report[Any]]) -> None:
    asked = [
        (r.charger_id, r.message_id, r.digest)
        for r in batch
        if isinstance(r, reports.Resendable) and r.message_id is not None
    ]
    asked += [content_key(r) for r in batch if isinstance(r, reports.Stop) and ended_by(work, r) is None]
    if asked:
        for row in await db.fetch(
            "SELECT charger_id, message_id, digest, answer FROM answers WHERE (charger_id, message_id, digest) IN"
            " (SELECT * FROM unnest($1::text[], $2::text[], $3::bytea[]))",
            *map(list, zip(*asked, strict=True)),
        ):
            work.answers[row["charger_id"], row["message_id"], row["digest"]] = row["answer"]


async def _load_known_readings(
    db: DriverConnection, work: Work, batch: Sequence[reports.Report[Any]]
) -> None:
    """Only what is not newer than the newest reading we have can be a repetition: usually nothing."""
    owners: list[str] = []
    moments: list[datetime] = []
    newest: dict[str, datetime] | None = None
    for report in batch:
        if isinstance(report, reports.Meter) and report.connector_id != 0:
            connector = work.connectors.get((report.charger_id, report.connector_id))
            newest_at = None if connector is None else connector.newest_reading_at
        elif isinstance(report, _IN_TRANSACTION) and report.readings:
            # The transaction says which connector, so any of the charger's may have them already.
            newest = _newest_readings(work) if newest is None else newest
            newest_at = newest.get(report.charger_id)
        else:
            continue
        if newest_at is not None:
            for reading in report.readings:
                if reading.at is not None and reading.at <= newest_at:
                    owners.append(report.charger_id)
                    moments.append(reading.at)
    if owners:
        for row in await db.fetch(
            "SELECT charger_id, connector_id, sampled_at, digest FROM readings WHERE (charger_id, sampled_at) IN"
            " (SELECT * FROM unnest($1::text[], $2::timestamptz[]))",
            owners,
            moments,
        ):
            work.readings_known.add(tuple(row))


async def _load_quarantined(db: DriverConnection, work: Work, batch: Sequence[reports.Report[Any]]) -> None:
    """Rare: an operator repairs something. Locked, because another node may be asked the same."""
    wanted = [
        r.repair.quarantine_id for r in batch if isinstance(r, reports.Resendable) and r.repair is not None
    ]
    if wanted:
        for row in await db.fetch(
            "SELECT id FROM quarantine WHERE id = ANY($1::int8[]) AND resolved_at IS NULL ORDER BY id FOR UPDATE",
            wanted,
        ):
            work.quarantined.add(row["id"])


def _newest_readings(work: Work) -> dict[str, datetime]:
    newest: dict[str, datetime] = {}
    for (charger_id, _), connector in work.connectors.items():
        at = connector.newest_reading_at
        if at is not None and (charger_id not in newest or newest[charger_id] < at):
            newest[charger_id] = at
    return newest


async def save(db: DriverConnection, work: Work, *, relay: bool) -> None:
    """Write what the work changed and added. `relay`: also queue its events for the broker."""
    changed: dict[type[Any], list[Any]] = {}
    for record in work.changed.values():
        changed.setdefault(type(record), []).append(record)
    if rows := changed.get(Charger):
        await db.execute(CHARGER_SQL.upsert_arrays, *_arrays(CHARGER_SQL, rows))
    together = StatementBatch()
    _save_partly(together, work, STATE_SQL, _COUNTED, changed.get(ChargerState, ()))
    _save_partly(together, work, CONNECTOR_SQL, _READ, changed.get(Connector, ()))
    if rows := changed.get(Transaction):
        # Ends before beginnings: a connector has one open transaction at any moment.
        rows.sort(key=lambda t: (t.open, t.id))
        together.add(_UPSERT_TRANSACTIONS, map(list, zip(*map(_transaction_texts, rows), strict=True)))
    if rows := work.added.get(Answered):
        together.add(_INSERT_ANSWERS, map(list, zip(*map(_values, rows), strict=True)))
    told = work.added.get(Event, ())
    if told and relay:
        queued = [(lane(e.charger_id), e.charger_id, e.seq, e.recorded_at) for e in told]
        together.add(_QUEUE, map(list, zip(*queued, strict=True)))
    await together.run(db)
    await _add_rows(db, work.added)
    await account_rows.save(db, work)
    await device_state.save(db, work)
    if told:
        await _copy(db, EVENT_SQL, told)


def _save_partly(
    together: StatementBatch, work: Work, kind: RecordSql, part: PartialUpdate, rows: Sequence[Any]
) -> None:
    """Rows that were there and have changed only in `part`, what nearly every report changes, cost half."""
    partly: list[Any] = []
    wholly: list[Any] = []
    for row in rows:
        before = work.stored.get((kind.record, *(getattr(row, name) for name in kind.primary_key)))
        (partly if before is not None and part.only(before, row) else wholly).append(row)
    if partly:
        together.add(part.update, _columns(part.kind.primary_key + part.columns, partly))
    if wholly:
        together.add(kind.upsert_arrays, _arrays(kind, wholly))


async def _add_rows(db: DriverConnection, added: dict[type[Any], list[Any]]) -> None:
    if rows := added.get(StoredReading):
        await _copy(db, READING_SQL, rows)
    if rows := added.get(StoredStatus):
        await _copy(db, STATUS_SQL, rows)
    if rows := added.get(StoredSecurityEvent):
        await _copy(db, SECURITY_EVENT_SQL, rows)
    if rows := added.get(QuarantineEntry):
        await db.executemany(
            "INSERT INTO quarantine"
            " (charger_id, action, message_id, digest, payload, error, transaction_id, received_at)"
            " VALUES ($1, $2, $3, $4, $5, $6, $7, $8) ON CONFLICT DO NOTHING",
            [_values(row) for row in rows],
        )
    if rows := added.get(QuarantineResolution):
        await db.executemany(
            "UPDATE quarantine SET resolution = $2, resolved_at = $3 WHERE id = $1",
            [_values(row) for row in rows],
        )
    if rows := added.get(DeviationCount):
        await db.executemany(
            "INSERT INTO deviations (charger_id, action, field, kind, detail, count, last_at)"
            " VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT (charger_id, action, field, kind) DO UPDATE"
            " SET count = deviations.count + excluded.count, detail = excluded.detail, last_at = excluded.last_at",
            [_values(row) for row in rows],
        )


async def next_transaction_ids(db: DriverConnection, count: int) -> list[int]:
    rows = await db.fetch("SELECT nextval('transaction_ids') FROM generate_series(1, $1::int4)", count)
    return [row[0] for row in rows]


async def next_numbers(db: DriverConnection, count: int) -> list[int]:
    """At least `count` numbers that no other node has, in whole blocks."""
    blocks = -(-count // event_tables.NUMBER_BLOCK)
    rows = await db.fetch("SELECT nextval('event_numbers') FROM generate_series(1, $1::int4)", blocks)
    return [number for row in rows for number in range(row[0], row[0] + event_tables.NUMBER_BLOCK)]


async def _copy(db: DriverConnection, kind: RecordSql, rows: Sequence[Any]) -> None:
    await db.copy_records_to_table(kind.table, records=[_values(row) for row in rows], columns=kind.columns)


def _values(row: Any) -> tuple[Any, ...]:
    return msgspec.structs.astuple(row)


def _arrays(kind: RecordSql, rows: Sequence[Any]) -> list[list[Any]]:
    return _columns(kind.columns, rows)


def _columns(names: Sequence[str], rows: Sequence[Any]) -> list[list[Any]]:
    return [list(map(attrgetter(name), rows)) for name in names]


_tariff_at = TRANSACTION_SQL.columns.index("tariff")
_anomalies_at = TRANSACTION_SQL.columns.index("anomalies")
# An array a column; what is an array itself comes as text, because Postgres has no arrays of unequal arrays.
_UPSERT_TRANSACTIONS = (
    TRANSACTION_SQL.upsert_arrays.replace(
        "SELECT *",
        "SELECT "
        + ", ".join(f"{name}::text[]" if name == "anomalies" else name for name in TRANSACTION_SQL.columns),
    )
    .replace(") ON CONFLICT", f") AS new({', '.join(TRANSACTION_SQL.columns)}) ON CONFLICT")
    .replace("::text[][]", "::text[]")
)
_INSERT_ANSWERS = (
    "INSERT INTO answers (charger_id, message_id, digest, answer, recorded_at)"
    " SELECT * FROM unnest($1::text[], $2::text[], $3::bytea[], $4::bytea[], $5::timestamptz[])"
    " ON CONFLICT DO NOTHING"
)
_QUEUE = (
    "INSERT INTO outbox (lane, charger_id, seq, recorded_at)"
    " SELECT * FROM unnest($1::int2[], $2::text[], $3::int8[], $4::timestamptz[])"
)
_bill_at = TRANSACTION_SQL.columns.index("bill")


def _tariff(terms: Any) -> Tariff:
    """SQLAlchemy's connection decodes jsonb on the way in (and takes text on the way out)."""
    return msgspec.convert(terms, Tariff)


_tariff_in = lru_cache(maxsize=1000)(msgspec.json.Decoder(Tariff).decode)


def transaction_values(row: Transaction) -> list[Any]:
    """What `TRANSACTIONS.upsert_row` takes."""
    values = list(_values(row))
    values[_tariff_at] = msgspec.json.encode(row.tariff).decode()
    if row.bill is not None:
        values[_bill_at] = msgspec.json.encode(row.bill).decode()
    return values


def _transaction_texts(row: Transaction) -> list[Any]:
    values = transaction_values(row)
    values[_anomalies_at] = "{" + ",".join(f'"{word}"' for word in row.anomalies) + "}"
    return values


def transaction_of(values: dict[str, Any]) -> Transaction:
    """A transaction from its row's columns; takes the dictionary over."""
    terms = values["tariff"]
    values["tariff"] = _tariff_in(terms) if isinstance(terms, str) else _tariff(terms)
    if values["bill"] is not None:
        values["bill"] = msgspec.convert(values["bill"], Bill)
    values["anomalies"] = tuple(values["anomalies"])
    return Transaction(**values)


def _transaction(row: Any) -> Transaction:
    return transaction_of(dict(row))
