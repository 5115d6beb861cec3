"""What the ledger loads for tariffs: the terms, and the registers of sessions whose price depends on their course."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal

import asyncpg
import msgspec
import pytest

from csms.core import reports
from csms.core.tariffs import Band, Tariff
from csms.db import record_sql
from csms.db.record_sql import transaction_of
from tests.harness.fake_store import NOW, at, meter, register, start, status, stop
from tests.harness.ledger_harness import OPEN, PostgresStore, loaded
from tests.harness.narrowing import present

BANDED = Tariff(
    id="night",
    currency="EUR",
    energy_rate=Decimal("0.40"),
    idle_rate=Decimal("0.05"),
    bands=(Band(name="night", start="22:00", end="06:00", energy_rate=Decimal("0.20")),),
    time_zone="Europe/Vienna",
)
EVENING = datetime(2023, 12, 8, 20, tzinfo=UTC)


def minute(minutes):
    return EVENING + timedelta(minutes=minutes)


async def evening(db, interval_s, statuses=()):
    """A session of two hours across 22:00 in Vienna, readings all along, not yet stopped."""
    books = PostgresStore(db, msgspec.structs.replace(OPEN, tariff=BANDED))
    books.now = EVENING
    started = (await books.batch(start(at=EVENING)))[0]
    count = 90 * 60 // interval_s
    readings = [
        register(1000 + interval_s * n, EVENING + timedelta(seconds=n * interval_s))
        for n in range(1, count + 1)
    ]
    books.now = minute(95)
    await books.batch(meter(started.transaction_id, *readings), *statuses)
    books.now = minute(120)
    return books, started.transaction_id, 1000 + interval_s * count


@pytest.mark.parametrize("interval_s", [900, 60, 3])
async def test_the_bill_of_a_session_with_bands_comes_back_at_any_interval(db, interval_s):
    books, number, last_wh = await evening(db, interval_s)
    await books.batch(stop(number, meter_wh=last_wh, at=minute(120)))
    row = await db.fetchrow(f"{record_sql.TRANSACTION_SQL.select} WHERE id = $1", number)
    bill = present(transaction_of(dict(row)).bill)
    lines = {(line.component, line.band): line.quantity for line in bill.lines}
    energy_wh = last_wh - 1000
    # Even over 90 minutes, of which 60 lie before the edge; then 30 minutes of nothing.
    assert lines["energy", None] == Decimal(round(energy_wh * 2 / 3)) / 1000
    assert lines["energy", "night"] == Decimal(energy_wh - round(energy_wh * 2 / 3)) / 1000
    assert lines["idle", "night"] == pytest.approx(30, abs=0.13)
    assert sum(line.amount_minor for line in bill.lines) == row["cost_minor"]


async def test_readings_of_a_long_session_are_thinned_to_what_its_price_needs(db):
    _, number, last_wh = await evening(db, 3, [status("SuspendedEV", minute(92))])
    batch = [stop(number, meter_wh=last_wh, at=minute(120))]
    work = await loaded(db, *batch)
    evidence = work.session_evidence[number]
    assert evidence.statuses == ((minute(92), "SuspendedEV"),)
    assert 1000 <= len(evidence.registers) <= 1700 < 1800
    # The readings around the edge are among them.
    assert {minute(60), minute(60) - timedelta(seconds=3)} <= {at for at, _ in evidence.registers}


async def test_a_stop_without_bands_loads_no_readings(db, monkeypatch):
    books = PostgresStore(db)
    books.now = NOW
    started = (await books.batch(start()))[0]
    asked = []
    fetch = asyncpg.Connection.fetch

    async def noted(self, query, *args, **kwargs):
        asked.append(query)
        return await fetch(self, query, *args, **kwargs)

    monkeypatch.setattr(asyncpg.Connection, "fetch", noted)
    await loaded(db, meter(started.transaction_id, register(2000, at(1))))
    of_meter = list(asked)
    asked.clear()
    await loaded(db, stop(started.transaction_id))
    assert len(of_meter) == 3  # states, connectors, transactions
    assert len(asked) == 4  # and the charger
    assert not [query for query in (*of_meter, *asked) if "tariffs" in query or "charger_groups" in query]


async def test_tariffs_of_tags_and_groups_are_loaded_and_the_default_of_the_database(db):
    books = PostgresStore(db)
    books.now = NOW
    await books.batch(
        reports.Seen(charger_id="A"), reports.Seen(charger_id="B"), reports.Seen(charger_id="C")
    )
    async with db.transaction():
        for name in ("default", "mine", "yard"):
            terms = msgspec.json.encode(Tariff(id=name)).decode()
            await db.execute("INSERT INTO tariffs (id, terms) VALUES ($1, $2)", name, terms)
        await db.execute("INSERT INTO charger_groups (id, tariff_id) VALUES ('g', 'yard'), ('empty', NULL)")
        await db.execute("UPDATE chargers SET group_id = CASE id WHEN 'B' THEN 'g' ELSE 'empty' END")
        await db.execute("INSERT INTO tags (id_tag, tariff_id) VALUES ('VIP', 'mine')")
    await books.batch(
        start(charger_id="A", id_tag="vip"), start(charger_id="B"), start(charger_id="C", connector_id=2)
    )
    kept = await db.fetch(f"{record_sql.TRANSACTION_SQL.select} ORDER BY charger_id")
    assert [transaction_of(row).tariff.id for row in kept] == ["mine", "yard", "default"]
