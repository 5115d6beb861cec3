"""Home Assistant's MQTT discovery: the entities of a charger, made from the topics csms publishes anyway.

They are status, power, energy and cost of the running session, the meter's register, and whether the charger is connected.
Values come from the retained state and, for the register, from the `meter_reading` events. An unknown value is
unavailable, never 0.
"""

import re
from typing import Any, Final
from zlib import crc32

from csms.core.events import topic_level
from csms.db.charger_snapshot import StateSnapshot
from csms.mqtt.client.link import prefixed

_STATUSES: Final = [
    "Available", "Preparing", "Charging", "SuspendedEV", "SuspendedEVSE", "Finishing", "Reserved",
    "Unavailable", "Faulted",
]  # fmt: skip
_POWER: Final = {"device_class": "power", "state_class": "measurement", "unit_of_measurement": "kW"}
_ENERGY: Final = {"device_class": "energy", "state_class": "total_increasing", "unit_of_measurement": "kWh"}


def discovery_configs(
    snapshot: StateSnapshot, *, node: str, prefix: str, discovery: str, currency: str
) -> dict[str, dict[str, Any]]:
    """Return the config payloads by topic. `discovery` is Home Assistant's own prefix, without `prefix`."""
    charger_id = snapshot.state.charger_id
    level = topic_level(charger_id)
    base = prefixed(prefix, f"csms/state/{level}")
    common = {
        "device": {"identifiers": [f"csms_{charger_id}"], "name": charger_id, "serial_number": charger_id},
        "origin": {"name": "csms"},
        "availability_mode": "all",
    }
    service = {
        "topic": prefixed(prefix, f"csms/service/{topic_level(node)}/status"),
        "value_template": "{{ value_json.status }}",
    }
    node_id, entity = f"csms_{_unique_id(charger_id)}", f"csms_{_plain(charger_id)}".lower()
    configs: dict[str, dict[str, Any]] = {
        f"{discovery}/binary_sensor/{node_id}/connection/config": {
            **common,
            "name": "Connection",
            "unique_id": f"csms_{charger_id}_connection",
            "default_entity_id": f"binary_sensor.{entity}_connection",
            "state_topic": f"{base}/connection",
            "value_template": "{{ 'ON' if value_json.online else 'OFF' }}",
            "device_class": "connectivity",
            "availability": [service],
        }
    }
    currencies = {each.connector_id: each.tariff.currency for each in snapshot.transactions}
    for number in (connector.connector_id for connector in snapshot.connectors):
        if number == 0:
            continue  # the charger as a whole has no meter and no sessions
        available = [service, _available_if(f"{base}/connection", "value_json.online")]
        readings = prefixed(prefix, f"csms/transactions/{level}/meter_reading")
        for key, sensor in _sensors(number, base, readings, currencies.get(number, currency)).items():
            of_session = sensor.pop("availability", [])
            configs[f"{discovery}/sensor/{node_id}_{number}/{key}/config"] = {
                **common,
                "name": f"Connector {number} {key.replace('_', ' ')}",
                **sensor,
                "unique_id": f"csms_{charger_id}_{number}_{key}",
                "default_entity_id": f"sensor.{entity}_{number}_{key}",
                "availability": available + of_session,
            }
    return configs


def _sensors(number: int, base: str, readings: str, currency: str) -> dict[str, dict[str, Any]]:
    """Return what differs between a connector's sensors, by key. Some are available only while a session runs."""
    sensors: dict[str, dict[str, Any]] = {
        "status": {
            "state_topic": f"{base}/connectors/{number}",
            "value_template": "{{ value_json.status }}",
            "device_class": "enum",
            "options": _STATUSES,
        }
    }
    for key, field, kind in (
        ("power", "currentPower", _POWER),
        ("session_energy", "sessionEnergy", _ENERGY),
        ("session_cost", "runningCost", {"device_class": "monetary", "unit_of_measurement": currency}),
    ):
        sensors[key] = {
            "state_topic": f"{base}/transactions/{number}",
            "value_template": f"{{{{ value_json.{field} if value_json.{field} is defined else 'None' }}}}",
            **kind,
            "availability": [
                _available_if(f"{base}/connectors/{number}", "value_json.transactionId is defined")
            ],
        }
    register = (
        f"{{% if value_json.payload.connectorId == {number} and value_json.payload.totalEnergy is defined %}}"
        "{{ value_json.payload.totalEnergy }}{% endif %}"
    )
    sensors["energy"] = {"state_topic": readings, "value_template": register, **_ENERGY}
    return sensors


def _available_if(topic: str, condition: str) -> dict[str, str]:
    return {"topic": topic, "value_template": f"{{{{ 'online' if {condition} else 'offline' }}}}"}


def _unique_id(text: str) -> str:
    """Return a node id for discovery topics. It differs for each identity, also where characters were replaced."""
    plain = _plain(text)
    return plain if plain == text else f"{plain}_{crc32(text.encode(errors='replace')):08x}"


def _plain(text: str) -> str:
    """Replace what entity ids do not allow. Home Assistant numbers ids that are equal."""
    return re.sub(r"[^A-Za-z0-9_]", "_", text)
