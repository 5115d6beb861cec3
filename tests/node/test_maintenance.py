"""Rows past their retention are deleted, but not those that the broker or an operator still needs."""

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from csms import settings
from csms.db import outbox
from csms.db.engine import create_engine
from csms.node import maintenance
from tests.harness.ledger_harness import connected
from tests.mqtt.conftest import Log

NOW = datetime.now(UTC)


@pytest.fixture
async def engine(database_url):
    engine = create_engine(database_url)
    yield engine
    await engine.dispose()


def chosen(**given):
    return settings.load(_env_file=None, **given)


async def test_only_parked_events_are_pruned_after_their_retention(engine, database_url):
    log = Log(engine)
    await log.commit(log.events(["A", "B", "C"], shift_s=-20 * 86_400))
    await log.commit(log.events(["A"]))
    async with connected(database_url) as db:
        await outbox.park(db, [("A", 1), ("A", 2)], "Not authorized")
    await maintenance.apply_retention(engine, chosen(outbox_retention_days=30), NOW)
    assert len(await log.rows()) == 4
    await maintenance.apply_retention(engine, chosen(outbox_retention_days=14), NOW)
    assert [(row["charger_id"], row["seq"], row["dead"]) for row in await log.rows()] == [
        ("A", 2, True),
        ("B", 1, False),
        ("C", 1, False),
    ]
    # The partition of a pending event is kept, and with it the event.
    kept = await log.query("SELECT charger_id FROM events WHERE seq = 1 ORDER BY charger_id")
    assert [row["charger_id"] for row in kept] == ["A", "B", "C"]


async def test_old_statuses_and_resolved_quarantine_are_deleted(engine, database_url):
    old, late = NOW - timedelta(days=400), NOW - timedelta(days=2)
    async with connected(database_url) as db:
        await db.executemany(
            "INSERT INTO status_history (id, charger_id, connector_id, status, error_code, recorded_at)"
            " VALUES ($1, 'CP1', 1, 'Available', 'NoError', $2)",
            [(1, old), (2, old), (3, late), (4, old), (5, late)],
        )
        await db.executemany(
            "INSERT INTO quarantine (charger_id, action, digest, payload, error, received_at, resolved_at)"
            " VALUES ($1, 'StopTransaction', 'x', 'x', 'x', $2, $3)",
            [("settled", old, old), ("settled late", old, late), ("open", old, None)],
        )
        await db.executemany(
            "INSERT INTO quarantine (charger_id, action, digest, payload, error, received_at, enrollment)"
            " VALUES ($1, 'StopTransaction', 'y', 'x', 'x', $2, $3)",
            [("never accepted", old, "Pending"), ("rejected", old, "Rejected"), ("waits", late, "Pending")],
        )
        await maintenance.apply_retention(
            engine, chosen(csms_status_retention_days=0, csms_quarantine_retention_days=0), NOW
        )
        assert await db.fetchval("SELECT count(*) FROM status_history") == 5
        assert await db.fetchval("SELECT count(*) FROM quarantine") == 6
        await maintenance.apply_retention(engine, chosen(), NOW)
        assert [r["id"] for r in await db.fetch("SELECT id FROM status_history ORDER BY id")] == [3, 5]
        left = await db.fetch("SELECT charger_id FROM quarantine ORDER BY id")
        assert [r["charger_id"] for r in left] == ["settled late", "open", "waits"]


async def test_an_outbox_that_is_too_long_is_thinned_of_readings_only(engine):
    log = Log(engine)
    quarter = datetime.fromtimestamp(NOW.timestamp() // 900 * 900 - 1800, UTC)
    for minute in range(0, 30, 5):  # two quarters of an hour, three readings each
        shift_s = (quarter - datetime.now(UTC)).total_seconds() + minute * 60 + 1
        await log.commit(log.events(["A", "B"], kind="meter_reading", shift_s=shift_s))
        await log.commit(log.events(["A"], kind="session_cost", shift_s=shift_s))
    marked = '"context":"Transaction.Begin"'
    await log.commit(log.events(["B"], kind="meter_reading", shift_s=-60, filler="x"))
    await log.query(
        "UPDATE events SET body = convert_to($1, 'UTF8') WHERE charger_id = 'B' AND seq = 1", f"{{{marked}}}"
    )
    assert await maintenance.thin_outbox(engine, 19) is None
    assert len(await log.rows()) == 19
    assert await maintenance.thin_outbox(engine, 18) == timedelta(minutes=15)
    rows = {(row["charger_id"], row["seq"]) for row in await log.rows()}
    kinds = await log.query("SELECT charger_id, seq, event_type FROM events")
    bills = {(r["charger_id"], r["seq"]) for r in kinds if r["event_type"] == "session_cost"}
    assert len(bills) == 6
    assert bills <= rows
    assert {seq for charger, seq in rows - bills if charger == "A"} == {5, 11}  # the newest of each quarter
    assert {1, 3, 6} <= {seq for charger, seq in rows if charger == "B"}  # and what the charger has marked
    assert not {2, 4, 5} & {seq for charger, seq in rows if charger == "B"}
    # All of them can still be replayed, and another run removes nothing more.
    assert len(kinds) == 19
    assert await maintenance.thin_outbox(engine, 1) == timedelta(minutes=15)
    assert {(row["charger_id"], row["seq"]) for row in await log.rows()} == rows


async def test_failed_work_is_tried_again_and_its_pause_is_kept():
    slept, results = [], iter([OSError("away"), timedelta(minutes=15), None])

    async def sleep(seconds):
        slept.append(seconds)

    async def work():
        result = next(results, asyncio.CancelledError())
        if isinstance(result, BaseException):
            raise result
        return result

    with pytest.raises(asyncio.CancelledError):
        await maintenance.repeat(60, work, sleep=sleep)
    assert slept == [60, 60, 900, 60]
