"""The statements of each record type, and transactions as rows."""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import msgspec

from csms.core import records, reports
from csms.core.pricing import Bill
from csms.core.tariffs import Tariff
from csms.db import event_tables, security_tables, tables
from csms.db.account_tables import account_entries, accounts, rentals
from csms.db.statements import RecordSql

ReportBatch = Sequence[reports.Report[Any]]  # the reports of one commit

CHARGER_SQL = RecordSql(
    records.Charger,
    tables.chargers,
    settings=("enrollment", "heartbeat_interval_s", "time_zone", "tariff_id", "group_id"),
)
STATE_SQL = RecordSql(records.ChargerState, tables.charger_states)
CONNECTOR_SQL = RecordSql(records.Connector, tables.connectors)
TRANSACTION_SQL = RecordSql(records.Transaction, tables.transactions)
TAG_SQL = RecordSql(records.Tag, tables.tags)
READING_SQL = RecordSql(records.StoredReading, tables.readings)
STATUS_SQL = RecordSql(records.StoredStatus, tables.status_history)
SECURITY_EVENT_SQL = RecordSql(records.StoredSecurityEvent, security_tables.security_events)
EVENT_SQL = RecordSql(records.Event, event_tables.events)
ACCOUNT_SQL = RecordSql(records.Account, accounts)
ENTRY_SQL = RecordSql(records.AccountEntry, account_entries)
RENTAL_SQL = RecordSql(records.Rental, rentals)

_ANOMALIES_AT = TRANSACTION_SQL.columns.index("anomalies")
# One array per column. A column of arrays comes as texts: Postgres has no arrays of arrays of unequal length.
_UPSERT_TRANSACTIONS = (
    TRANSACTION_SQL.upsert_arrays.replace(
        "SELECT *",
        "SELECT "
        + ", ".join(f"{name}::text[]" if name == "anomalies" else name for name in TRANSACTION_SQL.columns),
    )
    .replace(") ON CONFLICT", f") AS new({', '.join(TRANSACTION_SQL.columns)}) ON CONFLICT")
    .replace("::text[][]", "::text[]")
)


def transaction_upsert(rows: Sequence[records.Transaction]) -> tuple[str, list[list[Any]]]:
    """The statement that writes these transactions, and its arguments."""
    texts = []
    for row in rows:
        values = TRANSACTION_SQL.values(row)
        values[_ANOMALIES_AT] = "{" + ",".join(f'"{word}"' for word in row.anomalies) + "}"
        texts.append(values)
    return _UPSERT_TRANSACTIONS, [list(column) for column in zip(*texts, strict=True)]


_tariff_of = lru_cache(maxsize=1000)(msgspec.json.Decoder(Tariff).decode)


def transaction_of(row: Mapping[Any, Any]) -> records.Transaction:
    """A transaction from its row. The tariff may be text, which is decoded once for many transactions."""
    values = {name: row[name] for name in TRANSACTION_SQL.columns}
    terms = values["tariff"]
    values["tariff"] = _tariff_of(terms) if isinstance(terms, str) else msgspec.convert(terms, Tariff)
    if values["bill"] is not None:
        values["bill"] = msgspec.convert(values["bill"], Bill)
    values["anomalies"] = tuple(values["anomalies"])
    return records.Transaction(**values)
