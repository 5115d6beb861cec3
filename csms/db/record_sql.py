"""The statements of each record type, and transactions as rows."""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import msgspec

from csms.core import records, reports
from csms.core.pricing import Bill
from csms.core.session_register import SessionRegister
from csms.core.tariffs import Tariff
from csms.db import event_tables, security_tables, tables
from csms.db.account_tables import account_entries, accounts, rentals
from csms.db.statements import RecordSql

ReportBatch = Sequence[reports.Report[Any]]  # the reports of one commit

CHARGER_SQL = RecordSql(
    records.Charger,
    tables.chargers,
    settings=("enrollment", "heartbeat_interval_s", "time_zone", "tariff_id", "group_id", "max_power_w"),
)
STATE_SQL = RecordSql(records.ChargerState, tables.charger_states)
CONNECTOR_SQL = RecordSql(records.Connector, tables.connectors)
TRANSACTION_SQL = RecordSql(records.Transaction, tables.transactions)
REVISION_SQL = RecordSql(records.TransactionRevision, tables.transaction_revisions)
TAG_SQL = RecordSql(records.Tag, tables.tags)
READING_SQL = RecordSql(records.StoredReading, tables.readings)
STATUS_SQL = RecordSql(records.StoredStatus, tables.status_history)
SECURITY_EVENT_SQL = RecordSql(records.StoredSecurityEvent, security_tables.security_events)
EVENT_SQL = RecordSql(records.Event, event_tables.events)
ACCOUNT_SQL = RecordSql(records.Account, accounts)
ENTRY_SQL = RecordSql(records.AccountEntry, account_entries)
RENTAL_SQL = RecordSql(records.Rental, rentals)

# JSON comes as text on the hot path: SQLAlchemy's connection would decode it for each row.
CONNECTOR_SELECT = CONNECTOR_SQL.select.replace(", register", ", register::text AS register")
TRANSACTION_SELECT = TRANSACTION_SQL.select.replace("tariff", "tariff::text AS tariff").replace(
    ", register", ", register::text AS register"
)
_tariff_of = lru_cache(maxsize=1000)(msgspec.json.Decoder(Tariff).decode)  # there are few different ones
_decode_register = msgspec.json.Decoder(SessionRegister).decode


def _register_of(value: Any) -> SessionRegister | None:
    if value is None:
        return None
    return _decode_register(value) if isinstance(value, str) else msgspec.convert(value, SessionRegister)


def connector_of(row: Mapping[Any, Any]) -> records.Connector:
    """A connector from its row. The register may be text."""
    values = {name: row[name] for name in CONNECTOR_SQL.columns}
    values["register"] = _register_of(values["register"])
    return records.Connector(**values)


def transaction_of(row: Mapping[Any, Any]) -> records.Transaction:
    """A transaction from its row. Tariff and register may be text."""
    values = {name: row[name] for name in TRANSACTION_SQL.columns}
    terms = values["tariff"]
    values["tariff"] = _tariff_of(terms) if isinstance(terms, str) else msgspec.convert(terms, Tariff)
    if values["bill"] is not None:
        values["bill"] = msgspec.convert(values["bill"], Bill)
    values["anomalies"] = tuple(values["anomalies"])
    values["held_because"] = tuple(values["held_because"])
    values["register"] = _register_of(values["register"])
    return records.Transaction(**values)
