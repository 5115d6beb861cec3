"""Known charge points on a whole node: what their messages mean, also after a reconnect without a boot."""

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import pytest
from structlog.testing import capture_logs

from tests.e2e.conftest import Node, NodeFactory
from tests.harness.charge_points.raw import RawChargePoint
from tests.harness.charging_site import OcppSite, moment, start, stop, values
from tests.harness.servers import REPOSITORY

ABB = {"chargePointVendor": "ABB", "chargePointModel": "CDT_TACW22::NET_WIFI"}
OPENEVSE = {
    "chargePointVendor": "OpenEVSE",
    "chargePointModel": "ESP32 WiFi",
    "firmwareVersion": "v4.2.2",
}
GROWATT: dict[str, Any] = {"chargePointVendor": "Growatt", "chargePointModel": "THOR-11AS-P"}
BS = {"chargePointVendor": "BS", "chargePointModel": "EV22"}
GRIZZL = {"chargePointVendor": "United Chargers", "chargePointModel": "Grizzl-E"}
WALLBOX: dict[str, Any] = {
    "chargePointVendor": "Wall Box Chargers",
    "chargePointModel": "PPR1",
    "firmwareVersion": "6.4.12",
}


RECORDINGS = REPOSITORY / "tests" / "ocpp" / "fixtures" / "quirks"


def recorded_boot(rule: str) -> dict[str, Any]:
    """The BootNotification that a rule's charge point was recorded with."""
    frame: list[Any] = json.loads(json.loads((RECORDINGS / f"{rule}.json").read_text())["frames"][0])
    return dict(frame[3])


def reset(site: OcppSite) -> "asyncio.Task[Any]":
    return site.command("Reset", type="Soft")


@pytest.fixture
async def site(shared_node: Node) -> AsyncIterator[OcppSite]:
    site = OcppSite(shared_node)
    yield site
    await site.hang_up()


@pytest.fixture(params=["booted", "reconnected"])
def known(request: pytest.FixtureRequest, site: OcppSite) -> Any:
    """Dials as a charge point that has booted on this connection, or only on the one before."""

    async def dial(boot: dict[str, Any]) -> RawChargePoint:
        point = await site.dial(**boot)
        return point if request.param == "booted" else await site.dial()

    return dial


async def test_kwh_labelled_wh_is_billed_as_kwh(site: OcppSite, known: Any) -> None:
    point = await known(OPENEVSE)
    transaction_id = (await point.ask("StartTransaction", start(meterStart=350)))["transactionId"]
    power = {"value": "9451", "measurand": "Power.Active.Import", "unit": "W"}
    register = {"value": "361", "measurand": "Energy.Active.Import.Register", "unit": "Wh"}
    await point.ask("MeterValues", values(power, register, transactionId=transaction_id))
    await point.ask("StopTransaction", stop(transaction_id, meterStop=362))
    row = await site.transaction(transaction_id)
    assert (row["meter_start_wh"], row["meter_stop_wh"], row["energy_wh"]) == (350_000, 362_000, 12_000)
    (reading,) = await site.payloads("meter_reading")
    assert (reading["totalEnergy"], reading["sessionEnergy"], reading["currentPower"]) == (361.0, 11.0, 9.451)


async def test_a_start_before_the_first_boot_is_read_as_its_stop_is(site: OcppSite) -> None:
    point = await site.dial()
    transaction_id = (await point.ask("StartTransaction", start(meterStart=350)))["transactionId"]
    await point.ask("BootNotification", OPENEVSE)
    await point.ask("BootNotification", OPENEVSE, "again")
    await point.ask("StopTransaction", stop(transaction_id, meterStop=360))
    row = await site.transaction(transaction_id)
    assert (row["meter_start_wh"], row["meter_stop_wh"], row["energy_wh"]) == (350_000, 360_000, 10_000)


async def test_a_register_in_wh_of_another_firmware_of_the_vendor_stays_so(
    site: OcppSite, known: Any
) -> None:
    point = await known(OPENEVSE | {"firmwareVersion": "4.1.7"})
    transaction_id = (await point.ask("StartTransaction", start(meterStart=350)))["transactionId"]
    await point.ask("StopTransaction", stop(transaction_id, meterStop=10_350))
    assert (await site.transaction(transaction_id))["energy_wh"] == 10_000


async def test_local_time_without_a_zone_is_read_in_the_sites_zone(site: OcppSite, known: Any) -> None:
    await site.register(timeZone="Europe/Kyiv")
    point = await known(GROWATT)
    answer = await point.ask("StartTransaction", start(timestamp="2024-07-01T14:00:00"))
    end = stop(answer["transactionId"], timestamp="2024-07-01 15:00:00")
    await point.ask("StopTransaction", end)
    row = await site.transaction(answer["transactionId"])
    assert row["started_at"] == datetime(2024, 7, 1, 11, 0, tzinfo=UTC)
    assert row["duration_s"] == 3600


async def test_local_time_without_a_zone_set_for_the_charger_is_pointed_out(site: OcppSite) -> None:
    await site.dial(**GROWATT)
    point = await site.dial()
    await point.ask("Heartbeat", {})
    assert {"quirk_applied", "time_zone_unset"} <= await site.deviations()


async def test_a_register_that_counts_each_session_from_zero_is_billed(site: OcppSite, known: Any) -> None:
    point = await known(ABB)
    # The register of the session before still stands in the start.
    first = (await point.ask("StartTransaction", start(meterStart=8000)))["transactionId"]
    await point.ask("StopTransaction", stop(first, meterStop=3000))
    row = await site.transaction(first)
    assert (row["energy_wh"], row["anomalies"]) == (3000, ["session_register"])
    second = await point.ask("StartTransaction", start(meterStart=None, timestamp=moment(100)))
    assert (await site.transaction(second["transactionId"]))["meter_start_wh"] == 0


async def test_a_corrupted_id_tag_of_a_stop_is_not_trusted(site: OcppSite, known: Any) -> None:
    point = await known(BS)
    transaction_id = (await point.ask("StartTransaction", start()))["transactionId"]
    assert await point.ask("StopTransaction", stop(transaction_id, idTag="\x00\x01TAG")) == {}
    assert (await site.transaction(transaction_id))["stop_id_tag"] is None
    closing = values({"value": "25010", "context": "Transaction.End"}, at=91, transactionId=transaction_id)
    assert await point.ask("MeterValues", closing) == {}
    assert (await site.transaction(transaction_id))["revision"] == 1


async def test_the_id_of_an_ended_transaction_means_the_running_one(site: OcppSite, known: Any) -> None:
    point = await known(GRIZZL)
    old = (await point.ask("StartTransaction", start()))["transactionId"]
    await point.ask("StopTransaction", stop(old))
    new = (await point.ask("StartTransaction", start(timestamp=moment(100), meterStart=25_000)))[
        "transactionId"
    ]
    await point.ask("MeterValues", values(27_000, at=110, transactionId=old))
    end = stop(old, timestamp=moment(120), meterStop=30_000)
    assert await point.ask("StopTransaction", end) == {}
    row = await site.transaction(new)
    assert (row["energy_wh"], row["anomalies"]) == (5000, ["transaction_id_inferred"])
    assert [r["transaction_id"] for r in await site.readings()] == [new]
    # Resent, or the first stop resent: nothing more happens.
    await point.ask("StartTransaction", start(timestamp=moment(130), meterStart=30_000))
    await point.ask("StopTransaction", end)
    await point.ask("StopTransaction", stop(old))
    assert [row["stopped_at"] is None for row in await site.transactions()] == [False, False, True]
    assert (await site.told()).count("completed") == 2


async def test_an_unknown_charge_point_is_taken_at_its_word(site: OcppSite) -> None:
    point = await site.dial(chargePointVendor="Unknown")
    old = (await point.ask("StartTransaction", start()))["transactionId"]
    await point.ask("StopTransaction", stop(old))
    new = (await point.ask("StartTransaction", start(timestamp=moment(100))))["transactionId"]
    await point.ask("StopTransaction", stop(old, timestamp=moment(120)))
    assert (await site.transaction(new))["stopped_at"] is None
    assert "quirk_applied" not in await site.deviations()


async def test_any_call_of_an_accepted_charger_opens_the_line_for_commands(start_node: NodeFactory) -> None:
    node = await start_node(csms_ocpp_calls_after_s=600)
    site = OcppSite(node)
    await site.dial(chargePointVendor="Acme", chargePointModel="One")
    point = await site.dial()
    asked = reset(site)
    assert await point.silence()
    await point.ask("Heartbeat", {})
    _, message_id, action, _ = await point.receive()
    assert action == "Reset"
    await point.send([3, message_id, {"status": "Accepted"}])
    assert (await asked).status_code == 200
    await site.hang_up()


async def test_one_that_reconnects_without_a_boot_is_asked_for_it(start_node: NodeFactory) -> None:
    node = await start_node(csms_ocpp_calls_after_s=0.2)
    site = OcppSite(node)
    await site.dial(**WALLBOX)
    point = await site.dial()
    await point.ask("Heartbeat", {})
    asked = []
    for _ in range(2):
        _, message_id, action, payload = await point.receive(timeout_s=15)
        asked.append((action, payload["requestedMessage"]))
        await point.send([3, message_id, {"status": "Accepted"}])
    assert asked == [("TriggerMessage", "BootNotification"), ("TriggerMessage", "StatusNotification")]
    await site.hang_up()


async def test_commands_wait_for_a_sign_of_boot_where_earlier_ones_would_restart_it(
    start_node: NodeFactory,
) -> None:
    node = await start_node(csms_ocpp_calls_after_s=0.2)
    site, other = OcppSite(node), OcppSite(node)
    await site.dial(**recorded_boot("abb-terra-ac"))
    await other.dial(chargePointModel="any")
    point, any_point = await site.dial(), await other.dial()
    waiting, sent = reset(site), reset(other)
    # The timer is over for both: the other one has its command.
    _, message_id, action, _ = await any_point.receive(timeout_s=15)
    await any_point.send([3, message_id, {"status": "Accepted"}])
    assert (action, (await sent).status_code) == ("Reset", 200)
    # The first frame that comes is the answer to its own call, and the command comes after it.
    await point.ask("Heartbeat", {})
    _, message_id, action, _ = await point.receive(timeout_s=15)
    await point.send([3, message_id, {"status": "Accepted"}])
    assert (action, (await waiting).status_code) == ("Reset", 200)
    for one in (site, other):
        await one.hang_up()


async def test_change_availability_is_not_sent_to_one_that_never_answers_it(site: OcppSite) -> None:
    point = await site.dial(**recorded_boot("en-plus"))
    refused = await site.command("ChangeAvailability", connectorId=1, type="Inoperative")
    assert (refused.status_code, refused.json()["type"].rpartition(":")[2]) == (501, "not-supported")
    assert "nothing was sent" in refused.json()["detail"]
    asked = reset(site)
    _, message_id, action, _ = await point.receive()
    assert action == "Reset"
    await point.send([3, message_id, {"status": "Accepted"}])
    assert (await asked).status_code == 200


async def test_the_loss_of_one_that_never_connects_again_is_a_warning(start_node: NodeFactory) -> None:
    node = await start_node()
    with capture_logs() as lines:
        for rule in ("teison-no-redial", "mennekes-slow-redial"):
            site = OcppSite(node, charger=rule)
            await (await site.dial(**recorded_boot(rule))).close()
            await site.offline()
    warnings = [line for line in lines if line["event"] == "charger_restart_needed"]
    assert [(line["log_level"], line["charger"]) for line in warnings] == [("warning", "teison-no-redial")]
