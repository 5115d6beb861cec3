"""The relay's SQL: the events that the broker has not acknowledged, and the advisory locks on their lanes.

Like the ledger's (csms/db/store.py) it runs on asyncpg's own connection.
"""

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from zlib import crc32

from msgspec import Struct

from csms.core.records import Event
from csms.db.driver import DriverConnection
from csms.db.rows import from_row

LANES = 64
LOCK_CLASS = 0x6373_6D73  # "csms": the first key of the advisory locks, the lane is the second
CHANNEL = "csms_outbox"
PARKED_AFTER = 10
_COUNTED = 1_000_000


def lane(charger_id: str) -> int:
    """The lane of a charger's events: order is kept within a lane."""
    return crc32(charger_id.encode()) % LANES


class OutboxRow(Struct, frozen=True):
    """A pending event. `event` is None when its partition was dropped: it cannot be sent any more."""

    charger_id: str
    seq: int
    attempts: int
    event: Event | None


class ParkedEvent(Struct, frozen=True, kw_only=True):
    """A parked event. `event_id`, `event_type` and `topic` are None when the event is no longer stored."""

    charger_id: str
    seq: int
    recorded_at: datetime
    attempts: int
    error: str | None
    event_id: str | None
    event_type: str | None
    topic: str | None


class OutboxCounts(Struct, frozen=True, kw_only=True):
    """`dead` counts parked events. Both counts stop at a million."""

    pending: int
    dead: int
    oldest_at: datetime | None


# For the chargers of the oldest rows, their *lowest* numbers. `recorded_at` alone would not do: it is taken from the
# writing node's clock before the charger's row is locked, so its order may differ from that of `seq`.
_PENDING = """
WITH oldest AS (
    SELECT mine.charger_id, mine.seq
    FROM unnest($1::int2[]) AS lanes(lane)
    CROSS JOIN LATERAL (
        SELECT charger_id, seq, recorded_at FROM outbox
        WHERE outbox.lane = lanes.lane AND NOT dead AND charger_id <> ALL($2::text[])
        ORDER BY recorded_at, charger_id, seq LIMIT $3
    ) AS mine
    ORDER BY mine.recorded_at LIMIT $3
), upto AS (
    SELECT charger_id, max(seq) AS seq FROM oldest GROUP BY charger_id
)
SELECT lowest.charger_id, lowest.seq, lowest.attempts, lowest.recorded_at,
       events.event_id, events.event_type, events.topic, events.body, events.transaction_id,
       events.history_epoch
FROM upto
CROSS JOIN LATERAL (
    SELECT charger_id, seq, attempts, recorded_at FROM outbox
    WHERE outbox.charger_id = upto.charger_id AND outbox.seq <= upto.seq AND NOT dead
    ORDER BY outbox.seq LIMIT $3
) AS lowest
LEFT JOIN events ON events.charger_id = lowest.charger_id AND events.seq = lowest.seq
    AND events.recorded_at = lowest.recorded_at
ORDER BY lowest.recorded_at, lowest.charger_id, lowest.seq
"""


async def pending(
    db: DriverConnection, lanes: Sequence[int], limit: int, without: Sequence[str] = ()
) -> list[OutboxRow]:
    """About `limit` of the oldest rows of these lanes, without the chargers in `without`.

    Each charger in the result has its lowest pending numbers there, without a gap. The rows of one charger are in
    the order of `seq`, those of different chargers by age.
    """
    rows = [
        OutboxRow(
            row["charger_id"],
            row["seq"],
            row["attempts"],
            None if row["body"] is None else from_row(Event, row),
        )
        for row in await db.fetch(_PENDING, list(lanes), list(without), limit)
    ]
    return _in_order(rows)


def _in_order(rows: list[OutboxRow]) -> list[OutboxRow]:
    """Order by age between chargers and by `seq` within one, also where the writers' clocks disagreed."""
    numbers: dict[str, list[OutboxRow]] = {}
    for row in rows:
        numbers.setdefault(row.charger_id, []).append(row)
    for own in numbers.values():
        own.sort(key=lambda row: -row.seq)
    return [numbers[row.charger_id].pop() for row in rows]


async def delete(db: DriverConnection, keys: Iterable[tuple[str, int]]) -> None:
    """Delete the (charger_id, seq) that the broker has acknowledged. Safe to repeat."""
    charger_ids, numbers = zip(*keys, strict=True)
    await db.execute(
        "DELETE FROM outbox USING unnest($1::text[], $2::int8[]) AS acked(charger_id, seq)"
        " WHERE outbox.charger_id = acked.charger_id AND outbox.seq = acked.seq",
        charger_ids,
        numbers,
    )


async def count_refusal(
    db: DriverConnection, charger_id: str, seq: int, error: str, *, permanent: bool
) -> tuple[int, bool]:
    """Count an attempt that the broker refused. Returns (attempts, parked): ten permanent refusals park the event."""
    row = await db.fetchrow(
        "UPDATE outbox SET attempts = least(attempts + 1, 32000), last_error = left($3, 500),"
        " dead = dead OR ($4 AND attempts + 1 >= $5) WHERE charger_id = $1 AND seq = $2 RETURNING attempts, dead",
        charger_id,
        seq,
        error,
        permanent,
        PARKED_AFTER,
    )
    return (row["attempts"], row["dead"]) if row is not None else (0, False)


async def park(db: DriverConnection, keys: Iterable[tuple[str, int]], error: str) -> None:
    """Park these (charger_id, seq): they are not sent unless an operator revives them."""
    charger_ids, numbers = zip(*keys, strict=True)
    await db.execute(
        "UPDATE outbox SET dead = true, last_error = $3 FROM unnest($1::text[], $2::int8[]) AS gone(charger_id, seq)"
        " WHERE outbox.charger_id = gone.charger_id AND outbox.seq = gone.seq",
        charger_ids,
        numbers,
        error,
    )


async def revive(db: DriverConnection, charger_id: str | None = None) -> int:
    """Return parked events (of one charger, or all) to the relay. Returns how many."""
    rows = await db.fetch(
        "UPDATE outbox SET dead = false, attempts = 0 WHERE dead AND ($1::text IS NULL OR charger_id = $1)"
        " RETURNING lane",
        charger_id,
    )
    if rows:
        await notify(db, {row["lane"] for row in rows})
    return len(rows)


async def list_parked(db: DriverConnection, limit: int, charger_id: str | None = None) -> list[ParkedEvent]:
    """Parked events, oldest first."""
    rows = await db.fetch(
        "SELECT outbox.charger_id, outbox.seq, outbox.recorded_at, outbox.attempts, outbox.last_error AS error,"
        " events.event_id, events.event_type, events.topic"
        " FROM outbox LEFT JOIN events USING (charger_id, seq, recorded_at)"
        " WHERE outbox.dead AND ($2::text IS NULL OR outbox.charger_id = $2)"
        " ORDER BY outbox.recorded_at, outbox.charger_id, outbox.seq LIMIT $1",
        limit,
        charger_id,
    )
    return [ParkedEvent(**dict(row)) for row in rows]


async def discard(db: DriverConnection, charger_id: str | None = None) -> int:
    """Delete parked events (of one charger, or all) from the outbox; they can still be replayed. Returns how many."""
    rows = await db.fetch(
        "DELETE FROM outbox WHERE dead AND ($1::text IS NULL OR charger_id = $1) RETURNING 1", charger_id
    )
    return len(rows)


async def overfull(db: DriverConnection, limit: int) -> bool:
    """Whether more than `limit` events are pending."""
    waiting: int = await db.fetchval(
        "SELECT count(*) FROM (SELECT FROM outbox WHERE NOT dead LIMIT $1) AS rows", limit + 1
    )
    return waiting > limit


# Of a transaction's pending readings the newest of each interval stays, and those whose context is Transaction.* or
# Interruption.*.
_THIN = """
DELETE FROM outbox USING (
    SELECT charger_id, seq, row_number() OVER (
        PARTITION BY charger_id, events.transaction_id, date_bin($2::interval, recorded_at, 'epoch')
        ORDER BY seq DESC
    ) AS place, position($3::bytea IN events.body) + position($4::bytea IN events.body) > 0 AS marked
    FROM outbox JOIN events USING (charger_id, seq, recorded_at)
    WHERE outbox.lane = $1 AND NOT outbox.dead AND events.event_type = 'meter_reading'
) AS readings
WHERE outbox.charger_id = readings.charger_id AND outbox.seq = readings.seq
    AND readings.place > 1 AND NOT readings.marked
RETURNING 1
"""


async def thin(db: DriverConnection, of_lane: int, every: timedelta) -> int:
    """Remove a lane's pending meter readings from the outbox but for one per `every`; no other event is removed.

    They stay in `events` and can be replayed. Returns how many; 0 while another node's transaction thins.
    """
    if not await db.fetchval("SELECT pg_try_advisory_xact_lock(hashtext('csms.relief'))"):
        return 0
    marks = (b'"context":"Transaction.', b'"context":"Interruption.')
    return len(await db.fetch(_THIN, of_lane, every, *marks))


async def prune(db: DriverConnection, before: datetime) -> int:
    """Delete parked events recorded before `before`; no other event is deleted. Returns how many."""
    rows = await db.fetch("DELETE FROM outbox WHERE dead AND recorded_at < $1 RETURNING 1", before)
    return len(rows)


_COUNTS = f"""
SELECT (SELECT count(*) FROM (SELECT FROM outbox WHERE NOT dead LIMIT {_COUNTED}) AS rows) AS pending,
       (SELECT count(*) FROM (SELECT FROM outbox WHERE dead LIMIT {_COUNTED}) AS rows) AS dead,
       (SELECT min(first.recorded_at) FROM generate_series(0, {LANES - 1}) AS lanes(lane)
        CROSS JOIN LATERAL (SELECT recorded_at FROM outbox WHERE outbox.lane = lanes.lane AND NOT dead
                            ORDER BY recorded_at LIMIT 1) AS first) AS oldest_at
"""


async def counts(db: DriverConnection) -> OutboxCounts:
    """Counts of the whole outbox. Partitions of events are kept from the day of `oldest_at` on."""
    row = await db.fetchrow(_COUNTS)
    return OutboxCounts(pending=row["pending"], dead=row["dead"], oldest_at=row["oldest_at"])


async def take_lanes(db: DriverConnection, lanes: Sequence[int]) -> list[int]:
    """Lock those of the lanes that no session holds, until this session ends or `release_lanes`. Returns them."""
    rows = await db.fetch(
        "SELECT lane FROM unnest($2::int4[]) AS lanes(lane) WHERE pg_try_advisory_lock($1::int4, lane)",
        LOCK_CLASS,
        list(lanes),
    )
    return [row["lane"] for row in rows]


async def release_lanes(db: DriverConnection) -> None:
    """Release all lanes of this session."""
    await db.execute("SELECT pg_advisory_unlock_all()")


async def prepare_session(db: DriverConnection) -> None:
    """Set a session up for the relay: a deletion that a crash undoes only means that an event is sent again."""
    await db.execute("SET synchronous_commit TO off")


async def notify(db: DriverConnection, lanes: Iterable[int]) -> None:
    """Wake the nodes that hold these lanes. Never in the ledger's transaction: NOTIFY serializes commits."""
    await db.execute("SELECT pg_notify($1, $2)", CHANNEL, ",".join(str(lane) for lane in sorted(lanes)))
