"""The simulated charge point under a plan: it charges when it may, waits when it shall, and starts again after a reset."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

from csms.simulate import ChargePointOptions, SimulatedChargePoint
from tests.e2e.conftest import Node
from tests.harness.waiting import until
from tests.plans.conftest import PlannedCharger, PlanTopics


@contextlib.asynccontextmanager
async def simulated(node: Node, identity: str) -> AsyncIterator[SimulatedChargePoint]:
    point = SimulatedChargePoint(
        identity,
        node.ocpp,
        ChargePointOptions(
            automatic=False,
            seed=145,
            charge_s=(36_000, 36_000),
            reconnect_s=(0.05, 0.2),
            reboot_s=0.1,
            configuration={"MeterValueSampleInterval": "1"},
        ),
    )
    task = asyncio.create_task(point.run(), name="simulated")
    try:
        yield point
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_a_car_charges_in_the_chosen_times_only(node: Node, wire: PlanTopics) -> None:
    # With this name and seed a car of 22 kW on three phases comes, and is plugged in at once.
    planned = PlannedCharger(node, "CP-SIMULATED")

    async def command(action: str, payload: dict[str, Any]) -> None:
        body = {"action": action, "payload": payload}
        response = await node.api.post(f"/api/v1/chargers/{planned.charger}/commands", json=body)
        assert response.json() == {"response": {"status": "Accepted"}}

    async def status() -> tuple[str, int]:
        charger = (await node.api.get(f"/api/v1/chargers/{planned.charger}")).json()
        connector = next((one for one in charger["connectors"] if one["connectorId"] == 1), None)
        return (connector["status"], connector["powerW"] or 0) if connector is not None else ("", 0)

    async def becomes(word: str) -> None:
        async def holds() -> bool:
            return (await status())[0] == word

        await until(holds, 15)

    async with simulated(node, planned.charger) as point:
        await node.until(lambda: point.in_service)
        await wire.prices(True, True, False, True)
        await planned.put(limitA=10)
        # Its own composite schedule says what we wanted.
        assert (await planned.delivered("in_place"))["confirmed"] is True
        await command("RemoteStartTransaction", {"idTag": "DRIVER", "connectorId": 1})
        await becomes("Charging")
        (connector,) = point.connectors.values()
        await node.until(lambda: connector.power_w > 0)
        assert connector.power_w <= 10 * 230 * 3 + 1
        # Too dear now: the car waits, its session goes on.
        await planned.put(maxPrice="0.01", otherwise="wait")
        await becomes("SuspendedEVSE")
        assert connector.power_w == 0
        assert connector.transaction is not None
        await planned.put(maxPrice="0.25")
        await becomes("Charging")
        # Nothing of ours is left: it charges as it likes.
        await planned.clear()
        await node.until(lambda: connector.power_w > 10 * 230 * 3 + 1)


async def test_after_a_reset_the_plan_is_sent_again(
    node: Node, wire: PlanTopics, planned: PlannedCharger
) -> None:
    async def sent() -> int:
        found = await node.api.get(
            f"/api/v1/chargers/{planned.charger}/commands", params={"action": "SetChargingProfile"}
        )
        return len(found.json()["items"])

    async with simulated(node, planned.charger) as point:
        await node.until(lambda: point.in_service)
        await wire.prices(False, True)
        await planned.put()
        await planned.delivered("in_place")
        assert await sent() == 1
        body = {"action": "Reset", "payload": {"type": "Soft"}}
        await node.api.post(f"/api/v1/chargers/{planned.charger}/commands", json=body)

        async def is_sent_again() -> bool:
            return await sent() >= 2

        await until(is_sent_again, 10)
        await planned.delivered("in_place")
        assert point.counters.boots == 2
        assert await sent() == 2
