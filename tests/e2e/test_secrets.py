"""A secret that a charger sends, or an operator sends to it, is in no row, no message, no answer and no line of the log."""

import asyncio
import json
from typing import Any

import pytest

from tests.e2e.conftest import Node
from tests.harness.charge_points.raw import RawChargePoint
from tests.harness.stored_text import columns_with

SECRET = "Zx9vQ7hunter2"
ADDRESS = f"ftp://user:{SECRET}@files.example.com/x"
NESTED = json.dumps({"wifi": {"ssid": "home", "WPA-PSK": SECRET}})


@pytest.fixture
async def point(shared: Node) -> Any:
    point = await RawChargePoint.dial(shared.ocpp, shared.name)
    await point.boot()
    yield point
    await point.close()


async def test_what_a_charger_sends_is_masked_wherever_it_goes(
    shared: Node, point: RawChargePoint, capfd: pytest.CaptureFixture[str]
) -> None:
    start = {"connectorId": 1, "idTag": "TAG", "meterStart": 0, "timestamp": "2026-12-01T10:00:00Z"}
    status = {"connectorId": 1, "status": "Faulted", "errorCode": "OtherError"}
    transfer = {"vendorId": "V", "messageId": "M", "data": NESTED}
    await point.ask("DataTransfer", transfer)
    await point.ask("StatusNotification", status | {"info": f"login password: {SECRET}"})
    await point.ask(
        "StatusNotification", status | {"info": f"A {ADDRESS}"[:50], "vendorErrorCode": f"pwd={SECRET}"}
    )
    event = {"type": "FailedToAuthenticate", "timestamp": "2026-12-01T10:00:00Z"}
    await point.ask("SecurityEventNotification", event | {"techInfo": ADDRESS.replace("://", "%3A%2F%2F")})
    await point.ask("StartTransaction", start | {"Wifi_Pass-word": SECRET})
    await point.ask("StopTransaction", {"transactionId": "none", "meterStop": {"api-key": SECRET}})
    await point.ask(
        "StartTransaction", {"password": SECRET, "idTag": 5, "connectorId": "x", "meterStart": "y"}
    )
    await point.call("VendorAction", {"Key": "authorizationKEY", "Value": SECRET})
    await point.socket.send(f'[2,"cut","StopTransaction",{{"pass\\u0077ord":"{SECRET}')
    await point.socket.send(f'[2,"cut2","Reset",{{"secret":"{SECRET}')
    assert [(await point.receive())[1] for _ in range(2)] == ["cut", "cut2"]
    await point.ask("Heartbeat", {})

    await _nowhere(shared, capfd)


async def test_what_goes_to_a_charger_and_comes_back_is_masked(
    shared: Node, point: RawChargePoint, capfd: pytest.CaptureFixture[str]
) -> None:
    async def command(action: str, payload: dict[str, Any], answer: list[Any]) -> None:
        body = {"action": action, "payload": payload, "timeout_s": 5}
        asked = asyncio.create_task(shared.api.post(f"{shared.url}/commands", json=body))
        call = await point.receive()
        assert call[2:] == [action, payload]
        await point.send([answer[0], call[1], *answer[1:]])
        assert SECRET not in (await asked).text

    accepted = [3, {"status": "Accepted"}]
    key = "Vendor.Api-Key"
    await command("ChangeConfiguration", {"key": key, "value": SECRET}, accepted)
    await command("ChangeConfiguration", {"key": "UploadAddress", "value": ADDRESS}, accepted)
    await command(
        "DataTransfer", {"vendorId": "V", "data": NESTED}, [3, {"status": "Accepted", "data": NESTED}]
    )
    found = [
        {"key": "AUTHORIZATION_KEY", "readonly": False, "value": SECRET},
        {"key": "UploadAddress", "readonly": False, "value": ADDRESS.replace(SECRET, f"{SECRET}2")},
    ]
    await command("GetConfiguration", {}, [3, {"configurationKey": found}])
    refused = [4, "GenericError", f"{key} = {SECRET} is refused", {"key": key, "value": SECRET}]
    await command("ChangeConfiguration", {"key": key, "value": SECRET}, refused)
    await point.ask("Heartbeat", {})

    await _nowhere(shared, capfd)
    kept = (await shared.api.get(f"{shared.url}/configuration")).json()["items"]
    assert [(item["key"], item["value"], item["inSync"]) for item in kept] == [
        ("UploadAddress", "ftp://***@files.example.com/x", True)
    ]


async def _nowhere(node: Node, capfd: pytest.CaptureFixture[str]) -> None:
    async def logged() -> bool:
        rows = await node.fetch(
            "SELECT action FROM messages WHERE charger_id = $1 AND action = 'Heartbeat'", node.name
        )
        return len(rows) == 2

    await node.until(logged)
    await node.until(lambda: any(topic.endswith(f"{node.name}/Heartbeat") for topic, _ in node.protocol))
    assert await columns_with(node.database_url, SECRET) == []
    assert SECRET not in json.dumps([node.protocol, node.events])
    pages = (
        "messages?limit=1000",
        "commands",
        "configuration",
        "data-transfers",
        "security-events",
        "deviations",
    )
    for path in (*(f"{node.url}/{page}" for page in pages), "/api/v1/quarantine"):
        response = await node.api.get(path)
        assert response.status_code == 200, path
        assert SECRET not in response.text, path
    written = capfd.readouterr()
    assert SECRET not in written.out + written.err
