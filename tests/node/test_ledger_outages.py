"""The ledger while Postgres is away, silent, in migration, or back without having confirmed a commit."""

import asyncio
import contextlib
from datetime import UTC, datetime

import asyncpg

from csms.core import reports
from csms.db.engine import create_engine
from csms.embedded.postgres import EmbeddedPostgres
from csms.node.ledger import Ledger
from tests.harness import servers
from tests.harness.fake_store import CP, at, meter, register, start, status, stop
from tests.harness.ledger_harness import OPEN, connected, count, running, seqs_are_gapless
from tests.harness.postgres_proxy import through_a_proxy
from tests.harness.waiting import until


async def hang_up_on(url):
    """End all other connections to the database, as a failover does."""
    async with connected(url) as db:
        await db.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )


async def test_lost_connections_neither_lose_nor_double_a_report(database_url):
    async def charge(ledger, name):
        first = await ledger.record(start(charger_id=name))
        for n in range(20):
            await ledger.record(meter(first.transaction_id, register(1000 + n, at(n)), charger_id=name))
        await ledger.record(stop(first.transaction_id, charger_id=name))

    async with running(database_url) as ledger:
        charging = [asyncio.create_task(charge(ledger, f"c{n}")) for n in range(20)]
        lost = 0
        while lost < 12 and not all(task.done() for task in charging):
            await asyncio.sleep(0.02 + 0.007 * lost)
            await hang_up_on(database_url)
            lost += 1
        assert lost > 1
        await asyncio.gather(*charging)
        assert ledger.away_s() == 0
    assert await count(database_url, "transactions", "energy_wh = 24000") == 20
    assert await count(database_url, "readings") == 400
    assert await count(database_url, "events") == 20 * 23
    assert await seqs_are_gapless(database_url)


class Forgetful(Ledger):
    """Loses the connection between the commit and its confirmation."""

    forgets = 1

    async def _write(self, db, batch):
        done = await super()._write(db, batch)
        if batch and self.forgets:
            self.forgets -= 1
            raise ConnectionResetError("gone")
        return done


async def test_a_commit_whose_confirmation_was_lost_is_not_done_twice(database_url):
    told = [
        start(message_id="a", digest=b"a"),
        meter(1, register(2000, at(1)), register(2100, at(2))),
        meter(1, register(2200, None), message_id="b", digest=b"b"),
        status("Charging", at(3)),
        status("SuspendedEV", at(4)),
        stop(1, id_tag="x"),
        stop(-1),
        start(at=at(95), id_tag="y"),
    ]
    async with running(database_url, kind=Forgetful) as ledger:
        answers = await asyncio.gather(*map(ledger.record, told))
    assert [answer.transaction_id for answer in answers if answer is not None] == [1, 1, None, 2]
    async with connected(database_url) as db:
        rows = await db.fetch("SELECT event_type FROM events ORDER BY seq")
    assert [row["event_type"] for row in rows] == [
        "started",
        "meter_reading",
        "meter_reading",
        "meter_reading",
        "status_changed",
        "status_changed",
        "completed",
        "session_cost",
        "orphan_stop",
        "started",
    ]
    assert await count(database_url, "readings") == 3
    assert await count(database_url, "quarantine") == 1


async def test_a_restart_of_postgres_neither_loses_nor_doubles_a_report(own_cluster):
    port = servers.unused_port()
    settings = {"fsync": "off", "max_connections": "20"}
    charging = []
    with contextlib.ExitStack() as server:
        postgres = server.enter_context(EmbeddedPostgres(own_cluster, port=port, settings=settings))
        url = postgres.url
        async with running(url) as ledger:
            await ledger.record(reports.Seen(charger_id=CP))

            async def charge(name):
                first = await ledger.record(start(charger_id=name))
                for n in range(30):
                    await ledger.record(meter(first.transaction_id, register(n, at(n)), charger_id=name))
                await ledger.record(stop(first.transaction_id, charger_id=name))

            charging = [asyncio.create_task(charge(f"c{n}")) for n in range(20)]
            await until(lambda: count(url, "readings"))
            server.close()
            await until(lambda: ledger.away_s() > 0)
            assert not any(task.done() for task in charging)
            server.enter_context(EmbeddedPostgres(own_cluster, port=port, settings=settings))
            await asyncio.gather(*charging)
            assert ledger.away_s() == 0
        assert await count(url, "transactions", "stopped_at IS NOT NULL") == 20
        assert await count(url, "readings") == 600
        assert await count(url, "events") == 20 * 33
        assert await seqs_are_gapless(url)


async def test_a_table_that_a_migration_has_taken_away_is_waited_for(database_url):
    async with running(database_url) as ledger, connected(database_url) as db:
        await ledger.record(reports.Seen(charger_id=CP))
        for away, back in (
            ("ALTER TABLE connectors RENAME TO hidden", "ALTER TABLE hidden RENAME TO connectors"),
            ("ALTER TABLE tags RENAME status TO hidden", "ALTER TABLE tags RENAME hidden TO status"),
        ):
            await db.execute(away)
            asked = asyncio.create_task(ledger.record(start(at=datetime.now(UTC))))
            await until(lambda: ledger.away_s() > 0)
            assert not asked.done()
            await db.execute(back)
            assert (await asked).transaction_id


async def test_a_changed_column_type_costs_no_answer(database_url):
    async with running(database_url) as ledger, connected(database_url) as db:
        await ledger.record(reports.Seen(charger_id=CP))
        await db.execute("ALTER TABLE chargers ALTER COLUMN vendor TYPE varchar(200)")
        assert (await ledger.record(start())).transaction_id


async def test_a_clash_with_another_writer_is_tried_again(database_url):
    """Another transaction inserted a row that the batch does not see."""

    class Clashing(Ledger):
        clashes = 1

        async def _write(self, db, batch):
            if batch and self.clashes:
                self.clashes -= 1
                raise asyncpg.UniqueViolationError("a row came in between")
            return await super()._write(db, batch)

    async with running(database_url, kind=Clashing) as ledger:
        assert (await ledger.record(start())).transaction_id


async def test_ids_drawn_by_a_transaction_that_a_crash_undid_are_not_used(database_url):
    """Postgres hands them out again: the state of a sequence is as durable as the commits that drew from it."""

    class Crashing(Ledger):
        crashes = 1

        async def _draw_ids(self, db, entries):
            await super()._draw_ids(db, entries)
            if self.crashes:
                self.crashes -= 1
                async with connected(database_url) as other:
                    await other.execute(
                        "SELECT setval('transaction_ids', 1, false), setval('event_numbers', 1, false)"
                    )
                raise ConnectionResetError("crashed")

    async with running(database_url, kind=Crashing) as ledger:
        # Two reports of one start draw two ids and use one.
        twice = await asyncio.gather(*(ledger.record(start(message_id=name)) for name in "ab"))
        later = [await ledger.record(start(charger_id=name)) for name in ("c1", "c2", "c3")]
    ids = {answer.transaction_id for answer in (*twice, *later)}
    assert len(ids) == 4
    assert await count(database_url, "transactions") == 4


async def test_a_silent_server_is_disconnected(database_url):
    async with (
        through_a_proxy(database_url) as (proxy, through),
        running(through, commit_timeout_s=0.5) as ledger,
    ):
        await ledger.record(reports.Seen(charger_id=CP))
        proxy.silent.set()
        asked = asyncio.create_task(ledger.record(start()))
        await until(lambda: ledger.away_s() > 0.6)
        assert not asked.done()
        proxy.silent.clear()
        assert (await asked).transaction_id
    assert await count(database_url, "transactions") == 1


RECOVERING = b"SFATAL\0VFATAL\0C57P03\0Mthe database system is starting up\0\0"


async def test_a_postgres_that_recovers_from_a_crash_is_waited_for(database_url):
    async with through_a_proxy(database_url) as (proxy, through), running(through) as ledger:
        first = await ledger.record(start())
        proxy.refusal = RECOVERING
        await hang_up_on(database_url)
        asked = asyncio.create_task(ledger.record(stop(first.transaction_id)))
        await until(lambda: proxy.refused >= 3)
        assert not asked.done(), "refused for something that was not its fault"
        assert ledger.away_s() > 0
        proxy.refusal = b""
        assert (await asked).transaction_id == first.transaction_id
    assert await count(database_url, "transactions", "energy_wh = 24000") == 1


async def test_without_a_database_the_ledger_waits_for_one():
    port = servers.unused_port()
    engine = create_engine(f"postgresql://unknown@127.0.0.1:{port}/none")
    ledger = Ledger(engine, OPEN)
    run = asyncio.create_task(ledger.run())
    asked = asyncio.create_task(ledger.record(start()))
    await until(lambda: ledger.away_s() > 0)
    run.cancel()
    await asyncio.wait([run, asked], timeout=10)
    assert run.cancelled()
    assert asked.cancelled()
    await engine.dispose()


async def test_statuses_of_an_unconfirmed_commit_count_once_whatever_their_times(database_url):
    """The order of arrival decides, so a time stamp cannot tell a repetition from a clock that was set back."""
    told = [status("Charging", at(3)), status("Finishing"), status("Available", at(-60))]
    async with running(database_url, kind=Forgetful) as ledger:
        await asyncio.gather(*map(ledger.record, told))
        await asyncio.gather(*map(ledger.record, told))
    assert await count(database_url, "status_history") == 6
    assert await count(database_url, "events", "event_type = 'status_changed'") == 6
