"""Home Assistant's own word on discovery payloads: `python judge.py PAYLOADS.json`, where the package is installed.

`make homeassistant` runs it in an environment of its own; the file is what payloads.py wrote. Every payload takes the way
of a message from the broker: the topic, the origin, the component's discovery schema. A key that the schema drops
means nothing to Home Assistant, and what it warns of it will refuse one day: both count as refused. Then payloads spoiled on
purpose must be refused, or the whole check shows nothing. Exit status 1 says what is wrong on stderr.
"""

import asyncio
import copy
import json
import logging
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

from homeassistant.components.mqtt.const import SUPPORTED_COMPONENTS
from homeassistant.components.mqtt.discovery import TOPIC_MATCHER
from homeassistant.components.mqtt.schemas import MQTT_ORIGIN_INFO_SCHEMA
from homeassistant.components.sensor.const import DEVICE_CLASS_STATE_CLASSES
from homeassistant.const import __version__
from homeassistant.core import HomeAssistant

Config = dict[str, Any]


class Refused(Exception):
    """What Home Assistant says against a payload."""


class Warnings(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.said: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.said.append(record.getMessage())


def judge(topic: str, config: Config, warnings: Warnings) -> None:
    """Raises Refused."""
    found = TOPIC_MATCHER.fullmatch(topic.removeprefix("homeassistant/"))
    if found is None:
        raise Refused("not a discovery topic")
    component = found["component"]
    if component not in SUPPORTED_COMPONENTS:
        raise Refused(f"no component {component}")
    schema = import_module(f"homeassistant.components.mqtt.{component}").DISCOVERY_SCHEMA
    warnings.said.clear()
    try:
        MQTT_ORIGIN_INFO_SCHEMA(config["origin"])
        accepted = schema(copy.deepcopy(config))
    except Exception as refusal:
        raise Refused(f"{type(refusal).__name__}: {refusal}") from refusal
    lost = set(config) - {str(key) for key in accepted} - {"origin"}
    lost |= {f"device.{key}" for key in set(config["device"]) - {str(key) for key in accepted["device"]}}
    if lost:
        raise Refused(f"means nothing to it: {', '.join(sorted(lost))}")
    if component == "sensor" and accepted.get("device_class") and accepted.get("state_class"):
        # Not the schema's business: the entity finds it when its first value comes.
        fitting = DEVICE_CLASS_STATE_CLASSES.get(accepted["device_class"], set())
        if accepted["state_class"] not in fitting:
            raise Refused(f"{accepted['state_class']} does not go with {accepted['device_class']}")
    if warnings.said:
        raise Refused("; ".join(warnings.said))


# What is spoiled → how, each on a sensor of power that was accepted.
SPOILED: dict[str, Callable[[Config], Any]] = {
    "no state topic": lambda config: config.pop("state_topic"),
    "a state topic no broker takes": lambda config: config.update(state_topic="csms/st+/CP1"),
    "a device class there is none of": lambda config: config.update(device_class="watts"),
    "a unit of something else": lambda config: config.update(unit_of_measurement="kWh"),
    "a state class of something else": lambda config: config.update(state_class="total_increasing"),
    "a template that does not end": lambda config: config.update(value_template="{{ value_json.currentPower"),
    "a device without identifiers": lambda config: config["device"].pop("identifiers"),
    "an unknown key": lambda config: config.update(unit="kW"),
}


async def main(file: str) -> int:
    made = json.loads(Path(file).read_text())
    warnings = Warnings()
    logging.getLogger("homeassistant").addHandler(warnings)
    wrong: list[str] = []
    entities: Counter[tuple[str, str, str]] = Counter()
    with tempfile.TemporaryDirectory() as directory:
        house = HomeAssistant(directory)  # templates are checked where there is one
        for one in made:
            _, component, _, key, _ = one["topic"].split("/")
            try:
                judge(one["topic"], one["config"], warnings)
            except Refused as refusal:
                wrong.append(f"{one['topic']} ({one['charger']}): {refusal}")
            else:
                entities[one["by"], component, key] += 1
        power = next(one for one in made if "/power/" in one["topic"])
        for what, spoil in SPOILED.items():
            config = copy.deepcopy(power["config"])
            spoil(config)
            try:
                judge(power["topic"], config, warnings)
            except Refused as refusal:
                print(f"refused, as it must: {what}: {str(refusal)[:100]}")
            else:
                wrong.append(f"accepted, though spoiled on purpose: {what}")
        await house.async_stop(force=True)
    for (by, component, key), count in entities.items():
        print(f"accepted: {by:12} {component:14} {key} ({count})")
    if wrong or not entities:
        print(*wrong or ["no payloads"], sep="\n", file=sys.stderr)
        return 1
    print(f"{len(SPOILED)} spoiled payloads refused")
    print(f"{entities.total()} payloads accepted by homeassistant {__version__}")
    return 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main(sys.argv[1])))
