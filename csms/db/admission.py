"""Who is known, and where a charger is connected: the two questions edges and routers ask."""

import asyncio
from collections.abc import Sequence

from sqlalchemy import Text, any_, bindparam, cast, func, select, text, update
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.ext.asyncio import AsyncEngine

from csms.adapter import Admission
from csms.db.tables import charger_states, chargers
from csms.errors import UnknownCharger


class Admissions:
    """What handshakes must know; None for a stranger. Those that ask while a query runs share the next one: a fleet
    that comes back at once would otherwise cost a session and six round trips a charger."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine
        self._asked: dict[str, asyncio.Future[Admission | None]] = {}
        self._asking: asyncio.Task[None] | None = None

    async def __call__(self, charger_id: str) -> Admission | None:
        answer = self._asked.get(charger_id)
        if answer is None:
            answer = self._asked[charger_id] = asyncio.get_running_loop().create_future()
        if self._asking is None:
            self._asking = asyncio.create_task(self._ask(), name="admissions")
        return await asyncio.shield(answer)

    async def _ask(self) -> None:
        try:
            while self._asked:
                asked, self._asked = self._asked, {}
                try:
                    found = await admissions(self._engine, list(asked))
                except Exception as error:
                    for answer in asked.values():
                        answer.set_exception(error)
                        answer.exception()  # whoever asked may have gone
                else:
                    for charger_id, answer in asked.items():
                        answer.set_result(found.get(charger_id))
        finally:
            self._asking = None


async def admissions(engine: AsyncEngine, charger_ids: Sequence[str]) -> dict[str, Admission]:
    """What is known of these chargers; strangers are left out."""
    columns = [chargers.c[name] for name in Admission.__struct_fields__ if name != "charger_id"]
    query = select(chargers.c.id, *columns).where(chargers.c.id == any_(cast(bindparam("ids"), ARRAY(Text))))
    async with engine.connect() as db:
        rows = (await db.execute(query, {"ids": charger_ids})).mappings().all()
    known = {}
    for row in rows:
        values = dict(row)
        values["charger_id"] = values.pop("id")
        values["pending_password_hashes"] = tuple(values["pending_password_hashes"])
        known[values["charger_id"]] = Admission(**values)
    return known


async def registered_chargers(engine: AsyncEngine, prefix: str) -> list[str]:
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


async def mark_disconnected(engine: AsyncEngine, node: str) -> int:
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
