"""What we publish for Home Assistant's discovery, as JSON, for `make homeassistant`: `python -m tests.homeassistant.payloads`.

A list of {"by": who publishes it, "charger": kind of charger, "topic", "config"}; made by the functions the tests use.
"""

import json
import sys
from collections.abc import Iterator
from typing import Any

from csms.mqtt.homeassistant import discovery_configs
from tests.bridges.charge_amps import test_discovery as charge_amps
from tests.bridges.charge_amps.conftest import POINT
from tests.mqtt.test_homeassistant import snapshot

# (kind of charger, an id as that kind has them, currency)
CHARGERS = [
    ("ocpp", "CP 1", "EUR"),
    ("ocpp", "Гараж/№ 2", "UAH"),
    ("charge_amps", POINT, "EUR"),
    ("ev_meter", "EVM-7", "EUR"),
    ("coin_op", "coinop-12", "UAH"),
]
PREFIXES = ("", "site/a")


def payloads() -> Iterator[dict[str, Any]]:
    for prefix in PREFIXES:
        for kind, charger_id, currency in CHARGERS:
            for charging in (True, False):
                found = discovery_configs(
                    snapshot(charger_id, currency=currency, charging=charging),
                    node="cellar",
                    prefix=prefix,
                    discovery="homeassistant",
                    currency="USD",
                )
                yield from _told("csms", kind, found)
        for found in (
            charge_amps.made(prefix=prefix),
            charge_amps.made(prefix=prefix, connector_id=2, unnumbered=False),
            charge_amps.made(prefix=prefix, point="OTHER", primary=False, unnumbered=False),
        ):
            yield from _told("charge_amps", "charge_amps", found)


def _told(by: str, kind: str, found: dict[str, dict[str, Any]]) -> Iterator[dict[str, Any]]:
    for topic, config in found.items():
        yield {"by": by, "charger": kind, "topic": topic, "config": config}


if __name__ == "__main__":
    json.dump(list(payloads()), sys.stdout)
