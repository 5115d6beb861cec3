"""Home Assistant's MQTT discovery for every charger, whatever it speaks: entities made of the topics there are.

Status, power, energy and cost of the running session, the meter's register, whether it is connected. Values come
from the retained state and, for the register, from the events `meter_reading`. A value that is not known is
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


def discovery_configs(
    snapshot: StateSnapshot, *, node: str, prefix: str, discovery: str, currency: str
) -> dict[str, dict[str, Any]]:
    """Topic → config. `discovery`: Home Assistant's own prefix, which knows nothing of ours."""
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
    place, entity = f"csms_{_segment(charger_id)}", f"csms_{_plain(charger_id)}".lower()
    found: dict[str, dict[str, Any]] = {
        f"{discovery}/binary_sensor/{place}/connection/config": {
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
    running = {one.connector_id: one for one in snapshot.transactions}
    for connector in snapshot.connectors:
        number = connector.connector_id
        if number == 0:
            continue  # the charger as a whole has neither a meter nor sessions
        transaction = running.get(number)
        for key, particular in _entities(
            number,
            base,
            prefixed(prefix, f"csms/transactions/{level}/meter_reading"),
            transaction.tariff.currency if transaction is not None else currency,
        ):
            session = particular.pop("of_session", False)
            available = [service, _there(f"{base}/connection", "value_json.online")]
            if session:
                available.append(_there(f"{base}/connectors/{number}", "value_json.transactionId is defined"))
            found[f"{discovery}/sensor/{place}_{number}/{key}/config"] = {
                **common,
                **particular,
                "unique_id": f"csms_{charger_id}_{number}_{key}",
                "default_entity_id": f"sensor.{entity}_{number}_{key}",
                "availability": available,
            }
    return found


def _entities(number: int, base: str, readings: str, currency: str) -> list[tuple[str, dict[str, Any]]]:
    """(name, what is particular about it). `of_session`: there only while a session runs."""
    session = f"{base}/transactions/{number}"
    register = (
        f"{{% if value_json.payload.connectorId == {number} and value_json.payload.totalEnergy is defined %}}"
        "{{ value_json.payload.totalEnergy }}{% endif %}"
    )

    def of_session(name: str, field: str, **more: Any) -> dict[str, Any]:
        template = f"{{{{ value_json.{field} if value_json.{field} is defined else 'None' }}}}"
        return {"name": name, "state_topic": session, "value_template": template, "of_session": True, **more}

    return [
        (
            "status",
            {
                "name": f"Connector {number} status",
                "state_topic": f"{base}/connectors/{number}",
                "value_template": "{{ value_json.status }}",
                "device_class": "enum",
                "options": _STATUSES,
            },
        ),
        (
            "power",
            of_session(
                f"Connector {number} power",
                "currentPower",
                device_class="power",
                state_class="measurement",
                unit_of_measurement="kW",
            ),
        ),
        (
            "session_energy",
            of_session(
                f"Connector {number} session energy",
                "sessionEnergy",
                device_class="energy",
                state_class="total_increasing",
                unit_of_measurement="kWh",
            ),
        ),
        (
            "session_cost",
            of_session(
                f"Connector {number} session cost",
                "runningCost",
                device_class="monetary",
                unit_of_measurement=currency,
            ),
        ),
        (
            "energy",
            {
                "name": f"Connector {number} energy",
                "state_topic": readings,
                "value_template": register,
                "device_class": "energy",
                "state_class": "total_increasing",
                "unit_of_measurement": "kWh",
            },
        ),
    ]


def _there(topic: str, condition: str) -> dict[str, str]:
    return {"topic": topic, "value_template": f"{{{{ 'online' if {condition} else 'offline' }}}}"}


def _segment(text: str) -> str:
    """What discovery topics allow; another for every identity, also where signs had to be replaced."""
    plain = _plain(text)
    return plain if plain == text else f"{plain}_{crc32(text.encode(errors='replace')):08x}"


def _plain(text: str) -> str:
    """What entity ids allow. Home Assistant numbers those that are alike."""
    return re.sub(r"[^A-Za-z0-9_]", "_", text)
