"""Readings and registers, over a real socket: what is kept, what is told, what is billed."""

from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.e2e.conftest import Node
from tests.harness.charging_site import OcppSite, moment, start, stop, values

SESSION = ["started", "completed", "session_cost"]


@pytest.fixture
async def site(shared_node: Node) -> AsyncIterator[OcppSite]:
    site = OcppSite(shared_node)
    yield site
    await site.hang_up()


# --- readings ------------------------------------------------------------------------------------------


async def test_transaction_data_is_kept_and_told_before_the_end(site: OcppSite) -> None:
    point = await site.dial()
    transaction_id = (await point.ask("StartTransaction", start()))["transactionId"]
    data = [
        values({"value": "1000", "context": "Transaction.Begin"}, at=0)["meterValue"][0],
        values({"value": "25000", "context": "Transaction.End"}, at=90)["meterValue"][0],
    ]
    assert await point.ask("StopTransaction", stop(transaction_id, transactionData=data)) == {}
    assert [(r["transaction_id"], r["energy_wh"]) for r in await site.readings()] == [
        (transaction_id, 1000),
        (transaction_id, 25000),
    ]
    assert await site.told() == ["started", "meter_reading", "meter_reading", "completed", "session_cost"]
    await point.ask("StopTransaction", stop(transaction_id, transactionData=data), "again")
    assert len(await site.readings()) == 2


async def test_a_resent_reading_that_names_another_connector_is_stored_once(site: OcppSite) -> None:
    point = await site.dial()
    transaction_id = (await point.ask("StartTransaction", start()))["transactionId"]
    for message_id in ("m1", "m2"):
        sent = values(13_000, transactionId=transaction_id, connectorId=2)
        assert await point.ask("MeterValues", sent, message_id) == {}
    assert [(r["connector_id"], r["energy_wh"]) for r in await site.readings()] == [(1, 13_000)]
    assert (await site.told()).count("meter_reading") == 1


async def test_a_stop_without_a_register_is_billed_from_the_last_reading(site: OcppSite) -> None:
    point = await site.dial()
    transaction_id = (await point.ask("StartTransaction", start()))["transactionId"]
    await point.ask("MeterValues", values(13_000, transactionId=transaction_id))
    assert await point.ask("StopTransaction", stop(transaction_id, meterStop=None)) == {}
    row = await site.transaction(transaction_id)
    assert (row["energy_wh"], row["energy_source"]) == (12_000, "last_reading")
    (completed,) = await site.payloads("completed")
    assert completed["energySource"] == "last_reading"


@pytest.mark.parametrize(
    "given", [{}, {"transactionId": -1}, {"transactionId": 2**63 - 1}, {"transactionId": 0}]
)
async def test_readings_with_a_wrong_id_or_none_belong_to_what_runs_on_the_connector(
    site: OcppSite, given: dict[str, Any]
) -> None:
    point = await site.dial()
    transaction_id = (await point.ask("StartTransaction", start()))["transactionId"]
    assert await point.ask("MeterValues", values(13_000, **given)) == {}
    assert [r["transaction_id"] for r in await site.readings()] == [transaction_id]
    (reading,) = await site.payloads("meter_reading")
    assert (reading["transactionId"], reading["sessionEnergy"], reading["totalEnergy"]) == (
        transaction_id,
        12.0,
        13.0,
    )


async def test_readings_of_nothing_that_runs_and_of_connector_zero_are_kept(site: OcppSite) -> None:
    point = await site.dial()
    assert await point.ask("MeterValues", values(1)) == {}
    assert await point.ask("MeterValues", values(2, connectorId=0)) == {}
    assert await point.ask("MeterValues", values(3, connectorId=0, transactionId=4711)) == {}
    rows = await site.readings()
    assert [(r["connector_id"], r["transaction_id"], r["energy_wh"]) for r in rows] == [
        (1, None, 1),
        (0, None, 2),
        (0, None, 3),
    ]
    assert await site.told() == ["meter_reading"] * 3


async def test_connector_zero_with_a_known_transaction_means_its_connector(site: OcppSite) -> None:
    point = await site.dial()
    transaction_id = (await point.ask("StartTransaction", start(connectorId=2)))["transactionId"]
    await point.ask("MeterValues", values(13_000, connectorId=0, transactionId=transaction_id))
    (reading,) = await site.readings()
    assert (reading["connector_id"], reading["transaction_id"]) == (2, transaction_id)


async def test_closing_values_after_the_stop_are_kept_and_revive_nothing(site: OcppSite) -> None:
    point = await site.dial()
    transaction_id = (await point.ask("StartTransaction", start()))["transactionId"]
    await point.ask("StopTransaction", stop(transaction_id))
    before = await site.transaction(transaction_id)
    assert await point.ask("MeterValues", values(25_100, at=91, transactionId=transaction_id)) == {}
    assert await site.transaction(transaction_id) == before
    assert [r["transaction_id"] for r in await site.readings()] == [transaction_id]
    assert await site.told() == [*SESSION, "meter_reading"]


async def test_the_same_reading_again_is_one_reading(site: OcppSite) -> None:
    point = await site.dial()
    transaction_id = (await point.ask("StartTransaction", start()))["transactionId"]
    for message_id in ("a", "a", "b"):
        await point.ask("MeterValues", values(13_000, transactionId=transaction_id), message_id)
    assert len(await site.readings()) == 1
    assert await site.told() == ["started", "meter_reading"]


# --- registers -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("meter_stop", [2**30, 0, -5], ids=["backwards", "reset", "negative"])
async def test_a_register_that_falls_bills_nothing_and_says_so(site: OcppSite, meter_stop: int) -> None:
    point = await site.dial()
    transaction_id = (await point.ask("StartTransaction", start(meterStart=2**31 - 10)))["transactionId"]
    await point.ask("StopTransaction", stop(transaction_id, meterStop=meter_stop))
    row = await site.transaction(transaction_id)
    assert (row["energy_wh"], row["anomalies"], row["meter_stop_wh"]) == (0, ["meter_decreased"], meter_stop)
    (completed,) = await site.payloads("completed")
    assert (completed["energyUsed"], completed["anomaly"]) == (0.0, "meter_decreased")
    (cost,) = await site.payloads("session_cost")
    assert (cost["energyConsumed"], cost["estimatedCost"], cost["amountMinor"]) == (0.0, 0.0, 0)


async def test_a_register_that_wraps_bills_what_it_counted(site: OcppSite) -> None:
    point = await site.dial()
    transaction_id = (await point.ask("StartTransaction", start(meterStart=2**31 - 10)))["transactionId"]
    await point.ask("StopTransaction", stop(transaction_id, meterStop=4))
    row = await site.transaction(transaction_id)
    assert (row["energy_wh"], row["anomalies"]) == (14, ["register_wrapped"])


async def test_a_register_that_begins_at_zero_each_time_is_no_anomaly(site: OcppSite) -> None:
    point = await site.dial()
    for n in range(2):
        begin = start(meterStart=0, timestamp=moment(n * 100))
        transaction_id = (await point.ask("StartTransaction", begin))["transactionId"]
        await point.ask("MeterValues", values(4000, at=n * 100 + 30, transactionId=transaction_id))
        end = stop(transaction_id, meterStop=8000, timestamp=moment(n * 100 + 60))
        await point.ask("StopTransaction", end)
    rows = await site.transactions()
    assert [(row["energy_wh"], row["anomalies"]) for row in rows] == [(8000, []), (8000, [])]
    assert [r["sessionEnergy"] for r in await site.payloads("meter_reading")] == [4.0, 4.0]


async def test_a_start_without_a_register_goes_by_the_connectors_last_reading(site: OcppSite) -> None:
    point = await site.dial()
    await point.ask("MeterValues", values(40_000, at=-10))
    answer = await point.ask("StartTransaction", start(meterStart=None))
    row = await site.transaction(answer["transactionId"])
    assert (row["meter_start_wh"], row["anomalies"]) == (40_000, ["no_meter_start"])


async def test_phases_are_summed_where_a_sum_means_something(site: OcppSite) -> None:
    point = await site.dial()
    transaction_id = (await point.ask("StartTransaction", start()))["transactionId"]
    samples = [
        *({"value": str(n), "measurand": "Power.Active.Import", "unit": "W", "phase": f"L{i}"}
          for i, n in enumerate((2300, 2400, 2500), 1)),
        *({"value": str(n), "phase": f"L{i}-N"} for i, n in enumerate((4400, 4500, 4600), 1)),
        *({"value": f"23{i}.1", "measurand": "Voltage", "phase": f"L{i}-N"} for i in (1, 2, 3)),
    ]  # fmt: skip
    await point.ask("MeterValues", values(*samples, transactionId=transaction_id))
    (reading,) = await site.payloads("meter_reading")
    assert reading["currentPower"] == 7.2
    assert (reading["totalEnergy"], reading["sessionEnergy"]) == (13.5, 12.5)
    assert reading["measurands"]["Voltage"]["phases"] == {"L1-N": 231.1, "L2-N": 232.1, "L3-N": 233.1}
    (row,) = await site.readings()
    assert (row["energy_wh"], row["power_w"]) == (13_500, 7200)


@pytest.mark.parametrize(
    "text", ["12,5,6", "", " ", "NaN", "Infinity", "-inf", "abc", "1e400", "1_000", None]
)
async def test_a_value_that_is_no_number_is_kept_and_bills_nothing(site: OcppSite, text: str | None) -> None:
    point = await site.dial()
    transaction_id = (await point.ask("StartTransaction", start()))["transactionId"]
    await point.ask("MeterValues", values(5000, at=10, transactionId=transaction_id))
    odd = values({"value": text}, {"value": "40", "measurand": "SoC"}, at=20, transactionId=transaction_id)
    assert await point.ask("MeterValues", odd) == {}
    _, row = await site.readings()
    assert (row["energy_wh"], row["soc_percent"]) == (None, 40)
    last = (await site.payloads("meter_reading"))[-1]
    assert list(last["measurands"]) == ["SoC"]
    assert await point.ask("StopTransaction", stop(transaction_id, meterStop=None)) == {}
    assert (await site.transaction(transaction_id))["energy_wh"] == 4000


async def test_a_reading_of_nothing_usable_is_stored_and_not_told(site: OcppSite) -> None:
    point = await site.dial()
    assert await point.ask("MeterValues", values("")) == {}
    assert len(await site.readings()) == 1
    assert await site.told() == []


async def test_signed_data_is_kept_whole(site: OcppSite) -> None:
    point = await site.dial()
    signature = "OCMF|{}|" + "ab" * 900
    transaction_id = (await point.ask("StartTransaction", start()))["transactionId"]
    signed = {"value": signature, "format": "SignedData", "context": "Transaction.End"}
    data = [{"timestamp": moment(90), "sampledValue": [signed, {"value": "25000"}]}]
    assert await point.ask("StopTransaction", stop(transaction_id, transactionData=data)) == {}
    (row,) = await site.readings()
    assert signature in row["samples"]
    assert row["energy_wh"] == 25_000
    (reading,) = await site.payloads("meter_reading")
    assert reading["measurands"]["Energy.Active.Import.Register"]["signed"] == signature
