"""For `csms demo`: three simulated EV-Meter chargers and the bridge that watches them."""

import secrets
from collections.abc import Coroutine
from typing import Any, Final

import aiomqtt

from bridges.ev_meter.adapter import EvMeter
from bridges.ev_meter.backend import broker_link
from bridges.ev_meter.config import Config, Pace, device
from bridges.ev_meter.frame import Account
from csms.adapter import Adapter
from csms.mqtt.config import BrokerAddress
from csms.simulate.clock import SimulatedClock
from csms.simulate.ev_meter import FakeBackend, fake_chargers

_CHARGERS: Final = 3
_UUID: Final = "00000000-0000-4000-8000-000000000001"


def play(broker: BrokerAddress, clock: SimulatedClock) -> tuple[Adapter, Coroutine[Any, Any, None]]:
    token = secrets.token_bytes(48)
    chargers = fake_chargers(_CHARGERS, clock)
    version = aiomqtt.ProtocolVersion.V5 if broker.version == "5" else aiomqtt.ProtocolVersion.V311
    simulated = FakeBackend(broker.host, broker.port, chargers, uuid=_UUID, token=token, version=version)
    devices = tuple(
        device(f"EVM-{number:03}", charger.state.mac, id_tag="DAVE")
        for number, charger in enumerate(chargers, 1)
    )
    config = Config(
        account=Account(_UUID, token),
        devices=devices,
        pace=Pace(idle_s=60 / clock.speed, charging_s=60 / clock.speed, offline_s=5, reply_s=2),
    )
    link = broker_link(broker.host, broker.port, version=broker.version)
    return EvMeter(config, link, clock=lambda: clock.at(clock.now_s())), simulated.run()
