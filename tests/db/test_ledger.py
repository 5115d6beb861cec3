import asyncio
import contextlib
import time
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import pytest

from csms.core import reports
from csms.core.records import Frame
from csms.db.engine import create_engine
from csms.embedded.postgres import EmbeddedPostgres
from csms.errors import LedgerError
from csms.ledger import Ledger
from tests import services
from tests.core.desk import CP, at, meter, register, start, status, stop
from tests.db.books import OPEN, connected, running, until


def frame(**given):
    defaults = {
        "charger_id": CP,
        "at": datetime.now(UTC),
        "outgoing": False,
        "kind": "call",
        "action": "Heartbeat",
        "message_id": "1",
        "frame": b'[2,"1","Heartbeat",{}]',
    }
    return Frame(**(defaults | given))


async def count(url, table, where="true"):
    async with connected(url) as db:
        return await db.fetchval(f"SELECT count(*) FROM {table} WHERE {where}")


async def seqs_are_gapless(url):
    async with connected(url) as db:
        rows = await db.fetch("SELECT charger_id, array_agg(seq ORDER BY seq) AS seqs FROM events GROUP BY 1")
    return all(list(row["seqs"]) == list(range(1, len(row["seqs"]) + 1)) for row in rows)


@contextlib.asynccontextmanager
async def held_up(url, table="charger_states"):
    """Whoever wants to change the table waits until the end of the block."""
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


class Counting(Ledger):
    """Notes how many reports were in each commit."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.sizes = []

    async def _try(self, batch, frames):
        self.sizes.append(len(batch))
        return await super()._try(batch, frames)


async def test_what_waits_during_a_commit_goes_into_the_next_one(database_url):
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


async def test_answers_go_to_who_asked(database_url):
    async with running(database_url) as ledger:
        answers = await asyncio.gather(*(ledger.record(start(charger_id=f"c{n}")) for n in range(50)))
        async with connected(database_url) as db:
            rows = await db.fetch("SELECT id, charger_id FROM transactions")
    assert {f"c{n}": answer.transaction_id for n, answer in enumerate(answers)} == {
        row["charger_id"]: row["id"] for row in rows
    }


async def test_the_relay_is_told_of_each_commit_and_may_fail(database_url):
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
        ledger.log_frame(frame())
        good = [start(charger_id=f"c{n}") for n in range(10)]
        told = [*good[:5], poison, *good[5:], start(connector_id=5)]
        answers = await asyncio.gather(*map(ledger.record, told), return_exceptions=True)
        refused = answers.pop(5)
        # What the database refuses is a LedgerError; what cannot even be told to the world is the decision's.
        assert isinstance(refused, LedgerError | UnicodeError), refused
        assert all(isinstance(answer, reports.Started) for answer in answers)
        assert await count(database_url, "transactions") == 11
        assert await count(database_url, "events") == 11
        assert await seqs_are_gapless(database_url)
        assert await ledger.record(start()) is not None
        await until(lambda: count(database_url, "messages"))


async def test_a_bad_report_among_many_costs_a_few_commits(database_url):
    async with running(database_url, kind=Counting) as ledger:
        told = [start(charger_id=f"c{n}") for n in range(256)]
        told[100] = start(id_tag="\0")
        answers = await asyncio.gather(*map(ledger.record, told), return_exceptions=True)
        assert sum(isinstance(answer, LedgerError) for answer in answers) == 1
        assert len(ledger.sizes) < 25
    assert await count(database_url, "transactions") == 255


async def test_a_decision_that_fails_is_the_reports_own_trouble(database_url):
    async with running(database_url, kind=Counting) as ledger:
        good, bad = await asyncio.gather(
            ledger.record(start()),
            ledger.record(meter(None, register("\ud800", at(1)), connector_id=2)),
            return_exceptions=True,
        )
        assert good.transaction_id == 1
        assert isinstance(bad, UnicodeEncodeError)
        assert [size for size in ledger.sizes if size] == [2]


async def test_numbers_in_readings_never_spoil_them(database_url):
    async with running(database_url) as ledger:
        for n, text in enumerate(["1e300", "-1e300", "999999999999999", "nan", "1e-300", "\0"]):
            await ledger.record(meter(None, register(text, at(n), unit="kWh")))
    assert await count(database_url, "readings") == 6


async def test_a_posted_report_that_is_refused_disturbs_nobody(database_url):
    async with running(database_url) as ledger:
        assert ledger.post(reports.Boot(charger_id=CP, model="\0"))
        assert (await ledger.record(start())).transaction_id
        assert await count(database_url, "transactions") == 1


# --- frames ---------------------------------------------------------------------------------------------


async def test_frames_are_logged_though_nothing_else_happens(database_url):
    async with running(database_url) as ledger:
        await asyncio.sleep(0.1)
        ledger.log_frame(frame())
        await until(lambda: count(database_url, "messages"))
        async with connected(database_url) as db:
            row = await db.fetchrow("SELECT * FROM messages")
        assert (row["charger_id"], row["action"], row["message_id"], row["outgoing"]) == (
            CP,
            "Heartbeat",
            "1",
            False,
        )
        assert row["frame"] == b'[2,"1","Heartbeat",{}]'


async def test_frames_hold_whatever_was_on_the_wire(database_url):
    async with running(database_url) as ledger:
        ledger.log_frame(frame(message_id="a\0b", action="\ud800x", frame=b"\0\xff"))
        ledger.log_frame(frame(action=None, message_id=None))
        await until(lambda: count(database_url, "messages"))
    async with connected(database_url) as db:
        rows = await db.fetch("SELECT message_id, action, frame FROM messages ORDER BY message_id")
    assert [tuple(row) for row in rows] == [("a\ufffdb", "?x", b"\0\xff"), (None, None, frame().frame)]


async def test_a_frame_the_database_refuses_is_the_only_one_lost(database_url):
    async with running(database_url) as ledger:
        for n in range(20):
            ledger.log_frame(frame(charger_id="\0" if n == 7 else f"c{n}"))
        answer = await ledger.record(start())
        assert answer.transaction_id == 1
        await until(lambda: count(database_url, "messages"))
        await ledger.drain()
    assert await count(database_url, "messages") == 19


async def test_a_full_log_drops_frames_and_never_waits(database_url):
    engine = create_engine(database_url)
    ledger = Ledger(engine, OPEN, max_frames=3)
    for _ in range(5):
        ledger.log_frame(frame())
    assert len(ledger._frames) == 3
    await engine.dispose()


# --- pressure, cancellation, the end --------------------------------------------------------------------


async def test_posting_gives_up_when_the_queue_is_full_and_recording_waits(database_url):
    engine = create_engine(database_url)
    ledger = Ledger(engine, OPEN, max_waiting=2)
    posted = [ledger.post(reports.Seen(charger_id=f"c{n}")) for n in range(3)]
    assert posted == [True, True, False]
    recording = asyncio.create_task(ledger.record(start()))
    await asyncio.sleep(0.01)
    assert not recording.done()
    run = asyncio.create_task(ledger.run())
    assert (await recording).transaction_id == 1
    assert await count(database_url, "chargers") == 3
    run.cancel()
    await asyncio.wait([run])
    await engine.dispose()


async def test_a_report_whose_caller_was_cancelled_is_recorded_all_the_same(database_url):
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


async def test_drain_waits_for_reports_and_frames(database_url):
    async with running(database_url, frame_delay_s=0.2) as ledger:
        for n in range(100):
            ledger.post(start(charger_id=f"c{n}"))
        ledger.log_frame(frame())
        await ledger.drain()
        assert await count(database_url, "transactions") == 100
        assert await count(database_url, "messages") == 1


async def test_drain_does_not_wait_for_ever(database_url):
    async with running(database_url) as ledger:
        async with held_up(database_url):
            ledger.post(start())
            before = time.monotonic()
            await ledger.drain(timeout_s=0.1)
            assert time.monotonic() - before < 5
        await ledger.drain()
    assert await count(database_url, "transactions") == 1


async def test_whoever_waits_when_the_ledger_ends_gets_no_answer(database_url):
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
        done, _ = await asyncio.wait(asked, timeout=10)
        assert len(done) == 10
        assert all(task.cancelled() for task in asked)
    with pytest.raises(asyncio.CancelledError):
        await ledger.record(start())
    await engine.dispose()
    # Nothing was half done, and all of it can be told again.
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


# --- when Postgres is away ------------------------------------------------------------------------------


async def hang_up_on(url):
    """End all other connections to the database, as a failover does."""
    async with connected(url) as db:
        await db.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )


async def test_connections_lost_at_any_moment_lose_and_double_nothing(database_url):
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
    """Commits, and never hears of it: the connection is lost between the commit and its confirmation."""

    forgets = 1

    async def _try(self, batch, frames):
        done = await super()._try(batch, frames)
        if batch and self.forgets:
            self.forgets -= 1
            raise ConnectionResetError("gone")
        return done


async def test_a_commit_whose_outcome_nobody_heard_of_is_not_done_twice(database_url):
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


async def test_postgres_stopped_and_started_again_loses_and_doubles_nothing(tmp_path_factory):
    directory = Path(tmp_path_factory.mktemp("postgres"))
    directory.chmod(0o755)
    port = services.unused_port()
    settings = {"fsync": "off", "max_connections": "20"}
    charging = []
    with contextlib.ExitStack() as server:
        postgres = server.enter_context(EmbeddedPostgres(directory, port=port, settings=settings))
        url = postgres.url
        await asyncio.to_thread(services.migrate, url)
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
            server.enter_context(EmbeddedPostgres(directory, port=port, settings=settings))
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


async def test_a_column_whose_type_was_changed_meanwhile_costs_nobody_an_answer(database_url):
    async with running(database_url) as ledger, connected(database_url) as db:
        await ledger.record(reports.Seen(charger_id=CP))
        await db.execute("ALTER TABLE chargers ALTER COLUMN vendor TYPE varchar(200)")
        assert (await ledger.record(start())).transaction_id == 1


async def test_a_clash_with_another_hand_on_the_same_rows_is_tried_again(database_url):
    """An operator closes nothing and locks nothing, but puts in a row that the batch does not see."""

    class Clashing(Ledger):
        clashes = 1

        async def _try(self, batch, frames):
            if batch and self.clashes:
                self.clashes -= 1
                raise asyncpg.UniqueViolationError("a row came in between")
            return await super()._try(batch, frames)

    async with running(database_url, kind=Clashing) as ledger:
        assert (await ledger.record(start())).transaction_id


class Proxy:
    """Passes bytes between the ledger and Postgres until it is told to go silent, without closing anything."""

    def __init__(self, host, port):
        self.target = host, port
        self.silent = asyncio.Event()
        self.tasks = set()
        self.server = None

    async def __aenter__(self):
        self.server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self.server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *exc):
        self.server.close()
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)

    async def _serve(self, reader, writer):
        self.tasks.add(asyncio.current_task())
        try:
            back, forth = await asyncio.open_connection(*self.target)
            async with asyncio.TaskGroup() as group:
                group.create_task(self._pass(reader, forth))
                group.create_task(self._pass(back, writer))
        except* OSError:
            pass
        finally:
            writer.close()

    async def _pass(self, reader, writer):
        while data := await reader.read(65536):
            if self.silent.is_set():
                continue
            writer.write(data)
        writer.close()


async def test_a_server_that_has_gone_silent_is_hung_up_on(database_url):
    address = urlsplit(database_url)
    async with Proxy(address.hostname, address.port) as proxy:
        login = address.netloc.rpartition("@")[0]
        through = urlunsplit(address._replace(netloc=f"{login}@127.0.0.1:{proxy.port}"))
        async with running(through, commit_timeout_s=0.5) as ledger:
            await ledger.record(reports.Seen(charger_id=CP))
            proxy.silent.set()
            asked = asyncio.create_task(ledger.record(start()))
            await until(lambda: ledger.away_s() > 0.6)
            assert not asked.done()
            proxy.silent.clear()
            assert (await asked).transaction_id
    assert await count(database_url, "transactions") == 1


async def test_without_a_database_the_ledger_waits_for_one():
    port = services.unused_port()
    engine = create_engine(f"postgresql://nobody@127.0.0.1:{port}/none")
    ledger = Ledger(engine, OPEN)
    run = asyncio.create_task(ledger.run())
    asked = asyncio.create_task(ledger.record(start()))
    await until(lambda: ledger.away_s() > 0)
    run.cancel()
    await asyncio.wait([run, asked], timeout=10)
    assert run.cancelled()
    assert asked.cancelled()
    await engine.dispose()
