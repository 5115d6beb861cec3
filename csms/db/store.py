"""The ledger's SQL: load the rows that a batch of reports needs, save what they decided.

This is the hot path. It uses asyncpg's COPY and array parameters on SQLAlchemy's connection, which cost half of
what Core's statements cost (docs/decisions/0003). The number of statements does not grow with the batch.

Rule of correctness: a batch first locks the rows of its chargers in charger_states, in order. All other code that
changes anything of a charger locks that row first.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import msgspec

from csms.core import enrollment, reports, session_timeline
from csms.core.attribution import find_stopped, find_transaction
from csms.core.operator_reports import Rebook, Revise
from csms.core.records import (
    Answered,
    Charger,
    ChargerState,
    Connector,
    DeviationCount,
    Event,
    QuarantineEntry,
    QuarantineResolution,
    Tag,
    Transaction,
    TransactionRevision,
)
from csms.core.tariffs import DEFAULT_TARIFF_ID, Tariff
from csms.core.transactions import stop_content_key
from csms.core.work import Work, tag_key
from csms.db import account_rows, deferred_messages, device_state, history, readings_window
from csms.db.driver import DriverConnection
from csms.db.event_tables import NUMBER_BLOCK
from csms.db.outbox import lane
from csms.db.record_sql import (
    CHARGER_SQL,
    CONNECTOR_SQL,
    EVENT_SQL,
    READING_SQL,
    REVISION_SQL,
    SECURITY_EVENT_SQL,
    STATE_SQL,
    STATUS_SQL,
    TAG_SQL,
    TRANSACTION_SELECT,
    TRANSACTION_SQL,
    ReportBatch,
    connector_of,
    transaction_of,
)
from csms.db.statements import PartialUpdate, StatementBatch

_COUNTED = PartialUpdate(STATE_SQL, "event_seq")
_READ = PartialUpdate(
    CONNECTOR_SQL,
    "reading_transaction_id",
    "reading_at",
    "energy_wh",
    "power_w",
    "soc_percent",
    "newest_reading_at",
    "register",
)

_IN_TRANSACTION = (reports.Meter, reports.Stop)
_NAMES_TRANSACTION = (*_IN_TRANSACTION, Revise, Rebook, reports.Reconcile)
_WITH_TAG = (reports.Start, reports.Authorize, reports.Stop)
_WITHOUT_CHARGER = (reports.Meter, reports.Status, reports.Seen)
_STATES_LOCKED = (
    f"{history.STATES_WITH_EPOCH} WHERE charger_id = ANY($1::text[]) ORDER BY charger_id FOR UPDATE"
)
_CHARGERS = f"{CHARGER_SQL.select} WHERE id = ANY($1::text[])"
_CONNECTOR_COLUMNS = ", ".join(
    f"c.{name}::text AS {name}" if name == "register" else f"c.{name}" for name in CONNECTOR_SQL.columns
)
# With what tells whether the charger's own row is needed (`Work.admits`), at the cost of no further statement.
_CONNECTORS = (
    "SELECT g.id, g.enrollment = 'Accepted' OR NOT starts_with(g.protocol, 'ocpp') AS admitted,"
    f" {_CONNECTOR_COLUMNS} FROM chargers g"
    " LEFT JOIN connectors c ON c.charger_id = g.id AND c.charger_id = ANY($1::text[])"
    " WHERE g.id = ANY($1::text[])"
)
_OPEN_OR_NAMED = (
    f"{TRANSACTION_SELECT} WHERE charger_id = ANY($1::text[]) AND stopped_at IS NULL"
    # A report nearly always names the open transaction, which the first part has loaded.
    f" UNION ALL {TRANSACTION_SELECT} WHERE id = ANY($2::int4[])"
    " AND NOT (charger_id = ANY($1::text[]) AND stopped_at IS NULL)"
    f" UNION ALL {TRANSACTION_SELECT} WHERE (charger_id, key) IN"
    " (SELECT * FROM unnest($3::text[], $4::text[]))"
)
_TAGS = f'{TAG_SQL.select} WHERE lower(id_tag COLLATE "C") = ANY($1::text[])'
_TAGS_LOCKED = f'{_TAGS} ORDER BY lower(id_tag COLLATE "C") FOR NO KEY UPDATE'
_OPEN_BY_TAG = (
    f'{TRANSACTION_SELECT} WHERE lower(id_tag COLLATE "C") = ANY($1::text[]) AND stopped_at IS NULL'
)


async def load(db: DriverConnection, work: Work, batch: ReportBatch) -> None:
    """Lock the batch's chargers and load the rows that its decisions may need."""
    charger_ids = sorted({report.charger_id for report in batch})
    await _lock_states(db, work, charger_ids)
    strangers = [charger_id for charger_id in charger_ids if charger_id not in work.states]
    if strangers:
        # They have no row to lock yet: one node at a time inserts them, the next one finds them.
        await db.execute("SELECT pg_advisory_xact_lock(hashtext('csms.strangers'))")
        work.history_epoch = await history.epoch(db)
        await _lock_states(db, work, strangers)
    admitted = set()
    for row in await db.fetch(_CONNECTORS, charger_ids):
        if row["admitted"]:
            admitted.add(row["id"])
        if row["charger_id"] is not None:
            work.load(connector_of(row))
    # The most frequent reports do not need the charger's own row: where there is a state, there is a charger.
    needed = {r.charger_id for r in batch if not isinstance(r, _WITHOUT_CHARGER)}
    needed.update(one for one in charger_ids if one not in work.states or one not in admitted)
    if needed:
        for row in await db.fetch(_CHARGERS, sorted(needed)):
            work.load(Charger(**row))
    await _load_transactions(db, work, batch, charger_ids)
    await _load_tags(db, work, batch)
    await account_rows.load(db, work, batch)
    await _load_tariffs(db, work, batch)
    if windows := session_timeline.closing_windows(work, batch):
        work.session_evidence = await readings_window.load(db, windows)
    await _load_answers(db, work, batch)
    await _load_known_readings(db, work, batch)
    await _load_quarantined(db, work, batch)
    await deferred_messages.load(db, work, batch)
    await device_state.load(db, work, batch)


async def _lock_states(db: DriverConnection, work: Work, charger_ids: Sequence[str]) -> None:
    for row in await db.fetch(_STATES_LOCKED, charger_ids):
        state, work.history_epoch = history.state_and_epoch(row)
        work.load(state)


async def _load_transactions(
    db: DriverConnection, work: Work, batch: ReportBatch, charger_ids: list[str]
) -> None:
    ids, owners, keys = [], [], []
    for report in batch:
        if isinstance(report, reports.Start):
            owners.append(report.charger_id)
            keys.append(report.key)
        elif isinstance(report, enrollment.Deferred):
            if report.start_key is not None:
                owners.append(report.charger_id)
                keys.append(report.start_key)
        elif isinstance(report, _NAMES_TRANSACTION):
            transaction_id = report.transaction_id
            if transaction_id is not None and 0 < transaction_id < 2**31:
                ids.append(transaction_id)
    for row in await db.fetch(_OPEN_OR_NAMED, charger_ids, ids, owners, keys):
        work.load(transaction_of(row))


async def _load_tags(db: DriverConnection, work: Work, batch: ReportBatch) -> None:
    keys = {tag_key(report.id_tag) for report in batch if isinstance(report, _WITH_TAG) and report.id_tag}
    keys |= {tag_key(report.account_id) for report in batch if isinstance(report, reports.Rent)}
    if not keys:
        return
    for row in await db.fetch(_TAGS, sorted(keys)):
        work.load(Tag(**row))
    starting = {tag_key(report.id_tag) for report in batch if isinstance(report, reports.Start)}
    limited = [key for key in starting if _is_limited(work.tags.get(key))]
    if limited:
        # Locked after the chargers, in order: two nodes that start such a tag at once count each other's start.
        for row in await db.fetch(_TAGS_LOCKED, limited):
            work.load(Tag(**row))
        for row in await db.fetch(_OPEN_BY_TAG, limited):
            if row["id"] not in work.transactions:
                work.load(transaction_of(row))


def _is_limited(tag: Tag | None) -> bool:
    return tag is not None and tag.max_active_transactions is not None


async def _load_tariffs(db: DriverConnection, work: Work, batch: ReportBatch) -> None:
    """Only for starts and rentals: a running transaction carries its tariff."""
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
    ids = {DEFAULT_TARIFF_ID, *work.group_tariffs.values()}
    ids |= {charger.tariff_id for charger in chargers if charger.tariff_id is not None}
    ids |= {tag.tariff_id for tag in work.tags.values() if tag.tariff_id is not None}
    for row in await db.fetch("SELECT id, terms FROM tariffs WHERE id = ANY($1::text[])", list(ids)):
        work.tariffs[row["id"]] = msgspec.convert(row["terms"], Tariff)


async def _load_answers(db: DriverConnection, work: Work, batch: ReportBatch) -> None:
    keys = [
        (r.charger_id, r.message_id, r.digest)
        for r in batch
        if isinstance(r, reports.Resendable) and r.message_id is not None
    ]
    keys += [
        stop_content_key(r) for r in batch if isinstance(r, reports.Stop) and find_stopped(work, r) is None
    ]
    if keys:
        for row in await db.fetch(
            "SELECT charger_id, message_id, digest, answer FROM answers WHERE (charger_id, message_id, digest) IN"
            " (SELECT * FROM unnest($1::text[], $2::text[], $3::bytea[]))",
            *map(list, zip(*keys, strict=True)),
        ):
            work.answers[row["charger_id"], row["message_id"], row["digest"]] = row["answer"]


async def _load_known_readings(db: DriverConnection, work: Work, batch: ReportBatch) -> None:
    """Readings that may have been reported before: those not newer than the newest stored one, usually none."""
    owners: list[str] = []
    moments: list[datetime] = []
    newest: dict[str, datetime] | None = None
    for report in batch:
        if isinstance(report, reports.Meter) and report.connector_id != 0:
            # Readings may name a transaction of another connector: then they are stored with that one.
            named = find_transaction(work, report.charger_id, report.transaction_id)
            places = {report.connector_id, report.connector_id if named is None else named.connector_id}
            known = [work.connectors.get((report.charger_id, place)) for place in places]
            newest_at = max((c.newest_reading_at for c in known if c and c.newest_reading_at), default=None)
        elif isinstance(report, _IN_TRANSACTION) and report.readings:
            # The transaction determines the connector, so any of the charger's may have them.
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
            work.known_readings.add(tuple(row))


async def _load_quarantined(db: DriverConnection, work: Work, batch: ReportBatch) -> None:
    """Only for repairs by an operator. Locked, because another node may be asked for the same repair."""
    ids = [
        r.repair.quarantine_id for r in batch if isinstance(r, reports.Resendable) and r.repair is not None
    ]
    if ids:
        for row in await db.fetch(
            "SELECT id FROM quarantine WHERE id = ANY($1::int8[]) AND resolved_at IS NULL ORDER BY id FOR UPDATE",
            ids,
        ):
            work.quarantined.add(row["id"])


async def recorded_statuses(
    db: DriverConnection, batch: ReportBatch, attempts: Sequence[datetime]
) -> set[str]:
    """Return the chargers of which one of a batch's earlier attempts, by their times, has recorded statuses."""
    rows = await db.fetch(
        "SELECT DISTINCT charger_id FROM status_history"
        " WHERE charger_id = ANY($1::text[]) AND recorded_at = ANY($2::timestamptz[])",
        list({report.charger_id for report in batch}),
        attempts,
    )
    return {row[0] for row in rows}


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
        await db.execute(CHARGER_SQL.upsert_arrays, *CHARGER_SQL.arrays(rows))
    statements = StatementBatch()
    _save_partly(statements, work, _COUNTED, changed.get(ChargerState, ()))
    _save_partly(statements, work, _READ, changed.get(Connector, ()))
    if rows := changed.get(Transaction):
        # Ends before starts: a connector has at most one open transaction at any moment.
        rows.sort(key=lambda t: (t.open, t.id))
        statements.add(TRANSACTION_SQL.upsert_arrays, TRANSACTION_SQL.arrays(rows))
    if rows := work.added.get(Answered):
        statements.add(_INSERT_ANSWERS, map(list, zip(*map(msgspec.structs.astuple, rows), strict=True)))
    events = work.added.get(Event, ())
    if events and relay:
        queued = [(lane(e.charger_id), e.charger_id, e.seq, e.recorded_at) for e in events]
        statements.add(_QUEUE, map(list, zip(*queued, strict=True)))
    await statements.run(db)
    await _add_rows(db, work.added)
    for revision in work.added.get(TransactionRevision, ()):
        await db.execute(_INSERT_REVISION, *REVISION_SQL.values(revision))
    await account_rows.save(db, work, changed)
    await device_state.save(db, work, changed)
    if events:
        await EVENT_SQL.copy(db, events)


def _save_partly(statements: StatementBatch, work: Work, part: PartialUpdate, rows: Sequence[Any]) -> None:
    """Update only the columns of `part` in the rows that changed in no other: what nearly every report changes."""
    kind = part.kind
    partly: list[Any] = []
    wholly: list[Any] = []
    for row in rows:
        before = work.stored.get((kind.record, *(getattr(row, name) for name in kind.primary_key)))
        (partly if before is not None and part.covers(before, row) else wholly).append(row)
    if partly:
        statements.add(part.update, part.arrays(partly))
    if wholly:
        statements.add(kind.upsert_arrays, kind.arrays(wholly))


async def _add_rows(db: DriverConnection, added: dict[type[Any], list[Any]]) -> None:
    for copied in (READING_SQL, STATUS_SQL, SECURITY_EVENT_SQL):
        if rows := added.get(copied.record):
            await copied.copy(db, rows)
    for kind, statement in _ADDED.items():
        if rows := added.get(kind):
            await db.executemany(statement, map(msgspec.structs.astuple, rows))


async def next_transaction_ids(db: DriverConnection, count: int) -> list[int]:
    rows = await db.fetch("SELECT nextval('transaction_ids') FROM generate_series(1, $1::int4)", count)
    return [row[0] for row in rows]


async def next_numbers(db: DriverConnection, count: int) -> list[int]:
    """Draw at least `count` event numbers, in whole blocks; no other node gets them."""
    blocks = -(-count // NUMBER_BLOCK)
    rows = await db.fetch("SELECT nextval('event_numbers') FROM generate_series(1, $1::int4)", blocks)
    return [number for row in rows for number in range(row[0], row[0] + NUMBER_BLOCK)]


_INSERT_ANSWERS = (
    "INSERT INTO answers (charger_id, message_id, digest, answer, recorded_at)"
    " SELECT * FROM unnest($1::text[], $2::text[], $3::bytea[], $4::bytea[], $5::timestamptz[])"
    " ON CONFLICT DO NOTHING"
)
_QUEUE = (
    "INSERT INTO outbox (lane, charger_id, seq, recorded_at)"
    " SELECT * FROM unnest($1::int2[], $2::text[], $3::int8[], $4::timestamptz[])"
)
# The revision before the first correction may have been written by an earlier one.
_INSERT_REVISION = REVISION_SQL.insert_row + " ON CONFLICT DO NOTHING"
# Rare rows, one by one: their fields are the parameters.
_ADDED = {
    QuarantineEntry: (
        "INSERT INTO quarantine"
        " (charger_id, action, message_id, digest, payload, error, transaction_id, received_at, enrollment, start_key)"
        " VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10) ON CONFLICT DO NOTHING"
    ),
    QuarantineResolution: "UPDATE quarantine SET resolution = $2, resolved_at = $3 WHERE id = $1",
    DeviationCount: (
        "INSERT INTO deviations (charger_id, action, field, kind, detail, count, last_at)"
        " VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT (charger_id, action, field, kind) DO UPDATE"
        " SET count = deviations.count + excluded.count, detail = excluded.detail, last_at = excluded.last_at"
    ),
}
