"""What is true of chargers at this moment, read in one snapshot: for retained state and for command routing."""

from collections.abc import Sequence
from datetime import UTC, datetime

from msgspec import Struct
from sqlalchemy.ext.asyncio import AsyncEngine

from csms.adapter import ChargerSnapshot
from csms.core import session_course
from csms.core.records import ChargerState, Connector, Transaction
from csms.core.usage import Evidence
from csms.db import readings_window
from csms.db.driver import DriverConnection, driver_connection
from csms.db.record_sql import CONNECTOR_SQL, STATE_SQL, TRANSACTION_SQL, transaction_of
from csms.errors import UnknownCharger

_NOTES = "SELECT notes FROM bridge_notes WHERE charger_id = $1"


class StateSnapshot(Struct, frozen=True):
    """One charger with its connectors and open transactions, all as of `state.event_seq`.

    `evidence`: by transaction id, for those whose price so far depends on their course.
    """

    state: ChargerState
    connectors: tuple[Connector, ...]
    transactions: tuple[Transaction, ...]
    evidence: dict[int, Evidence] = {}


async def snapshots(db: DriverConnection, charger_ids: Sequence[str]) -> list[StateSnapshot]:
    """These chargers, read together: no commit lies between the rows."""
    async with db.transaction(isolation="repeatable_read", readonly=True):
        states = await db.fetch(f"{STATE_SQL.select} WHERE charger_id = ANY($1::text[])", charger_ids)
        connectors = await db.fetch(
            f"{CONNECTOR_SQL.select} WHERE charger_id = ANY($1::text[]) ORDER BY charger_id, connector_id",
            charger_ids,
        )
        transactions = await db.fetch(
            f"{TRANSACTION_SQL.select} WHERE charger_id = ANY($1::text[]) AND stopped_at IS NULL ORDER BY id",
            charger_ids,
        )
        running = [transaction_of(row) for row in transactions]
        now = datetime.now(UTC)
        course_of = await readings_window.load(
            db, [session_course.running(t, now) for t in running if t.tariff.needs_course]
        )
    own: dict[str, tuple[list[Connector], list[Transaction]]] = {
        row["charger_id"]: ([], []) for row in states
    }
    for row in connectors:
        if row["charger_id"] in own:
            own[row["charger_id"]][0].append(Connector(**row))
    for transaction in running:
        if transaction.charger_id in own:
            own[transaction.charger_id][1].append(transaction)
    return [
        StateSnapshot(
            ChargerState(**row),
            tuple(own[row["charger_id"]][0]),
            tuple(own[row["charger_id"]][1]),
            {t.id: course_of[t.id] for t in own[row["charger_id"]][1] if t.id in course_of},
        )
        for row in states
    ]


async def charger_snapshot(engine: AsyncEngine, charger_id: str) -> ChargerSnapshot:
    """What is on record of one charger, in one snapshot."""
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
    """Chargers whose last connection was with this node."""
    rows = await db.fetch("SELECT charger_id FROM charger_states WHERE node = $1 ORDER BY charger_id", node)
    return [row["charger_id"] for row in rows]


async def holder(db: DriverConnection, charger_id: str) -> str | None:
    """The node a charger is connected to; None: it is not connected. Raises UnknownCharger."""
    row = await db.fetchrow(
        "SELECT online, node FROM chargers LEFT JOIN charger_states ON charger_id = id WHERE id = $1",
        charger_id,
    )
    if row is None:
        raise UnknownCharger(f"There is no charger {charger_id}.")
    node: str | None = row["node"]
    return node if row["online"] else None
