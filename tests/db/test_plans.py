"""The ledger's queries use indexes, however many rows there are."""

import json
from typing import Any

import asyncpg
import pytest

from csms.core import enrollment, reports
from csms.core.work import Work
from csms.db import record_sql, store
from csms.db.driver import driver_connection
from csms.db.engine import create_engine
from csms.db.partitions import ensure
from tests.harness.fake_store import CP, NOW, at, correction, meter, register, start, stop
from tests.harness.ledger_harness import OPEN

FILL = """
INSERT INTO chargers (id) SELECT 'c' || n FROM generate_series(1, 3000) n;
INSERT INTO charger_states (charger_id) SELECT 'c' || n FROM generate_series(1, 3000) n;
INSERT INTO connectors (charger_id, connector_id, newest_reading_at)
    SELECT 'c' || n, k, '2030-01-01Z' FROM generate_series(1, 3000) n, generate_series(0, 2) k;
INSERT INTO transactions (id, charger_id, connector_id, key, id_tag, authorization_status, meter_start_wh,
        started_at, start_received_at, tariff, stopped_at)
    SELECT n, 'c' || n % 3000, n % 2, n, 'tag' || n % 500, 'Accepted', 0, now(), now(), '{}',
        CASE WHEN n > 200 THEN now() END FROM generate_series(1, 20000) n;
INSERT INTO tags (id_tag, max_active_transactions) SELECT 'tag' || n, 1 FROM generate_series(1, 5000) n;
INSERT INTO answers SELECT 'c' || n % 3000, n, 'd', 'null', now() FROM generate_series(1, 20000) n;
INSERT INTO readings (charger_id, connector_id, sampled_at, received_at, digest, samples)
    SELECT 'c' || n % 3000, 1, '2023-12-07Z'::timestamptz + n * interval '1 s', now(), 'd', '[]'
    FROM generate_series(1, 20000) n;
INSERT INTO events (charger_id, seq, event_id, event_type, topic, body, recorded_at)
    SELECT 'c' || n % 3000, n, n, 'x', 'x', 'x', now() FROM generate_series(1, 20000) n;
INSERT INTO tariffs (id, terms) SELECT n, '{}' FROM generate_series(1, 3000) n;
INSERT INTO charger_groups (id, tariff_id) SELECT n, n FROM generate_series(1, 3000) n;
INSERT INTO status_history (id, charger_id, connector_id, status, error_code, recorded_at)
    SELECT n, 'c' || n % 3000, 1, 'x', 'x', '2023-12-07Z' FROM generate_series(1, 20000) n;
INSERT INTO quarantine (charger_id, action, digest, payload, error, transaction_id, received_at, enrollment, start_key)
    SELECT 'c' || n % 300, CASE WHEN n % 2 = 0 THEN 'StartTransaction' ELSE 'StopTransaction' END, int4send(n), 'x', 'x',
        n, now(), 'Pending', CASE WHEN n % 2 = 0 THEN n::text END FROM generate_series(1, 20000) n;
UPDATE chargers SET group_id = 1 WHERE id = 'c1';
UPDATE transactions SET tariff = '{"idle_rate": "1"}' WHERE id = 2;
ANALYZE;
"""


@pytest.fixture(scope="module")
async def db(databases, template_database):
    url = await databases.create(template_database)
    engine = create_engine(url)
    async with engine.begin() as connection:
        await ensure(connection)
    async with engine.connect() as connection:
        raw = await driver_connection(connection)
        async with raw.transaction():
            await raw.execute(FILL)
        yield raw
        await connection.rollback()
    await engine.dispose()
    await databases.drop(url)


async def test_every_query_of_a_batch_uses_an_index(db, monkeypatch):
    asked = []
    fetch = asyncpg.Connection.fetch

    async def noted(self, query, *args, **kwargs):
        asked.append((query, args))
        return await fetch(self, query, *args, **kwargs)

    batch: list[reports.Report[Any]] = [
        start(charger_id="c1", id_tag="TAG7", message_id="1", digest=b"d"),
        stop(300, charger_id="c2", message_id="2", digest=b"d", readings=[register(1, at(0))]),
        meter(400, register(1, at(0)), charger_id="c3", message_id="3", digest=b"d"),
        stop(-1, charger_id="c4", digest=b"d"),
        correction(500, charger_id="c5", message_id="5", digest=b"d"),
        reports.Authorize(charger_id="c5", id_tag="tag8"),
        reports.Seen(charger_id="stranger"),
        enrollment.Deferred(
            charger_id="c6",
            message_id="4",
            action="StartTransaction",
            payload=b"",
            identity=b"",
            start_key="6",
        ),
    ]
    monkeypatch.setattr(asyncpg.Connection, "fetch", noted)
    async with db.transaction():
        await store.load(db, Work(NOW, OPEN, numbers=iter(()), transaction_ids=iter(())), batch)
    monkeypatch.undo()
    tables = {"charger_states", "chargers", "connectors", "transactions", "tags", "answers", "readings"}
    tables |= {"charger_groups", "tariffs", "status_history", "quarantine"}
    assert tables == {
        table
        for table in tables
        for query, _ in asked
        if f"FROM {table}" in query or f"JOIN {table}" in query
    }
    for query, args in asked:
        plan = await explained(db, query, args)
        scanned = [node for node in plan if node["Node Type"] == "Seq Scan" and node["Plan Rows"] > 100]
        assert scanned == [], query


async def explained(db, query, args):
    async with db.transaction():
        answer = await db.fetchval(f"EXPLAIN (FORMAT JSON) {query}", *args)
    root = (json.loads(answer) if isinstance(answer, str) else answer)[0]["Plan"]
    nodes, waiting = [], [root]
    while waiting:
        node = waiting.pop()
        nodes.append(node)
        waiting += node.get("Plans", [])
    return nodes


async def test_a_sequential_scan_is_noticed(db):
    plan = await explained(db, "SELECT * FROM transactions WHERE id_tag = $1", ["tag7"])
    assert any(node["Node Type"] == "Seq Scan" for node in plan)
    plan = await explained(db, record_sql.CHARGER_SQL.select + " WHERE id = $1", [CP])
    assert not any(node["Node Type"] == "Seq Scan" for node in plan)
