"""Commands as rows: who requested what and how it ended, and the queue of those that wait for their charger.

Only their states change here. What an answer means for the charger is recorded by the ledger.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from msgspec import Struct
from sqlalchemy import func, select, text, update
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.ext.asyncio import AsyncConnection

from csms.adapter import Command
from csms.core.command_states import CANCELLED, EXPIRED, NO_ANSWER, SENDING, WAITING
from csms.core.masking import masked
from csms.core.text import storable_json
from csms.db.admin import Conflict, Missing
from csms.db.device_state_tables import commands, reservation_ids
from csms.db.rows import all_rows, first_row, from_row


class DueCommand(Struct, frozen=True, kw_only=True):
    """A queued command whose turn has come, as it is to be sent."""

    id: str
    charger_id: str
    action: str
    payload: dict[str, Any]
    timeout_s: float
    requested_by: str
    attempts: int
    expires_at: datetime | None


class CommandView(DueCommand, frozen=True, kw_only=True):
    """A command. `state` is a core.command_states.CommandState. JSON is OCPP's own, with its secrets masked."""

    number: int
    requested_at: datetime
    queued: bool
    state: str
    due_at: datetime | None
    sent_at: datetime | None
    ended_at: datetime | None
    answer: Any
    error: str | None
    late_answer: Any
    late_at: datetime | None


_DUE = text("""
SELECT * FROM (
    SELECT DISTINCT ON (c.charger_id) c.* FROM commands c JOIN charger_states s ON s.charger_id = c.charger_id
    WHERE c.queued AND c.state IN ('waiting', 'sending') AND s.online AND s.node = :node
    ORDER BY c.charger_id, c.number
) first WHERE state = 'waiting' AND due_at <= :now ORDER BY number LIMIT :most
""")


def _view(row: Mapping[Any, Any]) -> CommandView:
    # Older releases masked less.
    shown = {name: masked(row[name]) for name in ("payload", "answer", "error", "late_answer")}
    return from_row(CommandView, {**row, **shown})


# --- requests --------------------------------------------------------------------------------------------


async def add(
    db: AsyncConnection,
    charger_id: str,
    command: Command,
    now: datetime,
    *,
    expires_at: datetime | None = None,
) -> bool:
    """Store a command that is about to be sent or, with `expires_at`, queued. False: there is one with its id already."""
    queued = expires_at is not None
    made = await db.scalar(
        upsert(commands)
        .values(
            id=command.id,
            charger_id=charger_id,
            action=command.action,
            payload=storable_json(command.payload if queued else masked(command.payload)),
            requested_by=command.requested_by,
            requested_at=now,
            timeout_s=command.timeout_s,
            queued=queued,
            state=WAITING if queued else SENDING,
            attempts=0 if queued else 1,
            due_at=now if queued else None,
            expires_at=expires_at,
            sent_at=None if queued else now,
        )
        .on_conflict_do_nothing()
        .returning(commands.c.id)
    )
    return made is not None


async def cancel(db: AsyncConnection, command_id: str, now: datetime) -> CommandView:
    """Cancel a command that waits. Raises Missing, and Conflict for one that does not wait any more."""
    row = await first_row(
        db,
        update(commands)
        .where(commands.c.id == command_id, commands.c.state == WAITING)
        .values(state=CANCELLED, ended_at=now)
        .returning(commands),
    )
    if row is not None:
        return _view(row)
    found = await get(db, command_id)
    raise Conflict(f"The command does not wait any more: it is {found.state}.")


async def get(db: AsyncConnection, command_id: str) -> CommandView:
    """Raises Missing."""
    row = await first_row(db, select(commands).where(commands.c.id == command_id))
    if row is None:
        raise Missing(f"There is no command {command_id!r}.")
    return _view(row)


async def list_commands(
    db: AsyncConnection,
    charger_id: str,
    *,
    before: int | None = None,
    states: Sequence[str] = (),
    action: str | None = None,
    limit: int = 100,
) -> list[CommandView]:
    """A charger's commands, newest first, from the one before number `before`."""
    query = select(commands).where(commands.c.charger_id == charger_id)
    if before is not None:
        query = query.where(commands.c.number < before)
    if states:
        query = query.where(commands.c.state.in_(states))
    if action is not None:
        query = query.where(commands.c.action == action)
    return [_view(row) for row in await all_rows(db, query.order_by(commands.c.number.desc()).limit(limit))]


async def next_reservation_id(db: AsyncConnection) -> int:
    number: int = (await db.execute(select(reservation_ids.next_value()))).scalar_one()
    return number


# --- the queue ---------------------------------------------------------------------------------------------


async def due(db: AsyncConnection, node: str, now: datetime, *, most: int = 100) -> list[DueCommand]:
    """The next command of each charger that this node holds, unless the charger's last one is still being sent."""
    rows = await all_rows(db, _DUE, {"node": node, "now": now, "most": most})
    return [from_row(DueCommand, row) for row in rows]


async def claim(db: AsyncConnection, command_id: str, node: str, now: datetime) -> int | None:
    """Claim a command for sending. Returns the number of this attempt; None: the command does not wait any more."""
    attempts: int | None = await db.scalar(
        update(commands)
        .where(commands.c.id == command_id, commands.c.state == WAITING)
        .values(state=SENDING, node=node, sent_at=now, attempts=commands.c.attempts + 1)
        .returning(commands.c.attempts)
    )
    return attempts


async def requeue(db: AsyncConnection, command_id: str, state: str, at: datetime, *, counted: bool) -> None:
    """Return a command to the queue after an attempt that ended in `state`, unless an answer came late."""
    await db.execute(
        update(commands)
        .where(
            commands.c.id == command_id,
            commands.c.state.in_((SENDING, state)),
            commands.c.late_at.is_(None),
        )
        .values(
            state=WAITING,
            due_at=at,
            ended_at=None,
            attempts=commands.c.attempts - (0 if counted else 1),
        )
    )


async def expire(db: AsyncConnection, now: datetime) -> int:
    """End the commands that waited past their expiry. Returns how many."""
    done = await db.execute(
        update(commands)
        .where(commands.c.state == WAITING, commands.c.expires_at <= now)
        .values(state=EXPIRED, ended_at=now)
    )
    return done.rowcount


async def take_abandoned(db: AsyncConnection, now: datetime, *, node: str | None = None) -> list[DueCommand]:
    """End the commands whose sender died as no_answer: those of `node`, which has just started, or long overdue ones.

    Returns the queued ones among them; the caller decides which are sent again.
    """
    if node is not None:
        condition = commands.c.node == node
    else:
        condition = (
            commands.c.sent_at + func.make_interval(0, 0, 0, 0, 0, 0, commands.c.timeout_s * 2 + 120) < now
        )
    rows = await all_rows(
        db,
        update(commands)
        .where(commands.c.state == SENDING, condition)
        .values(state=NO_ANSWER, ended_at=now, error="The node that sent it ended before the answer.")
        .returning(commands),
    )
    return [from_row(DueCommand, row) for row in rows if row["queued"]]


# --- chargers that have reconnected ------------------------------------------------------------------------


class ReturnedCharger(Struct, frozen=True, kw_only=True):
    """A charger on its present connection.

    `lacking`: features that it reported, in the last 30 days, as not supported. `asked_at`: the time of the last
    introduction.
    """

    protocol: str
    online: bool
    node: str | None
    generation: int
    connected_at: datetime | None
    booted_at: datetime | None
    asked_at: datetime | None
    lacking: frozenset[str]


_RETURNED = text("""
SELECT c.protocol, s.online, s.node, s.generation, s.connected_at, c.booted_at,
       (SELECT max(requested_at) FROM commands
        WHERE charger_id = c.id AND starts_with(id, 'introduction/')) AS asked_at,
       coalesce((SELECT array_agg(feature) FROM capabilities k
                 WHERE k.charger_id = c.id AND NOT k.supported
                   AND k.seen_at > now() - interval '30 days'), '{}') AS lacking
FROM chargers c JOIN charger_states s ON s.charger_id = c.id WHERE c.id = :charger_id
""")


async def returned_charger(db: AsyncConnection, charger_id: str) -> ReturnedCharger | None:
    row = await first_row(db, _RETURNED, {"charger_id": charger_id})
    return None if row is None else ReturnedCharger(**{**row, "lacking": frozenset(row["lacking"])})
