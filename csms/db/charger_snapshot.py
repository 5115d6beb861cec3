"""Chargers with their connectors and open transactions, read in one database snapshot: for retained state and adapters."""

from collections import defaultdict
from collections.abc import Sequence
from datetime import UTC, datetime

from msgspec import Struct
from sqlalchemy.ext.asyncio import AsyncEngine

from csms.adapter import ChargerSnapshot
from csms.core import session_timeline
from csms.core.records import ChargerState, Connector, Transaction
from csms.core.usage import Evidence
from csms.db import readings_window
from csms.db.driver import DriverConnection, driver_connection
from csms.db.history import STATES_WITH_EPOCH, state_and_epoch
from csms.db.record_sql import CONNECTOR_SELECT, TRANSACTION_SELECT, connector_of, transaction_of

_NOTES = "SELECT notes FROM bridge_notes WHERE charger_id = $1"


class StateSnapshot(Struct, frozen=True):
    """One charger with its connectors and open transactions, all as of `state.event_seq`.

    `evidence`: by transaction id, where the price so far depends on its timeline.
    """

    state: ChargerState
    connectors: tuple[Connector, ...]
    transactions: tuple[Transaction, ...]
    evidence: dict[int, Evidence] = {}
    history_epoch: int = 0


async def snapshots(db: DriverConnection, charger_ids: Sequence[str]) -> list[StateSnapshot]:
    """Read chargers in one snapshot: no commit lies between their rows."""
    async with db.transaction(isolation="repeatable_read", readonly=True):
        states = await db.fetch(f"{STATES_WITH_EPOCH} WHERE charger_id = ANY($1::text[])", charger_ids)
        connectors = await db.fetch(
            f"{CONNECTOR_SELECT} WHERE charger_id = ANY($1::text[]) ORDER BY charger_id, connector_id",
            charger_ids,
        )
        transactions = await db.fetch(
            f"{TRANSACTION_SELECT} WHERE charger_id = ANY($1::text[]) AND stopped_at IS NULL ORDER BY id",
            charger_ids,
        )
        running = [transaction_of(row) for row in transactions]
        now = datetime.now(UTC)
        evidence = await readings_window.load(
            db, [session_timeline.running_window(t, now) for t in running if t.tariff.needs_timeline]
        )
    connectors_of: dict[str, list[Connector]] = defaultdict(list)
    for row in connectors:
        connectors_of[row["charger_id"]].append(connector_of(row))
    running_at: dict[str, list[Transaction]] = defaultdict(list)
    for transaction in running:
        running_at[transaction.charger_id].append(transaction)
    return [
        StateSnapshot(
            state,
            tuple(connectors_of[state.charger_id]),
            tuple(running_at[state.charger_id]),
            {t.id: evidence[t.id] for t in running_at[state.charger_id] if t.id in evidence},
            history_epoch,
        )
        for state, history_epoch in map(state_and_epoch, states)
    ]


async def charger_snapshot(engine: AsyncEngine, charger_id: str) -> ChargerSnapshot:
    """What an adapter needs of one charger; empty for an unknown one."""
    async with engine.connect() as connection:
        db: DriverConnection = await driver_connection(connection)
        found = await snapshots(db, [charger_id])
        notes = await db.fetchval(_NOTES, charger_id)
    if not found:
        return ChargerSnapshot()
    return ChargerSnapshot(
        connectors=found[0].connectors, transactions=found[0].transactions, notes=notes or {}
    )


async def chargers_of(db: DriverConnection, node: str) -> list[str]:
    """The ids of the chargers whose last connection was with this node."""
    rows = await db.fetch("SELECT charger_id FROM charger_states WHERE node = $1 ORDER BY charger_id", node)
    return [row["charger_id"] for row in rows]
