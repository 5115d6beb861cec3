import asyncio
from datetime import timedelta

import pytest

from csms.adapter import Command
from csms.core import reports
from csms.core.device_state import CommandOutcome
from csms.core.work import Policy, Work
from csms.db import commands, device_state, retention
from csms.db.admin import Conflict, Missing
from csms.db.driver import driver_connection
from csms.db.engine import create_engine
from tests.harness.fake_store import NOW
from tests.harness.ledger_harness import running
from tests.harness.narrowing import present

LATER, MUCH_LATER = NOW + timedelta(minutes=5), NOW + timedelta(days=1)


@pytest.fixture
async def engine(database_url):
    engine = create_engine(database_url)
    async with running(database_url, clock=lambda: NOW) as ledger:
        for charger_id, node in (("c1", "n1"), ("c2", "n1"), ("c3", "n2")):
            await ledger.record(reports.Connected(charger_id=charger_id, node=node))
    yield engine
    await engine.dispose()


@pytest.fixture
async def db(engine):
    async with engine.begin() as db:
        yield db


async def put(db, command_id, charger_id="c1", *, payload=None, expires_at=MUCH_LATER):
    command = Command(id=command_id, action="ClearCache", payload=payload or {}, requested_by="me")
    return await commands.add(db, charger_id, command, NOW, expires_at=expires_at)


async def ended(db, command_id, state, *, charger_id="c1", answer=None, error=None):
    """The end of an attempt, as the ledger stores it."""
    work = Work(NOW, Policy(), numbers=iter(()), transaction_ids=iter(()))
    work.add(
        CommandOutcome(
            id=command_id,
            charger_id=charger_id,
            action="ClearCache",
            payload={},
            requested_by="me",
            state=state,
            answer=answer,
            error=error,
            sent_at=NOW,
            ended_at=NOW,
            late=False,
        )
    )
    await device_state.save(await driver_connection(db), work, {})


async def due(db, node="n1", now=NOW):
    return [row.id for row in await commands.due(db, node, now)]


async def test_each_charger_of_a_node_has_one_command_due_the_oldest(db):
    for command_id, charger_id in (("a", "c1"), ("b", "c1"), ("c", "c2"), ("d", "c3")):
        assert await put(db, command_id, charger_id)
    assert await due(db) == ["a", "c"]
    assert await due(db, "n2") == ["d"]
    assert await due(db, "n3") == []


async def test_one_id_is_one_command(db):
    assert await put(db, "a")
    assert not await put(db, "a")


async def test_a_command_that_is_sent_or_waits_for_its_next_attempt_holds_up_later_ones(db):
    await put(db, "a")
    await put(db, "b")
    assert await commands.claim(db, "a", "n1", NOW) == 1
    assert await due(db) == []
    await commands.requeue(db, "a", "no_answer", LATER, counted=True)
    assert await due(db) == []
    assert await due(db, now=LATER) == ["a"]
    assert await commands.claim(db, "a", "n1", LATER) == 2
    await ended(db, "a", "answered", answer={"status": "Accepted"})
    assert await due(db) == ["b"]


async def test_a_command_that_was_not_sent_counts_no_attempt(db):
    await put(db, "a")
    await commands.claim(db, "a", "n1", NOW)
    await commands.requeue(db, "a", "not_sent", NOW, counted=False)
    assert (await commands.get(db, "a")).attempts == 0


async def test_of_two_nodes_one_claims_a_command(engine):
    async with engine.begin() as db:
        await put(db, "a")

    async def claim(node):
        async with engine.begin() as db:
            return await commands.claim(db, "a", node, NOW)

    assert sorted(await asyncio.gather(claim("n1"), claim("n2")), key=str) == [1, None]


async def test_only_waiting_commands_are_cancelled_or_expire(db):
    await put(db, "a", expires_at=LATER)
    await put(db, "b", expires_at=LATER)
    await put(db, "c")
    await commands.claim(db, "b", "n1", NOW)
    with pytest.raises(Conflict, match="sending"):
        await commands.cancel(db, "b", NOW)
    with pytest.raises(Missing):
        await commands.cancel(db, "z", NOW)
    assert (await commands.cancel(db, "c", NOW)).state == "cancelled"
    assert await commands.expire(db, NOW) == 0
    assert await commands.expire(db, LATER) == 1
    assert (await commands.get(db, "a")).state == "expired"


async def test_a_recorded_end_is_not_overwritten(db):
    await put(db, "a", expires_at=None)
    await ended(db, "a", "no_answer", error="why")
    await ended(db, "a", "not_sent", error="another why")
    await commands.requeue(db, "a", "not_sent", NOW, counted=True)
    view = await commands.get(db, "a")
    assert (view.state, view.error) == ("no_answer", "why")


async def test_an_answer_is_stored_after_an_end_without_one(db):
    await put(db, "a", expires_at=None)
    await ended(db, "a", "no_answer", error="why")
    await ended(db, "a", "answered", answer={"status": "Accepted"})
    await ended(db, "a", "no_answer", error="why")
    view = await commands.get(db, "a")
    assert (view.state, view.error, view.answer) == ("answered", None, {"status": "Accepted"})


async def test_an_attempt_whose_end_is_recorded_late_does_not_take_a_command_out_of_the_queue(db):
    await put(db, "a")
    await commands.claim(db, "a", "n1", NOW)
    await commands.requeue(db, "a", "no_answer", LATER, counted=True)
    await ended(db, "a", "no_answer", error="why")
    assert (await commands.get(db, "a")).state == "waiting"


async def test_commands_of_a_dead_node_end_and_the_queued_ones_are_returned(db):
    await put(db, "a")
    await put(db, "b", "c3")
    await put(db, "c", "c2", expires_at=None)
    await commands.claim(db, "a", "n1", NOW)
    await commands.claim(db, "b", "n2", NOW)
    assert [row.id for row in await commands.take_abandoned(db, NOW, node="n1")] == ["a"]
    assert await commands.take_abandoned(db, NOW + timedelta(seconds=179)) == []
    assert [row.id for row in await commands.take_abandoned(db, NOW + timedelta(seconds=181))] == ["b"]
    assert (await commands.get(db, "c")).state == "no_answer"


async def test_ended_commands_are_deleted_past_their_retention(db):
    await put(db, "a", expires_at=None)
    await put(db, "b")
    await ended(db, "a", "answered")
    await retention.delete_commands(db, NOW)
    assert [view.id for view in await commands.list_commands(db, "c1")] == ["b", "a"]
    await retention.delete_commands(db, LATER)
    assert [view.id for view in await commands.list_commands(db, "c1")] == ["b"]


async def test_a_reconnected_charger_has_its_features_and_last_introduction(db):
    found = present(await commands.returned_charger(db, "c1"))
    assert (found.online, found.node, found.connected_at, found.booted_at) == (True, "n1", NOW, None)
    assert (found.protocol, found.lacking) == ("ocpp1.6", frozenset())
    assert await commands.returned_charger(db, "unknown") is None


async def test_reservation_ids_are_never_the_same(db):
    assert await commands.next_reservation_id(db) < await commands.next_reservation_id(db)
