import pytest

from tests.harness.central_system import Central, charge_point, running
from tests.harness.waiting import until

PATH = "/ocpp/CP1"


@pytest.mark.parametrize("kind", ["Soft", "Hard"])
async def test_a_reset_stops_the_transaction_reconnects_and_boots_again(kind):
    async with Central() as central:
        one = charge_point(central, speed=1200, charge_s=(36_000, 36_000))
        async with running(one):
            await until(lambda: one.transactions and one.transactions[0].start_answered)
            assert (await central.ask(PATH, "Reset", type=kind)).status == "Accepted"
            await until(lambda: one.counters.boots == 2)
            await until(lambda: one.transactions[0].stop_acknowledged)
            assert one.transactions[0].stop_reason == f"{kind}Reset"
            await until(lambda: len(one.transactions) == 2)  # life goes on
    assert one.counters.connections == 2
    assert one.counters.lost == 0
    assert central.faults == []
    flow = central.order("StopTransaction", "BootNotification")
    if kind == "Soft":
        assert flow == ["BootNotification", "StopTransaction", "BootNotification"]


async def test_new_firmware_is_reported_step_by_step_and_booted():
    async with Central() as central:
        one = charge_point(central, automatic=False)
        async with running(one):
            await until(lambda: one.in_service)
            await central.ask(
                PATH, "UpdateFirmware", location="ftp://x/y", retrieve_date="2026-01-01T00:00:00Z"
            )
            await until(lambda: len(central.actions("FirmwareStatusNotification")) == 4)
            await until(lambda: one.firmware_status == "Idle")
    steps = [payload["status"] for payload in central.actions("FirmwareStatusNotification")]
    assert steps == ["Downloading", "Downloaded", "Installing", "Installed"]
    assert [boot["firmwareVersion"] for boot in central.actions("BootNotification")] == ["1.0.0", "1.0.1"]


async def test_diagnostics_are_named_and_reported():
    async with Central() as central:
        one = charge_point(central, automatic=False)
        async with running(one):
            await until(lambda: one.in_service)
            answer = await central.ask(PATH, "GetDiagnostics", location="ftp://x/y")
            assert answer.file_name == "diagnostics-CP1.log"
            await until(lambda: len(central.actions("DiagnosticsStatusNotification")) == 2)
    steps = [payload["status"] for payload in central.actions("DiagnosticsStatusNotification")]
    assert steps == ["Uploading", "Uploaded"]
