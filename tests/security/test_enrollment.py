"""Enrollment open, approve and closed; an operator's decision reaches a charge point that waits for it."""

import asyncio

import pytest

from csms.ocpp import messages
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


@pytest.mark.parametrize("answer", ["NotImplemented", "Rejected", None])
async def test_acceptance_counts_at_once_for_a_charge_point_that_does_not_boot_anew(start_node, answer):
    node = await start_node(mqtt=False, csms_enrollment="approve", csms_unknown_tags="accept")
    station = await RawChargePoint.dial(node.ocpp, "new")
    assert (await station.boot())["status"] == "Pending"
    status = {"connectorId": 1, "errorCode": "NoError", "status": "Available"}
    assert (await station.call("StatusNotification", status))[2] == "SecurityError"
    assert (await node.api.patch("/api/v1/chargers/new", json={"enrollment": "Accepted"})).is_success
    asked = await station.receive()
    assert asked[2] == "TriggerMessage"
    if answer is not None:
        await station.send([3, asked[1], {"status": answer}])
    assert await station.ask("StatusNotification", status) == {}
    assert await station.ask("Authorize", {"idTag": "A"}) == {"idTagInfo": {"status": "Accepted"}}
    assert (await node.api.get("/api/v1/chargers/new")).json()["connectors"][0]["status"] == "Available"
    await station.close()


async def test_acceptance_by_another_node_without_a_broker_counts_at_once(start_node):
    first = await start_node(mqtt=False, csms_enrollment="approve")
    second = await start_node(mqtt=False, csms_enrollment="approve", csms_node="node-b")
    station = await RawChargePoint.dial(second.ocpp, "new")
    assert (await station.boot())["status"] == "Pending"
    await first.api.patch("/api/v1/chargers/new", json={"enrollment": "Accepted"})
    assert await station.ask("Authorize", {"idTag": "A"}) == {"idTagInfo": {"status": "Accepted"}}
    await station.close()


@pytest.mark.parametrize("enrollment", ["Pending", "Rejected"])
async def test_a_charge_point_that_is_not_accepted_learns_nothing_of_tags(start_node, enrollment):
    """Every CALL that OCPP has gets the same answer for a tag that is accepted, blocked or unknown."""
    node = await start_node(mqtt=False, csms_enrollment="approve", csms_unknown_tags="reject")
    for tag, status in (("GOOD", "Accepted"), ("BAD", "Blocked")):
        assert (await node.api.put(f"/api/v1/tags/{tag}", json={"status": status})).is_success
    station = await RawChargePoint.dial(node.ocpp, "new")
    assert (await station.boot())["status"] == "Pending"
    if enrollment == "Rejected":
        await node.api.patch("/api/v1/chargers/new", json={"enrollment": "Rejected"})
        station = await RawChargePoint.dial(node.ocpp, "new")
        assert (await station.boot())["status"] == "Rejected"
    for action in sorted(messages.INBOUND):
        answers = []
        for number, tag in enumerate(("GOOD", "BAD", "UNKNOWN")):
            payload = {
                "idTag": tag,
                "connectorId": 1,
                "meterStart": number,
                "meterStop": number,
                "transactionId": 7,
                "timestamp": "2026-01-01T00:00:00Z",
                "vendorId": "V",
                "messageId": tag,
                "data": tag,
            }
            answer = (await station.call(action, payload))[2:]
            if isinstance(answer[0], dict):
                answer[0].pop("transactionId", None)
                answer[0].pop("currentTime", None)
            answers.append(answer)
        assert answers[0] == answers[1] == answers[2], action
        assert "Blocked" not in str(answers)
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
