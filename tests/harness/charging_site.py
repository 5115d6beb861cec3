"""One charge point's side of a story, and all that the central system kept of it."""

import asyncio
import json
import secrets
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx

from tests.e2e.conftest import Node
from tests.harness.charge_points.raw import RawChargePoint
from tests.harness.waiting import until

BEGAN = datetime(2023, 12, 7, 10, 15, 30, tzinfo=UTC)


def moment(minutes: float = 0) -> str:
    """So many minutes after the beginning, as a charge point writes it."""
    return (BEGAN + timedelta(minutes=minutes)).strftime("%Y-%m-%dT%H:%M:%SZ")


def start(**given: Any) -> dict[str, Any]:
    return {"connectorId": 1, "idTag": "user123", "meterStart": 1000, "timestamp": moment()} | given


def stop(transaction_id: Any, **given: Any) -> dict[str, Any]:
    return {"transactionId": transaction_id, "meterStop": 25000, "timestamp": moment(90)} | given


def values(*samples: Any, at: float | str = 30, **given: Any) -> dict[str, Any]:
    """MeterValues of one moment; a sample that is no object is a value of the energy register."""
    sampled = [sample if isinstance(sample, dict) else {"value": str(sample)} for sample in samples]
    timestamp = at if isinstance(at, str) else moment(at)
    return {"connectorId": 1, "meterValue": [{"timestamp": timestamp, "sampledValue": sampled}]} | given


class OcppSite:
    """A charge point of its own name on a node. Rows and events are read from the database, so all that was
    answered is there already."""

    def __init__(self, node: Node, charger: str | None = None) -> None:
        self.node = node
        self.charger = charger or f"CP-{secrets.token_hex(6)}"
        self.dialled: list[RawChargePoint] = []

    async def dial(self, node: Node | None = None, **boot: Any) -> RawChargePoint:
        """A new connection, to `node` if given. With keywords: booted as what they say."""
        point = await RawChargePoint.dial((node or self.node).ocpp, self.charger)
        self.dialled.append(point)
        if boot:
            known = {"chargePointVendor": "V", "chargePointModel": "M"}
            assert (await point.ask("BootNotification", known | boot))["status"] == "Accepted"
        return point

    async def hang_up(self) -> None:
        for point in self.dialled:
            await point.close()

    async def register(self, **settings: Any) -> None:
        """What an operator has set for it beforehand."""
        response = await self.node.api.put(f"/api/v1/chargers/{self.charger}", json=settings)
        assert response.status_code in {200, 201}, response.text

    async def tag(self, **given: Any) -> str:
        """A tag of its own, in the register."""
        id_tag = secrets.token_hex(8)
        response = await self.node.api.put(f"/api/v1/tags/{id_tag}", json=given)
        assert response.status_code in {200, 201}, response.text
        return id_tag

    def command(self, action: str, **payload: Any) -> "asyncio.Task[httpx.Response]":
        """Sent in the background; await it for the API's answer."""
        body = {"action": action, "payload": payload}
        return asyncio.create_task(self.node.api.post(f"/api/v1/chargers/{self.charger}/commands", json=body))

    async def offline(self) -> None:
        """Wait until the end of its connection is on record."""
        query = "SELECT 1 FROM charger_states WHERE charger_id = $1 AND NOT online"
        await until(lambda: self.node.fetch(query, self.charger))

    async def transactions(self) -> list[dict[str, Any]]:
        return await self._rows("transactions", "id")

    async def transaction(self, transaction_id: int) -> dict[str, Any]:
        (row,) = [row for row in await self.transactions() if row["id"] == transaction_id]
        return row

    async def readings(self) -> list[dict[str, Any]]:
        return await self._rows("readings", "received_at, sampled_at")

    async def quarantine(self) -> list[dict[str, Any]]:
        return await self._rows("quarantine", "id")

    async def deviations(self) -> set[str]:
        response = await self.node.api.get(f"/api/v1/chargers/{self.charger}/deviations")
        return {item["kind"] for item in response.json()["items"]}

    async def told(self) -> list[str]:
        """The kinds of all events, in order."""
        return [row["event_type"] for row in await self._rows("events", "seq")]

    async def payloads(self, kind: str) -> list[dict[str, Any]]:
        rows = await self._rows("events", "seq")
        return [json.loads(row["body"])["payload"] for row in rows if row["event_type"] == kind]

    async def _rows(self, table: str, order: str) -> list[dict[str, Any]]:
        return await self.node.fetch(
            f"SELECT * FROM {table} WHERE charger_id = $1 ORDER BY {order}", self.charger
        )
