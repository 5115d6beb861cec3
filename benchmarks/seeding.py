"""Fills a database as a fleet would have in a month: for benchmarks, never for production data. Through COPY."""

from collections.abc import AsyncIterator, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, Final

from msgspec import Struct
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from csms.core import events
from csms.core.pricing import session_cost
from csms.core.records import Event, StoredReading, Transaction
from csms.core.tariffs import Tariff
from csms.core.units import Measurand, Measured
from csms.db import partitions, record_sql, store
from csms.db.driver import driver_connection
from csms.errors import CsmsError

READINGS_EACH: Final = 60  # an hour of charging, a reading a minute
_ROWS_AT_ONCE = 20_000
_WH_A_MINUTE = 183  # 11 kW
_SAMPLES = (
    '[{"value":"%d","context":"Sample.Periodic","format":"Raw","measurand":"Energy.Active.Import.Register",'
    '"location":"Outlet","unit":"Wh"},{"value":"11020.0","context":"Sample.Periodic","format":"Raw",'
    '"measurand":"Power.Active.Import","location":"Outlet","unit":"W"},{"value":"16.02","context":"Sample.Periodic",'
    '"format":"Raw","measurand":"Current.Import","phase":"L1","location":"Outlet","unit":"A"},{"value":"16.00",'
    '"context":"Sample.Periodic","format":"Raw","measurand":"Current.Import","phase":"L2","location":"Outlet",'
    '"unit":"A"},{"value":"15.98","context":"Sample.Periodic","format":"Raw","measurand":"Current.Import",'
    '"phase":"L3","location":"Outlet","unit":"A"},{"value":"230.4","context":"Sample.Periodic","format":"Raw",'
    '"measurand":"Voltage","phase":"L1-N","location":"Outlet","unit":"V"}]'
)


class Seed(Struct, frozen=True, kw_only=True):
    """How much: `readings` in all, in transactions of an hour each, of `chargers`, over the last `days`."""

    readings: int = 10_000_000
    chargers: int = 1_000
    days: int = 30
    events: bool = False
    prefix: str = "BENCH-"


class RealChargers(CsmsError):
    """The database holds chargers of another origin, which must not be mixed with made-up readings."""


async def refuse_real_chargers(engine: AsyncEngine, prefix: str) -> None:
    """Raises RealChargers when the database knows a charger that no seeding has made."""
    async with engine.connect() as db:
        name = await db.scalar(
            text("SELECT id FROM chargers WHERE NOT starts_with(id, :prefix) ORDER BY id LIMIT 1"),
            {"prefix": prefix},
        )
    if name is not None:
        raise RealChargers(
            f"this database knows the charger {name}, which was not made for a benchmark:"
            " use an empty database, or say --beside-real-chargers."
        )


async def fill(engine: AsyncEngine, seed: Seed, *, now: datetime | None = None) -> AsyncIterator[int]:
    """Store what `seed` says; yields how many readings there are so far. Repeated, it adds as many again."""
    now = now or datetime.now(UTC)
    async with engine.connect() as connection:
        await _days(connection, seed, now)
        db: Any = await driver_connection(connection)
        numbers = await _chargers(db, seed)
        done = 0
        for wave, started_at in enumerate(_waves(seed, now)):
            done += await _store_wave(
                db, seed, wave, started_at, min(seed.readings - done, _wave(seed)), numbers
            )
            yield done
        # Not ANALYZE alone: else autovacuum begins with all of it a minute later, beside the next measurement.
        await db.execute("VACUUM (ANALYZE)")


def _wave(seed: Seed) -> int:
    """Readings of one transaction at each charger."""
    return seed.chargers * READINGS_EACH


def _waves(seed: Seed, now: datetime) -> Iterator[datetime]:
    """When the transactions of each wave start, the last one an hour and more ago."""
    count = -(-seed.readings // _wave(seed))
    first = now - timedelta(days=seed.days)
    step = (timedelta(days=seed.days) - timedelta(hours=2)) / count
    return (first + n * step for n in range(count))


async def _days(connection: AsyncConnection, seed: Seed, now: datetime) -> None:
    """Partitions of the days that are past."""
    async with connection.begin():
        await partitions.ensure(connection, now.date())
        for ago in range(seed.days + 1):
            day = now.date() - timedelta(days=ago)
            for table in ("readings", "events"):
                await connection.execute(text(partitions.create_sql(table, day)))


async def _chargers(db: Any, seed: Seed) -> dict[str, int]:
    """Make them where they are missing; how many events each has had."""
    await db.execute(
        "INSERT INTO chargers (id, vendor, model) SELECT $1 || lpad(n::text, 6, '0'), 'Bench', 'Mark 1'"
        " FROM generate_series(0, $2::int4 - 1) AS n ON CONFLICT DO NOTHING",
        seed.prefix,
        seed.chargers,
    )
    await db.execute(
        "INSERT INTO charger_states (charger_id) SELECT id FROM chargers WHERE starts_with(id, $1)"
        " ON CONFLICT DO NOTHING",
        seed.prefix,
    )
    rows = await db.fetch(
        "SELECT charger_id, event_seq FROM charger_states WHERE starts_with(charger_id, $1)"
        " ORDER BY charger_id LIMIT $2",
        seed.prefix,
        seed.chargers,
    )
    return {row["charger_id"]: row["event_seq"] for row in rows}


async def _store_wave(
    db: Any, seed: Seed, wave: int, started_at: datetime, readings: int, numbers: dict[str, int]
) -> int:
    owners = list(numbers)[: -(-readings // READINGS_EACH)]
    ids = await store.next_transaction_ids(db, len(owners))
    transactions = [
        _transaction(number, charger_id, wave, started_at)
        for number, charger_id in zip(ids, owners, strict=True)
    ]
    rows = [_reading(transaction, minute) for minute in range(READINGS_EACH) for transaction in transactions][
        :readings
    ]
    async with db.transaction():
        sql = record_sql.TRANSACTION_SQL
        await db.execute(sql.upsert_arrays, *sql.arrays(transactions))
        for first in range(0, len(rows), _ROWS_AT_ONCE):
            await record_sql.READING_SQL.copy(db, rows[first : first + _ROWS_AT_ONCE])
        if seed.events:
            await _store_events(db, transactions, rows, numbers)
    return len(rows)


def _transaction(number: int, charger_id: str, wave: int, started_at: datetime) -> Transaction:
    start_wh = wave * READINGS_EACH * _WH_A_MINUTE
    energy_wh, seconds = READINGS_EACH * _WH_A_MINUTE, Decimal(READINGS_EACH * 60)
    tariff = Tariff(energy_rate=Decimal("0.12"))
    cost = session_cost(tariff, energy_wh, seconds)
    ended_at = started_at + timedelta(minutes=READINGS_EACH)
    return Transaction(
        id=number,
        charger_id=charger_id,
        connector_id=1,
        key=f"seed/{number}",
        id_tag="BENCH-TAG",
        authorization_status="Accepted",
        meter_start_wh=start_wh,
        started_at=started_at,
        start_received_at=started_at,
        accounting_at=started_at,
        billing="billed",
        tariff=tariff,
        meter_stop_wh=start_wh + energy_wh,
        stopped_at=ended_at,
        stop_received_at=ended_at,
        stop_reason="Local",
        energy_wh=energy_wh,
        energy_source="meter_stop",
        duration_s=seconds,
        revision=1,
        cost_minor=cost.amount_minor,
        cost=cost.amount,
    )


def _reading(transaction: Transaction, minute: int) -> StoredReading:
    at = transaction.started_at + timedelta(minutes=minute, milliseconds=transaction.id % 60_000)
    register = transaction.meter_start_wh + minute * _WH_A_MINUTE
    return StoredReading(
        charger_id=transaction.charger_id,
        connector_id=1,
        transaction_id=transaction.id,
        sampled_at=at,
        received_at=at,
        digest=register.to_bytes(8, "big"),
        energy_wh=register,
        power_w=11_020,
        soc_percent=None,
        samples=_SAMPLES % register,
    )


async def _store_events(
    db: Any, transactions: Sequence[Transaction], rows: Sequence[StoredReading], numbers: dict[str, int]
) -> None:
    """As the ledger would have told them, already taken by a broker: no outbox rows."""
    drafts: dict[str, list[tuple[datetime, events.EventDraft]]] = {}
    by_id = {transaction.id: transaction for transaction in transactions}
    for transaction in transactions:
        drafts[transaction.charger_id] = [(transaction.started_at, events.started(transaction))]
    for row in rows:
        transaction = by_id[row.transaction_id or 0]
        session_wh = (row.energy_wh or 0) - transaction.meter_start_wh
        draft = events.meter_reading(
            row.charger_id,
            1,
            transaction,
            row.sampled_at,
            _measured(row),
            row.digest,
            register_wh=row.energy_wh,
            session_wh=session_wh,
        )
        drafts[row.charger_id].append((row.sampled_at, draft))
    for transaction in transactions:
        ended_at = transaction.stopped_at or transaction.started_at
        cost = session_cost(
            transaction.tariff, transaction.energy_wh or 0, transaction.duration_s or Decimal(0)
        )
        drafts[transaction.charger_id] += [
            (ended_at, events.completed(transaction)),
            (ended_at, events.session_cost(transaction, cost)),
        ]
    made: list[Event] = []
    drawn = iter(await store.next_numbers(db, sum(len(own) for own in drafts.values())))
    for charger_id, own in drafts.items():
        for at, draft in own:
            numbers[charger_id] += 1
            made.append(
                events.render(
                    draft, charger_id=charger_id, seq=numbers[charger_id], number=next(drawn), now=at
                )
            )
    for first in range(0, len(made), _ROWS_AT_ONCE):
        await record_sql.EVENT_SQL.copy(db, made[first : first + _ROWS_AT_ONCE])
    await db.executemany(
        "UPDATE charger_states SET event_seq = $2 WHERE charger_id = $1",
        [(charger_id, numbers[charger_id]) for charger_id in drafts],
    )


def _measured(row: StoredReading) -> Measured:
    assert row.energy_wh is not None
    measurands = {
        "Energy.Active.Import.Register": Measurand(value=row.energy_wh / 1000, unit="kWh"),
        "Power.Active.Import": Measurand(value=11.02, unit="kW"),
    }
    return Measured(measurands=measurands, energy_wh=row.energy_wh, power_w=row.power_w)
