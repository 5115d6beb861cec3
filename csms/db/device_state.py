"""The ledger's SQL for the device state: loaded where a decision needs it, saved as it was decided."""

from collections.abc import Mapping
from typing import Any, Final, TypeVar

from csms.core import command_effects
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
from csms.db.record_sql import ReportBatch
from csms.db.statements import RecordSql, json_text

S = TypeVar("S", bound=DeviceState)
RECORDS: Final[dict[type[DeviceState], RecordSql]] = {
    kind: RecordSql(kind, table)
    for kind, table in (
        (Availability, tables.availabilities),
        (BridgeNotes, tables.bridge_notes),
        (Capability, tables.capabilities),
        (ChargingProfile, tables.charging_profiles),
        (ConfigurationKey, tables.configuration_keys),
        (Job, tables.jobs),
        (LocalList, tables.local_lists),
        (Reservation, tables.reservations),
    )
}
_TRANSFER_SQL: Final = RecordSql(StoredTransfer, tables.data_transfers)
# What ended long ago is not loaded.
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


def of_row(kind: type[S], row: Mapping[Any, Any]) -> S:
    """A record from its row; JSON comes decoded."""
    values = {name: row[name] for name in RECORDS[kind].columns}
    if kind is Job:
        values["progress"] = tuple(values["progress"])
    return kind(**values)


async def load(db: DriverConnection, work: Work, batch: ReportBatch) -> None:
    """Load what the batch's decisions may need; most batches need none of it."""
    needed: dict[type[DeviceState], set[str]] = {}
    for report in batch:
        for kind in command_effects.required_device_state(report):
            needed.setdefault(kind, set()).add(report.charger_id)
    for kind, charger_ids in needed.items():
        query = f"{RECORDS[kind].select} WHERE charger_id = ANY($1::text[]) AND {_LIVE.get(kind, 'true')}"
        for row in await db.fetch(query, sorted(charger_ids)):
            work.load(of_row(kind, row))


async def save(db: DriverConnection, work: Work, changed: Mapping[type[Any], list[Any]]) -> None:
    """Write the work's device state and the outcomes of commands. `changed`: its changed records by type."""
    for kind, sql in RECORDS.items():
        if rows := changed.get(kind):
            await db.executemany(sql.upsert_row, map(sql.values, rows))
    outcomes = work.added.get(CommandOutcome, [])
    for late, statement in ((False, _OUTCOME), (True, _LATE)):
        if rows := [_outcome_values(outcome) for outcome in outcomes if outcome.late is late]:
            await db.executemany(statement, rows)
    if transfers := work.added.get(StoredTransfer):
        await _TRANSFER_SQL.copy(db, transfers)


def _outcome_values(outcome: CommandOutcome) -> list[Any]:
    return [
        outcome.id,
        outcome.charger_id,
        outcome.action,
        json_text(outcome.payload),
        outcome.requested_by,
        outcome.state,
        json_text(outcome.answer),
        outcome.sent_at,
        outcome.ended_at,
        outcome.error,
    ]
