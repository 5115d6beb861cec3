"""A charge point that never sends a stop, on a whole node (and on two)."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from tests.e2e.conftest import Node, NodeFactory
from tests.harness.charging_site import OcppSite, moment, start, stop, values
from tests.harness.waiting import until

AFTER_S = 1.0
FREE = {"connectorId": 1, "errorCode": "NoError", "status": "Available"}
CHARGING = FREE | {"status": "Charging"}


@pytest.fixture
async def node(start_node: NodeFactory) -> Node:
    return await start_node(csms_infer_stop_after_s=AFTER_S)


@pytest.fixture
async def site(node: Node) -> AsyncIterator[OcppSite]:
    site = OcppSite(node)
    yield site
    await site.hang_up()


async def closed(site: OcppSite, timeout_s: float = 15) -> None:
    async def all_stopped() -> bool:
        return all(row["stopped_at"] is not None for row in await site.transactions())

    await until(all_stopped, timeout_s)


async def test_a_connector_that_stays_free_ends_it_and_the_real_stop_amends(site: OcppSite) -> None:
    point = await site.dial(chargePointVendor="Zaptec")
    transaction_id = (await point.ask("StartTransaction", start()))["transactionId"]
    await point.ask("StatusNotification", CHARGING | {"timestamp": moment(1)})
    await point.ask("MeterValues", values(7000, at=40, transactionId=transaction_id))
    await point.ask("StatusNotification", FREE | {"timestamp": moment(50)})
    await closed(site)
    row = await site.transaction(transaction_id)
    assert (row["inferred"], row["energy_wh"], row["energy_source"]) == (True, 6000, "last_reading")
    (completed,) = await site.payloads("completed")
    assert (completed["inferred"], completed["energyUsed"], completed["revision"]) == (True, 6.0, 1)
    # It is late, but it is the truth.
    assert await point.ask("StopTransaction", stop(transaction_id, meterStop=8000)) == {}
    (updated,) = await site.payloads("updated")
    assert "inferred" not in updated
    assert (updated["energyUsed"], updated["revision"]) == (7.0, 2)
    assert [cost["revision"] for cost in await site.payloads("session_cost")] == [1, 2]
    assert (await site.told())[-4:] == ["completed", "session_cost", "updated", "session_cost"]
    await site.node.until(lambda: site.node.of("updated", site.charger))


async def test_a_boot_ends_what_was_running_unless_it_still_runs(site: OcppSite) -> None:
    point = await site.dial()
    ids = [(await point.ask("StartTransaction", start(connectorId=n)))["transactionId"] for n in (1, 2, 3)]
    again = await site.dial(chargePointModel="rebooted")
    # 2 charges on, says its status; 3 charges on, says its meter.
    await again.ask("StatusNotification", CHARGING | {"connectorId": 2})
    deadline = asyncio.get_running_loop().time() + 15
    n = 0
    while (await site.transaction(ids[0]))["stopped_at"] is None:
        assert asyncio.get_running_loop().time() < deadline
        n += 1
        reading = values(2000 + n, at=10 + n, connectorId=3, transactionId=ids[2])
        await again.ask("MeterValues", reading)
        await asyncio.sleep(0.1)
    rows = [await site.transaction(transaction_id) for transaction_id in ids]
    assert [row["stop_reason"] for row in rows] == ["Reboot", None, None]
    assert rows[0]["inferred"] is True


async def test_two_nodes_end_it_once(start_node: NodeFactory) -> None:
    here = await start_node(csms_infer_stop_after_s=AFTER_S)
    await start_node(csms_infer_stop_after_s=AFTER_S, csms_node="node-b")
    site = OcppSite(here)
    point = await site.dial()
    for n in range(1, 6):
        await point.ask("StartTransaction", start(connectorId=n))
        await point.ask("StatusNotification", FREE | {"connectorId": n})
    await closed(site)
    await asyncio.sleep(AFTER_S)
    told = await site.told()
    assert (told.count("completed"), told.count("session_cost"), told.count("updated")) == (5, 5, 0)
    assert {row["revision"] for row in await site.transactions()} == {1}
    await site.hang_up()


async def test_what_still_charges_is_left_alone(site: OcppSite) -> None:
    """Free for a moment only; free before it began; and one that says free while its meter runs."""
    point = await site.dial()
    await point.ask("StatusNotification", FREE | {"connectorId": 2})
    ids = [(await point.ask("StartTransaction", start(connectorId=n)))["transactionId"] for n in (1, 2, 3)]
    ended = (await point.ask("StartTransaction", start(connectorId=4)))["transactionId"]
    await point.ask("StatusNotification", FREE)
    await point.ask("StatusNotification", CHARGING)
    await point.ask("StatusNotification", FREE | {"connectorId": 3})
    await point.ask("StatusNotification", FREE | {"connectorId": 4})
    n = 0
    async with asyncio.timeout(15):
        while (await site.transaction(ended))["stopped_at"] is None:
            n += 1
            await point.ask("MeterValues", values(2000 + n, at=n, connectorId=3, transactionId=ids[2]))
            await asyncio.sleep(0.1)
    assert [(await site.transaction(i))["stopped_at"] for i in ids] == [None] * 3


async def test_late_readings_of_an_ended_session_are_billed_together(site: OcppSite) -> None:
    point = await site.dial()
    ended = (await point.ask("StartTransaction", start()))["transactionId"]
    running = (await point.ask("StartTransaction", start(meterStart=30_000, timestamp=moment(60))))[
        "transactionId"
    ]
    for minutes, value_wh in ((10, 3000), (20, 5000), (30, 7000)):
        await point.ask("MeterValues", values(value_wh, at=minutes, transactionId=ended))

    async def billed_anew() -> bool:
        return bool((await site.transaction(ended))["revision"] == 2)

    await until(billed_anew, 15)
    assert await site.told() == [
        *("started", "completed", "session_cost", "started"),
        *["meter_reading"] * 3,
        *("updated", "session_cost"),
    ]
    assert [(cost["revision"], cost["energyConsumed"]) for cost in await site.payloads("session_cost")] == [
        (1, 0.0),
        (2, 6.0),
    ]
    assert (await site.transaction(running))["stopped_at"] is None
