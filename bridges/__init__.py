"""Bridges: adapters for chargers that speak no OCPP, one folder each.

The package of a bridge has `create()`, which builds its adapter from the bridge's own settings. Its module `demo` has
`create_demo(broker, clock)`, which builds an adapter with simulated chargers for `csms demo`.
"""

from collections.abc import Coroutine
from importlib import import_module
from typing import Any, Final

from csms.adapter import Adapter
from csms.errors import SettingsError
from csms.mqtt.config import BrokerAddress
from csms.simulate.clock import SimulatedClock

# The names that `csms bridge` and CSMS_BRIDGES accept, and what each bridge connects.
BRIDGES: Final[dict[str, str]] = {
    "charge_amps": "Charge Amps chargers, through the vendor's cloud; with schedules by price or by a HEMS",
    "ev_meter": "EV-Meter chargers, through the vendor's MQTT broker; watched only",
    "coin_op": "coin-op rental stations (MQTT)",
}


def create(name: str) -> Adapter:
    """Create the adapter of one bridge. Raises SettingsError: unknown bridge, or an unusable setting of its own."""
    if name not in BRIDGES:
        raise SettingsError("CSMS_BRIDGES", repr(name), ", ".join(BRIDGES) or "nothing yet")
    adapter: Adapter = import_module(f"bridges.{name}").create()
    return adapter


def create_demo(
    name: str, broker: BrokerAddress, clock: SimulatedClock
) -> tuple[Adapter, Coroutine[Any, Any, None]]:
    """Create an adapter, and the coroutine that runs simulated chargers for it by `clock` until cancelled."""
    created: tuple[Adapter, Coroutine[Any, Any, None]] = import_module(f"bridges.{name}.demo").create_demo(
        broker, clock
    )
    return created
