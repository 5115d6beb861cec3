"""Two devices under one identity are named, in the log and at the charger; a bad line is none."""

from typing import Any

from structlog.testing import capture_logs

from tests.e2e.conftest import Node, NodeFactory
from tests.harness.charge_points.bare import BareChargePoint
from tests.harness.charge_points.raw import RawChargePoint
from tests.harness.waiting import until


def warnings(lines: list[Any]) -> list[dict[str, Any]]:
    return [line for line in lines if line["event"] == "identity_shared"]


async def shown(node: Node) -> list[dict[str, Any]]:
    items = (await node.api.get("/api/v1/chargers/CP-TWO/deviations")).json()["items"]
    return [item for item in items if item["kind"] == "identity_shared"]


async def dial(node: Node, serial: str | None = None) -> RawChargePoint:
    device = await RawChargePoint.dial(node.ocpp, "CP-TWO")
    if serial is not None:
        boot = {"chargePointVendor": "V", "chargePointModel": "M", "chargePointSerialNumber": serial}
        await device.ask("BootNotification", boot)
    else:
        await device.ask("Heartbeat", {})
    return device


async def test_devices_that_displace_each_other_are_one_warning(start_node: NodeFactory) -> None:
    node = await start_node(mqtt=False)
    with capture_logs() as lines:
        device = await dial(node)
        for _ in range(8):
            device, displaced = await dial(node), device
            assert (await displaced.ended())[0] == 1000
        await until(lambda: shown(node), 10)
    (warning,) = warnings(lines)
    assert (warning["charger"], warning["log_level"]) == ("CP-TWO", "warning")
    assert "addresses: 127.0.0.1" in warning["evidence"]
    (item,) = await shown(node)
    assert item["count"] == 1
    await device.close()


async def test_a_serial_number_that_comes_back_is_a_warning(start_node: NodeFactory) -> None:
    node = await start_node(mqtt=False)
    with capture_logs() as lines:
        for serial in ("SN-A", "SN-B", "SN-A", "SN-B"):
            await (await dial(node, serial)).close()
        await until(lambda: shown(node), 10)
    (warning,) = warnings(lines)
    assert warning["evidence"] == "serial numbers: SN-A, SN-B"


async def test_a_charge_point_with_a_bad_line_is_no_second_device(start_node: NodeFactory) -> None:
    node = await start_node(mqtt=False)
    with capture_logs() as lines:
        for _ in range(5):
            lost = await BareChargePoint.dial(node.ocpp, "CP-TWO")
            lost.call("1", "Heartbeat", {})
            device = await dial(node)
            lost.vanish()
            await device.close()
    assert warnings(lines) == []
