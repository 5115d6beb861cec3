"""What is true of chargers at this moment, read in one snapshot: for retained state and for command routing."""

from collections.abc import Sequence
from typing import Any

import msgspec
from msgspec import Struct
from sqlalchemy.ext.asyncio import AsyncEngine

from csms.adapter import Standing
from csms.core.pricing import Tariff
from csms.core.records import ChargerState, Connector, Transaction
from csms.db.store import CONNECTORS, STATES, TRANSACTIONS, Db
from csms.errors import UnknownCharger


class Snapshot(Struct, frozen=True):
    """One charger with its connectors and open transactions, all as of `state.event_seq`."""

    state: ChargerState
    connectors: tuple[Connector, ...]
    transactions: tuple[Transaction, ...]


async def snapshots(db: Db, charger_ids: Sequence[str]) -> list[Snapshot]:
    """These chargers, read together: no commit lies between the rows."""
    async with db.transaction(isolation="repeatable_read", readonly=True):
        states = await db.fetch(f"{STATES.select} WHERE charger_id = ANY($1::text[])", charger_ids)
        connectors = await db.fetch(
            f"{CONNECTORS.select} WHERE charger_id = ANY($1::text[]) ORDER BY charger_id, connector_id",
            charger_ids,
        )
        transactions = await db.fetch(
            f"{TRANSACTIONS.select} WHERE charger_id = ANY($1::text[]) AND stopped_at IS NULL ORDER BY id",
            charger_ids,
        )
    own: dict[str, tuple[list[Connector], list[Transaction]]] = {
        row["charger_id"]: ([], []) for row in states
    }
    for row in connectors:
        if row["charger_id"] in own:
            own[row["charger_id"]][0].append(Connector(**row))
    for row in transactions:
        if row["charger_id"] in own:
            own[row["charger_id"]][1].append(_transaction(row))
    return [
        Snapshot(ChargerState(**row), tuple(own[row["charger_id"]][0]), tuple(own[row["charger_id"]][1]))
        for row in states
    ]


async def standing(engine: AsyncEngine, charger_id: str) -> Standing:
    """What is on record of one charger, in one snapshot."""
    async with engine.connect() as connection:
        found = await snapshots((await connection.get_raw_connection()).driver_connection, [charger_id])
    if not found:
        return Standing()
    return Standing(connectors=found[0].connectors, transactions=found[0].transactions)


async def chargers_of(db: Db, node: str) -> list[str]:
    """Chargers whose last connection was with this node."""
    rows = await db.fetch("SELECT charger_id FROM charger_states WHERE node = $1 ORDER BY charger_id", node)
    return [row["charger_id"] for row in rows]


async def holder(db: Db, charger_id: str) -> str | None:
    """The node a charger is connected to; None: it is not connected. Raises UnknownCharger."""
    row = await db.fetchrow(
        "SELECT online, node FROM chargers LEFT JOIN charger_states ON charger_id = id WHERE id = $1",
        charger_id,
    )
    if row is None:
        raise UnknownCharger(f"There is no charger {charger_id}.")
    node: str | None = row["node"]
    return node if row["online"] else None


def _transaction(row: Any) -> Transaction:
    values = dict(row)
    values["tariff"] = msgspec.convert(values["tariff"], Tariff)
    values["anomalies"] = tuple(values["anomalies"])
    return Transaction(**values)
