"""The relay's SQL: what the broker has not acknowledged yet, and the locks that say who sends it.

Like the ledger's (csms/db/store.py) it runs on asyncpg's own connection. `DriverConnection` there and here: asyncpg's.
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
DEAD_AFTER = 10
_COUNTED = 1_000_000


def lane(charger_id: str) -> int:
    """The lane of a charger's events: order is kept within a lane."""
    return crc32(charger_id.encode()) % LANES


class OutboxRow(Struct, frozen=True):
    """A pending event. `event` is None when its partition was dropped: nobody can send it any more."""

    charger_id: str
    seq: int
    attempts: int
    event: Event | None


class ParkedEvent(Struct, frozen=True, kw_only=True):
    """An event set aside. `event_id` and `topic` are None when the event itself is no longer stored."""

    charger_id: str
    seq: int
    recorded_at: datetime
    attempts: int
    error: str | None
    event_id: str | None
    event_type: str | None
    topic: str | None


class OutboxCounts(Struct, frozen=True, kw_only=True):
    """`pending` stops counting at a million."""

    pending: int
    dead: int
    oldest_at: datetime | None


# Whoever holds the chargers of the oldest rows gets those chargers' *lowest* numbers. `recorded_at` alone would
# not do: it is taken from the writing node's clock before the charger's row is locked, so it may run against seq.
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
       events.event_id, events.event_type, events.topic, events.body, events.transaction_id
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
    """About `limit` of the oldest rows of these lanes, leaving out the chargers `without`.

    Of each charger mentioned: its lowest pending numbers, in order, without a hole. The rows of one charger
    are in the order of seq, the chargers' among each other by age.
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
    """Age decides between chargers, seq within one, also where the writers' clocks disagreed."""
    numbers: dict[str, list[OutboxRow]] = {}
    for row in rows:
        numbers.setdefault(row.charger_id, []).append(row)
    for own in numbers.values():
        own.sort(key=lambda row: -row.seq)
    return [numbers[row.charger_id].pop() for row in rows]


async def delete(db: DriverConnection, keys: Iterable[tuple[str, int]]) -> None:
    """The broker has acknowledged these (charger_id, seq). Safe to repeat."""
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
    """Count an attempt the broker refused. Returns (attempts, dead): after ten permanent refusals it is parked."""
    row = await db.fetchrow(
        "UPDATE outbox SET attempts = least(attempts + 1, 32000), last_error = left($3, 500),"
        " dead = dead OR ($4 AND attempts + 1 >= $5) WHERE charger_id = $1 AND seq = $2 RETURNING attempts, dead",
        charger_id,
        seq,
        error,
        permanent,
        DEAD_AFTER,
    )
    return (row["attempts"], row["dead"]) if row is not None else (0, False)


async def park(db: DriverConnection, keys: Iterable[tuple[str, int]], error: str) -> None:
    """Set these aside: they will not be sent unless an operator frees them."""
    charger_ids, numbers = zip(*keys, strict=True)
    await db.execute(
        "UPDATE outbox SET dead = true, last_error = $3 FROM unnest($1::text[], $2::int8[]) AS gone(charger_id, seq)"
        " WHERE outbox.charger_id = gone.charger_id AND outbox.seq = gone.seq",
        charger_ids,
        numbers,
        error,
    )


async def revive(db: DriverConnection, charger_id: str | None = None) -> int:
    """Send parked events after all (of one charger, or all). Returns how many there were."""
    rows = await db.fetch(
        "UPDATE outbox SET dead = false, attempts = 0 WHERE dead AND ($1::text IS NULL OR charger_id = $1)"
        " RETURNING lane",
        charger_id,
    )
    if rows:
        await notify(db, {row["lane"] for row in rows})
    return len(rows)


async def list_parked(db: DriverConnection, limit: int, charger_id: str | None = None) -> list[ParkedEvent]:
    """What was set aside, the oldest first."""
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
    """Never send what was set aside (of one charger, or all); it can still be replayed. Returns how many."""
    rows = await db.fetch(
        "DELETE FROM outbox WHERE dead AND ($1::text IS NULL OR charger_id = $1) RETURNING 1", charger_id
    )
    return len(rows)


async def overfull(db: DriverConnection, limit: int) -> bool:
    """Whether more than `limit` events wait."""
    waiting: int = await db.fetchval(
        "SELECT count(*) FROM (SELECT FROM outbox WHERE NOT dead LIMIT $1) AS rows", limit + 1
    )
    return waiting > limit


# Of a transaction's waiting readings the newest of each stretch of time stays, and what the charger has marked.
_THIN = """
DELETE FROM outbox USING (
    SELECT charger_id, seq, row_number() OVER (
        PARTITION BY charger_id, events.transaction_id, date_bin($2::interval, recorded_at, 'epoch')
        ORDER BY seq DESC
    ) AS place, position($3::bytea IN events.body) + position($4::bytea IN events.body) > 0 AS telling
    FROM outbox JOIN events USING (charger_id, seq, recorded_at)
    WHERE outbox.lane = $1 AND NOT outbox.dead AND events.event_type = 'meter_reading'
) AS readings
WHERE outbox.charger_id = readings.charger_id AND outbox.seq = readings.seq
    AND readings.place > 1 AND NOT readings.telling
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
    """Give up parked events recorded before `before`. What is not parked is never given up."""
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
    """What waits in the whole outbox. `oldest_at` is also what event partitions must be kept from."""
    row = await db.fetchrow(_COUNTS)
    return OutboxCounts(pending=row["pending"], dead=row["dead"], oldest_at=row["oldest_at"])


async def take_lanes(db: DriverConnection, lanes: Sequence[int]) -> list[int]:
    """Those of the lanes that nobody has, now ours for as long as this session lives (or `give_back`)."""
    rows = await db.fetch(
        "SELECT lane FROM unnest($2::int4[]) AS lanes(lane) WHERE pg_try_advisory_lock($1::int4, lane)",
        LOCK_CLASS,
        list(lanes),
    )
    return [row["lane"] for row in rows]


async def release_lanes(db: DriverConnection) -> None:
    """All lanes of this session."""
    await db.execute("SELECT pg_advisory_unlock_all()")


async def prepare_session(db: DriverConnection) -> None:
    """Make a session the relay's: a deletion lost in a crash only means that an event is sent again."""
    await db.execute("SET synchronous_commit TO off")


async def notify(db: DriverConnection, lanes: Iterable[int]) -> None:
    """Wake whoever holds these lanes. Never inside the business transaction: NOTIFY serialises commits."""
    await db.execute("SELECT pg_notify($1, $2)", CHANNEL, ",".join(str(lane) for lane in sorted(lanes)))
