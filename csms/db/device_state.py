"""The ledger's SQL for what we remember of chargers: loaded where a decision looks at it, saved as it was decided."""

from collections.abc import Sequence
from typing import Any, Final

import msgspec
from sqlalchemy import Table

from csms.core import commanded, reports
from csms.core.device_state import (
    Availability,
    BridgeNotes,
    Capability,
    ChargingProfile,
    CommandOutcome,
    ConfigurationKey,
    DeviceState,
    Job,
    LocalList,
    Reservation,
    StoredTransfer,
)
from csms.core.work import Work
from csms.db import device_state_tables as tables
from csms.db.driver import DriverConnection

TABLES: Final[dict[type[DeviceState], Table]] = {
    Availability: tables.availabilities,
    BridgeNotes: tables.bridge_notes,
    Capability: tables.capabilities,
    ChargingProfile: tables.charging_profiles,
    ConfigurationKey: tables.configuration_keys,
    Job: tables.jobs,
    LocalList: tables.local_lists,
    Reservation: tables.reservations,
}
# What is over for long is not looked at any more.
_LIVE: Final[dict[type[DeviceState], str]] = {
    ChargingProfile: "cleared_at IS NULL",
    Job: "(ended_at IS NULL OR updated_at > now() - interval '2 days')",
    Reservation: "ended_at IS NULL",
}

# An end without an answer is that of a command that is still being sent: the node that holds the charger and the
# node that asked may both report one.
_OUTCOME = """
INSERT INTO commands (id, charger_id, action, payload, requested_by, requested_at, state, attempts, sent_at,
                      ended_at, answer, error)
VALUES ($1, $2, $3, $4::json, $5, $8, $6, 1, $8, $9, $7::jsonb, $10)
ON CONFLICT (id) DO UPDATE SET
    state = CASE WHEN commands.state = 'answered' THEN commands.state ELSE excluded.state END,
    answer = coalesce(excluded.answer, commands.answer), error = excluded.error,
    sent_at = excluded.sent_at, ended_at = excluded.ended_at,
    payload = CASE WHEN excluded.state IN ('not_sent', 'no_answer') THEN commands.payload ELSE excluded.payload END
WHERE commands.state = 'sending' OR excluded.state IN ('answered', 'refused')
"""
# A late answer also ends the waiting for another attempt.
_LATE = """
INSERT INTO commands (id, charger_id, action, payload, requested_by, requested_at, state, attempts, sent_at,
                      ended_at, late_at, late_answer, error)
VALUES ($1, $2, $3, $4::json, $5, $8, $6, 1, $8, $9, $9, $7::jsonb, $10)
ON CONFLICT (id) DO UPDATE SET
    late_answer = excluded.late_answer, late_at = excluded.late_at,
    error = coalesce(excluded.error, commands.error), payload = excluded.payload,
    state = CASE WHEN commands.state IN ('waiting', 'sending', 'no_answer') THEN excluded.state
                 ELSE commands.state END
"""


def columns(kind: type[Any]) -> tuple[str, ...]:
    return tuple(field.name for field in msgspec.structs.fields(kind))


def of_row(kind: type[Any], row: Any) -> Any:
    """A record from its row; JSON comes decoded."""
    values = {name: row[name] for name in columns(kind)}
    if kind is Job:
        values["progress"] = tuple(values["progress"])
    return kind(**values)


def _select(kind: type[DeviceState]) -> str:
    live = _LIVE.get(kind, "true")
    return f"SELECT {', '.join(columns(kind))} FROM {TABLES[kind].name} WHERE charger_id = ANY($1::text[]) AND {live}"


def _upsert(kind: type[DeviceState]) -> str:
    names, table = columns(kind), TABLES[kind]
    key = [column.name for column in table.primary_key.columns]
    values = ", ".join(
        f"${i}::jsonb" if type(table.c[name].type).__name__ == "JSONB" else f"${i}"
        for i, name in enumerate(names, 1)
    )
    updates = ", ".join(f"{name} = excluded.{name}" for name in names if name not in key)
    return (
        f"INSERT INTO {table.name} ({', '.join(names)}) VALUES ({values})"
        f" ON CONFLICT ({', '.join(key)}) DO UPDATE SET {updates}"
    )


_SELECTS: Final = {kind: _select(kind) for kind in TABLES}
_UPSERTS: Final = {kind: _upsert(kind) for kind in TABLES}


async def load(db: DriverConnection, work: Work, batch: Sequence[reports.Report[Any]]) -> None:
    """Bring what the batch's decisions may look at; most batches look at none of it."""
    wanted: dict[type[DeviceState], set[str]] = {}
    for report in batch:
        for kind in commanded.looks_at(report):
            wanted.setdefault(kind, set()).add(report.charger_id)
    for kind, charger_ids in wanted.items():
        for row in await db.fetch(_SELECTS[kind], sorted(charger_ids)):
            work.load(of_row(kind, row))


async def save(db: DriverConnection, work: Work) -> None:
    changed: dict[type[DeviceState], list[Any]] = {}
    for record in work.changed.values():
        if isinstance(record, DeviceState):
            changed.setdefault(type(record), []).append(record)
    for kind, rows in changed.items():
        await db.executemany(_UPSERTS[kind], [_values(kind, row) for row in rows])
    outcomes = work.added.get(CommandOutcome, [])
    for late, statement in ((False, _OUTCOME), (True, _LATE)):
        if rows := [_outcome_values(outcome) for outcome in outcomes if outcome.late is late]:
            await db.executemany(statement, rows)
    if transfers := work.added.get(StoredTransfer):
        names = columns(StoredTransfer)
        await db.copy_records_to_table(
            "data_transfers", records=[msgspec.structs.astuple(row) for row in transfers], columns=names
        )


def _values(kind: type[DeviceState], row: Any) -> list[Any]:
    table = TABLES[kind]
    return [
        _json(getattr(row, name)) if type(table.c[name].type).__name__ == "JSONB" else getattr(row, name)
        for name in columns(kind)
    ]


def _json(value: Any) -> str | None:
    return None if value is None else msgspec.json.encode(value).decode()


def _outcome_values(outcome: CommandOutcome) -> list[Any]:
    return [
        outcome.id,
        outcome.charger_id,
        outcome.action,
        _json(outcome.payload),
        outcome.requested_by,
        outcome.state,
        _json(outcome.answer),
        outcome.sent_at,
        outcome.ended_at,
        outcome.error,
    ]
