"""Home Assistant's discovery for every charger: the rules, the templates on real payloads, a real node."""

import asyncio
import json
from datetime import UTC, datetime
from decimal import Decimal

import aiomqtt
import jinja2
import msgspec
import pytest

from csms.core.events import topic_level
from csms.core.records import ChargerState, Connector, Transaction
from csms.core.session_register import advance, begin
from csms.core.tariffs import Tariff
from csms.db.charger_snapshot import StateSnapshot
from csms.mqtt.homeassistant import discovery_configs
from csms.mqtt.state import state_topics
from tests.e2e.conftest import NodeFactory, start_node
from tests.harness.charge_points.raw import RawChargePoint
from tests.harness.homeassistant_discovery import check

__all__ = ["start_node"]
NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)


def snapshot(charger_id: str = "CP 1", *, currency: str = "EUR", charging: bool = True) -> StateSnapshot:
    transaction = Transaction(
        id=402,
        charger_id=charger_id,
        connector_id=1,
        key="k",
        id_tag="T",
        authorization_status="Accepted",
        meter_start_wh=1000,
        started_at=NOW,
        start_received_at=NOW,
        accounting_at=NOW,
        tariff=Tariff(currency=currency, energy_rate=Decimal("0.12")),
    )
    connectors = (
        Connector(charger_id=charger_id, connector_id=0, status="Available"),
        Connector(
            charger_id=charger_id,
            connector_id=1,
            status="Charging" if charging else "Available",
            reading_transaction_id=402,
            reading_at=NOW,
            energy_wh=3500,
            register=advance(begin(1000, NOW, NOW, max_power_w=500_000), 3500, NOW, NOW),
            power_w=7200,
        ),
    )
    return StateSnapshot(
        ChargerState(charger_id=charger_id, online=True, node="n1"),
        connectors,
        (transaction,) if charging else (),
    )


def made(prefix: str = "") -> dict[str, dict]:
    return discovery_configs(snapshot(), node="n1", prefix=prefix, discovery="homeassistant", currency="USD")


@pytest.mark.parametrize("key", ["connection", "status", "power", "session_energy", "session_cost", "energy"])
def test_each_config_obeys_home_assistants_rules(key: str) -> None:
    ((topic, config),) = [(topic, one) for topic, one in made().items() if f"/{key}/" in topic]
    check(topic, config)


def test_entities_have_ids_of_their_charger_and_connector() -> None:
    ids = [config["default_entity_id"] for config in made().values()]
    assert ids == [
        "binary_sensor.csms_cp_1_connection",
        "sensor.csms_cp_1_1_status",
        "sensor.csms_cp_1_1_power",
        "sensor.csms_cp_1_1_session_energy",
        "sensor.csms_cp_1_1_session_cost",
        "sensor.csms_cp_1_1_energy",
    ]
    assert all(one["state_topic"].startswith("site/csms/") for one in made("site").values())
    cost = next(one for one in made().values() if one["name"] == "Connector 1 session cost")
    assert cost["unit_of_measurement"] == "EUR", "of the running session's tariff"


def render(template: str, value: object) -> str:
    environment = jinja2.Environment(autoescape=False)  # noqa: S701 - as Home Assistant renders it
    return environment.from_string(template).render(value_json=value)


def test_templates_read_what_is_published() -> None:
    """Each entity on the payloads of the topics that it names."""
    published = {
        f"csms/state/{topic_level('CP 1')}/{end}": msgspec.json.decode(msgspec.json.encode(content))
        for end, content in state_topics(snapshot()).items()
        if content is not None
    }
    found = {one["name"]: one for one in made().values()}
    values = {
        name: render(one["value_template"], published[one["state_topic"]])
        for name, one in found.items()
        if one["state_topic"] in published
    }
    assert values == {
        "Connection": "ON",
        "Connector 1 status": "Charging",
        "Connector 1 power": "7.2",
        "Connector 1 session energy": "2.5",
        "Connector 1 session cost": "0.3",
    }
    session = found["Connector 1 power"]["availability"]
    assert [render(one["value_template"], published[one["topic"]]) for one in session[1:]] == ["online"] * 2
    idle = {
        f"csms/state/{topic_level('CP 1')}/{end}": msgspec.json.decode(msgspec.json.encode(content))
        for end, content in state_topics(snapshot(charging=False)).items()
    }
    assert render(session[2]["value_template"], idle[session[2]["topic"]]) == "offline", (
        "no session, no power"
    )
    register = found["Connector 1 energy"]["value_template"]
    assert render(register, {"payload": {"connectorId": 1, "totalEnergy": 3.5}}) == "3.5"
    assert render(register, {"payload": {"connectorId": 2, "totalEnergy": 9}}) == ""
    assert render(register, {"payload": {"connectorId": 1}}) == ""


async def test_a_node_publishes_them_and_again_when_home_assistant_starts(
    start_node: NodeFactory, broker, topic_prefix: str
) -> None:
    discovery = f"{topic_prefix}/home"
    node = await start_node(mqtt_homeassistant_discovery=True, mqtt_homeassistant_prefix=discovery)
    heard: list[tuple[str, dict]] = []

    async with aiomqtt.Client(broker.host, broker.port_v5, protocol=aiomqtt.ProtocolVersion.V5) as client:
        await client.subscribe(f"{discovery}/+/+/+/config", qos=1)

        async def read() -> None:
            async for message in client.messages:
                heard.append((str(message.topic), json.loads(message.payload)))  # noqa: PERF401 - read as it comes

        reading = asyncio.create_task(read())
        try:
            created = await node.api.put("/api/v1/chargers/HA-1", json={})
            assert created.status_code in {200, 201}, created.text
            charger = await RawChargePoint.dial(node.ocpp, "HA-1")
            try:
                await charger.boot()
                await charger.ask(
                    "StatusNotification", {"connectorId": 1, "errorCode": "NoError", "status": "Available"}
                )

                def status() -> list[dict]:
                    return [
                        one
                        for topic, one in heard
                        if "/csms_HA_1_" in topic and topic.endswith("/status/config")
                    ]

                await node.until(lambda: len(status()) == 1)
                check(*next((topic.replace(discovery, "homeassistant"), one) for topic, one in heard))
                await client.publish(f"{discovery}/status", b"online")
                await node.until(lambda: len(status()) == 2)
            finally:
                await charger.close()
        finally:
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)


def test_chargers_with_similar_names_have_different_topics():
    names = ["CP 1", "CP-1", "CP_1", "Гараж1", "Склад1"]
    topics = [
        set(
            discovery_configs(snapshot(name), node="n1", prefix="", discovery="homeassistant", currency="USD")
        )
        for name in names
    ]
    assert sum(map(len, topics)) == len(set().union(*topics))
    assert any("/csms_CP_1/" in topic for topic in topics[2])
