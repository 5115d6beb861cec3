"""Enrollment open, approve and closed; an operator's decision reaches a charge point that waits for it."""

import asyncio

from tests.harness.charge_points.raw import RawChargePoint
from tests.harness.narrowing import present
from tests.harness.security_clients import booted, refused

BOOT = {"chargePointVendor": "V", "chargePointModel": "M"}


async def test_closed_enrollment_answers_404_to_an_unregistered_charge_point(start_node):
    node = await start_node(mqtt=False, csms_enrollment="closed")
    status, text = await refused(node.ocpp, "stranger")
    assert status == 404
    assert "not registered" in text
    await node.api.put("/api/v1/chargers/stranger", json={})
    await (await booted(node.ocpp, "stranger")).close()


async def test_open_enrollment_admits_any_charge_point(start_node):
    node = await start_node(mqtt=False, csms_enrollment="open")
    await (await booted(node.ocpp, "new")).close()


async def test_a_charge_point_that_waits_is_asked_to_boot_as_soon_as_it_is_accepted(start_node):
    node = await start_node(mqtt=False, csms_enrollment="approve")
    station = await RawChargePoint.dial(node.ocpp, "new")
    assert (await station.boot())["status"] == "Pending"
    assert (await station.call("StatusNotification", {"connectorId": 0}))[2] == "SecurityError"
    asked = asyncio.create_task(node.api.patch("/api/v1/chargers/new", json={"enrollment": "Accepted"}))
    call = await station.receive()
    assert call[2:] == ["TriggerMessage", {"requestedMessage": "BootNotification"}]
    # The operator need not wait for the charge point.
    assert (await asked).json()["enrollment"] == "Accepted"
    await station.send([3, call[1], {"status": "Accepted"}])
    assert (await station.boot())["status"] == "Accepted"
    assert (await station.ask("Heartbeat", {}))["currentTime"]
    # Nothing has changed: nothing is asked.
    await node.api.patch("/api/v1/chargers/new", json={"enrollment": "Accepted", "displayName": "N"})
    assert await station.silence()
    await station.close()


async def test_rejected_ends_the_connection_and_boot_says_so(start_node):
    node = await start_node(mqtt=False, csms_enrollment="open")
    station = await booted(node.ocpp, "cp")
    answer = await node.api.patch("/api/v1/chargers/cp", json={"enrollment": "Rejected"})
    assert answer.json()["enrollment"] == "Rejected"
    async with asyncio.timeout(10):
        await station.socket.wait_closed()
    assert "operator" in present(station.socket.close_reason)
    station = await RawChargePoint.dial(node.ocpp, "cp")
    assert (await station.boot())["status"] == "Rejected"
    assert (await station.call("StatusNotification", {"connectorId": 0}))[2] == "SecurityError"
    await station.close()


async def test_the_node_that_holds_the_charger_asks_it_to_boot(start_node):
    first = await start_node(csms_enrollment="approve")
    second = await start_node(csms_enrollment="approve", csms_node="node-b")
    station = await RawChargePoint.dial(second.ocpp, "new")
    assert (await station.boot())["status"] == "Pending"
    await first.api.patch("/api/v1/chargers/new", json={"enrollment": "Accepted"})
    call = await station.receive()
    assert call[2] == "TriggerMessage"
    await station.send([3, call[1], {"status": "Accepted"}])
    assert (await station.boot())["status"] == "Accepted"
    await first.api.put("/api/v1/chargers/new", json={"enrollment": "Rejected"})
    async with asyncio.timeout(10):
        await station.socket.wait_closed()
