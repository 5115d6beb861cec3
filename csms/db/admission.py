"""Who is known, and where a charger is connected: the two questions edges and routers ask."""

from sqlalchemy import func, select, text, update
from sqlalchemy.ext.asyncio import AsyncEngine

from csms.adapter import Admission
from csms.db.tables import charger_states, chargers
from csms.errors import UnknownCharger


async def admission(engine: AsyncEngine, charger_id: str) -> Admission | None:
    """What the handshake must know; None for a stranger."""
    columns = [chargers.c[name] for name in Admission.__struct_fields__ if name != "charger_id"]
    query = select(*columns).where(chargers.c.id == charger_id)
    async with engine.connect() as db:
        row = (await db.execute(query)).mappings().one_or_none()
    if row is None:
        return None
    keys = tuple(row["pending_password_hashes"])
    return Admission(charger_id=charger_id, **{**row, "pending_password_hashes": keys})


async def registered(engine: AsyncEngine, prefix: str) -> list[str]:
    """The chargers whose ids begin like that."""
    query = select(chargers.c.id).where(func.starts_with(chargers.c.id, prefix)).order_by(chargers.c.id)
    async with engine.connect() as db:
        return list(await db.scalars(query))


async def holder(engine: AsyncEngine, charger_id: str) -> str | None:
    """The node a charger is connected to; None when to none. Raises UnknownCharger."""
    query = select(charger_states.c.node, charger_states.c.online).where(
        charger_states.c.charger_id == charger_id
    )
    async with engine.connect() as db:
        row = (await db.execute(query)).one_or_none()
    if row is None:
        raise UnknownCharger(f"{charger_id} is not known here.")
    return row.node if row.online else None


async def forget_connections(engine: AsyncEngine, node: str) -> int:
    """At the start of a node: what it held when it was killed is connected to nobody. Returns how many."""
    async with engine.begin() as db:
        # In the ledger's order, so that two starting nodes and a running ledger cannot lock each other out.
        await db.execute(
            text("SELECT 1 FROM charger_states WHERE node = :node AND online ORDER BY charger_id FOR UPDATE"),
            {"node": node},
        )
        done = await db.execute(
            update(charger_states)
            .where(charger_states.c.node == node, charger_states.c.online)
            .values(online=False)
        )
    return done.rowcount
