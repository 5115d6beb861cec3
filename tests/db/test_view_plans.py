"""Queries of console, REST and periodic work use indexes, however many rows there are: plans are checked, not times."""

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import pytest_asyncio
from sqlalchemy import event
from sqlalchemy.ext.asyncio import AsyncConnection

from csms.core import session_timeline
from csms.core.records import Transaction
from csms.core.tariffs import Tariff
from csms.db import (
    accounts,
    admin,
    charger_snapshot,
    charger_views,
    commands,
    device_state_views,
    logs,
    network_views,
    outbox,
    readings_window,
    reconcile,
    schema,
    security,
    transaction_views,
)
from csms.db.driver import driver_connection
from csms.db.engine import create_engine
from csms.db.partitions import ensure
from tests.db.test_plans import FILL, explained

NOW = datetime.now(UTC)
# On top of what the ledger's plans are tested with. `ANALYZE` as autovacuum would.
MORE = """
INSERT INTO connectors (charger_id, connector_id) SELECT 'c' || n % 3000 + 1, 10 + n FROM generate_series(1, 20000) n;
INSERT INTO events (charger_id, seq, event_id, event_type, topic, body, recorded_at)
    SELECT 'c' || n % 3000 + 1, 20000 + n, 20000 + n, 'x', 'x', 'x', now() - interval '1 day'
    FROM generate_series(1, 20000) n;
INSERT INTO messages (charger_id, at, outgoing, frame)
    SELECT 'c' || n % 3000 + 1, now() - n * interval '1 s', false, 'x' FROM generate_series(1, 20000) n;
INSERT INTO outbox (lane, charger_id, seq, recorded_at, dead)
    SELECT n % 64, 'c' || n % 3000 + 1, n, now(), n % 1000 = 0 FROM generate_series(1, 20000) n;
INSERT INTO quarantine (charger_id, action, digest, payload, error, received_at, resolved_at)
    SELECT 'c' || n % 3000 + 1, 'x', int4send(n), 'x', 'x', now(), CASE WHEN n % 1000 <> 0 THEN now() END
    FROM generate_series(1, 20000) n;
INSERT INTO deviations (charger_id, action, field, kind, detail, count, last_at)
    SELECT 'c' || n % 3000 + 1, n, 'x', 'x', 'x', 1, now() FROM generate_series(1, 20000) n;
INSERT INTO commands (id, charger_id, action, payload, requested_by, state)
    SELECT n, 'c' || n % 3000 + 1, 'x', '{}', 'x', CASE WHEN n % 1000 = 0 THEN 'waiting' ELSE 'answered' END
    FROM generate_series(1, 20000) n;
INSERT INTO configuration_keys (charger_id, key_id, name, supported, reboot_required)
    SELECT 'c' || n % 3000 + 1, n, n, true, false FROM generate_series(1, 20000) n;
INSERT INTO reservations (charger_id, id, connector_id, id_tag, expires_at, reserved_at)
    SELECT 'c' || n % 3000 + 1, n, 1, 'x', now(), now() FROM generate_series(1, 20000) n;
INSERT INTO charging_profiles (charger_id, id, connector_id, purpose, stack_level, profile, installed_at)
    SELECT 'c' || n % 3000 + 1, n, 1, 'x', 1, '{}', now() FROM generate_series(1, 20000) n;
INSERT INTO jobs (charger_id, id, kind, status, progress, requested_at, updated_at)
    SELECT 'c' || n % 3000 + 1, n, 'x', 'x', '{}', now(), now() FROM generate_series(1, 20000) n;
INSERT INTO data_transfers (charger_id, vendor_id, status, received_at)
    SELECT 'c' || n % 3000 + 1, 'x', 'x', now() FROM generate_series(1, 20000) n;
INSERT INTO security_events (charger_id, type, recorded_at)
    SELECT 'c' || n % 3000 + 1, 'x', now() FROM generate_series(1, 20000) n;
INSERT INTO station_certificates (serial, charger_id, status)
    SELECT n, 'c' || n % 3000 + 1, 'accepted' FROM generate_series(1, 20000) n;
INSERT INTO accounts (id, currency) SELECT 'a' || n, 'EUR' FROM generate_series(1, 3000) n;
INSERT INTO account_entries (account_id, key, kind, amount_minor, balance_minor, recorded_at)
    SELECT 'a' || n % 3000 + 1, n, 'top_up', 1, 1, now() FROM generate_series(1, 20000) n;
INSERT INTO rentals (id, account_id, charger_id, connector_id, origin, state, hold_minor, dynamic, free_s,
        held_at, debited_minor, debits, ended_at)
    SELECT n, 'a' || n % 3000 + 1, 'c' || n % 3000 + 1, 1, 'csms', 'ended', 1, false, 0, now(), 0, 0, now()
    FROM generate_series(1, 20000) n;
INSERT INTO account_tokens (digest, account_id, kind, expires_at)
    SELECT int4send(n), 'a' || n % 3000 + 1, 'session', now() FROM generate_series(1, 20000) n;
INSERT INTO chargers (id) VALUES ('busy');
INSERT INTO charger_states (charger_id) VALUES ('busy');
INSERT INTO transactions (id, charger_id, connector_id, key, id_tag, authorization_status, meter_start_wh,
        started_at, start_received_at, tariff, stopped_at)
    SELECT n, 'busy', 1, n, 'x', 'Accepted', 0, now(), now(), '{}', now() FROM generate_series(30001, 35000) n;
INSERT INTO events (charger_id, seq, event_id, event_type, topic, body, recorded_at)
    SELECT 'busy', n, 'busy' || n, 'x', 'x', 'x', now() FROM generate_series(1, 5000) n;
INSERT INTO messages (charger_id, at, outgoing, frame)
    SELECT 'busy', now() - n * interval '1 s', false, 'x' FROM generate_series(1, 5000) n;
UPDATE charger_states SET online = true, node = 'node';
UPDATE transactions SET started_at = now() - id * interval '10 minutes',
    accounting_at = now() - id * interval '10 minutes', billing = CASE WHEN id % 1000 = 0 THEN 'held' ELSE 'billed' END;
ANALYZE;
"""

# Sums over all chargers read each of them once: thousands of short rows, on a page that is rarely loaded.
# Pending events are counted up to a limit.
COUNTED = {
    "the totals": {"chargers", "charger_states", "connectors"},
    "the gauges": {"charger_states", "outbox"},
    "the outbox, counted": {"outbox"},
}
SESSION = Transaction(
    id=300,
    charger_id="c300",
    connector_id=0,
    key="300",
    id_tag="tag300",
    authorization_status="Accepted",
    meter_start_wh=0,
    started_at=NOW - timedelta(hours=1),
    start_received_at=NOW - timedelta(hours=1),
    accounting_at=NOW - timedelta(hours=1),
    tariff=Tariff(),
)
PAGES: dict[str, Callable[[AsyncConnection], Awaitable[Any]]] = {
    "one charger": lambda db: charger_views.get_charger(db, "c7"),
    "chargers": lambda db: charger_views.list_chargers(db, after_id="c2", limit=50),
    "chargers on line": lambda db: charger_views.list_chargers(db, after_id="c2", online=False, limit=50),
    "transactions": lambda db: transaction_views.list_transactions(db, limit=50),
    "transactions, the next page": lambda db: transaction_views.list_transactions(db, before=(NOW, 700), limit=50),
    "transactions of a charger": lambda db: transaction_views.list_transactions(db, charger_id="c7", limit=50),
    "running transactions": lambda db: transaction_views.list_transactions(db, active=True, limit=50),
    "transactions of a day": lambda db: transaction_views.list_transactions(
        db, accounted_from=NOW - timedelta(hours=2), accounted_before=NOW - timedelta(hours=1), limit=50
    ),
    "held bills": lambda db: transaction_views.list_transactions(db, billing="held", limit=50),
    "irregular sessions": lambda db: transaction_views.list_irregular(
        db, NOW - timedelta(hours=2), ("clock_changed", "no_meter_stop")
    ),
    "revisions": lambda db: transaction_views.list_revisions(db, 150),
    "the time zone of a charger": lambda db: charger_views.get_time_zone(db, "c7"),
    "one transaction": lambda db: transaction_views.get_transaction(db, 150),
    "its readings": lambda db: transaction_views.list_readings(db, SESSION, limit=100),
    "its readings, the next page": lambda db: transaction_views.list_readings(db, SESSION, after=(NOW, b"d"), limit=100),
    "its plot": lambda db: transaction_views.plot_points(db, [SESSION]),
    "its events": lambda db: logs.events_of_transaction(db, "c300", 300, NOW - timedelta(days=1), 100),
    "events for a replay": lambda db: logs.events_after(db, "c7", 3000, 100),
    "which events are kept": lambda db: logs.kept_events(db, "c7"),
    "positions": lambda db: logs.positions(db, after="c2", limit=100),
    "recent events of a charger": lambda db: logs.recent_events(db, NOW, 50, "c7"),
    "frames": lambda db: logs.list_frames(db, "c7"),
    "frames, the next page": lambda db: logs.list_frames(db, "c7", before=(NOW, "(0,1)")),
    "frames as they pass": lambda db: logs.frames_since(db, "c7", NOW - timedelta(seconds=5)),
    "quarantine": logs.list_quarantine,
    "quarantine of a charger": lambda db: logs.list_quarantine(db, charger_id="c7", resolved=None),
    "one of the quarantine": lambda db: logs.get_quarantined(db, 7),
    "open quarantine, counted": logs.count_quarantine,
    "deviations": lambda db: logs.list_deviations(db, "c7"),
    "tags": lambda db: admin.list_tags(db, after_key="tag3"),
    "one tag": lambda db: admin.get_tag(db, "TAG7"),
    "commands of a charger": lambda db: commands.list_commands(db, "c7"),
    "commands due": lambda db: commands.due(db, "node", NOW),
    "commands that wait too long": lambda db: commands.expire(db, NOW),
    "configuration": lambda db: device_state_views.configuration(db, "c7"),
    "reservations": lambda db: device_state_views.list_reservations(db, "c7"),
    "profiles": lambda db: device_state_views.list_profiles(db, "c7"),
    "jobs": lambda db: device_state_views.list_jobs(db, "c7"),
    "what is known before a command": lambda db: device_state_views.facts(db, "c7", NOW),
    "availability": lambda db: device_state_views.availability(db, "c7"),
    "data transfers": lambda db: device_state_views.list_transfers(db, "c7"),
    "security events": lambda db: security.list_security_events(db, "c7"),
    "certificates": lambda db: security.certificates_of(db, "c7"),
    "accounts": lambda db: accounts.list_accounts(db, after_id="a2"),
    "accounts that begin so": lambda db: accounts.list_accounts(db, beginning="a2"),
    "who rents now": accounts.open_rentals,
    "transactions of rentals": lambda db: transaction_views.get_transactions(db, [150, 151, None]),
    "entries of an account": lambda db: accounts.list_entries(db, "a7"),
    "rentals of an account": lambda db: accounts.list_rentals(db, "a7"),
    "a rental page": lambda db: accounts.rental_view(db, "c7", "tag7"),
    "who is signed in": lambda db: accounts.signed_in_account(db, b"\0\0\0\7", NOW),
    "sessions that look ended": lambda db: reconcile.ended(db, NOW - timedelta(hours=1)),
    "sessions with late readings": lambda db: reconcile.late(db, NOW - timedelta(hours=1)),
    "the totals": lambda db: network_views.network_totals(db, NOW - timedelta(days=1), NOW),
    "the gauges": network_views.gauges,
}  # fmt: skip
# These use the driver's connection.
RAW = {
    "retained state": lambda db: charger_snapshot.snapshots(db, ["c7", "c8"]),
    "the course of a session": lambda db: readings_window.load(
        db, [session_timeline.running_window(SESSION, NOW)]
    ),
    "the outbox": lambda db: outbox.pending(db, [1, 2], 100),
    "the outbox, counted": outbox.counts,
    "what is parked": lambda db: outbox.list_parked(db, 100),
    "what is parked of a charger": lambda db: outbox.list_parked(db, 100, "c1000"),
    "parked for too long": lambda db: outbox.prune(db, NOW - timedelta(days=14)),
    "back from the broker": lambda db: outbox.delete(db, [("c7", 7), ("c8", 8)]),
}

_EXPLAINED = {"SELECT", "WITH", "INSERT", "UPDATE", "DELETE"}


@pytest_asyncio.fixture(scope="module")
async def filled(databases, template_database):
    url = await databases.create(template_database)
    engine = create_engine(url)
    async with engine.begin() as connection:
        await ensure(connection)
        await (await driver_connection(connection)).execute(FILL + MORE)
    yield engine
    await engine.dispose()
    await databases.drop(url)


@pytest.fixture
async def db(filled):
    async with filled.connect() as connection:
        yield connection
        await connection.rollback()


@pytest.mark.parametrize("page", PAGES)
async def test_a_page_uses_an_index(db, page):
    asked = []

    def noted(_conn, _cursor, statement, parameters, _context, _many):
        asked.append((statement, parameters))

    event.listen(db.sync_connection, "before_cursor_execute", noted)
    await PAGES[page](db)
    event.remove(db.sync_connection, "before_cursor_execute", noted)
    await none_scans(await driver_connection(db), asked, COUNTED.get(page, frozenset()))


@pytest.mark.parametrize("question", RAW)
async def test_a_periodic_query_uses_an_index(db, monkeypatch, question):
    driver = await driver_connection(db)
    asked = []

    def noting(call):
        async def noted(self, query, *args, **more):
            asked.append((query, args))
            return await call(self, query, *args, **more)

        return noted

    for name in ("fetch", "fetchrow", "execute"):
        monkeypatch.setattr(type(driver), name, noting(getattr(type(driver), name)))
    await RAW[question](driver)
    monkeypatch.undo()
    looked = [(query, args) for query, args in asked if query.split()[0] in _EXPLAINED]
    await none_scans(driver, looked, COUNTED.get(question, frozenset()))


# Read in the order of an index: a page costs the same however many rows there are before it.
@pytest.mark.parametrize(
    "query",
    [
        transaction_views.transactions_select(charger_id="busy", before=(NOW, 5), limit=50),
        transaction_views.transactions_select(before=(NOW, 5), limit=50),
        logs.events_select("busy", 100, 100),
        logs.frames_select("busy", before=(NOW, "(1,1)"), limit=50),
    ],
    ids=["transactions of a charger", "transactions", "events", "frames"],
)
async def test_a_page_is_not_sorted(db, query):
    compiled = query.compile(dialect=db.dialect, compile_kwargs={"literal_binds": True})
    plan = await explained(await driver_connection(db), str(compiled), [])
    # An Incremental Sort only puts rows of one moment in order.
    assert "Sort" not in {node["Node Type"] for node in plan}


async def none_scans(driver, asked, counted=frozenset()):
    assert asked
    large = {r[0] for r in await driver.fetch("SELECT relname FROM pg_class WHERE reltuples > 1000")}
    for query, args in asked:
        plan = await explained(driver, query, args)
        scanned = {node["Relation Name"] for node in plan if node["Node Type"] == "Seq Scan"}
        assert scanned & large <= counted, query


def test_every_growing_table_is_filled_for_these_tests():
    grown = {name for name in schema.metadata.tables if f"INTO {name} " in FILL + MORE}
    small = {
        "alembic_version",
        "audit_runs",
        "audit_findings",
        "tariff_versions",
        "tokens",
        "console_sessions",
        "node_keys",
        "payments",
        "restores",
        "local_lists",
        "availabilities",
        "capabilities",
    }
    # Only ever read by their keys.
    by_key = {"bridge_notes", "charging_plans", "plan_views", "transaction_revisions"}
    assert schema.metadata.tables.keys() - grown - small - by_key == set()
