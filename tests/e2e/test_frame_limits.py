"""Sizes on the wire: large frames of accepted charge points, long message ids, idTags that a reader filled up with blanks."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from structlog.testing import capture_logs
from websockets.exceptions import ConnectionClosed

from tests.e2e.conftest import Node, NodeFactory
from tests.e2e.test_bad_input import START, Dial, alive, charger, deviations, dial, node
from tests.harness.charge_points.raw import RawChargePoint
from tests.harness.waiting import until

__all__ = ["charger", "dial", "node"]


def of(lines: list[Any], event: str, charger: str) -> list[dict[str, Any]]:
    """The lines of the log about this charger with this event."""
    return [line for line in lines if line["event"] == event and line.get("charger") == charger]


async def test_a_frame_too_large_ends_that_connection_only(start_node: NodeFactory) -> None:
    node = await start_node(csms_ocpp_max_frame_bytes=4096, csms_ocpp_max_accepted_frame_bytes=8192)
    large = await RawChargePoint.dial(node.ocpp, "CP-LARGE")
    other = await RawChargePoint.dial(node.ocpp, "CP-OTHER")
    await large.boot()
    await other.boot()
    await large.send([2, "fits", "DataTransfer", {"vendorId": "v", "data": "x" * 8000}])
    assert (await large.receive())[:2] == [3, "fits"]
    with capture_logs() as lines:
        await large.send([2, "large", "DataTransfer", {"vendorId": "v", "data": "x" * 8192}])
        with pytest.raises(ConnectionClosed) as closed:
            await large.receive()
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1009
        await alive(other)
        (gone,) = await until(lambda: of(lines, "charger_disconnected", "CP-LARGE"), 10)
    assert gone["code"] == 1009
    (warning,) = of(lines, "frame_too_large", "CP-LARGE")
    assert (warning["log_level"], warning["limit_bytes"]) == ("warning", 8192)
    assert "CSMS_OCPP_MAX_ACCEPTED_FRAME_BYTES" in warning["remedy"]
    again = await RawChargePoint.dial(node.ocpp, "CP-LARGE")
    await alive(again)
    assert [d["kind"] for d in await deviations(node, "CP-LARGE")] == ["too_large"]
    for charge_point in (again, other):
        await charge_point.close()


@pytest.mark.parametrize("first", [True, False], ids=["first frame", "after a boot"])
async def test_a_stop_with_a_day_of_samples_is_taken(
    node: Node, dial: Dial, charger: str, *, first: bool
) -> None:
    charge_point = await dial()
    started = await charge_point.ask("StartTransaction", START)
    if first:
        charge_point = await RawChargePoint.dial(node.ocpp, charger)
    begin = datetime(2023, 12, 7, 10, 15, 30, tzinfo=UTC)
    samples = [
        {
            "timestamp": (begin + timedelta(seconds=30 * n)).isoformat(),
            "sampledValue": [
                {"value": str(1000 + n), "context": "Sample.Periodic", "unit": "Wh"},
                {"value": "16.0", "measurand": "Current.Import", "phase": "L1", "unit": "A"},
                {"value": "230.1", "measurand": "Voltage", "phase": "L1", "unit": "V"},
            ],
        }
        for n in range(2880)
    ]
    stop = {
        "transactionId": started["transactionId"],
        "meterStop": 9000,
        "timestamp": (begin + timedelta(days=1)).isoformat(),
        "transactionData": samples,
    }
    assert len(json.dumps(stop)) > 700_000
    await charge_point.send([2, "stop", "StopTransaction", stop])
    assert (await charge_point.receive(timeout_s=30))[:2] == [3, "stop"]
    (row,) = await node.fetch(
        "SELECT meter_stop_wh, stopped_at FROM transactions WHERE id = $1", started["transactionId"]
    )
    assert row["meter_stop_wh"] == 9000
    assert row["stopped_at"] is not None
    await charge_point.close()


async def test_the_frames_of_a_stranger_stay_small(start_node: NodeFactory) -> None:
    node = await start_node(csms_enrollment="approve")
    stranger = await RawChargePoint.dial(node.ocpp, "CP-NEW")
    assert (await stranger.boot())["status"] == "Pending"
    large = [2, "large", "StopTransaction", {"transactionId": 1, "vendor": "x" * 300_000}]
    with capture_logs() as lines:
        await stranger.send(large)
        assert (await stranger.ended())[0] == 1009
        (warning,) = await until(lambda: of(lines, "frame_too_large", "CP-NEW"), 10)
    assert "CSMS_OCPP_MAX_FRAME_BYTES" in warning["remedy"]
    await node.api.patch("/api/v1/chargers/CP-NEW", json={"enrollment": "Accepted"})
    accepted = await RawChargePoint.dial(node.ocpp, "CP-NEW")
    await accepted.send(large)
    assert (await accepted.receive())[:2] == [3, "large"]
    await accepted.close()


@pytest.mark.parametrize("length", [37, 255, 256, 300, 10_000])
async def test_a_long_message_id_gets_its_answer(node: Node, dial: Dial, charger: str, length: int) -> None:
    charge_point = await dial()
    message_id = "ä" * length
    assert "currentTime" in await charge_point.ask("Heartbeat", {}, message_id)
    first = await charge_point.ask("StartTransaction", START, message_id)
    assert await charge_point.ask("StartTransaction", START, message_id) == first
    assert await charge_point.ask("StopTransaction", {"transactionId": "?"}, message_id) == {}
    assert (await charge_point.call("Nonsense", {}, message_id))[2] == "NotImplemented"
    assert {d["kind"] for d in await deviations(node, charger)} >= {"message_id_long"}


async def test_blanks_around_an_id_tag_do_not_make_another_tag(start_node: NodeFactory) -> None:
    node = await start_node(mqtt=False, csms_unknown_tags="reject")
    assert (await node.api.put("/api/v1/tags/%20A", json={})).status_code == 422
    await node.api.put("/api/v1/tags/A", json={"status": "Accepted"})
    charge_point = await RawChargePoint.dial(node.ocpp, "CP-BLANKS")
    await charge_point.boot()
    for tag in ("A", " A", "a  ", "\tA\r\n"):
        answer = await charge_point.ask("Authorize", {"idTag": tag})
        assert answer["idTagInfo"]["status"] == "Accepted", tag
    started = await charge_point.ask("StartTransaction", START | {"idTag": "A   "})
    assert started["idTagInfo"]["status"] == "Accepted"
    (row,) = await node.fetch("SELECT id_tag FROM transactions")
    assert row["id_tag"] == "A"
    await charge_point.close()
