"""Home Assistant's MQTT discovery for one scheduled connector, with the agreed entity ids."""

import asyncio
import re
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from bridges.charge_amps.monitor import Monitor
from bridges.charge_amps.plan_store import state_topic
from csms.adapter import AdapterHost, BrokerMessage
from csms.core.events import topic_level
from csms.errors import BrokerAway

_RETRY_S: Final = 5.0
_STATUSES: Final = [
    "Available", "Preparing", "Charging", "SuspendedEV", "SuspendedEVSE", "Finishing", "Reserved",
    "Unavailable", "Faulted",
]  # fmt: skip
# Entities that are unavailable while the charger is offline.
_LIVE_ENTITIES: Final = {"power_kw", "voltage", "current", "connector_mode", "error_code"}
_STATUS_ATTRIBUTES: Final = (
    "{{ {'message': value_json.message, 'schedule_source': value_json.schedule_source,"
    " 'plan_date': value_json.plan_date, 'slots': value_json.slots, 'price_levels': value_json.price_levels,"
    " 'slots_excluded': value_json.slots_excluded, 'tomorrow': value_json.tomorrow_message} | tojson }}"
)

Entity = tuple[str, str, dict[str, Any]]


def _sensor(key: str, name: str, *, field: str | None = None, **more: Any) -> Entity:
    # A missing value is `None`, which Home Assistant shows as unknown, never as 0.
    value = f"value_json.{field or key}"
    template = f"{{{{ {value} if {value} is not none else 'None' }}}}"
    return "sensor", key, {"name": name, "value_template": template, **more}


def _measurement(key: str, name: str, device_class: str, unit: str, state_class: str) -> Entity:
    return _sensor(key, name, device_class=device_class, state_class=state_class, unit_of_measurement=unit)


def entities() -> list[Entity]:
    """Return component, key and configuration of each entity."""
    template = "{{ 'ON' if value_json.price_threshold_active else 'OFF' }}"
    threshold = {
        "name": "Price threshold active",
        "value_template": template,
        "entity_category": "diagnostic",
        "icon": "mdi:filter-check",
    }
    return [
        _sensor(
            "schedule_source",
            "Schedule source",
            device_class="enum",
            options=["standalone", "hems", "none"],
            icon="mdi:source-branch",
        ),
        _sensor(
            "hems_last_command", "HEMS last command", device_class="timestamp", entity_category="diagnostic"
        ),
        ("binary_sensor", "price_threshold_active", threshold),
        _sensor(
            "charging_schedule_status", "Schedule status", field="schedule_status", icon="mdi:calendar-clock"
        ),
        _sensor("next_charge_start", "Next charge start", device_class="timestamp"),
        _sensor("next_charge_end", "Next charge end", device_class="timestamp"),
        _sensor(
            "charging_schedule_error", "Schedule error", field="schedule_error", entity_category="diagnostic"
        ),
        _sensor("charger_status", "Status", device_class="enum", options=_STATUSES),
        _measurement("power_kw", "Power", "power", "kW", "measurement"),
        _measurement("voltage", "Voltage", "voltage", "V", "measurement"),
        _measurement("current", "Current", "current", "A", "measurement"),
        _measurement("energy_kwh", "Energy", "energy", "kWh", "total_increasing"),
        _measurement("session_energy_kwh", "Session energy", "energy", "kWh", "total_increasing"),
        _sensor("connector_mode", "Mode", entity_category="diagnostic"),
        _sensor("error_code", "Error code", entity_category="diagnostic"),
    ]


def _available(topic: str, condition: str) -> dict[str, str]:
    return {"topic": topic, "value_template": f"{{{{ 'online' if {condition} else 'offline' }}}}"}


def _segment(text: str) -> str:
    """Replace the characters that discovery topics and entity ids do not allow."""
    return re.sub(r"[^A-Za-z0-9_-]", "_", text)


@dataclass(frozen=True, eq=False)
class EntityDiscovery:
    """Publishes the configurations of a connector's entities at the start, and whenever Home Assistant starts.

    Entity ids of a `primary` charger omit its id, those of an `unnumbered` connector its number as well.
    """

    node: AdapterHost
    prefix: str
    monitor: Monitor
    connector_id: int
    primary: bool
    unnumbered: bool

    async def run(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._publish())
            tasks.create_task(self.node.listen(f"{self.prefix}/status", self._on_status, bare=True))

    async def _on_status(self, message: BrokerMessage) -> None:
        if message.body == b"online" and not message.retained:
            await self._publish()

    async def _publish(self) -> None:
        unpublished = self.configs()
        while unpublished:
            topic, config = next(iter(unpublished.items()))
            try:
                await self.node.publish(topic, msgspec.json.encode(config), bare=True)
                del unpublished[topic]
            except BrokerAway:
                await asyncio.sleep(_RETRY_S)

    def configs(self) -> dict[str, dict[str, Any]]:
        """Return the configuration of each entity by topic."""
        point, number = self.monitor.point, self.connector_id
        prefix = f"{self.node.topic_prefix}/" if self.node.topic_prefix else ""
        state = f"{prefix}{state_topic(point.id, number)}"
        service = {
            "topic": f"{prefix}csms/service/{topic_level(self.node.name)}/status",
            "value_template": "{{ value_json.status }}",
        }
        device: dict[str, Any] = {
            "identifiers": [f"csms_ca_{point.id}"],
            "name": f"Charge Amps {point.name or point.model or point.id}",
            "manufacturer": "Charge Amps AB",
            "serial_number": point.id,
        }
        if point.model:
            device["model"] = point.model
        if point.firmware:
            device["sw_version"] = point.firmware
        unique_id = f"csms_ca_{_segment(point.id)}_{number}"
        entity_id = f"ca_{number}" if self.primary else f"ca_{_segment(point.id).lower()}_{number}"
        if self.unnumbered:
            entity_id = "ca"
        result: dict[str, dict[str, Any]] = {}
        for component, key, entity in entities():
            availability: list[dict[str, str]] = [service]
            if key == "hems_last_command":
                availability.append(_available(state, "value_json.operation_mode == 'hems'"))
            elif key in _LIVE_ENTITIES:
                availability.append(_available(state, "value_json.online"))
            result[f"{self.prefix}/{component}/{unique_id}/{key}/config"] = {
                "unique_id": f"{unique_id}_{key}",
                "default_entity_id": f"{component}.{entity_id}_{key}",
                "state_topic": state,
                "availability_mode": "all",
                "availability": availability,
                "device": device,
                "origin": {"name": "csms"},
                **entity,
            }
        status = result[f"{self.prefix}/sensor/{unique_id}/charging_schedule_status/config"]
        status["json_attributes_topic"] = state
        status["json_attributes_template"] = _STATUS_ATTRIBUTES
        return result
