"""The history epoch: raised after a restoration from a backup, and in every event of every charger from then on."""

import json

import pytest

from csms.core import reports
from csms.db import history
from csms.db.charger_snapshot import snapshots
from csms.errors import CsmsError
from csms.mqtt.state import state_topics
from tests.harness.fake_store import NOW, start, status
from tests.harness.ledger_harness import PostgresStore


async def test_events_of_known_and_new_chargers_carry_the_epoch(engine, db):
    ledger = PostgresStore(db)
    ledger.now = NOW
    before = await ledger.batch(reports.Seen(charger_id="CP1"), start(charger_id="CP1"))
    assert await history.epoch(db) == 0
    assert await history.begin_epoch(engine, "the backup of two o'clock", ids_ahead=500) == 1
    ledger._transaction_ids.clear()  # as when the connection to the database has ended
    after = await ledger.batch(
        status("Charging", charger_id="CP1"), reports.Seen(charger_id="CP2"), start(charger_id="CP2")
    )
    assert after[2].transaction_id > before[1].transaction_id + 499
    told = await db.fetch("SELECT charger_id, seq, history_epoch, body FROM events ORDER BY charger_id, seq")
    assert [(row["charger_id"], row["seq"], row["history_epoch"]) for row in told] == [
        ("CP1", 1, 0), ("CP1", 2, 1), ("CP2", 1, 1)
    ]  # fmt: skip
    assert [json.loads(row["body"]).get("historyEpoch") for row in told] == [None, 1, 1]
    (snapshot,) = await snapshots(db, ["CP1"])
    assert {getattr(topic, "history_epoch", None) for topic in state_topics(snapshot).values()} == {1}
    assert await db.fetchval("SELECT note FROM restores WHERE epoch = 1") == "the backup of two o'clock"


async def test_every_epoch_is_later_than_the_one_before(engine, db):
    assert [await history.begin_epoch(engine, "", ids_ahead=1) for _ in range(3)] == [1, 2, 3]


async def test_a_sequence_without_so_many_numbers_is_named_and_nothing_changes(engine, db):
    await db.execute("SELECT setval('transaction_ids', 2147483000), setval('reservation_ids', 2147483000)")
    with pytest.raises(CsmsError, match="transaction_ids has only 647 numbers left"):
        await history.begin_epoch(engine, "", ids_ahead=1000)
    assert await history.epoch(db) == 0
    assert await db.fetchval("SELECT nextval('event_numbers')") < 10_000
    await history.begin_epoch(engine, "", ids_ahead=647)
    assert await db.fetchval("SELECT last_value FROM transaction_ids") == 2**31 - 1


async def test_a_sequence_that_begins_again_goes_on_from_its_start(engine, db):
    await db.execute("SELECT setval('reservation_ids', 2147483000)")
    await history.begin_epoch(engine, "", ids_ahead=1000)
    assert await db.fetchval("SELECT nextval('reservation_ids')") == 1001
