"""Handshakes share a query: each gets its own answer, an unknown charger none, and a failure goes to all of them."""

import asyncio

import pytest

from csms.db.admission import Admissions, load_admissions
from csms.db.engine import create_engine
from tests.harness.narrowing import present


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


async def test_many_at_once_cost_two_queries_and_each_gets_its_own(engine):
    asked = []

    async def noted(engine, charger_ids):
        asked.append(len(charger_ids))
        return await load_admissions(engine, charger_ids)

    admit = Admissions(engine, noted)
    first = asyncio.create_task(admit("c1"))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    known = await asyncio.gather(*(admit(f"c{n}") for n in range(1, 51)), admit("stranger"), admit("c7"))
    assert [present(one).password_hash for one in known[:50]] == [f"hash {n}" for n in range(1, 51)]
    assert present(known[6]).pending_password_hashes == ("next 7",)
    assert known[50] is None
    assert known[51] == known[6]
    assert present(await first).charger_id == "c1"
    assert asked == [1, 51]


async def test_a_later_call_queries_again(engine):
    admit = Admissions(engine)
    assert present(await admit("c1")).password_hash == "hash 1"
    async with engine.begin() as db:
        await db.exec_driver_sql("UPDATE chargers SET password_hash = 'new' WHERE id = 'c1'")
    assert present(await admit("c1")).password_hash == "new"


async def test_a_failure_goes_to_all_callers_and_does_not_last(engine):
    away = [OSError("away")]

    async def failing(engine, charger_ids):
        if away:
            raise away[0]
        return await load_admissions(engine, charger_ids)

    admit = Admissions(engine, failing)
    results = await asyncio.gather(admit("c1"), admit("c2"), return_exceptions=True)
    assert [type(result) for result in results] == [OSError, OSError]
    away.clear()
    assert present(await admit("c2")).password_hash == "hash 2"


async def test_a_cancelled_caller_leaves_the_others_their_answer(engine):
    admit = Admissions(engine)
    gone, stays = asyncio.create_task(admit("c1")), asyncio.create_task(admit("c1"))
    await asyncio.sleep(0)
    gone.cancel()
    assert present(await stays).charger_id == "c1"
