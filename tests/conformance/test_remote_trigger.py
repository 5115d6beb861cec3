"""Remote trigger."""

from tests.harness.conformance.bench import ACCEPTED, Bench
from tests.harness.conformance.charge_point import clock


async def test_tc_054_trigger_message(bench: Bench) -> None:
    """TriggerMessage asks for MeterValues and a status of one connector, a heartbeat, a diagnostics and a
    firmware status; each is answered when it comes, the reading stored and published."""
    await bench.booted()
    at = clock()

    async def trigger(message: str, **connector: int) -> None:
        await bench.command("TriggerMessage", {"requestedMessage": message, **connector}, ACCEPTED)

    await trigger("MeterValues", connectorId=1)
    value = {
        "value": "1500",
        "context": "Trigger",
        "measurand": "Energy.Active.Import.Register",
        "unit": "Wh",
    }
    assert (
        await bench.point.call(
            "MeterValues", connectorId=1, meterValue=[{"timestamp": at, "sampledValue": [value]}]
        )
        == {}
    )
    await trigger("Heartbeat")
    assert set(await bench.point.call("Heartbeat")) == {"currentTime"}
    await trigger("StatusNotification", connectorId=1)
    await bench.status(1, "Available")
    await trigger("DiagnosticsStatusNotification")
    assert await bench.point.call("DiagnosticsStatusNotification", status="Idle") == {}
    await trigger("FirmwareStatusNotification")
    assert await bench.point.call("FirmwareStatusNotification", status="Idle") == {}
    connector = await bench.connector(1)
    assert (connector["energyWh"], connector["status"]) == (1500, "Available")
    reading = (await bench.published("meter_reading"))["payload"]
    assert (reading["connectorId"], reading["totalEnergy"]) == (1, 1.5)
    rows = await bench.node.fetch(
        "SELECT connector_id, energy_wh FROM readings WHERE charger_id = $1", bench.id
    )
    assert rows == [{"connector_id": 1, "energy_wh": 1500}]


async def test_tc_055_trigger_message_rejected(bench: Bench) -> None:
    """The operator receives the charge point's Rejected; no reading is stored or published."""
    await bench.booted()
    await bench.command(
        "TriggerMessage", {"requestedMessage": "MeterValues", "connectorId": 1}, {"status": "Rejected"}
    )
    assert (await bench.connector(1))["readingAt"] is None
    assert await bench.events() == []
