"""Quarantine: listed, noted as dealt with, repaired and booked."""

import httpx
from msgspec.structs import replace

from csms.core import reports
from csms.ocpp.operator_repair import repaired_report
from tests.harness.api_harness import ApiHarness


async def test_quarantine_is_listed_shown_and_resolved_once(world: ApiHarness, client: httpx.AsyncClient):
    for number in range(3):
        await world.record(
            reports.Quarantined(
                charger_id="CP1",
                action="StopTransaction",
                payload=b'{"meterStop": "abc\xff"}',
                error="meterStop is no number",
                message_id=f"q{number}",
                digest=b"%d" % number,
            )
        )
    page = (await client.get("/quarantine", params={"limit": 2})).json()
    rest = (await client.get("/quarantine", params={"limit": 2, "cursor": page["nextCursor"]})).json()
    items = [*page["items"], *rest["items"]]
    assert [item["messageId"] for item in items] == ["q2", "q1", "q0"]
    assert items[0]["payload"] == '{"meterStop": "abc\ufffd"}'
    address = f"/quarantine/{items[1]['id']}"
    assert (await client.get(address)).json()["error"] == "meterStop is no number"
    done = await client.post(f"{address}/resolve", json={"note": "booked by hand"})
    assert (done.status_code, done.json()["resolution"]) == (200, "booked by hand")
    assert done.json()["resolvedAt"] is not None
    assert (await client.post(f"{address}/resolve", json={"note": "again"})).status_code == 409
    assert (await client.post(f"{address}/resolve", json={"note": ""})).status_code == 422
    assert (await client.post("/quarantine/99/resolve", json={"note": "x"})).status_code == 404
    assert (await client.get("/quarantine/" + "9" * 25)).status_code == 404
    assert len((await client.get("/quarantine")).json()["items"]) == 2
    (resolved,) = (await client.get("/quarantine", params={"resolved": "true"})).json()["items"]
    assert resolved["messageId"] == "q1"
    assert (await client.get("/quarantine", params={"charger": "CP2"})).json()["items"] == []


async def test_a_stop_is_repaired_and_corrects_the_bill(world: ApiHarness, client: httpx.AsyncClient):
    transaction_id = await world.start("CP1")
    world.later(minutes=60)
    await world.stop("CP1", transaction_id, 13_000)
    await world.stop("CP1", transaction_id, 25_000)
    (entry,) = (await client.get("/quarantine")).json()["items"]
    assert entry["ocpp"]["meterStop"] == 25_000
    address = f"/quarantine/{entry['id']}/repair"

    wrong = await client.post(address, json={"payload": {"transactionId": "x"}})
    assert (wrong.status_code, wrong.json()["type"].rpartition(":")[2]) == (422, "not-bookable")
    elsewhere = await client.post(address, json={"transactionId": 999_999})
    assert "name the one that it ended" in elsewhere.json()["detail"]

    done = await client.post(address, json={"note": "the first one was a glitch"})
    assert (done.status_code, done.json()["transactionId"]) == (200, transaction_id)
    said = done.json()["entry"]["resolution"]
    assert said.startswith("the first one was a glitch repaired by ")
    assert said.endswith(f"(booked as transaction {transaction_id})")
    assert (await client.post(address, json={})).status_code == 409
    booked = (await client.get(f"/transactions/{transaction_id}")).json()
    assert booked["energyWh"] == 24_000
    assert [event.event_type for event in world.events[-2:]] == ["updated", "session_cost"]
    assert (await client.get("/quarantine")).json()["items"] == []


async def test_what_is_no_json_wants_a_payload_and_what_is_no_transaction_cannot_be_booked(
    world: ApiHarness, client: httpx.AsyncClient
):
    for number, (action, payload) in enumerate(
        (("StopTransaction", b"{"), ("FirmwareStatusNotification", b"{}"))
    ):
        await world.record(
            reports.Quarantined(
                charger_id="CP1", action=action, payload=payload, error="?", message_id=f"q{number}"
            )
        )
    firmware, stop = (await client.get("/quarantine")).json()["items"]
    assert stop["ocpp"] is None
    nothing = await client.post(f"/quarantine/{stop['id']}/repair", json={})
    assert "send the payload as it should have been" in nothing.json()["detail"]
    no_transaction = await client.post(f"/quarantine/{firmware['id']}/repair", json={})
    assert (no_transaction.status_code, "cannot be booked" in no_transaction.text) == (422, True)
    assert (await client.post("/quarantine/99/repair", json={})).status_code == 404


async def test_an_unknown_stop_that_is_booked_unchanged_names_what_is_missing(
    world: ApiHarness, client: httpx.AsyncClient
):
    payload = {
        "transactionId": 999_999,
        "meterStop": 25_000,
        "timestamp": world.now.isoformat().replace("+00:00", "Z"),
        "reason": "Local",
    }
    order = reports.Repair(quarantine_id=0, note="")
    as_sent = repaired_report("CP1", "StopTransaction", payload, order, world.now)
    await world.record(replace(as_sent, repair=None, message_id="m1"))
    (entry,) = (await client.get("/quarantine")).json()["items"]
    assert entry["ocpp"] == payload
    address = f"/quarantine/{entry['id']}/repair"
    for body in ({}, {"payload": payload}, {"transactionId": 999_998}):
        answer = await client.post(address, json=body)
        assert (answer.status_code, "transactionId" in answer.json()["detail"]) == (422, True)
    (entry,) = (await client.get("/quarantine")).json()["items"]
    assert entry["resolvedAt"] is None
    transaction_id = await world.start("CP1")
    done = await client.post(address, json={"transactionId": transaction_id})
    assert (done.status_code, done.json()["transactionId"]) == (200, transaction_id)
