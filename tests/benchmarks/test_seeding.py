"""`python -m benchmarks.seed`: what it stores fits together, is refused beside real chargers, and can be added to."""

import json
from datetime import UTC, datetime

import pytest

from benchmarks import seeding
from benchmarks.seed import _fill
from csms.db import record_sql
from csms.db.driver import driver_connection
from csms.db.engine import create_engine
from csms.db.record_sql import transaction_of

NOW = datetime(2026, 5, 20, 12, tzinfo=UTC)
SMALL = seeding.Seed(readings=500, chargers=3, days=4, events=True)


async def rows(engine, query):
    async with engine.connect() as connection:
        db = await driver_connection(connection)
        return await db.fetch(query)


@pytest.fixture
async def engine(database_url):
    engine = create_engine(database_url)
    yield engine
    await engine.dispose()


async def test_readings_transactions_and_events_fit_together(engine):
    assert [done async for done in seeding.fill(engine, SMALL, now=NOW)] == [180, 360, 500]
    ((count, first, last),) = await rows(
        engine, "SELECT count(*), min(received_at), max(received_at) FROM readings"
    )
    assert count == 500
    assert (NOW - first).days in {3, 4}
    assert last < NOW
    ((away,),) = await rows(
        engine,
        "SELECT count(*) FROM readings LEFT JOIN transactions ON transactions.id = transaction_id"
        " WHERE transactions.id IS NULL OR sampled_at NOT BETWEEN started_at AND stopped_at + interval '1 minute'"
        " OR readings.energy_wh NOT BETWEEN meter_start_wh AND meter_stop_wh",
    )
    assert away == 0
    ((defaulted,),) = await rows(engine, "SELECT count(*) FROM readings_default")
    assert defaulted == 0
    stored = [transaction_of(row) for row in await rows(engine, record_sql.TRANSACTION_SQL.select)]
    assert all(t.energy_wh == 60 * 183 and t.cost_minor == 132 for t in stored)
    events = await rows(engine, "SELECT charger_id, seq, body FROM events ORDER BY charger_id, seq")
    assert len(events) == 500 + 3 * len(stored)
    for charger_id in {event["charger_id"] for event in events}:
        own = [event for event in events if event["charger_id"] == charger_id]
        assert [event["seq"] for event in own] == list(range(1, len(own) + 1))
        assert [json.loads(event["body"])["seq"] for event in own] == list(range(1, len(own) + 1))
    assert await rows(engine, "SELECT FROM outbox") == []


async def test_repeated_it_adds_as_many_again(engine):
    for expected in (500, 1000):
        async for _ in seeding.fill(engine, SMALL, now=NOW):
            pass
        ((count,),) = await rows(engine, "SELECT count(*) FROM readings")
        assert count == expected
    ((gaps,),) = await rows(
        engine,
        "SELECT count(*) FROM charger_states WHERE event_seq <> (SELECT count(*) FROM events"
        " WHERE events.charger_id = charger_states.charger_id)",
    )
    assert gaps == 0


async def test_real_chargers_are_left_alone_unless_told(engine, database_url, capsys):
    async with engine.begin() as db:
        await db.exec_driver_sql("INSERT INTO chargers (id) VALUES ('garage-3')")
    small = seeding.Seed(readings=10, chargers=2, days=1)
    with pytest.raises(seeding.RealChargers, match=r"garage-3.*--beside-real-chargers"):
        await _fill(database_url, small, refuse=True)
    assert await rows(engine, "SELECT FROM readings") == []
    await _fill(database_url, small, refuse=False)
    assert len(await rows(engine, "SELECT FROM readings")) == 10
    assert "stored 10 readings" in capsys.readouterr().out
