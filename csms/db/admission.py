"""What adapters and the router ask about chargers: whether they are admitted, and where they are connected."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from sqlalchemy import Text, any_, bindparam, cast, func, select, text, update
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.ext.asyncio import AsyncEngine

from csms.adapter import Admission
from csms.db.rows import all_rows
from csms.db.tables import charger_states, chargers
from csms.errors import UnknownCharger

LoadAdmissions = Callable[[AsyncEngine, Sequence[str]], Awaitable[dict[str, Admission]]]


async def load_admissions(engine: AsyncEngine, charger_ids: Sequence[str]) -> dict[str, Admission]:
    """The admissions of these chargers; unknown ones are left out."""
    columns = [chargers.c[name] for name in Admission.__struct_fields__ if name != "charger_id"]
    query = select(chargers.c.id.label("charger_id"), *columns).where(
        chargers.c.id == any_(cast(bindparam("ids"), ARRAY(Text)))
    )
    async with engine.connect() as db:
        rows = await all_rows(db, query, {"ids": charger_ids})
    return {
        row["charger_id"]: Admission(
            **{**row, "pending_password_hashes": tuple(row["pending_password_hashes"])}
        )
        for row in rows
    }


class Admissions:
    """Looks up chargers at their handshake; None for an unknown one.

    Calls that arrive while a query runs share the next one: a fleet that reconnects at once would otherwise cost a
    database session and six round trips per charger.
    """

    def __init__(self, engine: AsyncEngine, load: LoadAdmissions = load_admissions) -> None:
        self._engine = engine
        self._load = load
        self._waiting: dict[str, asyncio.Future[Admission | None]] = {}
        self._task: asyncio.Task[None] | None = None

    async def __call__(self, charger_id: str) -> Admission | None:
        answer = self._waiting.get(charger_id)
        if answer is None:
            answer = self._waiting[charger_id] = asyncio.get_running_loop().create_future()
        if self._task is None:
            self._task = asyncio.create_task(self._answer(), name="admissions")
        return await asyncio.shield(answer)

    async def _answer(self) -> None:
        try:
            while self._waiting:
                waiting, self._waiting = self._waiting, {}
                try:
                    found = await self._load(self._engine, list(waiting))
                except Exception as error:
                    for answer in waiting.values():
                        answer.set_exception(error)
                        answer.exception()  # retrieved here, for callers that were cancelled
                else:
                    for charger_id, answer in waiting.items():
                        answer.set_result(found.get(charger_id))
        finally:
            self._task = None


async def registered_chargers(engine: AsyncEngine, prefix: str) -> list[str]:
    """The ids of registered chargers that begin with `prefix`."""
    query = select(chargers.c.id).where(func.starts_with(chargers.c.id, prefix)).order_by(chargers.c.id)
    async with engine.connect() as db:
        return list(await db.scalars(query))


async def holder(engine: AsyncEngine, charger_id: str) -> str | None:
    """The node that a charger is connected to; None: it is not connected. Raises UnknownCharger."""
    query = select(charger_states.c.node, charger_states.c.online).where(
        charger_states.c.charger_id == charger_id
    )
    async with engine.connect() as db:
        row = (await db.execute(query)).one_or_none()
    if row is None:
        raise UnknownCharger(f"{charger_id} is not known here.")
    return row.node if row.online else None


async def mark_disconnected(engine: AsyncEngine, node: str) -> int:
    """Mark the chargers of a node as offline: at its start, those it held when it was killed. Returns how many."""
    async with engine.begin() as db:
        # In the ledger's order, so that two starting nodes and a running ledger cannot deadlock.
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
