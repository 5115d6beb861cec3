import asyncio
import contextlib

from csms.core import reports
from csms.db.engine import create_engine
from csms.ledgers import Ledgers
from tests.core.desk import at, meter, register, start, stop
from tests.db.books import OPEN, connected, count, seqs_are_gapless, until

CHARGERS = [f"c{n}" for n in range(12)]


@contextlib.asynccontextmanager
async def running(url, policy=OPEN):
    engine = create_engine(url)
    ledgers = Ledgers(engine, policy, writers=2)
    task = asyncio.create_task(ledgers.run())
    try:
        yield ledgers
        assert not task.done(), task
    finally:
        task.cancel()
        await asyncio.wait([task])
        await engine.dispose()


def parted(ledgers):
    """A charger of the one ledger, and one of the other."""
    first = CHARGERS[0]
    return first, next(c for c in CHARGERS if ledgers._of(c) is not ledgers._of(first))


async def test_sessions_of_many_chargers_are_booked_by_two_writers_once_and_in_order(database_url):
    async with running(database_url) as ledgers:

        async def session(charger_id):
            begun = await ledgers.record(start(charger_id=charger_id))
            number = begun.transaction_id
            for minute in range(1, 6):
                await ledgers.record(
                    meter(number, register(1000 + 100 * minute, at(minute)), charger_id=charger_id)
                )
            await ledgers.record(stop(charger_id=charger_id, transaction_id=number, meter_wh=2000))
            return number

        numbers = await asyncio.gather(*map(session, CHARGERS))
        assert len(set(numbers)) == len(CHARGERS)
        assert len({id(ledgers._of(charger_id)) for charger_id in CHARGERS}) == 2
    assert await count(database_url, "transactions", "stopped_at IS NOT NULL") == len(CHARGERS)
    assert await count(database_url, "readings") == 5 * len(CHARGERS)
    assert await seqs_are_gapless(database_url)
    async with connected(database_url) as db:
        orders = await db.fetch(
            "SELECT array_agg(event_type ORDER BY seq) AS told FROM events GROUP BY charger_id"
        )
    assert {tuple(row["told"]) for row in orders} == {
        ("started", *["meter_reading"] * 5, "completed", "session_cost")
    }


async def test_one_writer_goes_on_while_the_other_waits_for_a_row(database_url):
    async with running(database_url) as ledgers:
        held, free = parted(ledgers)
        await ledgers.record(start(charger_id=held))
        async with connected(database_url) as db, db.transaction():
            await db.execute("SELECT 1 FROM charger_states WHERE charger_id = $1 FOR UPDATE", held)
            waiting = asyncio.create_task(ledgers.record(stop(charger_id=held, transaction_id=1)))
            begun = await asyncio.wait_for(ledgers.record(start(charger_id=free)), 10)
            assert begun.transaction_id
            assert not waiting.done()
        assert (await waiting).transaction_id == 1


async def test_a_tag_with_a_limit_is_counted_by_both_writers(database_url):
    async with connected(database_url) as db:
        await db.execute("INSERT INTO tags (id_tag, max_active_transactions) VALUES ('one', 1)")
    for _ in range(5):
        async with running(database_url) as ledgers:
            both = parted(ledgers)
            answers = await asyncio.gather(*(ledgers.record(start(charger_id=c, id_tag="one")) for c in both))
            assert sorted(a.authorization.status for a in answers) == ["Accepted", "ConcurrentTx"]
            for charger_id, answer in zip(both, answers, strict=True):
                await ledgers.record(stop(charger_id=charger_id, transaction_id=answer.transaction_id))
        async with connected(database_url) as db:
            await db.execute("DELETE FROM transactions")


async def test_what_both_were_told_is_drained(database_url):
    async with running(database_url) as ledgers:
        for charger_id in CHARGERS:
            assert ledgers.post(reports.Seen(charger_id=charger_id))
        await ledgers.drain()
        assert await count(database_url, "chargers") == len(CHARGERS)


async def test_postgres_is_away_when_it_is_away_for_one(database_url):
    async with running(database_url) as ledgers:
        first, other = parted(ledgers)
        await asyncio.gather(*(ledgers.record(start(charger_id=c)) for c in (first, other)))
        assert ledgers.away_s() == 0
        ledgers._of(other)._away_since = 0.0
        assert ledgers.away_s() > 0
        await ledgers.record(reports.Seen(charger_id=first))
        assert ledgers.away_s() > 0
        await ledgers.record(reports.Seen(charger_id=other))
        await until(lambda: ledgers.away_s() == 0)
