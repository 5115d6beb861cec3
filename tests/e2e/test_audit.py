"""The audit of sessions that real charge points have told a real node, and of false figures in its database."""

from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import asyncpg
import pytest

from csms.core.audit import AuditedTransaction
from csms.core.work import Policy
from csms.db.audit import AuditPeriod
from csms.db.engine import create_engine
from csms.service import audit as auditing
from tests.e2e.conftest import Node
from tests.e2e.test_cli import csms
from tests.harness.charging_site import OcppSite, moment, start, stop, values

LOST = "1970-01-01T00:00:00Z"
TWO_RATES = {
    "currency": "EUR",
    "energyRate": "0.40",
    "idleRate": "0.05",
    "idleGraceMin": 10,
    "bands": [{"name": "late", "start": "11:00", "end": "13:00", "energyRate": "0.20"}],
}


@pytest.fixture
async def site(shared_node: Node) -> AsyncIterator[OcppSite]:
    site = OcppSite(shared_node)
    yield site
    await site.hang_up()


async def audited(site: OcppSite) -> list[AuditedTransaction]:
    """The audit of the charger's transactions, once its frames are stored."""
    query = "SELECT 1 FROM messages WHERE charger_id = $1 AND action = 'StopTransaction' AND outgoing"
    await site.node.until(lambda: site.node.fetch(query, site.charger))
    return await audited_now(site)


async def audited_now(site: OcppSite, **period: Any) -> list[AuditedTransaction]:
    engine = create_engine(site.node.database_url)
    try:
        chosen = AuditPeriod(charger_id=site.charger, **period)
        return [one async for one in auditing.audited(engine, chosen, Policy())]
    finally:
        await engine.dispose()


async def execute(site: OcppSite, query: str, *args: Any) -> None:
    db = await asyncpg.connect(site.node.database_url)
    try:
        await db.execute(query, *args)
    finally:
        await db.close()


async def charged(site: OcppSite, *registers: Any, end: dict[str, Any] | None = None, **begin: Any) -> int:
    point = await site.dial()
    number = int((await point.ask("StartTransaction", start(**begin)))["transactionId"])
    for step, value in enumerate(registers, 1):
        sent = values(value, at=90 * step / (len(registers) + 1), transactionId=number)
        await point.ask("MeterValues", sent)
    await point.ask("StopTransaction", stop(number, **(end or {})))
    return number


# --- sessions as they are ---------------------------------------------------------------------------------------------


async def _plain(site: OcppSite) -> None:
    await charged(site, 6000, 12_000, 20_000)


async def _with_transaction_data(site: OcppSite) -> None:
    data = [values(9000 + 1000 * n, at=10 + n)["meterValue"][0] for n in range(5)]
    await charged(site, 6000, end={"meterStop": None, "transactionData": data})


async def _unnamed(site: OcppSite) -> None:
    point = await site.dial()
    number = (await point.ask("StartTransaction", start()))["transactionId"]
    for minutes in range(10, 80, 10):
        await point.ask("MeterValues", values({"value": str(1000 + 100 * minutes)}, at=minutes))
        clock = {"value": str(777_000 + minutes), "context": "Sample.Clock"}
        await point.ask("MeterValues", values(clock, at=minutes + 1))
    await point.ask("StopTransaction", stop(number, meterStop=None))


async def _replaced_start(site: OcppSite) -> None:
    await charged(site, 909_950, 910_020, meterStart=0, end={"meterStop": 910_031})


async def _reset(site: OcppSite) -> None:
    await charged(site, 6000, 9000, 10, 900, 1500, end={"meterStop": 2000})


async def _spike(site: OcppSite) -> None:
    await charged(site, 6000, 2**31, 9000)


async def _held(site: OcppSite) -> None:
    await charged(site, 6000, end={"meterStop": 2**32 - 1})


async def _without_a_start(site: OcppSite) -> None:
    await charged(site, 6000, 9000, meterStart=None, end={"meterStop": 10_000})


async def _unknown_id(site: OcppSite) -> None:
    point = await site.dial()
    await point.ask("StartTransaction", start())
    await point.ask("MeterValues", values(6000))
    await point.ask("StopTransaction", stop(-1))


async def _suspect_clock(site: OcppSite) -> None:
    point = await site.dial(firmwareVersion="1")
    number = (await point.ask("StartTransaction", start(timestamp=LOST)))["transactionId"]
    await point.ask("StatusNotification", {"connectorId": 1, "errorCode": "NoError", "status": "Charging"})
    await point.ask("MeterValues", values(6000, at=LOST, transactionId=number))
    await point.ask("StopTransaction", stop(number, timestamp=LOST))


async def _lost_power(site: OcppSite) -> None:
    point = await site.dial(firmwareVersion="1")
    number = (await point.ask("StartTransaction", start()))["transactionId"]
    await point.ask("MeterValues", values(6000, transactionId=number))
    again = await site.dial(firmwareVersion="1")
    await again.ask("StopTransaction", stop(number, timestamp=LOST, meterStop=6100, reason="PowerLoss"))


async def _inferred_and_amended(site: OcppSite) -> None:
    point = await site.dial()
    first = (await point.ask("StartTransaction", start()))["transactionId"]
    await point.ask("MeterValues", values(6000, transactionId=first))
    second = await point.ask("StartTransaction", start(timestamp=moment(60), meterStart=6500))
    await point.ask("MeterValues", values(6300, at=40, transactionId=first))
    await point.ask("StopTransaction", stop(first, meterStop=6400, timestamp=moment(50)))
    await point.ask("StopTransaction", stop(second["transactionId"]))


async def _banded(site: OcppSite) -> None:
    tariff = f"t-{site.charger.lower()}"
    response = await site.node.api.put(f"/api/v1/tariffs/{tariff}", json=TWO_RATES)
    assert response.is_success, response.text
    await site.register(tariffId=tariff, timeZone="Europe/Vienna")
    point = await site.dial()
    number = (await point.ask("StartTransaction", start()))["transactionId"]
    for minutes, value in ((15, 4000), (40, 9000), (70, 20_000)):
        await point.ask("MeterValues", values(value, at=minutes, transactionId=number))
    suspended = {"connectorId": 1, "errorCode": "NoError", "status": "SuspendedEV", "timestamp": moment(71)}
    await point.ask("StatusNotification", suspended)
    await point.ask("MeterValues", values(20_000, at=85, transactionId=number))
    await point.ask("StopTransaction", stop(number, meterStop=20_000))
    assert (await site.transaction(number))["bill"] is not None


@pytest.mark.parametrize(
    "story",
    [
        _plain,
        _with_transaction_data,
        _unnamed,
        _replaced_start,
        _reset,
        _spike,
        _held,
        _without_a_start,
        _unknown_id,
        _suspect_clock,
        _lost_power,
        _inferred_and_amended,
        _banded,
    ],
    ids=lambda story: story.__name__.strip("_"),
)
async def test_the_audit_finds_no_difference(site: OcppSite, story: Any) -> None:
    await story(site)
    found = await audited(site)
    assert [one.differences for one in found] == [()] * len(await site.transactions())
    assert {one.checked_by for one in found} == {"frames"}
    # The same from readings alone, as for the chargers of bridges.
    await execute(site, "DELETE FROM messages WHERE charger_id = $1", site.charger)
    again = await audited_now(site)
    assert [one.differences for one in again] == [()] * len(found)
    assert {one.checked_by for one in again} == {"readings"}


async def test_open_transactions_are_skipped_and_counted(site: OcppSite) -> None:
    point = await site.dial()
    await point.ask("StartTransaction", start())
    await point.ask("StartTransaction", start(connectorId=2))
    assert await audited_now(site) == []
    engine = create_engine(site.node.database_url)
    try:
        counts = await auditing.counts(engine, AuditPeriod(charger_id=site.charger))
    finally:
        await engine.dispose()
    assert (counts.ended, counts.open) == (0, 2)


async def test_a_period_is_of_the_accounting_time(site: OcppSite) -> None:
    number = await charged(site)
    at = (await site.transaction(number))["accounting_at"]
    assert len(await audited_now(site, since=at, until=at + timedelta(seconds=1))) == 1
    assert await audited_now(site, until=at) == []
    assert await audited_now(site, since=at + timedelta(seconds=1)) == []


# --- false figures ----------------------------------------------------------------------------------------------------

_ROW = "UPDATE transactions SET {} WHERE id = $1"


def _event(event_type: str, true: str, false: str) -> str:
    body = f"convert_to(replace(convert_from(body, 'UTF8'), '{true}', '{false}'), 'UTF8')"
    return f"UPDATE events SET body = {body} WHERE transaction_id = $1 AND event_type = '{event_type}'"


FALSE: dict[str, tuple[str, str]] = {
    "meter start": (_ROW.format("meter_start_wh = 900"), "meter_start_wh"),
    "start time": (_ROW.format("started_at = started_at + interval '1 minute'"), "started_at"),
    "idTag": (_ROW.format("id_tag = 'other'"), "id_tag"),
    "connector": (_ROW.format("connector_id = 7"), "connector_id"),
    "accounting time": (_ROW.format("accounting_at = accounting_at - interval '1 day'"), "accounting_at"),
    "suspect clock": (_ROW.format("clock_suspect = true"), "clock_suspect"),
    "meter stop": (_ROW.format("meter_stop_wh = 24000"), "meter_stop_wh"),
    "stop time": (_ROW.format("stopped_at = stopped_at - interval '1 minute'"), "stopped_at"),
    "reason": (_ROW.format("stop_reason = 'Remote'"), "stop_reason"),
    "idTag of the stop": (_ROW.format("stop_id_tag = 'other'"), "stop_id_tag"),
    "energy": (_ROW.format("energy_wh = 23999"), "energy_wh"),
    "source": (_ROW.format("energy_source = 'last_reading'"), "energy_source"),
    "duration": (_ROW.format("duration_s = 5399"), "duration_s"),
    "inferred": (_ROW.format("inferred = true"), "inferred"),
    "one cent more": (_ROW.format("cost_minor = cost_minor + 1"), "cost_minor"),
    "cost": (_ROW.format("cost = cost + 0.01"), "cost"),
    "anomaly removed": (_ROW.format("anomalies = '{}'"), "anomalies"),
    "anomaly added": (_ROW.format("anomalies = anomalies || '{register_reset}'"), "anomalies"),
    "billed to held": (_ROW.format("billing = 'held'"), "billing"),
    "void": (_ROW.format("billing = 'void'"), "cost_minor"),
    "by an operator": (_ROW.format("energy_source = 'operator'"), "revision"),
    "reason to hold": (_ROW.format("held_because = '{implausible_meter_stop}'"), "held_because"),
    "revision": (_ROW.format("revision = 2"), "revision"),
    "register": (
        _ROW.format("register = jsonb_set(register, '{last,energy_wh}', '23998')"),
        "register",
    ),
    "tariff": (_ROW.format("""tariff = jsonb_set(tariff, '{energy_rate}', '"0.99"')"""), "cost_minor"),
    "event of the cost": (
        _event("session_cost", '"energyConsumed":24.0', '"energyConsumed":9.0'),
        "event session_cost.energyConsumed",
    ),
    "event of the end": (
        _event("completed", '"meterStop":25000', '"meterStop":1'),
        "event completed.meterStop",
    ),
    "no event of the cost": (
        "DELETE FROM events WHERE transaction_id = $1 AND event_type = 'session_cost'",
        "event session_cost",
    ),
}


@pytest.mark.parametrize("false", FALSE)
async def test_a_false_figure_is_found(site: OcppSite, false: str) -> None:
    statement, field = FALSE[false]
    number = await charged(site, 6000, 2**31, 9000, 12_000)
    assert [one.differences for one in await audited(site)] == [()]
    await execute(site, statement, number)
    (one,) = await audited_now(site)
    assert any(d.field.startswith(field) for d in one.differences), one.differences


async def test_held_to_billed_is_found(site: OcppSite) -> None:
    number = await charged(site, 6000, end={"meterStop": 2**32 - 1})
    await execute(site, _ROW.format("billing = 'billed', held_because = '{}'"), number)
    (one,) = await audited(site)
    assert {"billing", "held_because", "event session_cost"} <= {d.field for d in one.differences}


async def test_a_component_of_the_bill_is_found(site: OcppSite) -> None:
    await _banded(site)
    (row,) = await site.transactions()
    query = "bill = jsonb_set(bill, '{lines,0,amount_minor}', '1')"
    await execute(site, _ROW.format(query), row["id"])
    (one,) = await audited(site)
    assert "bill" in {d.field for d in one.differences}


async def test_only_the_last_reading_of_a_session_without_a_stop_register_decides(site: OcppSite) -> None:
    await charged(site, 6000, 9000, 12_000, end={"meterStop": None})
    middle = "DELETE FROM readings WHERE charger_id = $1 AND energy_wh = $2"
    await execute(site, middle, site.charger, 9000)
    assert [one.differences for one in await audited(site)] == [()]
    await execute(site, middle, site.charger, 12_000)
    (one,) = await audited_now(site)
    assert {"energy_wh", "cost_minor", "meter_stop_wh"} <= {d.field for d in one.differences}


async def test_account_entries_are_compared_with_the_cost(site: OcppSite) -> None:
    number = await charged(site, 6000)
    account = f"a-{site.charger}"
    await execute(site, "INSERT INTO accounts (id, currency) VALUES ($1, 'USD')", account)
    cost = (await site.transaction(number))["cost_minor"]
    assert cost
    await execute(site, _ROW.format("account_id = $2"), number, account)
    await execute(
        site,
        "INSERT INTO account_entries (account_id, key, kind, amount_minor, balance_minor, transaction_id, recorded_at)"
        " VALUES ($1, $2, 'debit', $3::int8, $3::int8, $4, now())",
        account,
        f"tx:{number}:1",
        -cost,
        number,
    )
    assert [one.differences for one in await audited(site)] == [()]
    await execute(
        site, "UPDATE account_entries SET amount_minor = amount_minor + 1 WHERE account_id = $1", account
    )
    (one,) = await audited_now(site)
    assert [(d.field, d.stored, d.recomputed) for d in one.differences] == [("cost_minor", cost, cost - 1)]


async def test_a_revision_is_compared_with_the_transaction(site: OcppSite) -> None:
    await _inferred_and_amended(site)
    first, _ = await site.transactions()
    assert first["revision"] == 2
    query = "UPDATE transaction_revisions SET state = jsonb_set(state, '{costMinor}', '1')"
    await execute(site, f"{query} WHERE transaction_id = $1 AND revision = 2", first["id"])
    one = (await audited(site))[0]
    assert [(d.field, d.recomputed) for d in one.differences] == [("cost_minor", 1)]


async def test_a_bill_of_an_older_release_is_recomputed(site: OcppSite) -> None:
    number = await charged(site, 6000)
    await execute(site, _ROW.format("register = NULL"), number)
    await execute(site, "UPDATE readings SET weight = NULL WHERE charger_id = $1", site.charger)
    (one,) = await audited(site)
    assert (one.older, one.differences) == (True, ())


# --- the command ------------------------------------------------------------------------------------------------------


async def test_the_command_lists_what_differs(site: OcppSite) -> None:
    number = await charged(site, 6000)
    await audited(site)

    async def run(*arguments: str) -> tuple[int, str, str]:
        return await csms("audit", "--charger", site.charger, *arguments, database=site.node.database_url)

    status, out, _ = await run()
    assert (status, out.splitlines()[0]) == (
        0,
        "1 transactions audited, 0 differ in 0 values; 0 open ones skipped.",
    )
    await execute(site, _ROW.format("cost_minor = cost_minor + 1"), number)
    status, out, _ = await run("--json")
    assert status == 1
    assert '"field":"cost_minor"' in out
    assert '"differing":1' in out.splitlines()[-1]
    status, out, _ = await run()
    assert status == 1
    assert f"transaction {number} of {site.charger} (checked by frames)" in out
    status, _, errors = await run("--from", "yesterday")
    assert status == 2
    assert "such as 2026-11-01" in " ".join(errors.replace("│", "").split())
    status, _, errors = await run("--from", "2026-11-01", "--to", "2026-11-01")
    assert status == 2


async def test_without_a_database_the_command_ends_with_2_and_a_sentence() -> None:
    status, out, errors = await csms("audit", database="postgresql://none@127.0.0.1:1/none")
    assert (status, out) == (2, "")
    assert errors.startswith("csms: the database does not answer")
    assert len(errors.splitlines()) == 1
