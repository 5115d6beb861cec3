"""Handshakes share a query: each gets its own answer, a stranger none, and a failure is everybody's."""

import asyncio

import pytest

from csms.db import admission
from csms.db.engine import create_engine


@pytest.fixture
async def engine(database_url):
    engine = create_engine(database_url)
    async with engine.begin() as db:
        await db.exec_driver_sql(
            "INSERT INTO chargers (id, password_hash, pending_password_hashes)"
            " SELECT 'c' || n, 'hash ' || n, ARRAY['next ' || n] FROM generate_series(1, 50) AS n"
        )
    yield engine
    await engine.dispose()


async def test_many_at_once_cost_two_queries_and_each_gets_its_own(engine, monkeypatch):
    asked = []
    read = admission.admissions

    async def noted(engine, charger_ids):
        asked.append(len(charger_ids))
        return await read(engine, charger_ids)

    monkeypatch.setattr(admission, "admissions", noted)
    admit = admission.Admissions(engine)
    first = asyncio.create_task(admit("c1"))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    known = await asyncio.gather(*(admit(f"c{n}") for n in range(1, 51)), admit("stranger"), admit("c7"))
    assert [one.password_hash for one in known[:50]] == [f"hash {n}" for n in range(1, 51)]
    assert known[6].pending_password_hashes == ("next 7",)
    assert known[50] is None
    assert known[51] == known[6]
    assert (await first).charger_id == "c1"
    assert asked == [1, 51]


async def test_a_later_question_is_answered_anew(engine):
    admit = admission.Admissions(engine)
    assert (await admit("c1")).password_hash == "hash 1"
    async with engine.begin() as db:
        await db.exec_driver_sql("UPDATE chargers SET password_hash = 'new' WHERE id = 'c1'")
    assert (await admit("c1")).password_hash == "new"


async def test_a_failure_is_everybodys_and_does_not_last(engine, monkeypatch):
    read = admission.admissions

    async def failing(engine, charger_ids):
        raise OSError("away")

    monkeypatch.setattr(admission, "admissions", failing)
    admit = admission.Admissions(engine)
    results = await asyncio.gather(admit("c1"), admit("c2"), return_exceptions=True)
    assert [type(result) for result in results] == [OSError, OSError]
    monkeypatch.setattr(admission, "admissions", read)
    assert (await admit("c2")).password_hash == "hash 2"


async def test_who_has_gone_leaves_the_others_their_answer(engine):
    admit = admission.Admissions(engine)
    gone, stays = asyncio.create_task(admit("c1")), asyncio.create_task(admit("c1"))
    await asyncio.sleep(0)
    gone.cancel()
    assert (await stays).charger_id == "c1"
