import httpx
import pytest

from csms.errors import ChargerBusy, ChargerOffline, ChargerRefused, ChargerTimeout, NotSupported
from tests.harness.api_harness import ApiHarness

RESET = {"action": "Reset", "payload": {"type": "Soft"}}


async def listed(client, **query):
    answer = await client.get("/chargers/CP1/commands", params=query)
    assert answer.status_code == 200, answer.text
    return answer.json()


async def test_a_command_is_written_down_with_who_asked_and_what_came(
    world: ApiHarness, client: httpx.AsyncClient
):
    await world.connect("CP1")
    answer = await client.post("/chargers/CP1/commands", json=RESET)
    (kept,) = (await listed(client))["items"]
    assert answer.headers["location"] == f"/api/v1/commands/{kept['id']}"
    assert (kept["state"], kept["response"], kept["payload"]) == (
        "answered",
        {"status": "Accepted"},
        {"type": "Soft"},
    )
    assert kept["requestedBy"] == "admin"
    assert world.asked[0][1].id == kept["id"]


@pytest.mark.parametrize(
    ("error", "status", "state"),
    [
        (ChargerOffline("gone"), 409, "not_sent"),
        (ChargerBusy("busy"), 504, "not_sent"),
        (ChargerTimeout("silent"), 504, "no_answer"),
        (ChargerRefused("InternalError", "why"), 502, "refused"),
        (NotSupported("none"), 501, "failed"),
    ],
)
async def test_every_failure_is_written_down(
    world: ApiHarness, client: httpx.AsyncClient, error, status, state
):
    await world.connect("CP1")
    world.answer = error
    assert (await client.post("/chargers/CP1/commands", json=RESET)).status_code == status
    (kept,) = (await listed(client))["items"]
    refusal = {"code": "InternalError", "description": "why", "details": {}} if state == "refused" else None
    assert (kept["state"], kept["error"], kept["response"]) == (state, str(error), refusal)


async def test_commands_are_paged_and_filtered(world: ApiHarness, client: httpx.AsyncClient):
    await world.connect("CP1")
    for number in range(3):
        await client.post("/chargers/CP1/commands", json=RESET | {"timeoutS": number + 1})
    await client.post("/chargers/CP1/commands", json={"action": "ClearCache", "queue": True})
    first = await listed(client, limit=3)
    second = await listed(client, limit=3, cursor=first["nextCursor"])
    assert [item["action"] for item in first["items"]] == ["ClearCache", "Reset", "Reset"]
    assert (len(second["items"]), second["nextCursor"]) == (1, None)
    assert [item["action"] for item in (await listed(client, state="waiting"))["items"]] == ["ClearCache"]
    assert len((await listed(client, action="Reset"))["items"]) == 3


async def test_a_queued_command_is_told_to_the_node_and_can_be_cancelled(
    world: ApiHarness, client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
):
    await world.connect("CP1")
    nudged = []
    monkeypatch.setattr(world.node.dispatcher, "nudge", lambda: nudged.append(True))
    answer = await client.post("/chargers/CP1/commands", json=RESET | {"queue": True, "expiresInS": 60})
    assert (answer.status_code, nudged, world.asked) == (202, [True], [])
    place = answer.headers["location"].removeprefix("/api/v1")
    assert (await client.delete(place)).json()["state"] == "cancelled"
    assert (await client.delete(place)).status_code == 409
    assert (await client.get(place)).json()["state"] == "cancelled"


async def test_addresses_in_a_waiting_command_are_shown_without_their_password(
    world: ApiHarness, client: httpx.AsyncClient
):
    await world.connect("CP1")
    payload = {"location": "ftp://me:secret@host/f"}
    body = {"action": "GetDiagnostics", "payload": payload, "queue": True}
    answer = await client.post("/chargers/CP1/commands", json=body)
    assert answer.json()["payload"] == {"location": "ftp://***@host/f"}


@pytest.mark.parametrize(
    "path",
    [
        "commands",
        "configuration",
        "local-list",
        "reservations",
        "charging-profiles",
        "jobs",
        "availability",
        "capabilities",
        "data-transfers",
    ],
)
async def test_of_an_unknown_charger_there_is_nothing(client: httpx.AsyncClient, path: str):
    assert (await client.get(f"/chargers/unknown/{path}")).status_code == 404


async def test_nothing_is_remembered_of_a_new_charger(world: ApiHarness, client: httpx.AsyncClient):
    await world.connect("CP1")
    for path in (
        "configuration",
        "reservations",
        "charging-profiles",
        "jobs",
        "availability",
        "data-transfers",
    ):
        assert (await client.get(f"/chargers/CP1/{path}")).json()["items"] == []
    shown = (await client.get("/chargers/CP1/local-list")).json()
    assert (shown["wanted"], shown["inSync"], shown["updates"]) == (None, None, [])


async def test_a_list_with_a_tag_twice_is_refused(world: ApiHarness, client: httpx.AsyncClient):
    await world.connect("CP1")
    entries = [{"idTag": "a"}, {"idTag": "A"}]
    answer = await client.put("/chargers/CP1/local-list", json={"entries": entries})
    assert answer.status_code == 422
    assert world.asked == []
