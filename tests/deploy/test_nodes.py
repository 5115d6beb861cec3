"""Whole nodes with the logins and rights of deploy/: they do all their work, and take no command from a stranger."""

import asyncio
import json
from pathlib import Path
from typing import Any

from csms.mqtt.client.aiomqtt_fixes import MqttClient
from tests.e2e.conftest import Node, nodes
from tests.harness.charge_points.raw import RawChargePoint
from tests.harness.deployed_broker import ADMIN, ADMIN_PASSWORD, DeployedMosquitto
from tools.mqtt_topics import acl

LOGIN = {"username": ADMIN, "password": ADMIN_PASSWORD}
UNLOCK = {
    "id": "1",
    "replyTo": "csms/nodes/node-b/results",
    "expiresAt": "2099-01-01T00:00:00Z",
    "chargerId": "CP1",
    "action": "UnlockConnector",
    "payload": {"connectorId": 1},
    "timeoutS": 5.0,
    "requestedBy": "admin",
}


async def charge(node: Node, point: RawChargePoint) -> None:
    """A whole session with one reading."""
    await point.boot()
    await point.ask("StatusNotification", {"connectorId": 1, "errorCode": "NoError", "status": "Preparing"})
    at = "2026-11-01T10:00:00Z"
    started = await point.ask(
        "StartTransaction", {"connectorId": 1, "idTag": "T", "meterStart": 1000, "timestamp": at}
    )
    number = started["transactionId"]
    value = {"timestamp": at, "sampledValue": [{"value": "1200"}]}
    await point.ask("MeterValues", {"connectorId": 1, "transactionId": number, "meterValue": [value]})
    await point.ask("StopTransaction", {"transactionId": number, "meterStop": 2000, "timestamp": at})
    await node.until(lambda: node.of("session_cost", "CP1"))


async def test_nodes_work_with_their_logins_and_take_no_strangers_command(
    deployed: Any, database_url: str, topic_prefix: str, tmp_path: Path
) -> None:
    server: DeployedMosquitto = deployed(acl=acl(topic_prefix))
    async with nodes(database_url, server, topic_prefix, tmp_path) as start:
        options = {"mqtt_homeassistant_discovery": True, "mqtt_connection_events_enabled": True}
        holder = await start(mqtt_username="csms", mqtt_password="csms-word", login=LOGIN, **options)
        other = await start(
            mqtt_username="coin-op",
            mqtt_password="coin-op-word",
            csms_node="node-b",
            collect=False,
            **options,
        )
        point = await RawChargePoint.dial(holder.ocpp, "CP1")
        try:
            await charge(holder, point)
            # One that may write everything at the broker, which no access list stops.
            async with MqttClient(server.host, server.port, **LOGIN) as stranger:
                for _ in range(2):
                    topic = f"{topic_prefix}/csms/nodes/node-a/commands"
                    await stranger.publish(topic, json.dumps(UNLOCK), qos=1)
            asked = asyncio.create_task(
                other.api.post(
                    "/api/v1/chargers/CP1/commands", json={"action": "Reset", "payload": {"type": "Soft"}}
                )
            )
            # The first call that reaches the charger is the node's.
            call = await point.receive(10)
            assert call[2] == "Reset"
            await point.send([3, call[1], {"status": "Accepted"}])
            answered = await asked
            assert (answered.status_code, answered.json()["response"]) == (200, {"status": "Accepted"})
            assert await point.silence()
        finally:
            await point.socket.close()
        await holder.until(lambda: holder.of("disconnected", "CP1"))
    log = server._log_path.read_text()
    assert "u'csms')" in log and "u'coin-op')" in log
    assert "Denied PUBLISH" not in log
    assert "not authorised" not in log
