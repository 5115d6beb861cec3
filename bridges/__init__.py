"""Chargers that speak no OCPP. Each folder is a bridge: its `create()` builds the adapter from settings of its own.

Its `demo.py` has `play(broker, clock)`: an adapter and the chargers it will find, simulated, for `csms demo`.
"""

from collections.abc import Coroutine
from importlib import import_module
from typing import Any, Final

from csms.adapter import Adapter
from csms.errors import SettingsError
from csms.mqtt.config import BrokerAddress
from csms.simulate.clock import SimulatedClock

# What `csms bridge` and CSMS_BRIDGES take, and what each connects.
BRIDGES: Final[dict[str, str]] = {
    "charge_amps": "Charge Amps chargers, through the vendor's cloud; with schedules by price or by a HEMS",
    "ev_meter": "EV-Meter chargers, through the vendor's MQTT broker; watched only",
    "coin_op": "coin-op rental stations (MQTT)",
}


def create(name: str) -> Adapter:
    """The adapter of one bridge. Raises SettingsError: no such bridge, or a setting of its own that cannot be read."""
    if name not in BRIDGES:
        raise SettingsError("CSMS_BRIDGES", repr(name), ", ".join(BRIDGES) or "nothing yet")
    adapter: Adapter = import_module(f"bridges.{name}").create()
    return adapter


def create_demo(
    name: str, broker: BrokerAddress, clock: SimulatedClock
) -> tuple[Adapter, Coroutine[Any, Any, None]]:
    """For `csms demo`: the adapter, and simulated chargers of its kind that run until cancelled, by `clock`."""
    played: tuple[Adapter, Coroutine[Any, Any, None]] = import_module(f"bridges.{name}.demo").play(
        broker, clock
    )
    return played
