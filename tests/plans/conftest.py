"""One node for all tests of a module, prices on the broker, and what a HEMS and a home automation hear."""

import asyncio
import contextlib
import json
import secrets
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import aiomqtt
import pytest

from csms.plans import planner
from tests.e2e.conftest import Node, node_for_many
from tests.harness.charge_points.answering import AnsweringChargePoint, answering_charge_point
from tests.harness.waiting import until

PRICES = f"test/prices-{secrets.token_hex(6)}"
KEYS = {
    "ChargeProfileMaxStackLevel": "8",
    "ChargingScheduleAllowedChargingRateUnit": "Current,Power",
    "ChargingScheduleMaxPeriods": "24",
}


@pytest.fixture(scope="module")
async def node(
    databases: Any, template_database: str, broker: Any, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Node]:
    patch = pytest.MonkeyPatch()
    pace = planner.PlannerPace(tick_s=0.2, settle_s=1, soon_s=0.1, pauses_s=(0.5,), command_timeout_s=1.0)
    patch.setattr(planner, "PlannerPace", lambda: pace)
    directory = tmp_path_factory.mktemp("node")
    async with node_for_many(
        databases,
        template_database,
        broker,
        directory,
        csms_prices_topic=PRICES,
        csms_prices_currency="EUR",
    ) as running:
        yield running
    patch.undo()


class PlanTopics:
    """A client of the broker: what is retained, by topic, and what has come."""

    def __init__(self, client: aiomqtt.Client, prefix: str) -> None:
        self.client = client
        self.prefix = prefix
        self.last: dict[str, Any] = {}

    async def read(self) -> None:
        async for message in self.client.messages:
            topic = str(message.topic).removeprefix(f"{self.prefix}/")
            body = bytes(message.payload) if isinstance(message.payload, bytes | bytearray) else b""
            if not topic.endswith(("/set", "/clear")):
                self.last[topic] = json.loads(body) if body else None

    async def send(self, topic: str, content: object, *, retain: bool = False) -> None:
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        await self.client.publish(f"{self.prefix}/{topic}", body, qos=1, retain=retain)

    async def prices(self, *cheap: bool, currency: str = "EUR") -> datetime:
        """Eight quarters of an hour from the minute before this one on: 0.10 or, as are the rest, 0.50. The first
        one's start."""
        start = datetime.now(UTC).replace(second=0, microsecond=0) - timedelta(minutes=1)
        step = timedelta(minutes=15)
        curve = [
            {
                "start": (start + n * step).isoformat(),
                "end": (start + (n + 1) * step).isoformat(),
                "price": 0.10 if one else 0.50,
            }
            for n, one in enumerate((*cheap, *[False] * (8 - len(cheap))))
        ]
        body = json.dumps({"price_curve": curve, "currency": currency})
        await self.client.publish(PRICES, body, qos=1, retain=True)
        return start


@pytest.fixture
async def wire(node: Node, broker: Any) -> AsyncIterator[PlanTopics]:
    async with aiomqtt.Client(broker.host, broker.port_v5, protocol=aiomqtt.ProtocolVersion.V5) as client:
        connected = PlanTopics(client, node.prefix)
        await client.subscribe(f"{node.prefix}/hems/#", qos=1)
        await client.subscribe(f"{node.prefix}/csms/state/+/plan", qos=1)
        reading = asyncio.create_task(connected.read())
        yield connected
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)


class PlannedCharger:
    """An operator's view of one charger's plan."""

    def __init__(self, node: Node, charger: str | None = None) -> None:
        self.node = node
        self.charger = charger or f"CP-{secrets.token_hex(4)}"
        self.path = f"/api/v1/chargers/{self.charger}/plan"

    @contextlib.asynccontextmanager
    async def connected(self, *, boot: bool = True, **answers: Any) -> AsyncIterator[AnsweringChargePoint]:
        async with answering_charge_point(
            self.node.ocpp, self.charger, boot=boot, **({"GetConfiguration": configuration()} | answers)
        ) as point:
            yield point

    async def put(self, **terms: Any) -> dict[str, Any]:
        response = await self.node.api.put(self.path, json=terms)
        assert response.status_code == 200, response.text
        return response.json()

    async def seen(self) -> dict[str, Any]:
        """Its only view, empty while there is none."""
        response = await self.node.api.get(self.path)
        return response.json()["connectors"][0] if response.is_success else {}

    async def until(
        self, condition: Callable[[dict[str, Any]], bool], timeout_s: float = 10
    ) -> dict[str, Any]:
        found: dict[str, Any] = {}

        async def holds() -> bool:
            nonlocal found
            found = await self.seen()
            return condition(found)

        await until(holds, timeout_s, what=lambda: found)
        return found

    async def delivered(self, word: str) -> dict[str, Any]:
        return await self.until(lambda seen: seen.get("delivery") == word)

    async def clear(self) -> None:
        assert (await self.node.api.delete(self.path)).status_code == 204


def configuration(**keys: str) -> dict[str, Any]:
    """The answer to GetConfiguration."""
    return {
        "configurationKey": [
            {"key": name, "readonly": True, "value": value} for name, value in (KEYS | keys).items()
        ]
    }


@pytest.fixture
async def planned(node: Node) -> PlannedCharger:
    return PlannedCharger(node)
