"""The history epoch: how often this database has been restored from a backup.

What csms gave out between the backup and its restoration is not in the database any more: numbers of events, ids of
transactions. Events carry the epoch, so that their receivers do not take new numbers for old ones.
"""

from collections.abc import Mapping
from typing import Any

from sqlalchemy.ext.asyncio import AsyncEngine

from csms.core.records import ChargerState
from csms.db.driver import DriverConnection, driver_connection
from csms.db.record_sql import STATE_SQL
from csms.errors import CsmsError

IDS_AHEAD = 1_000_000

_EPOCH = "(SELECT coalesce(max(epoch), 0) FROM restores)"
# The epoch beside each row: a statement of its own in each commit would cost more.
STATES_WITH_EPOCH = STATE_SQL.select.replace(" FROM ", f", {_EPOCH} AS history_epoch FROM ")
_SEQUENCES = """
SELECT sequencename AS name, coalesce(last_value, start_value - increment_by) AS last, increment_by AS step,
       max_value AS highest, cycle
FROM pg_sequences WHERE schemaname = current_schema() ORDER BY sequencename
"""


def state_and_epoch(row: Mapping[Any, Any]) -> tuple[ChargerState, int]:
    """Read a row of STATES_WITH_EPOCH."""
    values = dict(row)
    history_epoch: int = values.pop("history_epoch")
    return ChargerState(**values), history_epoch


async def epoch(db: DriverConnection) -> int:
    """Return how often the database has been restored, 0 for never."""
    found: int = await db.fetchval(f"SELECT {_EPOCH}")
    return found


async def begin_epoch(engine: AsyncEngine, note: str, *, ids_ahead: int = IDS_AHEAD) -> int:
    """Note that the database was restored, and return the new epoch.

    Every sequence goes on `ids_ahead` numbers later, beyond what was given out after the backup. Raises CsmsError if
    a sequence has not so many numbers left; nothing has changed then.
    """
    async with engine.connect() as connection:
        db = await driver_connection(connection)
        async with db.transaction():
            await db.execute("LOCK TABLE restores IN EXCLUSIVE MODE")
            begun: int = await db.fetchval(
                f"INSERT INTO restores (epoch, note) VALUES ({_EPOCH} + 1, $1) RETURNING epoch", note
            )
            following = {row["name"]: _following(row, ids_ahead) for row in await db.fetch(_SEQUENCES)}
            for name, number in following.items():
                await db.execute("SELECT setval($1::text::regclass, $2::int8)", name, number)
    return begun


def _following(sequence: Mapping[Any, Any], count: int) -> int:
    """The number after which a sequence goes on."""
    following: int = sequence["last"] + count * sequence["step"]
    if following <= sequence["highest"]:
        return following
    if sequence["cycle"]:
        return count
    left = (sequence["highest"] - sequence["last"]) // sequence["step"]
    raise CsmsError(
        f"the sequence {sequence['name']} has only {left} numbers left: skip fewer, with --ids-ahead."
    )
