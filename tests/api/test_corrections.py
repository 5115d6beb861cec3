"""Corrections over REST: who may, what is refused, the preview, the revisions, and what they leave in database and events."""

import asyncio
import json
from typing import Any

import httpx
import pytest
from sqlalchemy import text

from csms.core.work import Policy
from csms.db.audit import AuditPeriod
from csms.service.audit import audited
from tests.harness.api_harness import ApiHarness


async def post(client: httpx.AsyncClient, transaction_id: int, action: str, **body: Any) -> httpx.Response:
    return await client.post(f"/transactions/{transaction_id}/{action}", json={"note": "by hand"} | body)


async def shown(client: httpx.AsyncClient, transaction_id: int) -> Any:
    return (await client.get(f"/transactions/{transaction_id}")).json()


@pytest.fixture(autouse=True)
async def tariff(client: httpx.AsyncClient) -> None:
    await client.put("/tariffs/default", json={"currency": "USD", "energyRate": "0.12"})


async def held(world: ApiHarness) -> int:
    """A session of 2.5 kWh by its readings, with an absurd register at its end."""
    transaction_id = await world.start("CP1")
    world.later(minutes=30)
    await world.meter("CP1", transaction_id, 3500, 5000)
    world.later(minutes=30)
    await world.stop("CP1", transaction_id, 2**32 - 1)
    return transaction_id


async def test_a_correction_is_a_revision_with_events(world: ApiHarness, client: httpx.AsyncClient):
    transaction_id = await world.session("CP1")
    answer = await post(client, transaction_id, "correct", energyWh=4000, note="  photo of the meter ")
    assert answer.status_code == 200
    corrected = answer.json()
    assert (corrected["energyWh"], corrected["energySource"], corrected["revision"]) == (4000, "operator", 2)
    assert (corrected["billing"], corrected["cost"]["amountMinor"]) == ("billed", 48)
    assert "register" not in corrected
    assert await shown(client, transaction_id) == corrected
    updated, cost = (json.loads(event.body)["payload"] for event in world.events[-2:])
    assert (updated["revision"], cost["revision"], cost["amountMinor"]) == (2, 2, 48)
    first, second = (await client.get(f"/transactions/{transaction_id}/revisions")).json()["items"]
    assert (first["revision"], first["author"], first["note"], first["before"]) == (1, "charger", None, None)
    assert (second["author"], second["note"]) == ("admin", "photo of the meter")
    assert second["recordedAt"] == world.now.isoformat().replace("+00:00", "Z")
    assert second["before"] == first["after"]
    assert (second["before"]["energyWh"], second["after"]["energyWh"]) == (5000, 4000)
    assert second["before"]["cost"] == {"amount": "0.60", "amountMinor": 60, "currency": "USD"}
    assert (second["after"]["billing"], second["after"]["durationS"]) == ("billed", 3600)


async def test_a_dry_run_answers_before_and_after_and_changes_nothing(
    world: ApiHarness, client: httpx.AsyncClient
):
    transaction_id = await world.session("CP1")
    before, events = await shown(client, transaction_id), len(world.events)
    asked = {"meterStopWh": 3000, "stoppedAt": world.now.isoformat()}
    answer = (await post(client, transaction_id, "correct", dryRun=True, **asked)).json()
    assert answer["before"] == before
    assert (answer["after"]["energyWh"], answer["after"]["cost"]["amountMinor"]) == (2000, 24)
    assert (answer["dryRun"], answer["after"]["revision"]) == (True, 2)
    assert await shown(client, transaction_id) == before
    assert len(world.events) == events
    assert (await post(client, transaction_id, "correct", dryRun=True)).status_code == 422
    done = (await post(client, transaction_id, "correct", **asked)).json()
    assert done == answer["after"]


async def test_a_held_bill_is_released_and_a_bill_voided(world: ApiHarness, client: httpx.AsyncClient):
    transaction_id = await held(world)
    before = await shown(client, transaction_id)
    assert (before["billing"], before["heldBecause"]) == ("held", ["implausible_meter_stop"])
    released = (await post(client, transaction_id, "release")).json()
    assert (released["billing"], released["heldBecause"], released["energyWh"]) == ("billed", [], 2500)
    voided = (await post(client, transaction_id, "void")).json()
    assert (voided["billing"], voided["cost"]["amount"], voided["energyWh"]) == ("void", "0.00", 2500)
    assert voided["cost"]["breakdown"] == []
    kinds = [event.event_type for event in world.events if "billing" in event.topic]
    assert kinds == ["cost_held", "session_cost", "session_cost"]
    assert json.loads(world.events[-1].body)["payload"]["void"] is True
    items = (await client.get(f"/transactions/{transaction_id}/revisions")).json()["items"]
    assert [item["after"]["billing"] for item in items] == ["held", "billed", "void"]


async def test_a_stop_by_hand_is_amended_by_the_real_one(world: ApiHarness, client: httpx.AsyncClient):
    transaction_id = await world.start("CP1")
    address = f"/transactions/{transaction_id}/revisions"
    assert (await client.get(address)).json() == {"items": []}
    world.later(minutes=30)
    at = world.now.isoformat()
    world.later(hours=30)
    stopped = (await post(client, transaction_id, "stop", meterStopWh=3000, stoppedAt=at)).json()
    assert (stopped["inferred"], stopped["energyWh"], stopped["durationS"]) == (True, 2000, 1800)
    (only,) = (await client.get(address)).json()["items"]
    assert (only["author"], only["note"], only["before"]) == ("admin", "by hand", None)
    await world.stop("CP1", transaction_id, 6000)
    amended = await shown(client, transaction_id)
    assert (amended["inferred"], amended["energyWh"], amended["revision"]) == (False, 5000, 2)
    authors = [item["author"] for item in (await client.get(address)).json()["items"]]
    assert authors == ["admin", "charger"]


async def test_a_decision_about_an_old_revision_is_409(world: ApiHarness, client: httpx.AsyncClient):
    transaction_id = await held(world)
    for action, figures in (("correct", {"energyWh": 2000}), ("release", {}), ("void", {})):
        stale = await post(client, transaction_id, action, expectedRevision=0, **figures)
        assert (stale.status_code, "its revision is 1, not 0" in stale.json()["detail"]) == (409, True)
    dry = await post(client, transaction_id, "correct", energyWh=2000, expectedRevision=2, dryRun=True)
    assert dry.status_code == 409
    both = await asyncio.gather(
        *(post(client, transaction_id, "correct", energyWh=wh, expectedRevision=1) for wh in (2000, 2100))
    )
    assert sorted(answer.status_code for answer in both) == [200, 409]
    assert (await shown(client, transaction_id))["revision"] == 2


async def test_a_transaction_that_was_never_revised_has_one_revision(
    world: ApiHarness, client: httpx.AsyncClient
):
    transaction_id = await world.session("CP1")
    (only,) = (await client.get(f"/transactions/{transaction_id}/revisions")).json()["items"]
    assert (only["revision"], only["author"], only["before"]) == (1, "charger", None)
    assert only["after"]["energyWh"] == 5000


async def test_what_does_not_fit_the_state_is_409_with_what_to_do(
    world: ApiHarness, client: httpx.AsyncClient
):
    running, ended = await world.start("CP2"), await world.session("CP1")
    for transaction_id, action, sentence in (
        (running, "correct", "stop it first"),
        (running, "release", "stop it first"),
        (running, "void", "stop it first"),
        (ended, "stop", "correct it instead"),
        (ended, "release", "not held"),
    ):
        answer = await post(client, transaction_id, action)
        assert (answer.status_code, sentence in answer.json()["detail"]) == (409, True), answer.text
    assert (await post(client, ended, "void")).status_code == 200
    assert (await post(client, ended, "void")).status_code == 409
    assert (await post(client, 999_999, "void")).status_code == 404
    assert (await client.get("/transactions/999999/revisions")).status_code == 404


@pytest.mark.parametrize(
    "body",
    [
        {"energyWh": -1},
        {"energyWh": 10**12},
        {"energyWh": 10**30},
        {"energyWh": 1.5},
        {"energyWh": True},
        {"energyWh": "4000"},
        {"energyWh": 4000, "dryRun": "false"},
        {"energyWh": 4000, "dryRun": 0},
        {"energyWh": 4000, "expectedRevision": "1"},
        {"startedAt": "2026-01-31"},
        {"startedAt": 1_700_000_000},
        {"meterStopWh": 10},
        {"stoppedAt": "2200-01-01T00:00:00Z"},
        {"stoppedAt": "0001-01-01T00:00:00+14:00"},
        {"startedAt": "1970-01-01T00:00:00Z"},
        {"energyWh": 1, "note": ""},
        {"energyWh": 1, "note": " \n "},
        {"energyWh": 1, "note": "x" * 501},
        {"energyWh": 1, "note": None},
        {"energy": 1},
        {},
    ],
)
async def test_impossible_corrections_are_422(
    world: ApiHarness, client: httpx.AsyncClient, body: dict[str, Any]
):
    transaction_id = await world.session("CP1")
    before = await shown(client, transaction_id)
    answer = await post(client, transaction_id, "correct", **body)
    assert (answer.status_code, len(answer.json()["detail"]) > 10) == (422, True)
    assert await shown(client, transaction_id) == before


async def test_a_body_that_is_no_object_or_has_an_unknown_field_is_told_what_to_send(
    world: ApiHarness, client: httpx.AsyncClient
):
    address = f"/transactions/{await world.session('CP1')}/correct"
    for body in (b"", b"null", b"[]", b"note=x"):
        answer = await client.post(address, content=body, headers={"Content-Type": "application/json"})
        assert answer.status_code in {400, 422}
        assert "JSON" in answer.json()["detail"]
    for body in (b"\xff", b'{"energyWh": 1' + 5000 * b"0" + b"}", 100_000 * b"["):
        answer = await client.post(address, content=body, headers={"Content-Type": "application/json"})
        assert (answer.status_code, "send JSON in UTF-8" in answer.json()["detail"]) == (400, True)
    plain = await client.post(address, content=b'{"note": "n"}', headers={"Content-Type": "text/plain"})
    assert (plain.status_code, "Content-Type" in plain.json()["detail"]) == (422, True)
    unknown = (await client.post(address, json={"note": "n", "energy": 1})).json()["detail"]
    assert unknown == "/energy: This request has no such field: check its spelling, or leave it out."


async def test_only_operators_revise_and_the_note_is_stored_as_it_can_be(
    world: ApiHarness, client: httpx.AsyncClient
):
    transaction_id = await world.session("CP1")
    for role in ("viewer", "operator"):
        token = (await client.post("/tokens", json={"name": role, "role": role})).json()["token"]
        own = {"Authorization": f"Bearer {token}"}
        address = f"/transactions/{transaction_id}"
        body = {"note": "nul \0 and \ud800".encode("utf-16", "surrogatepass").decode("utf-16", "replace")}
        answer = await client.post(f"{address}/void", json=body, headers=own)
        assert answer.status_code == (403 if role == "viewer" else 200)
        assert (await client.get(f"{address}/revisions", headers=own)).status_code == 200
    items = (await client.get(f"/transactions/{transaction_id}/revisions")).json()["items"]
    assert [item["author"] for item in items] == ["charger", "operator"]


async def test_the_csv_says_how_a_session_is_billed(world: ApiHarness, client: httpx.AsyncClient):
    await held(world)
    head, row = (await client.get("/transactions.csv")).text.splitlines()
    assert head.endswith(",anomalies,billing,heldBecause,accountingAt")
    assert ",held,implausible_meter_stop," in row


async def test_the_most_power_of_a_charger_bounds_its_bills(world: ApiHarness, client: httpx.AsyncClient):
    assert (await client.put("/chargers/CP1", json={"maxPowerW": 11_000})).json()["maxPowerW"] == 11_000
    assert (await client.patch("/chargers/CP1", json={"maxPowerW": 0})).status_code == 422
    transaction_id = await world.start("CP1")
    world.later(minutes=60)
    await world.stop("CP1", transaction_id, 41_000)  # 40 kWh in an hour
    assert (await shown(client, transaction_id))["heldBecause"] == ["implausible_meter_stop"]
    refused = await post(client, transaction_id, "correct", energyWh=40_000)
    assert (refused.status_code, "at 11000 W" in refused.json()["detail"]) == (422, True)
    assert (await client.patch("/chargers/CP1", json={"maxPowerW": 50_000})).json()["maxPowerW"] == 50_000
    assert (await client.get("/chargers/CP1")).json()["maxPowerW"] == 50_000
    corrected = (await post(client, transaction_id, "correct", energyWh=40_000)).json()
    assert (corrected["billing"], corrected["energyWh"]) == ("billed", 40_000)
    assert (await client.patch("/chargers/CP1", json={"maxPowerW": None})).json()["maxPowerW"] is None


async def test_the_bills_of_a_deleted_charger_are_corrected(world: ApiHarness, client: httpx.AsyncClient):
    night = {"name": "night", "start": "22:00", "end": "06:00", "energyRate": "0.10"}
    await client.put("/tariffs/default", json={"currency": "USD", "energyRate": "0.12", "bands": [night]})
    await client.put("/chargers/CP1", json={"maxPowerW": 22_000})
    corrected, released, voided = [await world.session("CP1"), await held(world), await world.session("CP1")]
    async with world.engine.begin() as db:
        await db.execute(text("DELETE FROM outbox"))
    assert (await client.delete("/chargers/CP1")).status_code == 204

    refused = await post(client, corrected, "correct", energyWh=400_000)
    assert (refused.status_code, "at 22000 W" in refused.json()["detail"]) == (422, True)
    answer = await post(client, corrected, "correct", meterStopWh=5000)
    assert (answer.status_code, answer.json()["energyWh"]) == (200, 4000)
    assert (await post(client, released, "release")).json()["billing"] == "billed"
    assert (await post(client, voided, "void")).json()["billing"] == "void"
    told = [(event.seq, event.transaction_id, event.event_type) for event in world.events[-6:]]
    assert told == [
        (seq, number, kind)
        for seq, (number, kind) in enumerate(
            ((n, k) for n in (corrected, released, voided) for k in ("updated", "session_cost")), 1
        )
    ]
    found = [one async for one in audited(world.engine, AuditPeriod(), Policy())]
    assert [(one.id, one.differences) for one in found] == [(n, ()) for n in (corrected, released, voided)]
