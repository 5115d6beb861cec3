"""A simulated Charge Amps cloud with two chargers and prices for `csms demo`, and the bridge."""

import asyncio
import contextlib
import json
import random
import time
from collections.abc import Coroutine
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from zoneinfo import ZoneInfo

import aiomqtt

from bridges.charge_amps.adapter import ChargeAmpsAdapter
from bridges.charge_amps.config import ChargeAmpsConfig, ChargeAmpsIntervals
from bridges.charge_amps.eapi import EapiCloud
from bridges.charge_amps.web_api import WebApiCloud
from csms.adapter import Adapter
from csms.mqtt.config import BrokerAddress
from csms.simulate.charge_amps import FakeChargePoint, FakeCloud, FakeCloudServer
from csms.simulate.charge_amps.server import API_KEY, EMAIL, PASSWORD
from csms.simulate.clock import SimulatedClock

_ZONE: Final = "Europe/Amsterdam"
PRICE_TOPIC: Final = "demo/energy_prices/attributes"
_CARDS: Final = ("04A1B2C3", "04D4E5F6", "05070809")


def create_demo(
    broker: BrokerAddress, simulated: SimulatedClock, *, price_topic: str = PRICE_TOPIC
) -> tuple[Adapter, Coroutine[Any, Any, None]]:

    def clock() -> datetime:
        return simulated.at(simulated.now_s())

    points = [
        FakeChargePoint("CA-GARAGE", name="Garage"),
        FakeChargePoint("CA-YARD", name="Yard", type="AURA"),
    ]
    server = FakeCloudServer(
        # The database of an earlier demo may still have sessions: the ids must differ.
        FakeCloud(*points, clock=clock, first_session=int(time.time()))
    )
    url = server.bind()
    official = EapiCloud(f"{url}/api/v5", EMAIL, PASSWORD, API_KEY, write_gap_s=0.1, clock=clock)
    web = WebApiCloud(f"{url}/api", EMAIL, PASSWORD, write_gap_s=0.1, clock=clock)
    config = ChargeAmpsConfig(
        zone=ZoneInfo(_ZONE),
        time_zone=_ZONE,
        primary=points[0].id,
        price_topic=price_topic,
        top_x=40,
        intervals=ChargeAmpsIntervals(poll_s=60 / simulated.speed, tend_s=1, heartbeat_s=600),
    )
    return ChargeAmpsAdapter(config, official, web, clock), _run(server, broker, price_topic)


async def _run(server: FakeCloudServer, broker: BrokerAddress, price_topic: str) -> None:
    async with server.running(), asyncio.TaskGroup() as tasks:
        tasks.create_task(_publish_prices(server.cloud, broker, price_topic))
        for point in server.cloud.charge_points.values():
            tasks.create_task(_drive(server.cloud, point))


async def _drive(cloud: FakeCloud, point: FakeChargePoint) -> None:
    """Let a car arrive, charge when energy is cheap, and leave."""
    while True:
        await asyncio.sleep(random.uniform(5, 20))
        cloud.plug_in(point.id, wants_w=random.choice((7_400, 11_040)), rfid=random.choice(_CARDS))
        await asyncio.sleep(random.uniform(60, 180))
        cloud.unplug(point.id)


async def _publish_prices(cloud: FakeCloud, broker: BrokerAddress, topic: str) -> None:
    """Publish the prices of today and tomorrow, as a price add-on does."""
    version = aiomqtt.ProtocolVersion.V5 if broker.version == "5" else aiomqtt.ProtocolVersion.V311
    while True:
        with contextlib.suppress(aiomqtt.MqttError):
            async with aiomqtt.Client(broker.host, broker.port, protocol=version) as client:
                await client.publish(topic, json.dumps(prices(cloud.clock())), qos=1, retain=True)
                await asyncio.sleep(60)
        await asyncio.sleep(1)


def prices(now: datetime) -> dict[str, Any]:
    """Return a price curve of two local days in 15-minute slots, with cheap ones in every other hour."""
    midnight = now.astimezone(ZoneInfo(_ZONE)).replace(hour=0, minute=0, second=0, microsecond=0)
    start, quarter = midnight.astimezone(UTC), timedelta(minutes=15)
    curve = []
    for number in range(2 * 96):
        day = random.Random(f"{midnight.date()}-{number // 4}")
        price = day.uniform(0.08, 0.22) if number // 4 % 2 else day.uniform(0.22, 0.42)
        at = start + number * quarter
        curve.append({"start": at.isoformat(), "end": (at + quarter).isoformat(), "price": round(price, 4)})
    return {"price_curve": curve, "currency": "EUR"}
