"""Charge points that we did not write: the `ocpp` package's, and npm's `ocpp-rpc` in strict mode."""

import asyncio
import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from ocpp.v16 import ChargePoint, call
from websockets.asyncio.client import connect
from websockets.typing import Subprotocol

from tests.e2e.conftest import Node

PEERS = Path(__file__).parent.parent / "peers"

STARTED = {
    "connectorId": 1,
    "idTag": "user123",
    "meterStart": 1000,
    "startTime": "2023-12-07T10:15:30Z",
    "status": "started",
}
COMPLETED = STARTED | {
    "meterStop": 25000,
    "stopTime": "2023-12-07T11:45:30Z",
    "energyUsed": 24.0,
    "duration": 90.0,
    "reason": "Local",
    "status": "completed",
}
SESSION_COST = {
    "connectorId": 1,
    "idTag": "user123",
    "startTime": "2023-12-07T10:15:30Z",
    "endTime": "2023-12-07T11:45:30Z",
    "energyConsumed": 24.0,
    "duration": 90.0,
    "estimatedCost": 2.88,
    "currency": "USD",
    "pricingModel": "energy_based",
    "energyRate": 0.12,
    "timeRate": 0.0,
}
METER_READING = {
    "connectorId": 1,
    "timestamp": "2023-12-07T10:30:30Z",
    "measurands": {
        "Energy.Active.Import.Register": {"value": 12.5, "unit": "kWh", "context": "Sample.Periodic"},
        "Power.Active.Import": {"value": 7.2, "unit": "kW", "context": "Sample.Periodic"},
    },
    "currentPower": 7.2,
    "totalEnergy": 12.5,
}
CHARGING = {"connectorId": 1, "status": "Charging", "previousStatus": "Preparing", "errorCode": "NoError"}


def holds(payload: dict[str, Any], customers: dict[str, Any]) -> bool:
    """Every key of the customer's example with exactly its value; more keys may follow."""
    return {key: payload.get(key) for key in customers} == customers


async def expect_the_customers_events(node: Node, charger: str, transaction_id: int) -> None:
    await node.until(lambda: node.of("session_cost", charger))
    (started,) = node.of("started", charger)
    (completed,) = node.of("completed", charger)
    (cost,) = node.of("session_cost", charger)
    (reading,) = node.of("meter_reading", charger)
    charging = node.of("status_changed", charger)[-1]
    for event, example in (
        (started, STARTED),
        (completed, COMPLETED),
        (cost, SESSION_COST),
        (reading, METER_READING),
    ):
        assert event["payload"]["transactionId"] == transaction_id
        assert holds(event["payload"], example), event
    assert holds(charging["payload"], CHARGING)
    topics = {topic for topic, body in node.bodies if f'"clientId":"{charger}"'.encode() in body}
    assert topics == {
        f"csms/transactions/{charger}/started",
        f"csms/transactions/{charger}/completed",
        f"csms/transactions/{charger}/meter_reading",
        f"csms/connectors/{charger}/status_changed",
        f"csms/billing/{charger}/session_cost",
    }
    seqs = [event["seq"] for event in node.events if event["clientId"] == charger]
    assert seqs == list(range(1, len(seqs) + 1))
    assert not any(node.retained)
    stored = await node.fetch("SELECT * FROM transactions WHERE charger_id = $1", charger)
    assert [(row["id"], row["energy_wh"], row["cost_minor"]) for row in stored] == [
        (transaction_id, 24_000, 288)
    ]


async def test_the_ocpp_packages_charge_point_charges(node: Node) -> None:
    async with connect(f"{node.ocpp}CP-OCPP", subprotocols=[Subprotocol("ocpp1.6")]) as socket:
        charge_point = ChargePoint("CP-OCPP", socket)
        listening = asyncio.create_task(charge_point.start())
        try:
            boot = await charge_point.call(call.BootNotification("Model", "Vendor"))
            assert boot.status == "Accepted"
            assert (await charge_point.call(call.Authorize("user123"))).id_tag_info["status"] == "Accepted"
            await charge_point.call(call.StatusNotification(1, "NoError", "Preparing"))
            start = call.StartTransaction(1, "user123", 1000, "2023-12-07T10:15:30Z")
            started = await charge_point.call(start)
            # The same start under a new message id: the same transaction, the same status, no second event.
            again = await charge_point.call(start)
            assert (again.transaction_id, again.id_tag_info) == (started.transaction_id, started.id_tag_info)
            await charge_point.call(call.StatusNotification(1, "NoError", "Charging"))
            samples = [{"value": "12500"}, {"value": "7200", "measurand": "Power.Active.Import", "unit": "W"}]
            reading = {"timestamp": "2023-12-07T10:30:30Z", "sampled_value": samples}
            await charge_point.call(call.MeterValues(1, [reading], started.transaction_id))
            await charge_point.call(
                call.StopTransaction(25000, "2023-12-07T11:45:30Z", started.transaction_id)
            )
            await expect_the_customers_events(node, "CP-OCPP", started.transaction_id)
        finally:
            listening.cancel()
            await asyncio.gather(listening, return_exceptions=True)


@pytest.fixture(scope="session")
def ocpp_rpc(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Path:
    """A folder with npm's `ocpp-rpc` installed from the lock file."""
    if not shutil.which("npm") or not shutil.which("node"):
        pytest.skip("node and npm are not on this machine: ocpp-rpc cannot be the peer")
    folder = tmp_path_factory.mktemp("ocpp-rpc")
    for name in ("package.json", "package-lock.json", "charge_point.js"):
        shutil.copy(PEERS / name, folder / name)
    done = subprocess.run(
        ["npm", "ci", "--no-audit", "--no-fund", "--ignore-scripts", "--loglevel=error"],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    if done.returncode:
        pytest.skip(f"ocpp-rpc did not install: {done.stderr[-300:]}")
    return folder


@pytest.mark.timeout(180)
async def test_ocpp_rpc_in_strict_mode_accepts_all_we_send(node: Node, ocpp_rpc: Path) -> None:
    process = await asyncio.create_subprocess_exec(
        "node",
        "charge_point.js",
        node.ocpp.rstrip("/"),
        "CP-RPC",
        cwd=ocpp_rpc,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={"PATH": os.environ["PATH"]},
    )
    try:
        assert process.stdout is not None
        async with asyncio.timeout(30):
            charging = json.loads(await process.stdout.readline())
        assert charging["start"] == charging["again"]
        for action, payload, answer in (
            ("TriggerMessage", {"requestedMessage": "Heartbeat"}, {"status": "Accepted"}),
            ("RemoteStartTransaction", {"idTag": "user123", "connectorId": 2}, {"status": "Accepted"}),
            (
                "RemoteStopTransaction",
                {"transactionId": charging["start"]["transactionId"]},
                {"status": "Accepted"},
            ),
            ("Reset", {"type": "Soft"}, {"status": "Accepted"}),
        ):
            response = await node.api.post(
                "/api/v1/chargers/CP-RPC/commands", json={"action": action, "payload": payload}
            )
            assert (response.status_code, response.json()) == (200, {"response": answer})
        await expect_the_customers_events(node, "CP-RPC", charging["start"]["transactionId"])
        async with asyncio.timeout(30):
            out, errors = await process.communicate()
        assert process.returncode == 0, errors.decode()
        assert json.loads(out)["problems"] == []
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
