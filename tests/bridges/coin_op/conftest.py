"""A node with the coin-op bridge in it, and simulated stations on the same broker."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from decimal import Decimal
from typing import Any

import aiomqtt
import pytest

from bridges.coin_op import settings
from bridges.coin_op.adapter import CoinOpAdapter
from csms.mqtt.client.aiomqtt_fixes import MqttClient
from csms.simulate.coin_op import FakeStation, FakeStationFleet, StationBehaviour
from tests.e2e.conftest import Node, NodeFactory, node, start_node

__all__ = ["node", "start_node"]

UID = "lDpl3b3d21Ma0vUBoMYdJuoOsVI3"
# 110 Wh
QUICK = StationBehaviour(plug_s=40, charge_s=180, unplug_s=20)
SLOW_TO_LEAVE = StationBehaviour(plug_s=40, charge_s=180, unplug_s=300)


class CoinOpSite:
    """The node, its bridge, the stations; `speed` station seconds a real one."""

    def __init__(self, node: Node, bridge: CoinOpAdapter) -> None:
        self.node = node
        self.bridge = bridge
        self.stations: dict[str, FakeStation] = {}
        self.commands: list[tuple[str, str, bool]] = []
        self.fleet: FakeStationFleet | None = None

    def handler(self, station_id: str = "s1") -> Any:
        return self.bridge.stations[station_id]

    def came(self, station: FakeStation) -> bool:
        """Whether the bridge knows it by now; what it said before the bridge had subscribed is lost."""
        if station.behaviour.silent or self.is_free(station.id):
            return True
        station.obey(b"hello:bystander")
        return False

    def is_free(self, station_id: str = "s1") -> bool:
        """Ready, and on record as connected."""
        handler = self.bridge.stations.get(station_id)
        return handler is not None and handler.tracker.status == "ready" and handler.generation is not None

    async def command(self, action: str, station_id: str = "s1", **payload: Any) -> Any:
        return await self.node.api.post(
            f"/api/v1/chargers/coinop-{station_id}/commands",
            json={"action": action, "payload": payload, "timeoutS": 20},
        )

    async def rent(self, uid: str = "A", station_id: str = "s1") -> Any:
        return await self.command("RemoteStartTransaction", station_id, idTag=uid)

    async def stop(self, station_id: str = "s1") -> Any:
        number = await self.number(station_id)
        return await self.command("RemoteStopTransaction", station_id, transactionId=number)

    async def number(self, station_id: str = "s1") -> int:
        await self.node.until(
            lambda: station_id in self.bridge.stations and self.handler(station_id).transaction_id
        )
        return int(self.handler(station_id).transaction_id)

    def sent(self, verb: str, station_id: str = "s1") -> list[str]:
        """The uids with which a command was sent."""
        return [
            text.partition(":")[2]
            for topic, text, _ in self.commands
            if topic == f"charger/{station_id}/commands" and text.startswith(f"{verb}:")
        ]


CoinOpSiteFactory = Callable[..., Any]


@pytest.fixture
async def start_site(start_node: NodeFactory, topic_prefix: str) -> AsyncIterator[CoinOpSiteFactory]:
    async with contextlib.AsyncExitStack() as stack:

        async def start(
            *stations: FakeStation,
            speed: float = 200.0,
            register: bool = True,
            node: Any = None,
            version: str | None = None,
            alone: bool = False,
            **given: Any,
        ) -> CoinOpSite:
            chosen = settings.load(
                _env_file=None,
                **{
                    "answer_s": 1.5,
                    "meter_interval_s": 60,
                    "require_account": False,
                    # The simulated clock runs faster than ours.
                    "rated_power_w": 1_000_000,
                    "open_enrollment": register,
                }
                | given,
            )
            bridge = CoinOpAdapter(chosen)
            running = await start_node(
                bridges=[] if alone else [bridge],
                csms_currency="UAH",
                csms_energy_rate=Decimal("12.00"),
                csms_time_rate=Decimal("0.03"),
                **(node or {}),
            )
            site = CoinOpSite(running, bridge)
            site.stations = {station.id: station for station in stations}
            subscribed = asyncio.Event()
            stack.push_async_callback(_ended, asyncio.create_task(_overhear(site, subscribed)))
            async with asyncio.timeout(10):
                await subscribed.wait()
            if stations:
                address = running.broker
                assert address is not None
                # The embedded broker drops 3.1.1 clients that are sent a message with an expiry.
                site.fleet = FakeStationFleet(
                    address.host,
                    address.port,
                    stations,
                    speed=speed,
                    prefix=topic_prefix,
                    version=version or address.version,
                )
                stack.push_async_callback(_ended, asyncio.create_task(site.fleet.run()))
                for station in () if alone else stations:
                    await running.until(lambda station=station: site.came(station))
            return site

        yield start


async def _overhear(site: CoinOpSite, subscribed: asyncio.Event) -> None:
    """What a bystander sees of commands."""
    address, prefix = site.node.broker, site.node.prefix
    assert address is not None
    async with MqttClient(address.host, address.port, protocol=aiomqtt.ProtocolVersion.V5) as client:
        await client.subscribe(f"{prefix}/charger/+/commands", qos=1)
        subscribed.set()
        async for message in client.messages:
            topic = str(message.topic).removeprefix(f"{prefix}/")
            body = bytes(message.payload) if isinstance(message.payload, bytes | bytearray) else b""
            site.commands.append((topic, body.decode(), message.retain))


async def _ended(task: "asyncio.Task[Any]") -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
