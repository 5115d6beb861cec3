"""Home Assistant's discovery: exact entity ids, and the rules by which Home Assistant checks a config."""

import json
import re
from types import SimpleNamespace
from typing import Any

import jinja2
import pytest

from bridges.charge_amps.cloud import CloudChargePoint
from bridges.charge_amps.discovery import EntityDiscovery, entities
from bridges.charge_amps.monitor import Monitor
from tests.bridges.charge_amps.conftest import POINT, ChargeAmpsSite
from tests.bridges.charge_amps.test_schedules import Wire, wire
from tests.harness.homeassistant_discovery import check
from tests.harness.narrowing import NOT_USED

__all__ = ["wire"]


def made(
    *,
    prefix: str = "",
    connector_id: int = 1,
    primary: bool = True,
    unnumbered: bool = True,
    point: str = POINT,
) -> Any:
    charge_point = CloudChargePoint(id=point, name="Garage", model="HALO", firmware="184")
    monitor = Monitor(charge_point, NOT_USED, NOT_USED, NOT_USED, NOT_USED)
    node: Any = SimpleNamespace(name="cellar", topic_prefix=prefix)
    return EntityDiscovery(
        node, "homeassistant", monitor, connector_id, primary=primary, unnumbered=unnumbered
    ).configs()


def by_entity(found: Any) -> dict[str, dict[str, Any]]:
    return {config["default_entity_id"]: config for config in found.values()}


def test_entities_have_the_ids_of_the_specification() -> None:
    found = by_entity(made())
    for entity in (
        "sensor.ca_schedule_source",
        "sensor.ca_hems_last_command",
        "binary_sensor.ca_price_threshold_active",
    ):
        assert entity in found
    source = found["sensor.ca_schedule_source"]
    assert source["options"] == ["standalone", "hems", "none"]
    assert source["state_topic"] == f"charge-amps/{POINT}/1/state"
    assert source["device"]["identifiers"] == [f"csms_ca_{POINT}"]
    assert found["sensor.ca_next_charge_start"]["device_class"] == "timestamp"


def test_only_the_first_connector_of_the_primary_charger_has_ids_without_numbers() -> None:
    every = [
        *made(),
        *made(connector_id=2, unnumbered=False),
        *made(point="OTHER", primary=False, unnumbered=False),
        *made(point="OTHER", primary=False, unnumbered=False, connector_id=2),
    ]
    ids = [
        entity
        for found in (
            made(),
            made(connector_id=2, unnumbered=False),
            made(point="OTHER", primary=False, unnumbered=False),
            made(point="OTHER", primary=False, unnumbered=False, connector_id=2),
        )
        for entity in by_entity(found)
    ]
    assert len(set(ids)) == len(ids) == len(set(every))
    assert "sensor.ca_2_schedule_source" in ids
    assert "sensor.ca_other_1_schedule_source" in ids


def test_a_topic_prefix_applies_to_state_topics_and_not_to_discovery_topics() -> None:
    found = made(prefix="site/a")
    assert all(topic.startswith("homeassistant/") for topic in found)
    for config in found.values():
        assert config["state_topic"].startswith("site/a/charge-amps/")
        assert config["availability"][0]["topic"] == "site/a/csms/service/cellar/status"


@pytest.mark.parametrize("key", [key for _, key, _ in entities()])
def test_every_config_follows_home_assistants_rules(key: str) -> None:
    found = [(topic, config) for topic, config in made().items() if f"/{key}/" in topic]
    ((topic, config),) = found
    check(topic, config)


STATE = {
    "operation_mode": "hems",
    "online": True,
    "schedule_source": "none",
    "schedule_status": "idle",
    "hems_last_command": None,
    "price_threshold_active": False,
    "power_kw": None,
    "charger_status": "Available",
}


def rendered(template: str, **changes: Any) -> str:
    environment = jinja2.Environment(autoescape=False)  # noqa: S701 - as Home Assistant renders it
    environment.filters["tojson"] = json.dumps
    return environment.from_string(template).render(value_json={**STATE, **changes})


def source_shown(source: str) -> str:
    """What `sensor.ca_schedule_source` makes of the state; that the state is so, test_schedules.py shows."""
    sensor = by_entity(made())["sensor.ca_schedule_source"]
    shown = rendered(sensor["value_template"], schedule_source=source)
    assert shown in sensor["options"]
    return shown


def test_scenario_standalone_schedule_active() -> None:
    assert source_shown("standalone") == "standalone"


def test_scenario_hems_schedule_active() -> None:
    assert source_shown("hems") == "hems"


def test_scenario_no_schedule() -> None:
    assert source_shown("none") == "none"


def test_templates_render_unknown_values_as_none() -> None:
    found = by_entity(made())
    assert rendered(found["sensor.ca_schedule_source"]["value_template"]) == "none", "a word of the enum"
    last = found["sensor.ca_hems_last_command"]
    assert rendered(last["value_template"]) == "None", "unknown"
    assert rendered(last["value_template"], hems_last_command="2026-11-21T11:00:00+00:00").endswith("+00:00")
    assert rendered(last["availability"][1]["value_template"]) == "online"
    assert rendered(last["availability"][1]["value_template"], operation_mode="standalone") == "offline"
    threshold = found["binary_sensor.ca_price_threshold_active"]["value_template"]
    assert [rendered(threshold), rendered(threshold, price_threshold_active=True)] == ["OFF", "ON"]
    power = found["sensor.ca_power_kw"]
    assert [rendered(power["value_template"]), rendered(power["value_template"], power_kw=0)] == ["None", "0"]
    attributes = json.loads(
        rendered(
            found["sensor.ca_charging_schedule_status"]["json_attributes_template"],
            message="7 slots at 2 price levels",
            plan_date=None,
            slots=7,
            price_levels=2,
            slots_excluded=0,
            tomorrow_message=None,
        )
    )
    assert attributes["message"] == "7 slots at 2 price levels"


async def test_configurations_are_published_again_when_home_assistant_starts(
    site: ChargeAmpsSite, wire: Wire
) -> None:
    prefix = f"{site.prefix}/charge-amps"  # where the test's client listens
    node, _ = await site.start(discovery=prefix)

    def configured() -> list[str]:
        return [topic for topic, _ in wire.came if topic.endswith("/schedule_source/config")]

    await node.until(lambda: len(configured()) == 1)
    await wire.client.publish(f"{prefix}/status", b'"no"')
    await wire.client.publish(f"{prefix}/status", b"online")
    await node.until(lambda: len(configured()) == 2)
    (config,) = [content for topic, content in wire.last.items() if topic.endswith("/schedule_source/config")]
    assert re.fullmatch(rf"{site.prefix}/charge-amps/{POINT}/1/state", config["state_topic"])
    await node.until(lambda: wire.state.get("schedule_source") == "none")
