"""The snapshot from which a bridge continues after a restart."""

from csms.adapter import ChargerSnapshot
from csms.core import reports
from csms.db import charger_snapshot
from csms.db.engine import create_engine
from tests.harness.fake_store import CP, at, meter, register, start, status, stop
from tests.harness.ledger_harness import running


async def test_an_unknown_charger_has_an_empty_snapshot(database_url):
    engine = create_engine(database_url)
    assert await charger_snapshot.charger_snapshot(engine, CP) == ChargerSnapshot()
    await engine.dispose()


async def test_a_snapshot_has_open_transactions_and_last_registers(database_url):
    engine = create_engine(database_url)
    async with running(database_url) as ledger:
        ended = (await ledger.record(start(connector_id=1, key="a"))).transaction_id
        await ledger.record(stop(ended))
        going = (await ledger.record(start(connector_id=2, key="b"))).transaction_id
        await ledger.record(meter(going, register(1234, at(5)), connector_id=2))
        await ledger.record(meter(None, register(777, at(6))))
        await ledger.record(status("SuspendedEV", connector_id=2))
        await ledger.record(start(charger_id="CP-2", key="c"))
        await ledger.record(reports.Seen(charger_id=CP))
    standing = await charger_snapshot.charger_snapshot(engine, CP)
    assert [(t.id, t.key, t.connector_id, t.open) for t in standing.transactions] == [(going, "b", 2, True)]
    assert [
        (c.connector_id, c.status, c.energy_wh, c.reading_transaction_id) for c in standing.connectors
    ] == [
        (1, None, 777, None),
        (2, "SuspendedEV", 1234, going),
    ]
    assert standing.connectors[1].reading_at == at(5)
    await engine.dispose()
