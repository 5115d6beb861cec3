"""Home Assistant's rules for MQTT discovery, as its own schemas have them, for what we publish.

Sources: its components mqtt/{discovery,entity,schemas,sensor,binary_sensor}.py and sensor/const.py of 2026.2.
`make homeassistant` checks the same payloads by the originals (tests/homeassistant/).
"""

import re
from typing import Any

TOPIC = re.compile(
    r".+/(?P<component>sensor|binary_sensor)/(?P<node>[A-Za-z0-9_-]+)/(?P<object>[A-Za-z0-9_-]+)/config"
)
_COMMON = {
    "name", "unique_id", "default_entity_id", "state_topic", "value_template", "device_class", "entity_category",
    "icon", "device", "origin", "availability", "availability_mode", "json_attributes_topic",
    "json_attributes_template", "expire_after", "enabled_by_default",
}  # fmt: skip
_SENSOR = _COMMON | {"options", "state_class", "unit_of_measurement", "suggested_display_precision"}
_DEVICE = {
    "identifiers", "connections", "name", "manufacturer", "model", "serial_number", "sw_version", "hw_version",
    "suggested_area", "via_device", "configuration_url",
}  # fmt: skip
_UNITS = {
    "power": {"mW", "W", "kW", "MW", "GW", "TW"},
    "energy": {"mWh", "Wh", "kWh", "MWh", "GWh", "TWh", "J", "kJ", "MJ", "GJ", "cal", "kcal", "Mcal", "Gcal"},
    "voltage": {"µV", "mV", "V", "kV", "MV"},
    "current": {"A", "mA"},
    "duration": {"d", "h", "min", "s", "ms"},
}
_STATE_CLASSES = {
    "power": {"measurement"},
    "voltage": {"measurement"},
    "current": {"measurement"},
    "energy": {"total", "total_increasing"},
    "monetary": {"total"},
    "enum": set(),
    "timestamp": set(),
}
_BINARY = {"connectivity", "battery_charging", "plug", "power", "problem", "running"}


def check(topic: str, config: dict[str, Any]) -> None:
    """Raises AssertionError for what Home Assistant would refuse, or take for something else than we mean."""
    found = TOPIC.fullmatch(topic)
    assert found is not None, topic
    component = found["component"]
    unknown = set(config) - (_SENSOR if component == "sensor" else _COMMON)
    assert not unknown, unknown
    domain, _, object_id = config["default_entity_id"].partition(".")
    assert domain == component
    assert re.fullmatch(r"[a-z0-9_]+", object_id), object_id
    assert config["unique_id"]
    assert config["state_topic"]
    assert not set(config["state_topic"]) & set("+#")
    assert set(config["device"]) <= _DEVICE
    assert config["device"].get("identifiers") or config["device"].get("connections")
    assert config["device"]["name"]
    assert config["origin"]["name"]
    assert config["availability_mode"] in {"all", "any", "latest"}
    for one in config["availability"]:
        assert set(one) <= {"topic", "value_template", "payload_available", "payload_not_available"}
        assert one["topic"]
    assert config.get("entity_category") in {None, "diagnostic"}  # a sensor cannot be "config"
    icon = config.get("icon")
    assert icon is None or re.fullmatch(r"mdi:[a-z0-9-]+", icon)
    device_class = config.get("device_class")
    if component == "binary_sensor":
        assert device_class is None or device_class in _BINARY
        return
    unit, state_class = config.get("unit_of_measurement"), config.get("state_class")
    assert device_class is None or device_class in _STATE_CLASSES, device_class
    if device_class == "enum":
        assert config["options"]
        assert len(set(config["options"])) == len(config["options"])
        assert (unit, state_class) == (None, None)
    else:
        assert "options" not in config
    if device_class == "timestamp":
        assert (unit, state_class) == (None, None)
    if device_class in _UNITS:
        assert unit in _UNITS[device_class]
    if device_class is not None and state_class is not None:
        assert state_class in _STATE_CLASSES[device_class]
