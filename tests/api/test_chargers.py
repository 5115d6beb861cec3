"""Chargers over REST: what is shown, registered, changed, forgotten; commands and their errors."""

from typing import Any

import httpx
import pytest
from sqlalchemy import select, text

from csms.core import reports
from csms.core.passwords import verify_password
from csms.db import tables
from csms.errors import (
    ChargerOffline,
    ChargerRefused,
    ChargerTimeout,
    CommandError,
    InvalidCommand,
    NotSupported,
    UnknownCharger,
)
from tests.harness.api_harness import ApiHarness
from tests.harness.narrowing import present


async def test_a_charger_is_shown_with_connectors_status_and_running_transaction(
    world: ApiHarness, client: httpx.AsyncClient
):
    await world.connect("CP1")
    await world.status("CP1", 0, "Available")
    await world.status("CP1", 1, "Charging")
    await world.status("CP1", 2, "Available")
    transaction_id = await world.start("CP1")
    await world.meter("CP1", transaction_id, 1500, 7000)
    charger = (await client.get("/chargers/CP1")).json()
    assert charger["online"] is True
    assert charger["status"] == "Charging"
    assert charger["protocol"] == "ocpp1.6"
    assert charger["enrollment"] == "Accepted"
    assert (charger["vendor"], charger["serialNumber"]) == ("Acme", "S-1")
    assert charger["hasPassword"] is False
    assert charger["lastSeenAt"] == world.now.isoformat().replace("+00:00", "Z")
    whole, first, second = charger["connectors"]
    assert (whole["connectorId"], second["status"], second["transactionId"]) == (0, "Available", None)
    assert first["transactionId"] == transaction_id
    assert (first["energyWh"], first["powerW"]) == (1500, 7000)


async def test_the_list_is_filtered_and_paged(world: ApiHarness, client: httpx.AsyncClient):
    for number in range(5):
        await world.record(reports.Connected(charger_id=f"CP{number}", node="n1"))
    await world.record(reports.Disconnected(charger_id="CP3", node="n1", generation=1))
    await client.patch("/chargers/CP4", json={"enrollment": "Rejected", "displayName": "100% Nord_"})
    seen, cursor = [], None
    for _ in range(10):
        page = (
            await client.get("/chargers", params={"limit": 2} | ({"cursor": cursor} if cursor else {}))
        ).json()
        seen += [item["id"] for item in page["items"]]
        cursor = page["nextCursor"]
        if cursor is None:
            break
    assert seen == ["CP0", "CP1", "CP2", "CP3", "CP4"]

    async def ids(**params: Any) -> list[str]:
        return [item["id"] for item in (await client.get("/chargers", params=params)).json()["items"]]

    assert await ids(online="false") == ["CP3"]
    assert await ids(enrollment="Rejected") == ["CP4"]
    assert await ids(q="cp2") == ["CP2"]
    assert await ids(q="0% nord_") == ["CP4"]
    assert await ids(q="%") == ["CP4"]
    assert await ids(q="' OR 1=1 --") == []


async def test_registering_ahead_of_time_stores_a_hash_of_the_password(
    world: ApiHarness, client: httpx.AsyncClient
):
    key = "0123456789abcdef0123456789abcdef01234567"
    answer = await client.put("/chargers/NEW1", json={"password": key, "timeZone": "Europe/Kyiv"})
    assert answer.status_code == 201
    assert answer.json()["hasPassword"] is True
    assert answer.json()["online"] is False
    assert key not in answer.text
    async with world.engine.connect() as db:
        stored = await db.scalar(select(tables.chargers.c.password_hash))
    assert verify_password(bytes.fromhex(key), present(stored))
    again = await client.put("/chargers/NEW1", json={"displayName": "Yard", "heartbeatIntervalS": 60})
    assert again.status_code == 200
    assert again.json()["hasPassword"] is True
    assert again.json()["timeZone"] == "Europe/Kyiv"
    without = await client.patch("/chargers/NEW1", json={"password": None})
    assert without.json()["hasPassword"] is False
    assert without.json()["displayName"] == "Yard"


async def test_a_registered_charger_keeps_its_settings_when_it_boots(
    world: ApiHarness, client: httpx.AsyncClient
):
    await client.put("/tariffs/night", json={"currency": "EUR", "energyRate": "0.10"})
    await client.put("/chargers/NEW1", json={"tariffId": "night", "heartbeatIntervalS": 77})
    await world.record(reports.Connected(charger_id="NEW1", node="n1"))
    booted = await world.record(reports.Boot(charger_id="NEW1", vendor="Acme", model="Two"))
    assert (booted.status, booted.interval_s) == ("Accepted", 77)
    charger = (await client.get("/chargers/NEW1")).json()
    assert (charger["tariffId"], charger["model"]) == ("night", "Two")
    transaction_id = await world.start("NEW1")
    assert (await client.get(f"/transactions/{transaction_id}")).json()["tariff"]["id"] == "night"


async def test_enrollment_decides_the_next_boot(world: ApiHarness, client: httpx.AsyncClient):
    await world.connect("CP1")
    await client.patch("/chargers/CP1", json={"enrollment": "Rejected"})
    assert (await world.record(reports.Boot(charger_id="CP1"))).status == "Rejected"
    await client.patch("/chargers/CP1", json={"enrollment": "Accepted"})
    assert (await world.record(reports.Boot(charger_id="CP1"))).status == "Accepted"


@pytest.mark.parametrize(
    "body",
    [
        {"enrollment": "Maybe"},
        {"heartbeatIntervalS": 0},
        {"timeZone": "Mars/Olympus"},
        {"displayName": "a\u0000b"},
        {"password": "short"},
        {"nonsense": 1},
        [],
    ],
)
async def test_settings_that_cannot_be_are_refused(client: httpx.AsyncClient, body: object):
    answer = await client.put("/chargers/CP1", json=body)
    assert answer.status_code in {400, 422}
    assert answer.headers["content-type"] == "application/problem+json"
    assert "short" not in answer.text.replace("should", "")
    assert (await client.get("/chargers/CP1")).status_code == 404


async def test_half_a_surrogate_pair_is_refused(client: httpx.AsyncClient):
    body = b'{"displayName": "\\ud800"}'
    answer = await client.put("/chargers/CP1", content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code in {400, 422}


async def test_an_unknown_tariff_is_refused(client: httpx.AsyncClient):
    answer = await client.put("/chargers/CP1", json={"tariffId": "none"})
    assert answer.status_code == 409
    assert "none" in answer.json()["detail"]
    assert (await client.get("/chargers/CP1")).status_code == 404


async def test_identities_with_odd_characters_work(world: ApiHarness, client: httpx.AsyncClient):
    for charger_id, path in (("A/B", "A%2FB"), ("o'neil; --", "o'neil;%20--"), ("Зарядка 1", "Зарядка 1")):
        await world.connect(charger_id)
        assert (await client.get(f"/chargers/{path}")).json()["id"] == charger_id
        answer = await client.post(f"/chargers/{path}/commands", json={"action": "ClearCache"})
        assert answer.json() == {"response": {"status": "Accepted"}}
        assert (await client.get(f"/chargers/{path}/messages")).status_code == 200
        assert world.asked[-1][0] == charger_id


@pytest.mark.parametrize(
    "part", ["availability", "configuration", "commands", "messages", "certificates", "plan", "deviations"]
)
async def test_a_part_of_a_charger_and_a_charger_of_that_name_are_kept_apart(
    world: ApiHarness, client: httpx.AsyncClient, part: str
):
    await world.connect("CP1")
    for method in ("PUT", "PATCH", "DELETE"):
        answer = await client.request(method, f"/chargers/CP1/{part}", json={})
        if (method, part) not in {("PUT", "plan"), ("DELETE", "plan")}:
            assert answer.status_code == 405, answer.text
    assert [c["id"] for c in (await client.get("/chargers")).json()["items"]] == ["CP1"]
    assert (await client.put(f"/chargers/CP1%2F{part}", json={})).json()["id"] == f"CP1/{part}"
    assert (await client.get(f"/chargers/CP1%2f{part}")).json()["id"] == f"CP1/{part}"
    # A part of that charger.
    assert (await client.get(f"/chargers/CP1%2F{part}/deviations")).json() == {"items": []}


@pytest.mark.parametrize("identity", ["%20CP1", "CP1%20", "Sa%CC%88ule", "%2E%2E", "%C3%A4" * 128, "a%0Ab"])
async def test_an_identity_that_looks_like_another_is_not_registered(
    client: httpx.AsyncClient, identity: str
):
    answer = await client.put(f"/chargers/{identity}", json={})
    assert answer.status_code == 422
    assert answer.json()["detail"].startswith("The id ")
    assert (await client.get("/chargers")).json()["items"] == []


@pytest.mark.parametrize("path", ["NOPE", "a%00b", "%FF", "x" * 200, "a%0Ab"])
async def test_an_unknown_charger_is_404_everywhere(client: httpx.AsyncClient, path: str):
    for answer in (
        await client.get(f"/chargers/{path}"),
        await client.patch(f"/chargers/{path}", json={"displayName": "x"}),
        await client.delete(f"/chargers/{path}"),
        await client.get(f"/chargers/{path}/messages"),
        await client.get(f"/chargers/{path}/deviations"),
        await client.post(f"/chargers/{path}/commands", json={"action": "ClearCache"}),
    ):
        assert answer.status_code == 404, answer.text
        assert answer.json()["status"] == 404
        assert answer.headers["content-type"] == "application/problem+json"


async def test_a_charger_is_forgotten_with_its_log_but_not_its_transactions(
    world: ApiHarness, client: httpx.AsyncClient
):
    await world.connect("CP1")
    transaction_id = await world.session("CP1")
    assert (await client.delete("/chargers/CP1")).status_code == 409
    await world.record(reports.Disconnected(charger_id="CP1", node="n1", generation=1))
    waiting = await client.delete("/chargers/CP1")
    assert waiting.status_code == 409
    assert "broker" in waiting.json()["detail"]
    async with world.engine.begin() as db:
        await db.execute(text("DELETE FROM outbox"))
    assert (await client.delete("/chargers/CP1")).status_code == 204
    assert (await client.get("/chargers/CP1")).status_code == 404
    assert (await client.get(f"/transactions/{transaction_id}")).json()["energyWh"] == 5000
    await world.connect("CP1")
    await world.session("CP1")
    assert [event.seq for event in world.events[-4:]] == [1, 2, 3, 4]


async def test_a_charging_charger_is_not_forgotten(world: ApiHarness, client: httpx.AsyncClient):
    await world.connect("CP1")
    await world.start("CP1")
    await world.record(reports.Disconnected(charger_id="CP1", node="n1", generation=1))
    answer = await client.delete("/chargers/CP1")
    assert answer.status_code == 409
    assert "transaction" in answer.json()["detail"]


async def test_deviations_are_counted(world: ApiHarness, client: httpx.AsyncClient):
    deviated = reports.Deviated(
        charger_id="CP1",
        action="MeterValues",
        deviations=[reports.Deviation(field="timestamp", kind="no_zone", detail="2026-01-01T00:00:00")],
    )
    await world.record(deviated)
    await world.record(deviated)
    (item,) = (await client.get("/chargers/CP1/deviations")).json()["items"]
    assert (item["action"], item["field"], item["kind"], item["count"]) == (
        "MeterValues",
        "timestamp",
        "no_zone",
        2,
    )


# --- commands --------------------------------------------------------------------------------------------


async def test_a_command_is_answered_with_the_chargers_own_payload(
    world: ApiHarness, client: httpx.AsyncClient
):
    await world.connect("CP1")
    world.answer = {"status": "Accepted", "vendorThing": [1, {"deep": None}]}
    answer = await client.post(
        "/chargers/CP1/commands", json={"action": "Reset", "payload": {"type": "Soft"}, "timeoutS": 5}
    )
    assert answer.status_code == 200
    assert answer.json() == {"response": world.answer}
    ((charger_id, command),) = world.asked
    assert (charger_id, command.action, command.payload, command.timeout_s) == (
        "CP1",
        "Reset",
        {"type": "Soft"},
        5,
    )


async def test_a_command_that_breaks_the_schema_is_not_sent(world: ApiHarness, client: httpx.AsyncClient):
    await world.connect("CP1")
    answer = await client.post(
        "/chargers/CP1/commands", json={"action": "Reset", "payload": {"type": "Warm"}}
    )
    assert answer.status_code == 422
    assert answer.json()["errors"] == [{"detail": "type: 'Warm' is not one of Hard, Soft"}]
    assert world.asked == []


@pytest.mark.parametrize("body", [{}, {"action": ""}, {"action": "Reset", "payload": []}, {"action": 1}, "x"])
async def test_a_request_that_is_no_command_is_not_sent(
    world: ApiHarness, client: httpx.AsyncClient, body: object
):
    await world.connect("CP1")
    assert (await client.post("/chargers/CP1/commands", json=body)).status_code == 422
    assert world.asked == []


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (UnknownCharger("unknown"), 404),
        (ChargerOffline("not connected"), 409),
        (ChargerTimeout("30 s"), 504),
        (NotSupported("a coin-op station has no ClearCache"), 501),
        (InvalidCommand(["no"]), 422),
        (CommandError(), 502),
    ],
)
async def test_what_a_command_fails_with_is_a_status(
    world: ApiHarness, client: httpx.AsyncClient, error: Exception, status: int
):
    await world.connect("CP1")
    world.answer = error
    answer = await client.post("/chargers/CP1/commands", json={"action": "ClearCache"})
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    assert {"type", "title", "status", "detail"} <= answer.json().keys()


async def test_a_callerror_comes_with_code_description_and_details(
    world: ApiHarness, client: httpx.AsyncClient
):
    await world.connect("CP1")
    world.answer = ChargerRefused("NotImplemented", "never heard of it", {"why": 7})
    answer = await client.post("/chargers/CP1/commands", json={"action": "ClearCache"})
    assert answer.status_code == 502
    problem = answer.json()
    assert (problem["errorCode"], problem["errorDescription"]) == ("NotImplemented", "never heard of it")
    assert problem["errorDetails"] == {"why": 7}


async def test_only_an_administrator_gives_up_a_security_profile(client: httpx.AsyncClient):
    made = (await client.post("/tokens", json={"name": "op", "role": "operator"})).json()
    operator = {"Authorization": f"Bearer {made['token']}"}
    await client.put("/chargers/CP1", json={"password": "0123456789abcdef", "securityProfile": 2})
    for body in ({"securityProfile": 1}, {"securityProfile": None}, {"securityProfile": 0, "password": None}):
        for method in ("PUT", "PATCH"):
            refused = await client.request(method, "/chargers/CP1", json=body, headers=operator)
            assert refused.status_code == 403, (method, body)
            assert "To give up security profile 2 of 'CP1' needs the role admin" in refused.json()["detail"]
    assert (await client.delete("/chargers/CP1", headers=operator)).status_code == 403
    kept = (await client.get("/chargers/CP1")).json()
    assert (kept["securityProfile"], kept["hasPassword"]) == (2, True)

    raised = await client.patch("/chargers/CP1", json={"securityProfile": 3}, headers=operator)
    assert raised.status_code == 200
    new_key = {"password": "fedcba9876543210"}
    assert (await client.patch("/chargers/CP1", json=new_key, headers=operator)).status_code == 200
    assert (await client.patch("/chargers/CP1", json={"securityProfile": None})).status_code == 200
    # Without a number the password requires profile 1.
    without = await client.patch("/chargers/CP1", json={"password": None}, headers=operator)
    assert without.status_code == 403
    assert (await client.patch("/chargers/CP1", json={"password": None})).status_code == 200
    assert (await client.delete("/chargers/CP1", headers=operator)).status_code == 204
    assert (await client.delete("/chargers/CP1", headers=operator)).status_code == 404
