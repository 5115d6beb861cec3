import asyncio
import contextlib
import random
from collections import Counter
from datetime import timedelta
from decimal import Decimal

import msgspec
import pytest

from csms.core import enrollment, records, reports
from csms.core.decide import DECISIONS, decide
from csms.core.operator_reports import Rebook
from csms.core.tariffs import Tariff
from csms.core.work import Work, tag_key
from csms.db import account_tables, event_tables, record_sql, security_tables, store, tables
from csms.db.outbox import LANES, lane
from csms.db.record_sql import transaction_of
from tests.harness.fake_store import (
    CP,
    NOW,
    FakeStore,
    at,
    correction,
    meter,
    register,
    sample,
    start,
    status,
    stop,
)
from tests.harness.ledger_harness import OPEN, Counting, PostgresStore, connected, loaded, running

# Columns that the ledger neither reads nor writes.
CREDENTIALS = {
    "pending_password_hashes",
    "security_profile",
    "pending_security_profile",
    "certificate_name",
}
OTHERS = {
    "chargers": {"display_name", "password_hash", "created_at", *CREDENTIALS},
    "tags": {"created_at"},
    "deviations": {"first_at"},
    "security_events": {"id"},
    "accounts": {"created_at"},
    "account_entries": {"id"},
    "quarantine": {"id", "resolved_at", "resolution"},
}
RECORDS = {
    records.Charger: tables.chargers,
    records.ChargerState: tables.charger_states,
    records.Connector: tables.connectors,
    records.Transaction: tables.transactions,
    records.TransactionRevision: tables.transaction_revisions,
    records.Tag: tables.tags,
    records.StoredReading: tables.readings,
    records.StoredStatus: tables.status_history,
    records.StoredSecurityEvent: security_tables.security_events,
    records.Answered: tables.answers,
    records.QuarantineEntry: tables.quarantine,
    records.DeviationCount: tables.deviations,
    records.Event: event_tables.events,
    records.Account: account_tables.accounts,
    records.Rental: account_tables.rentals,
    records.AccountEntry: account_tables.account_entries,
}


@pytest.mark.parametrize(("record", "table"), RECORDS.items(), ids=lambda value: getattr(value, "name", ""))
def test_the_fields_of_a_record_are_the_columns_of_its_table(record, table):
    fields = {field.name for field in msgspec.structs.fields(record)}
    assert fields == {column.name for column in table.columns} - OTHERS.get(table.name, set())


@pytest.mark.parametrize(("record", "table"), RECORDS.items(), ids=lambda value: getattr(value, "name", ""))
def test_an_optional_field_has_a_nullable_column(record, table):
    for field in msgspec.structs.fields(record):
        optional = msgspec.inspect.type_info(field.type)
        may_be_none = isinstance(optional, msgspec.inspect.UnionType) and optional.includes_none
        assert table.c[field.name].nullable is may_be_none, field.name


DYNAMIC = reports.RentalTerms(dynamic=True, free_s=120)
EVERYTHING = [
    reports.Connected(charger_id=CP, node="n1", remote_address="10.0.0.1"),
    reports.Boot(charger_id=CP, vendor="V", model="M", serial_number="S", firmware_version="1.0"),
    reports.Authorize(charger_id=CP, id_tag="user123"),
    status("Preparing", at(-1), info="cable", vendor_id="v", vendor_error_code="E1"),
    start(message_id="a", digest=b"\0a", reservation_id=2**40),
    meter(1, register(2000, at(1)), register("x", at(2)), message_id="b", digest=b"b"),
    meter(None, reports.Reading(at=at(3), samples=[sample(55, "SoC"), sample("\0", "Voltage")])),
    stop(1, message_id="c", digest=b"c", id_tag="user123", readings=[register(24000, at(89))]),
    stop(1, digest=b"d", meter_wh=26000),
    stop(2**80, meter_wh=None, at=None, message_id="e", digest=b"e"),
    start(connector_id=2, at=at(95), meter_wh=2**62),
    start(connector_id=2, at=at(99), meter_wh=0),
    reports.Quarantined(charger_id=CP, action="X", payload=b"\xff\0", error="no JSON", digest=b"q"),
    reports.Deviated(
        charger_id=CP, action="X", deviations=[reports.Deviation(field="f", kind="k", detail="d")]
    ),
    reports.Commanded(charger_id=CP, id="c1", action="Reset", payload={}, outcome="no_answer", sent_at=NOW),
    reports.Progress(charger_id=CP, kind="firmware", status="Downloading"),
    reports.DataTransferred(charger_id=CP, vendor_id="v", answer=reports.Transferred(status="Accepted")),
    reports.SecurityEvent(charger_id=CP, type="Reboot", tech_info="x", at=at(4), message_id="s", digest=b"s"),
    reports.Seen(charger_id=CP),
    enrollment.Enrolled(charger_id=CP),
    enrollment.Deferred(charger_id=CP, message_id="f", action="MeterValues", payload=b"{}", identity=b"f"),
    reports.Reconcile(charger_id=CP, transaction_id=1),
    reports.Unrented(charger_id=CP, account_id="payer"),
    reports.Noted(charger_id=CP, notes={"scale": 0.1}),
    reports.Rent(charger_id=CP, connector_id=3, account_id="payer", terms=DYNAMIC),
    start(connector_id=3, id_tag="payer", account_id="payer", at=at(100), meter_wh=0, terms=DYNAMIC),
    meter(5, register(2000, at(101)), connector_id=3),
    meter(5, register(3000, at(102)), connector_id=3),
    stop(5, meter_wh=4321, at=at(103)),
    reports.Rent(charger_id=CP, connector_id=3, account_id="payer"),
    correction(1, energy_wh=4000),
    correction(1, kind="void"),
    correction(4, kind="stop"),
    reports.Disconnected(charger_id=CP, node="n1", generation=1),
]


def rebooked(desk):
    """The audit corrects the transaction that an account has paid, as it is after the story."""
    (before,) = [t for t in desk.transactions.values() if t.account_id is not None]
    after = msgspec.structs.replace(before, energy_wh=4000, cost_minor=48, cost=Decimal("0.48"))
    return Rebook(
        charger_id=CP,
        before=before,
        after=after,
        revision=before.revision + 1,
        note="energy_wh 4321, recomputed 4000",
        debited_minor=0,
        message_id="r",
        digest=b"r",
    )


def test_the_story_has_every_kind_of_report():
    assert {Rebook, *(type(report) for report in EVERYTHING)} == set(DECISIONS)


@pytest.mark.parametrize("size", [1, 3, 100])
async def test_every_report_comes_back_from_the_database_as_it_went_in(db, size):
    """The same story in memory and in Postgres: same answers, same rows, same bytes."""
    desk, books = FakeStore(unknown_tags="accept"), PostgresStore(db)
    desk.clock_stands = True
    desk.with_account("payer", 10_000)
    async with db.transaction():
        await db.execute("INSERT INTO accounts (id, currency, balance_minor) VALUES ('payer', 'USD', 10000)")
    await tell_both(desk, books, EVERYTHING, size)
    await compare(db, desk)
    await tell_both(desk, books, [rebooked(desk)], 1)
    await compare(db, desk)
    assert (desk.entries[-1].note or "").endswith(", revision 2")


async def test_a_long_story_of_many_chargers_is_the_same_in_memory_and_in_postgres(db):
    chance = random.Random(20231207)
    desk, books = FakeStore(unknown_tags="accept"), PostgresStore(db)
    desk.clock_stands = True
    told = []
    for step in range(400):
        charger = {"charger_id": f"c{chance.randrange(4)}"}
        moment = NOW + timedelta(seconds=10 * step + chance.choice([0, 0, 0, -45]))
        any_id = chance.choice([None, -1, 2**63 - 1, *range(1, 15), *range(step // 8, step // 8 + 9)])
        possible = [
            start(connector_id=chance.randrange(1, 3), at=moment, **charger),
            stop(any_id, at=moment, meter_wh=chance.choice([None, 25000]), **charger),
            stop(any_id, at=moment, meter_wh=chance.randrange(9000), trusted_id=False, **charger),
            meter(any_id, register(chance.randrange(1000, 9000), moment), **charger),
            meter(any_id, register(7, moment), connector_id=0, **charger),
            status(chance.choice(["Available", "Charging"]), moment, **charger),
            chance.choice(told or [reports.Seen(**charger)]),
        ]
        told.append(chance.choice(possible))
    await tell_both(desk, books, told, 7)
    await compare(db, desk)
    assert len(desk.transactions) > 20
    assert {"updated", "orphan_stop", "meter_reading", "status_changed"} <= set(desk.told())


async def tell_both(desk, books, told, size):
    for first in range(0, len(told), size):
        batch = told[first : first + size]
        desk.now = books.now = NOW + timedelta(seconds=first)
        assert await books.batch(*batch) == desk.batch(*batch)


async def compare(db, desk):
    work = await loaded(
        db,
        *(
            reports.Disconnected(charger_id=charger_id, node="n", generation=0)
            for charger_id in desk.chargers
        ),
    )
    async with db.transaction():
        rows = await db.fetch(f"{record_sql.TRANSACTION_SQL.select} ORDER BY id")
        events = await db.fetch(f"{record_sql.EVENT_SQL.select} ORDER BY recorded_at, event_id")
        readings = await db.fetch(
            f"{record_sql.READING_SQL.select.replace('samples', 'samples::text')}"
            " ORDER BY sampled_at, digest, charger_id, connector_id"
        )
        statuses = await db.fetch(f"{record_sql.STATUS_SQL.select} ORDER BY id")
        answers = await db.fetch("SELECT charger_id, message_id, digest, answer FROM answers")
        quarantine = await db.fetch("SELECT * FROM quarantine ORDER BY id")
        deviations = await db.fetch("SELECT * FROM deviations")
        outbox = await db.fetch("SELECT * FROM outbox")
        accounts = await db.fetch("SELECT id, currency, balance_minor, blocked FROM accounts")
        rentals = await db.fetch("SELECT * FROM rentals")
        entries = await db.fetch("SELECT * FROM account_entries ORDER BY id")
    assert work.chargers == desk.chargers
    assert work.states == desk.states
    assert work.connectors == desk.connectors
    assert {row["id"]: transaction_of(row) for row in rows} == desk.transactions
    assert {records.Event(**row) for row in map(dict, events)} == set(desk.events)
    assert [records.StoredReading(**row) for row in map(dict, readings)] == sorted(
        desk.readings, key=lambda r: (r.sampled_at, r.digest, r.charger_id, r.connector_id)
    )
    assert [records.StoredStatus(**row) for row in map(dict, statuses)] == desk.statuses
    assert {tuple(row)[:3]: row["answer"] for row in answers} == desk.answers
    assert [(r["digest"], r["payload"], r["error"], r["transaction_id"]) for r in quarantine] == [
        (e.digest, e.payload, e.error, e.transaction_id) for e in desk.quarantine
    ]
    assert {row["id"]: records.Account(**row) for row in map(dict, accounts)} == desk.accounts
    assert [records.Rental(**(dict(row) | {"id": 0})) for row in rentals] == [
        msgspec.structs.replace(rental, id=0) for rental in desk.rentals.values()
    ]
    assert [(e["key"], e["amount_minor"], e["balance_minor"]) for e in entries] == [
        (e.key, e.amount_minor, e.balance_minor) for e in desk.entries if e.kind != "top_up"
    ]
    counted: Counter[tuple[str, str]] = Counter()
    for d in desk.deviations:
        counted[d.field, d.kind] += d.count
    assert {(r["field"], r["kind"]): r["count"] for r in deviations} == counted
    assert {(r["charger_id"], r["seq"], r["recorded_at"], r["lane"]) for r in outbox} == {
        (e.charger_id, e.seq, e.recorded_at, lane(e.charger_id)) for e in desk.events
    }


async def test_a_tariff_and_every_decimal_of_it_come_back(db):
    books = PostgresStore(
        db, msgspec.structs.replace(OPEN, tariff=Tariff(energy_rate=Decimal("0.123456789")))
    )
    books.now = NOW
    await books.batch(start())
    await books.batch(stop(1, at=at(1 / 3)))
    (row,) = await db.fetch(record_sql.TRANSACTION_SQL.select)
    transaction = transaction_of(row)
    assert transaction.tariff == Tariff(energy_rate=Decimal("0.123456789"))
    assert transaction.duration_s == 20
    assert transaction.cost == Decimal("2.96")


async def test_a_chargers_own_tariff_is_loaded(db):
    books = PostgresStore(db)
    books.now = NOW
    await books.batch(reports.Seen(charger_id=CP))
    async with db.transaction():
        terms = msgspec.json.encode(Tariff(id="night", energy_rate=Decimal("0.05"))).decode()
        await db.execute("INSERT INTO tariffs (id, terms) VALUES ('night', $1)", terms)
        await db.execute("UPDATE chargers SET tariff_id = 'night'")
    await books.batch(start(), start(charger_id="other"))
    async with db.transaction():
        kept = await db.fetch(f"{record_sql.TRANSACTION_SQL.select} ORDER BY charger_id")
    assert [transaction_of(row).tariff.id for row in kept] == ["night", "default"]


async def test_who_may_rent_is_decided_by_the_stations_own_tariff(db):
    books = PostgresStore(db)
    books.now = NOW
    await books.batch(reports.Seen(charger_id=CP))
    async with db.transaction():
        terms = msgspec.json.encode(Tariff(id="coin", currency="UAH", energy_rate=Decimal(12))).decode()
        await db.execute("INSERT INTO tariffs (id, terms) VALUES ('coin', $1)", terms)
        await db.execute("UPDATE chargers SET tariff_id = 'coin'")
        await db.execute("INSERT INTO accounts (id, currency, balance_minor) VALUES ('payer', 'UAH', 119)")
    asked = reports.Rent(charger_id=CP, connector_id=1, account_id="payer")
    (refused,) = await books.batch(asked)
    assert (refused.status, refused.required_minor) == ("NoMoney", 120)
    async with db.transaction():
        await db.execute("UPDATE accounts SET balance_minor = 120")
    assert (await books.batch(asked))[0].status == "Accepted"


async def test_a_boot_does_not_overwrite_an_operators_settings(db, database_url):
    books = PostgresStore(db, msgspec.structs.replace(OPEN, enrollment="approve"))
    books.now = NOW
    await books.batch(reports.Boot(charger_id=CP, vendor="old"))
    work = Work(NOW, OPEN, numbers=iter(()), transaction_ids=iter(()))
    async with db.transaction():
        await store.load(db, work, [reports.Boot(charger_id=CP)])
        assert work.chargers[CP].enrollment == "Pending"
        async with connected(database_url) as operator:
            await operator.execute("UPDATE chargers SET enrollment = 'Accepted', heartbeat_interval_s = 9")
        work.put(msgspec.structs.replace(work.chargers[CP], vendor="new"))
        await store.save(db, work, relay=True)
    async with db.transaction():
        row = await db.fetchrow("SELECT vendor, enrollment, heartbeat_interval_s FROM chargers")
    assert tuple(row) == ("new", "Accepted", 9)


async def test_deviations_are_added_up_over_batches(db):
    books = PostgresStore(db)
    books.now = NOW
    for detail in ("first", "second"):
        deviations = [reports.Deviation(field="f", kind="k", detail=detail)] * 2
        await books.batch(reports.Deviated(charger_id=CP, action="X", deviations=deviations))
    row = await db.fetchrow("SELECT count, detail FROM deviations")
    assert tuple(row) == (4, "second")


async def test_without_a_relay_the_outbox_stays_empty(db):
    work = Work(NOW, OPEN, numbers=iter(range(9)), transaction_ids=iter(range(1, 9)))
    async with db.transaction():
        await store.load(db, work, [start()])
        decide(work, start())
        await store.save(db, work, relay=False)
    assert await db.fetchval("SELECT count(*) FROM events") == 1
    assert await db.fetchval("SELECT count(*) FROM outbox") == 0


async def test_tags_are_found_in_any_case_as_python_folds_it(db):
    spellings = ["user123", "USER123", "uSeR123", "Straße", "STRAßE", "ÄÖ", "äÖ", "İ", "x" * 50]
    async with db.transaction():
        for spelling in spellings:
            await db.execute("INSERT INTO tags (id_tag) VALUES ($1) ON CONFLICT DO NOTHING", spelling)
        keys = await db.fetch('SELECT id_tag, lower(id_tag COLLATE "C") AS key FROM tags')
    assert {row["key"] for row in keys} == {tag_key(row["id_tag"]) for row in keys}
    work = await loaded(db, *(reports.Authorize(charger_id=CP, id_tag=s) for s in spellings))
    assert all(work.tag(spelling) is not None for spelling in spellings)


async def test_only_a_tag_with_a_limit_is_locked_and_only_for_a_start(db, database_url):
    async with db.transaction():
        await db.execute(
            "INSERT INTO tags (id_tag, max_active_transactions) VALUES ('many', NULL), ('one', 1)"
        )

    async def waits(report):
        work = Work(NOW, OPEN, numbers=iter(()), transaction_ids=iter(()))
        async with connected(database_url) as other, other.transaction():
            await other.execute("SELECT 1 FROM tags FOR NO KEY UPDATE")
            try:
                async with db.transaction():
                    await db.execute("SET LOCAL lock_timeout = '50ms'")
                    await store.load(db, work, [report])
            except Exception as error:
                assert "lock timeout" in str(error)
                return True
        return False

    assert not await waits(start(id_tag="many"))
    assert not await waits(reports.Authorize(charger_id=CP, id_tag="one"))
    assert not await waits(stop(1, id_tag="one"))
    assert await waits(start(id_tag="ONE"))


# --- two nodes at once ----------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def two_nodes(url, *, each):
    """Two ledgers wait for each other and never clash: neither has to try a report twice."""
    async with running(url, kind=Counting) as one, running(url, kind=Counting) as two:
        yield one, two
        assert (sum(one.sizes), sum(two.sizes)) == (each, each)


@pytest.mark.parametrize("chargers", [200, 1], ids=["strangers", "one charger"])
async def test_a_start_reported_to_two_nodes_is_one_transaction(database_url, chargers):
    starts = [
        start(charger_id=f"c{n % chargers}", connector_id=n // chargers + 1, meter_wh=n) for n in range(200)
    ]
    async with two_nodes(database_url, each=200) as (one, two):
        backwards = list(reversed(starts))
        first, second = await asyncio.gather(
            asyncio.gather(*(one.record(report) for report in starts)),
            asyncio.gather(*(two.record(report) for report in backwards)),
        )
    assert first == list(reversed(second))
    async with connected(database_url) as db:
        assert await db.fetchval("SELECT count(*) FROM transactions") == 200
        ids = {answer.transaction_id for answer in first}
        assert {row["id"] for row in await db.fetch("SELECT id FROM transactions")} == ids
        told = await db.fetch("SELECT charger_id, seq, event_id, event_type FROM events")
        assert [row["event_type"] for row in told] == ["started"] * 200
        assert len({row["event_id"] for row in told}) == 200
        seqs = {}
        for row in told:
            seqs.setdefault(row["charger_id"], []).append(row["seq"])
        assert all(sorted(numbers) == list(range(1, len(numbers) + 1)) for numbers in seqs.values())
        assert await db.fetchval("SELECT count(*) FROM chargers") == chargers


async def test_an_unknown_charger_on_two_nodes_at_once_gets_two_generations(database_url):
    names = [f"c{n}" for n in range(50)]
    async with two_nodes(database_url, each=100) as (one, two):
        held = await asyncio.gather(
            *(one.record(reports.Connected(charger_id=name, node="one")) for name in names),
            *(two.record(reports.Connected(charger_id=name, node="two")) for name in reversed(names)),
            *(one.record(status("Available", charger_id=name)) for name in names),
            *(two.record(status("Charging", charger_id=name)) for name in names),
        )
    assert sorted(h.generation for h in held[:100]) == [1] * 50 + [2] * 50
    async with connected(database_url) as db:
        assert await db.fetchval("SELECT count(*) FROM charger_states WHERE generation = 2") == 50
        rows = await db.fetch("SELECT charger_id, array_agg(seq ORDER BY seq) AS seqs FROM events GROUP BY 1")
    assert {tuple(row["seqs"]) for row in rows} == {(1, 2)}


async def test_a_limited_tag_is_counted_over_all_nodes(database_url):
    async with connected(database_url) as db:
        await db.execute("INSERT INTO tags (id_tag, max_active_transactions) VALUES ('user123', 3)")
    async with two_nodes(database_url, each=20) as (one, two):
        answers = await asyncio.gather(
            *(
                node.record(start(charger_id=f"{name}{n}", id_tag="USER123"))
                for n in range(20)
                for name, node in (("one", one), ("two", two))
            )
        )
    standings = [answer.authorization.status for answer in answers]
    assert standings.count("Accepted") == 3
    assert standings.count("ConcurrentTx") == 37


async def test_a_reading_reported_to_two_nodes_is_stored_once(database_url):
    async with two_nodes(database_url, each=101) as (one, two):
        await one.record(reports.Seen(charger_id=CP))
        await two.record(reports.Seen(charger_id=CP))
        told = [meter(None, register(n, at(n))) for n in range(100)]
        await asyncio.gather(*(node.record(report) for report in told for node in (one, two)))
    async with connected(database_url) as db:
        assert await db.fetchval("SELECT count(*) FROM readings") == 100
        assert await db.fetchval("SELECT count(*) FROM events") == 100
        assert await db.fetchval("SELECT event_seq FROM charger_states") == 100


async def test_a_thousand_numbers_are_drawn_at_once_and_never_twice(db):
    first, second = await store.next_numbers(db, 1), await store.next_numbers(db, 1001)
    assert len(first) == event_tables.NUMBER_BLOCK
    assert len(second) == 2 * event_tables.NUMBER_BLOCK
    assert not set(first) & set(second)
    assert len(set(await store.next_transaction_ids(db, 5))) == 5


def test_lanes_do_not_change():
    # They stand in the outbox: a change would break the order of what waits there.
    assert [lane(name) for name in ("a", "charge-point-001", "Säule")] == [3, 34, 36]
    assert {lane(f"c{n}") for n in range(2000)} == set(range(LANES))
