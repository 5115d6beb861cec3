"""What a charge point's session costs on MQTT, by a tariff with bands."""

from datetime import UTC, datetime, timedelta
from typing import Any

from tests.e2e.conftest import Node
from tests.harness.charge_points.raw import RawChargePoint


def values(transaction_id: int, at: datetime, energy_wh: int) -> dict[str, Any]:
    sample = {"value": str(energy_wh), "unit": "Wh"}
    return {
        "connectorId": 1,
        "transactionId": transaction_id,
        "meterValue": [{"timestamp": at.isoformat(), "sampledValue": [sample]}],
    }


async def test_a_session_across_the_edge_of_a_band_on_mqtt(node: Node) -> None:
    night = {"name": "night", "start": "22:00", "end": "06:00", "energyRate": "0.20"}
    terms = {"currency": "EUR", "energyRate": "0.40", "bands": [night], "timeZone": "Europe/Vienna"}
    assert (await node.api.put("/api/v1/tariffs/default", json=terms)).status_code == 201
    point = await RawChargePoint.dial(node.ocpp, "CP-NIGHT")
    try:
        await point.boot()
        began = datetime(2026, 11, 18, 20, tzinfo=UTC)  # 21:00 in Vienna
        started = await point.ask(
            "StartTransaction",
            {"connectorId": 1, "idTag": "T", "meterStart": 1000, "timestamp": began.isoformat()},
        )
        number = started["transactionId"]
        for minutes, energy_wh in ((30, 5000), (50, 9000), (70, 11_000), (90, 12_000)):
            at = began + timedelta(minutes=minutes)
            await point.ask("MeterValues", values(number, at, energy_wh))
        running = (await node.api.get(f"/api/v1/transactions/{number}")).json()
        assert (running["cost"]["amount"], running["energyWh"]) == ("4.00", 11_000)
        stopped_at = began + timedelta(minutes=120)
        await point.ask(
            "StopTransaction",
            {"transactionId": number, "meterStop": 13_000, "timestamp": stopped_at.isoformat()},
        )
    finally:
        await point.close()
    (cost,) = await node.until(lambda: node.of("session_cost", "CP-NIGHT"))
    payload = cost["payload"]
    # 9 kWh until 22:00 (half way between two readings), 3 kWh after.
    assert payload["breakdown"] == [
        {"component": "energy", "quantity": 9.0, "unit": "kWh", "rate": 0.4, "amountMinor": 360},
        {
            "component": "energy",
            "band": "night",
            "quantity": 3.0,
            "unit": "kWh",
            "rate": 0.2,
            "amountMinor": 60,
        },
    ]
    assert (payload["estimatedCost"], payload["amountMinor"], payload["energyRate"]) == (4.2, 420, 0.35)
    assert (payload["tariffId"], payload["tariffVersion"], payload["revision"]) == ("default", 1, 1)
