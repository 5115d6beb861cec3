"""Home Assistant's MQTT discovery for one scheduled connector: entities with exactly the ids that are agreed."""

import asyncio
import re
from typing import Any, Final

import msgspec
import structlog

from bridges.charge_amps.monitor import Monitor
from bridges.charge_amps.plan_store import state_topic
from csms.adapter import AdapterHost
from csms.core.events import topic_level
from csms.errors import BrokerAway

log = structlog.get_logger()
_RETRY_S: Final = 5.0
_STATUSES: Final = [
    "Available", "Preparing", "Charging", "SuspendedEV", "SuspendedEVSE", "Finishing", "Reserved",
    "Unavailable", "Faulted",
]  # fmt: skip


def entities() -> list[tuple[str, str, dict[str, Any]]]:
    """(component, name of the entity, what is particular about it). Missing values are `None`: unknown, not 0."""
    value = "{{{{ value_json.{0} if value_json.{0} is not none else 'None' }}}}"

    def sensor(key: str, name: str, *, of: str | None = None, **more: Any) -> tuple[str, str, dict[str, Any]]:
        return "sensor", key, {"name": name, "value_template": value.format(of or key), **more}

    def binary(key: str, name: str, **more: Any) -> tuple[str, str, dict[str, Any]]:
        template = f"{{{{ 'ON' if value_json.{key} else 'OFF' }}}}"
        return "binary_sensor", key, {"name": name, "value_template": template, **more}

    return [
        sensor(
            "schedule_source",
            "Schedule source",
            device_class="enum",
            options=["standalone", "hems", "none"],
            icon="mdi:source-branch",
        ),
        sensor(
            "hems_last_command",
            "HEMS last command",
            device_class="timestamp",
            entity_category="diagnostic",
        ),
        binary(
            "price_threshold_active",
            "Price threshold active",
            entity_category="diagnostic",
            icon="mdi:filter-check",
        ),
        sensor(
            "charging_schedule_status", "Schedule status", of="schedule_status", icon="mdi:calendar-clock"
        ),
        sensor("next_charge_start", "Next charge start", device_class="timestamp"),
        sensor("next_charge_end", "Next charge end", device_class="timestamp"),
        sensor(
            "charging_schedule_error",
            "Schedule error",
            of="schedule_error",
            entity_category="diagnostic",
        ),
        sensor("charger_status", "Status", device_class="enum", options=_STATUSES),
        sensor(
            "power_kw",
            "Power",
            device_class="power",
            state_class="measurement",
            unit_of_measurement="kW",
        ),
        sensor(
            "voltage", "Voltage", device_class="voltage", state_class="measurement", unit_of_measurement="V"
        ),
        sensor(
            "current", "Current", device_class="current", state_class="measurement", unit_of_measurement="A"
        ),
        sensor(
            "energy_kwh",
            "Energy",
            device_class="energy",
            state_class="total_increasing",
            unit_of_measurement="kWh",
        ),
        sensor(
            "session_energy_kwh",
            "Session energy",
            device_class="energy",
            state_class="total_increasing",
            unit_of_measurement="kWh",
        ),
        sensor("connector_mode", "Mode", entity_category="diagnostic"),
        sensor("error_code", "Error code", entity_category="diagnostic"),
    ]


def configs(
    *,
    discovery: str,
    prefix: str,
    node_name: str,
    monitor: Monitor,
    number: int,
    primary: bool,
    bare: bool,
) -> dict[str, dict[str, Any]]:
    """Topic → config. `bare`: this connector has the ids without a number in them; `primary`: without its charger."""
    point = monitor.point
    top = f"{prefix}/" if prefix else ""
    state = f"{top}{state_topic(point.id, number)}"
    service = {
        "topic": f"{top}csms/service/{topic_level(node_name)}/status",
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
    place = f"csms_ca_{_segment(point.id)}_{number}"
    ids = "ca" if bare else f"ca_{number}" if primary else f"ca_{_segment(point.id).lower()}_{number}"
    found: dict[str, dict[str, Any]] = {}
    for component, key, particular in entities():
        available: list[dict[str, str]] = [service]
        if key == "hems_last_command":
            available.append(_available(state, "value_json.operation_mode == 'hems'"))
        elif key in _LIVE:
            available.append(_available(state, "value_json.online"))
        found[f"{discovery}/{component}/{place}/{key}/config"] = {
            "unique_id": f"{place}_{key}",
            "default_entity_id": f"{component}.{ids}_{key}",
            "state_topic": state,
            "availability_mode": "all",
            "availability": available,
            "device": device,
            "origin": {"name": "csms"},
            **particular,
        }
    status = found[f"{discovery}/sensor/{place}/charging_schedule_status/config"]
    status["json_attributes_topic"] = state
    status["json_attributes_template"] = _ATTRIBUTES
    return found


_LIVE: Final = {"power_kw", "voltage", "current", "connector_mode", "error_code"}
_ATTRIBUTES: Final = (
    "{{ {'message': value_json.message, 'schedule_source': value_json.schedule_source,"
    " 'plan_date': value_json.plan_date, 'slots': value_json.slots, 'price_levels': value_json.price_levels,"
    " 'slots_excluded': value_json.slots_excluded, 'tomorrow': value_json.tomorrow_message} | tojson }}"
)


def _available(topic: str, condition: str) -> dict[str, str]:
    return {"topic": topic, "value_template": f"{{{{ 'online' if {condition} else 'offline' }}}}"}


def _segment(text: str) -> str:
    """What discovery topics and entity ids allow."""
    return re.sub(r"[^A-Za-z0-9_-]", "_", text)


class Discovery:
    """Publishes once the charger is known well, and again whenever Home Assistant starts."""

    def __init__(
        self, node: AdapterHost, discovery: str, monitor: Monitor, number: int, *, primary: bool, bare: bool
    ) -> None:
        self._node = node
        self._discovery = discovery
        self._monitor = monitor
        self._number = number
        self._primary = primary
        self._bare = bare

    async def run(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._publish())
            tasks.create_task(self._listen())

    async def _listen(self) -> None:
        async for heard in self._node.listen(f"{self._discovery}/status", bare=True):
            if heard.body == b"online" and not heard.retained:
                await self._publish()

    async def _publish(self) -> None:
        wanted = configs(
            discovery=self._discovery,
            prefix=self._node.topic_prefix,
            node_name=self._node.name,
            monitor=self._monitor,
            number=self._number,
            primary=self._primary,
            bare=self._bare,
        )
        while wanted:
            topic, config = next(iter(wanted.items()))
            try:
                await self._node.publish(topic, msgspec.json.encode(config), bare=True)
                del wanted[topic]
            except BrokerAway:
                await asyncio.sleep(_RETRY_S)
