import asyncio
import contextlib
import time
from collections import Counter
from typing import Any

import asyncpg
import pytest

from csms.core import reports
from csms.db.engine import create_engine
from csms.errors import LedgerError
from csms.node.ledger import Ledger
from tests.harness.fake_store import CP, at, meter, register, start, status, stop
from tests.harness.ledger_harness import OPEN, Counting, connected, count, running, seqs_are_gapless
from tests.harness.waiting import until


@contextlib.asynccontextmanager
async def held_up(url, table="charger_states"):
    """Block writers of the table until the end of the block."""
    async with connected(url) as db, db.transaction():
        await db.execute(f"LOCK TABLE {table} IN SHARE ROW EXCLUSIVE MODE")
        yield db


async def waiters(url):
    return await count(url, "pg_stat_activity", "wait_event_type = 'Lock' AND datname = current_database()")


# --- group commit ---------------------------------------------------------------------------------------


async def test_an_answer_means_that_it_is_durable(database_url):
    async with running(database_url) as ledger:
        answer = await ledger.record(start())
        assert await count(database_url, "transactions", f"id = {answer.transaction_id}") == 1
        assert await count(database_url, "outbox") == 1
        assert ledger.away_s() == 0


async def test_reports_that_wait_during_a_commit_go_into_the_next_one(database_url):
    async with running(database_url, kind=Counting, max_batch=40) as ledger:
        await ledger.record(reports.Seen(charger_id=CP))
        async with held_up(database_url):
            first = asyncio.create_task(ledger.record(start()))
            await until(lambda: waiters(database_url))
            rest = [asyncio.create_task(ledger.record(start(charger_id=f"c{n}"))) for n in range(100)]
            await asyncio.sleep(0)
        await asyncio.gather(first, *rest)
        assert [size for size in ledger.sizes if size] == [1, 1, 40, 40, 20]


async def test_the_number_of_statements_does_not_grow_with_the_batch(database_url, monkeypatch):
    statements = Counter()

    def count_calls(name, original):
        def counted(self, *args, **kwargs):
            statements["all"] += 1
            return original(self, *args, **kwargs)

        monkeypatch.setattr(asyncpg.Connection, name, counted)

    for name in ("fetch", "fetchval", "fetchrow", "execute", "executemany", "copy_records_to_table"):
        count_calls(name, getattr(asyncpg.Connection, name))

    async def of(size, make):
        async with running(database_url) as ledger:
            await asyncio.gather(*(ledger.record(start(charger_id=f"{size}-{n}")) for n in range(size)))
        statements.clear()
        async with running(database_url) as ledger:
            told = [make(n, f"{size}-{n}") for n in range(size)]
            await asyncio.gather(*map(ledger.record, told))
        return statements["all"]

    for make in (
        lambda n, name: start(charger_id=f"new{name}", message_id="m", digest=b"d"),
        lambda n, name: start(charger_id=name, message_id="m", digest=b"d"),
        lambda n, name: meter(None, register(n, at(n)), charger_id=name, message_id="n", digest=b"d"),
        lambda n, name: meter(None, register(n, at(n)), charger_id=name, message_id="o", digest=b"d"),
        lambda n, name: status("Charging", charger_id=name),
        lambda n, name: stop(-1, charger_id=name, id_tag="x", readings=[register(1, at(n))]),
        lambda n, name: stop(-1, charger_id=name, digest=b"d"),
    ):
        few = await of(5, make)
        assert few == await of(400, make)
        assert few < 30


async def test_each_caller_gets_its_own_answer(database_url):
    async with running(database_url) as ledger:
        answers = await asyncio.gather(*(ledger.record(start(charger_id=f"c{n}")) for n in range(50)))
        async with connected(database_url) as db:
            rows = await db.fetch("SELECT id, charger_id FROM transactions")
    assert {f"c{n}": answer.transaction_id for n, answer in enumerate(answers)} == {
        row["charger_id"]: row["id"] for row in rows
    }


async def test_the_commit_listener_gets_each_commit_and_may_fail(database_url):
    told = []

    def listen(events):
        told.extend(event.event_type for event in events)
        raise RuntimeError("the relay's own trouble")

    async with running(database_url, on_commit=listen) as ledger:
        first = await ledger.record(start())
        await ledger.record(stop(first.transaction_id))
        await ledger.record(reports.Seen(charger_id=CP))
    assert told == ["started", "completed", "session_cost"]


# --- one bad report -------------------------------------------------------------------------------------

POISON = {
    "NUL in an idTag": start(id_tag="a\0b"),
    "NUL in a model": reports.Boot(charger_id=CP, model="a\0b"),
    "lone surrogate in a vendor": reports.Boot(charger_id=CP, vendor="\ud800"),
    "lone surrogate in an idTag": start(id_tag="\ud800"),
    "lone surrogate in an info": status("Faulted", info="\udfff"),
    "connector beyond 31 bits": status("Faulted", connector_id=2**31),
    "register beyond 63 bits": start(meter_wh=2**63),
    "charger with a NUL": reports.Seen(charger_id="a\0b"),
}


@pytest.mark.parametrize("poison", POISON.values(), ids=POISON)
async def test_a_report_the_database_refuses_fails_alone(database_url, poison):
    async with running(database_url) as ledger:
        await ledger.record(reports.Seen(charger_id=CP))
        good = [start(charger_id=f"c{n}") for n in range(10)]
        told = [*good[:5], poison, *good[5:], start(connector_id=5)]
        answers = await asyncio.gather(*map(ledger.record, told), return_exceptions=True)
        refused = answers.pop(5)
        # A refusal by the database is a LedgerError; an event that cannot be encoded fails in the decision.
        assert isinstance(refused, LedgerError | UnicodeError), refused
        assert all(isinstance(answer, reports.Started) for answer in answers)
        assert await count(database_url, "transactions") == 11
        assert await count(database_url, "events") == 11
        assert await seqs_are_gapless(database_url)
        assert await ledger.record(start()) is not None


async def test_a_bad_report_among_many_costs_a_few_commits(database_url):
    async with running(database_url, kind=Counting) as ledger:
        told = [start(charger_id=f"c{n}") for n in range(256)]
        told[100] = start(id_tag="\0")
        answers = await asyncio.gather(*map(ledger.record, told), return_exceptions=True)
        assert sum(isinstance(answer, LedgerError) for answer in answers) == 1
        assert len(ledger.sizes) < 25
    assert await count(database_url, "transactions") == 255


async def test_a_decision_that_fails_fails_its_report_only(database_url):
    async with running(database_url, kind=Counting) as ledger:
        given: list[reports.Report[Any]] = [start(), meter(None, register("\ud800", at(1)), connector_id=2)]
        good, bad = await asyncio.gather(*map(ledger.record, given), return_exceptions=True)
        assert isinstance(good, reports.Started)
        assert good.transaction_id == 1
        assert isinstance(bad, UnicodeEncodeError)
        assert [size for size in ledger.sizes if size] == [2]


async def test_numbers_in_readings_never_spoil_them(database_url):
    async with running(database_url) as ledger:
        for n, text in enumerate(["1e300", "-1e300", "999999999999999", "nan", "1e-300", "\0"]):
            await ledger.record(meter(None, register(text, at(n), unit="kWh")))
    assert await count(database_url, "readings") == 6


async def test_a_posted_report_that_is_refused_does_not_affect_others(database_url):
    async with running(database_url) as ledger:
        assert ledger.post(reports.Boot(charger_id=CP, model="\0"))
        assert (await ledger.record(start())).transaction_id
        assert await count(database_url, "transactions") == 1


# --- pressure, cancellation, the end --------------------------------------------------------------------


async def test_a_full_queue_refuses_post_and_makes_record_wait(database_url):
    engine = create_engine(database_url)
    ledger = Ledger(engine, OPEN, max_waiting=2)
    posted = [ledger.post(reports.Seen(charger_id=f"c{n}")) for n in range(3)]
    assert posted == [True, True, False]
    recording = asyncio.create_task(ledger.record(start()))
    await asyncio.sleep(0)
    assert not recording.done()
    run = asyncio.create_task(ledger.run())
    assert (await recording).transaction_id == 1
    assert await count(database_url, "chargers") == 3
    run.cancel()
    await asyncio.wait([run])
    await engine.dispose()


async def test_a_report_is_recorded_although_its_caller_was_cancelled(database_url):
    async with running(database_url) as ledger:
        async with held_up(database_url):
            asked = [asyncio.create_task(ledger.record(start(charger_id=f"c{n}"))) for n in range(3)]
            await until(lambda: waiters(database_url))
            asked[0].cancel()
            asked[2].cancel()
            await asyncio.wait([asked[0], asked[2]])
        assert (await asked[1]).transaction_id
        await ledger.drain()
    assert await count(database_url, "transactions") == 3


async def test_drain_waits_for_reports(database_url):
    async with running(database_url) as ledger:
        for n in range(100):
            ledger.post(start(charger_id=f"c{n}"))
        await ledger.drain()
        assert await count(database_url, "transactions") == 100


async def test_drain_does_not_wait_for_ever(database_url):
    async with running(database_url) as ledger:
        async with held_up(database_url):
            ledger.post(start())
            before = time.monotonic()
            await ledger.drain(timeout_s=0.1)
            assert time.monotonic() - before < 5
        await ledger.drain()
    assert await count(database_url, "transactions") == 1


async def test_callers_are_cancelled_when_the_ledger_ends(database_url):
    engine = create_engine(database_url)
    ledger = Ledger(engine, OPEN, max_batch=2, max_waiting=4)
    run = asyncio.create_task(ledger.run())
    await ledger.record(reports.Seen(charger_id="c0"))
    async with held_up(database_url):
        told = [start(charger_id=f"c{n}") for n in range(10)]
        asked = [asyncio.create_task(ledger.record(report)) for report in told]
        await until(lambda: waiters(database_url))
        run.cancel()
        done, _ = await asyncio.wait([run], timeout=10)
        assert done
        answered, _ = await asyncio.wait(asked, timeout=10)
        assert len(answered) == 10
        assert all(task.cancelled() for task in asked)
    with pytest.raises(asyncio.CancelledError):
        await ledger.record(start())
    await engine.dispose()
    # Nothing was half done, and all of it can be reported again.
    assert await count(database_url, "transactions") == await count(database_url, "events")
    async with running(database_url) as again:
        await asyncio.gather(*map(again.record, told))
    assert await count(database_url, "transactions") == 10
    assert await seqs_are_gapless(database_url)


async def test_a_ledger_may_run_again(database_url):
    engine = create_engine(database_url)
    ledger = Ledger(engine, OPEN)
    for n in range(2):
        run = asyncio.create_task(ledger.run())
        await asyncio.sleep(0)
        await ledger.record(start(charger_id=f"c{n}"))
        run.cancel()
        await asyncio.wait([run])
    await engine.dispose()
    assert await count(database_url, "transactions") == 2
