"""Coin-op stations for `csms demo`: two stations, and renters whose apps use the broker directly.

They run in real time, since a station's packets carry no time of day.
"""

import asyncio
from collections.abc import Coroutine
from typing import Any

from bridges.coin_op import settings
from bridges.coin_op.adapter import CoinOpAdapter
from csms.adapter import Adapter
from csms.mqtt.config import BrokerAddress
from csms.simulate.clock import SimulatedClock
from csms.simulate.coin_op import FakeStation, FakeStationFleet, StationBehaviour, rent_for_ever


def create_demo(broker: BrokerAddress, _clock: SimulatedClock) -> tuple[Adapter, Coroutine[Any, Any, None]]:
    adapter = CoinOpAdapter(settings.load(open_enrollment=True, meter_interval_s=10, require_account=False))
    return adapter, _run_stations(broker)


async def _run_stations(broker: BrokerAddress) -> None:
    stations = [
        FakeStation(id="demo-1", behaviour=StationBehaviour(plug_s=6, charge_s=70, unplug_s=8)),
        FakeStation(
            id="demo-2", behaviour=StationBehaviour(plug_s=9, charge_s=200, unplug_s=8, energy="cumulative")
        ),
    ]
    fleet = FakeStationFleet(broker.host, broker.port, stations, version=broker.version)
    async with asyncio.TaskGroup() as group:
        group.create_task(fleet.run())
        group.create_task(
            rent_for_ever(broker.host, broker.port, ["demo-1"], stay_s=90, version=broker.version)
        )
