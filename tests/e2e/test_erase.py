"""`csms erase` beside a running node: the person is gone, the bills and their audit are as before."""

import json
from typing import Any

import pytest

from tests.e2e.conftest import Node
from tests.e2e.test_cli import csms
from tests.harness.charge_points.raw import RawChargePoint
from tests.harness.stored_text import columns_with

pytestmark = pytest.mark.timeout(180)
ALICE, BOB = "04E8A1B2C3D4", "04FFFFFFFFFF"
BILLS = "SELECT id, energy_wh, cost_minor, started_at, stopped_at, revision, billing FROM transactions ORDER BY id"


async def session(point: RawChargePoint, id_tag: str, hour: int, energy_wh: int, **stop: Any) -> int:
    start = {
        "connectorId": 1,
        "idTag": id_tag,
        "meterStart": 1000 * hour,
        "timestamp": f"2026-11-30T{hour:02}:00:00Z",
    }
    await point.ask("Authorize", {"idTag": id_tag})
    number: int = (await point.ask("StartTransaction", start))["transactionId"]
    reading = {"timestamp": f"2026-11-30T{hour:02}:10:00Z", "sampledValue": [{"value": str(1000 * hour + 1)}]}
    await point.ask("MeterValues", {"connectorId": 1, "transactionId": number, "meterValue": [reading]})
    await point.ask(
        "StopTransaction",
        {
            "transactionId": number,
            "meterStop": 1000 * hour + energy_wh,
            "timestamp": f"2026-11-30T{hour:02}:30:00Z",
            "idTag": id_tag,
            **stop,
        },
    )
    return number


async def events(node: Node) -> list[dict[str, Any]]:
    response = await node.api.get("/api/v1/events", params={"clientId": "CP-ERASE", "afterSeq": 0})
    found: list[dict[str, Any]] = response.json()
    return found


async def test_a_person_is_erased_and_the_bills_stay(node: Node) -> None:
    point = await RawChargePoint.dial(node.ocpp, "CP-ERASE")
    await point.boot()
    try:
        status = {
            "connectorId": 1,
            "status": "Faulted",
            "errorCode": "OtherError",
            "info": f"card {ALICE} refused",
        }
        await point.ask("StatusNotification", status)
        await point.ask("DataTransfer", {"vendorId": "V", "data": json.dumps({"user": ALICE})})
        first = await session(point, ALICE, 8, 500)
        second = await session(point, ALICE.lower(), 9, 700)
        await session(point, BOB, 10, 900)
        await node.api.put(f"/api/v1/tags/{ALICE}", json={"status": "Accepted"})
        note = {"note": f"meter of {ALICE} was read", "energyWh": 600}
        assert (await node.api.post(f"/api/v1/transactions/{first}/correct", json=note)).is_success
        running = await point.ask(
            "StartTransaction",
            {"connectorId": 1, "idTag": ALICE, "meterStart": 20000, "timestamp": "2026-11-30T12:00:00Z"},
        )

        refused = await csms("erase", ALICE, "--yes", database=node.database_url)
        assert refused[0] == 1
        assert "is charging" in refused[2]
        await point.ask(
            "StopTransaction",
            {
                "transactionId": running["transactionId"],
                "meterStop": 20500,
                "timestamp": "2026-11-30T12:30:00Z",
            },
        )
        await node.until(lambda: len(node.of("session_cost", "CP-ERASE")) >= 5)
        bills, told = await node.fetch(BILLS), await events(node)
        audited = await csms("audit", database=node.database_url)
        assert audited[0] == 0, audited

        status_code, counted, _ = await csms("erase", ALICE, "--dry-run", database=node.database_url)
        assert status_code == 0
        assert "transactions\t3\n" in counted
        assert await columns_with(node.database_url, ALICE)
        # Without an answer nothing happens.
        assert (await csms("erase", ALICE, database=node.database_url))[0] == 1
        status_code, done, _ = await csms("erase", ALICE, "--yes", database=node.database_url)
        assert status_code == 0
        pseudonym = done.splitlines()[-1].removeprefix("erased: ")
        assert done.splitlines()[:-1] == counted.splitlines()

        assert await columns_with(node.database_url, ALICE) == []
        assert await node.fetch(BILLS) == bills
        assert await csms("audit", database=node.database_url) == audited
        replayed = await events(node)
        assert [one["eventId"] for one in replayed] == [one["eventId"] for one in told]
        assert replayed == json.loads(
            json.dumps(told).replace(ALICE, pseudonym).replace(ALICE.lower(), pseudonym)
        )
        tags = await node.fetch("SELECT id, id_tag, stop_id_tag FROM transactions ORDER BY id")
        assert [(t["id_tag"], t["stop_id_tag"]) for t in tags] == [
            (pseudonym, pseudonym),
            (pseudonym, pseudonym),
            (BOB, BOB),
            (pseudonym, None),
        ]
        assert second in {t["id"] for t in tags}
        assert (await node.api.get(f"/api/v1/tags/{pseudonym}")).json()["status"] == "Blocked"
        again = await csms("erase", ALICE, "--yes", database=node.database_url)
        assert again == (0, "", "")
    finally:
        await point.close()


@pytest.mark.parametrize("wrong", [[], ["A", "--account", "B"]], ids=str)
async def test_either_an_id_tag_or_an_account_is_named(wrong: list[str]) -> None:
    status, _, errors = await csms("erase", *wrong, "--yes")
    assert status == 2
    assert "--account" in errors
