"""Tags, tariffs, tokens over REST."""

import asyncio
import hashlib
from collections import Counter
from datetime import UTC, datetime, timedelta

import httpx
import pytest
from sqlalchemy import func, select, update

from csms.core import reports
from csms.db import tables
from csms.service.access import digest_of
from tests.harness.api_harness import ApiHarness
from tests.harness.command_line import Ran, Told
from tests.harness.ledger_harness import connected


async def test_a_tag_is_made_replaced_changed_and_deleted_whatever_its_case(client: httpx.AsyncClient):
    made = await client.put(
        "/tags/Abc123",
        json={
            "status": "Accepted",
            "expiryDate": "2030-01-01T00:00:00+02:00",
            "parentIdTag": "FAMILY",
            "maxActiveTransactions": 1,
        },
    )
    assert made.status_code == 201
    assert made.json()["idTag"] == "Abc123"
    assert made.json()["expiryDate"] == "2029-12-31T22:00:00Z"
    assert (await client.get("/tags/aBC123")).json()["parentIdTag"] == "FAMILY"
    changed = await client.patch("/tags/ABC123", json={"status": "Blocked"})
    assert (changed.json()["status"], changed.json()["parentIdTag"]) == ("Blocked", "FAMILY")
    replaced = await client.put("/tags/abc123", json={"status": "Accepted"})
    assert replaced.status_code == 200
    assert replaced.json()["idTag"] == "Abc123"
    assert replaced.json()["parentIdTag"] is None
    assert len((await client.get("/tags")).json()["items"]) == 1
    assert (await client.delete("/tags/ABC123")).status_code == 204
    assert (await client.get("/tags/abc123")).status_code == 404
    assert (await client.delete("/tags/abc123")).status_code == 404
    assert (await client.patch("/tags/abc123", json={})).status_code == 404


async def test_a_tag_decides_who_may_charge(world: ApiHarness, client: httpx.AsyncClient):
    await client.put("/tags/BAD", json={"status": "Blocked"})
    answer = await world.record(reports.Authorize(charger_id="CP1", id_tag="bad"))
    assert answer.status == "Blocked"


async def test_tags_are_paged_and_searched(client: httpx.AsyncClient):
    for tag in ("b", "A", "c_1", "D", "ä"):
        await client.put(f"/tags/{tag}", json={})
    seen, cursor = [], None
    for _ in range(10):
        page = (
            await client.get("/tags", params={"limit": 2} | ({"cursor": cursor} if cursor else {}))
        ).json()
        seen += [item["idTag"] for item in page["items"]]
        cursor = page["nextCursor"]
        if cursor is None:
            break
    assert seen == ["A", "b", "c_1", "D", "ä"]
    found = (await client.get("/tags", params={"q": "_"})).json()["items"]
    assert [item["idTag"] for item in found] == ["c_1"]


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("x", {"status": "ConcurrentTx"}),
        ("x", {"expiryDate": "2030-01-01T00:00:00"}),
        ("x", {"maxActiveTransactions": -1}),
        ("x", {"parentIdTag": ""}),
        ("x", {"what": 1}),
        ("x" * 65, {}),
        ("a%00b", {}),
    ],
)
async def test_tags_that_cannot_be_are_refused(client: httpx.AsyncClient, path: str, body: dict[str, object]):
    answer = await client.put(f"/tags/{path}", json=body)
    assert answer.status_code == 422
    assert answer.headers["content-type"] == "application/problem+json"


async def test_a_tariffs_version_rises_with_its_prices_only(world: ApiHarness, client: httpx.AsyncClient):
    body = {"currency": "EUR", "energyRate": "0.35", "sessionFee": 1}
    made = await client.put("/tariffs/day", json=body)
    assert (made.status_code, made.json()["version"]) == (201, 1)
    assert made.json()["energyRate"] == "0.35"
    same = await client.put("/tariffs/day", json=body)
    assert (same.status_code, same.json()["version"]) == (200, 1)
    changed = await client.patch("/tariffs/day", json={"timeRate": 0.02})
    assert (changed.json()["version"], changed.json()["timeRate"]) == (2, "0.02")
    assert changed.json()["sessionFee"] == "1"
    async with world.engine.connect() as db:
        assert await db.scalar(select(tables.tariffs.c.version)) == 2
    assert [item["id"] for item in (await client.get("/tariffs")).json()["items"]] == ["day"]


async def test_a_transaction_keeps_the_prices_it_started_under(world: ApiHarness, client: httpx.AsyncClient):
    await client.put("/tariffs/day", json={"currency": "EUR", "energyRate": "0.50"})
    await client.put("/chargers/CP1", json={"tariffId": "day"})
    transaction_id = await world.start("CP1")
    await client.put("/tariffs/day", json={"currency": "EUR", "energyRate": "9"})
    world.later(hours=1)
    await world.stop("CP1", transaction_id, 11_000)
    transaction = (await client.get(f"/transactions/{transaction_id}")).json()
    assert (transaction["cost"]["amount"], transaction["tariff"]["version"]) == ("5.00", 1)


async def test_a_tariff_in_use_is_not_deleted(client: httpx.AsyncClient):
    await client.put("/tariffs/day", json={"currency": "EUR"})
    await client.put("/chargers/CP1", json={"tariffId": "day"})
    assert (await client.delete("/tariffs/day")).status_code == 409
    await client.patch("/chargers/CP1", json={"tariffId": None})
    assert (await client.delete("/tariffs/day")).status_code == 204
    assert (await client.delete("/tariffs/day")).status_code == 404
    assert (await client.get("/tariffs/day")).status_code == 404
    assert (await client.patch("/tariffs/day", json={})).status_code == 404


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"currency": "euro"},
        {"currency": "EUR", "energyRate": -1},
        {"currency": "EUR", "energyRate": "NaN"},
        {"currency": "EUR", "energyRate": "1e30"},
        {"currency": "EUR", "energyRate": "0.12345678"},
    ],
)
async def test_tariffs_that_cannot_be_are_refused(client: httpx.AsyncClient, body: dict[str, object]):
    assert (await client.put("/tariffs/t", json=body)).status_code == 422


# --- tokens and roles ------------------------------------------------------------------------------------


async def _token(client: httpx.AsyncClient, role: str) -> tuple[int, dict[str, str]]:
    made = (await client.post("/tokens", json={"name": role, "role": role})).json()
    return made["id"], {"Authorization": f"Bearer {made['token']}"}


async def test_a_token_is_shown_once_and_stored_as_a_digest(world: ApiHarness, client: httpx.AsyncClient):
    made = await client.post("/tokens", json={"name": "grafana"})
    assert (made.status_code, made.json()["role"]) == (201, "viewer")
    secret = made.json()["token"]
    async with world.engine.connect() as db:
        stored = await db.scalar(select(tables.tokens.c.digest))
    assert stored == hashlib.sha256(secret.encode()).digest() == digest_of(secret)
    listed = await client.get("/tokens")
    assert secret not in listed.text
    assert [item["name"] for item in listed.json()["items"]] == ["grafana"]
    assert (await client.get(f"/tokens/{made.json()['id']}")).json()["name"] == "grafana"


@pytest.mark.parametrize("name", ["charger", "csms", "audit", " CSMS "])
async def test_a_token_is_not_named_as_the_author_of_revisions_that_no_operator_made(
    client: httpx.AsyncClient, name: str
):
    refused = await client.post("/tokens", json={"name": name, "role": "operator"})
    assert refused.status_code == 422
    assert "revisions that no operator made" in refused.text
    assert (await client.post("/tokens", json={"name": "csms-billing"})).status_code == 201


async def test_a_revoked_token_is_refused_and_its_name_free_again(client: httpx.AsyncClient):
    token_id, headers = await _token(client, "viewer")
    assert (await client.get("/chargers", headers=headers)).status_code == 200
    assert (await client.post("/tokens", json={"name": "viewer"})).status_code == 409
    assert (await client.delete(f"/tokens/{token_id}")).status_code == 204
    assert (await client.delete(f"/tokens/{token_id}")).status_code == 204
    refused = await client.get("/chargers", headers=headers)
    assert refused.status_code == 401
    assert "invalid_token" in refused.headers["www-authenticate"]
    assert (await client.get(f"/tokens/{token_id}")).json()["revokedAt"] is not None
    assert (await client.post("/tokens", json={"name": "viewer"})).status_code == 201
    assert (await client.delete("/tokens/4711")).status_code == 404
    assert (await client.get("/tokens/99999999999")).status_code == 404


async def test_a_token_expires(world: ApiHarness, client: httpx.AsyncClient):
    ends = world.now + timedelta(hours=1)
    body = {"name": "brief", "expiresAt": ends.isoformat()}
    made = (await client.post("/tokens", json=body)).json()
    headers = {"Authorization": f"Bearer {made['token']}"}
    assert datetime.fromisoformat(made["expiresAt"]) == ends
    assert (await client.get("/chargers", headers=headers)).status_code == 200
    world.later(hours=1)
    assert (await client.get("/chargers", headers=headers)).status_code == 401
    assert (await client.post("/tokens", json=body)).status_code == 422
    assert (
        await client.post("/tokens", json={"name": "x", "expiresAt": "2040-01-01T00:00:00"})
    ).status_code == 422


async def test_the_name_of_an_expired_or_revoked_token_is_free_and_the_list_keeps_it(
    world: ApiHarness, client: httpx.AsyncClient
):
    first, _ = await _token(client, "viewer")
    await client.delete(f"/tokens/{first}")
    second, _ = await _token(client, "viewer")
    async with world.engine.begin() as db:
        await db.execute(
            update(tables.tokens)
            .where(tables.tokens.c.id == second)
            .values(expires_at=func.now() - timedelta(seconds=1))
        )
    third, _ = await _token(client, "viewer")
    listed = (await client.get("/tokens")).json()["items"]
    assert [(token["id"], token["revokedAt"] is None) for token in listed] == [
        (first, False),
        (second, False),
        (third, True),
    ]
    valid = (await client.get("/tokens", params={"revoked": "false"})).json()["items"]
    assert [token["id"] for token in valid] == [third]
    assert len((await client.get("/tokens", params={"revoked": "true"})).json()["items"]) == 2


async def test_the_last_use_of_a_token_is_written_once_a_minute(world: ApiHarness, client: httpx.AsyncClient):
    token_id, headers = await _token(client, "viewer")

    async def used() -> datetime | None:
        world.context.access.forget()
        await client.get("/chargers", headers=headers)
        stored = (await client.get(f"/tokens/{token_id}")).json()["lastUsedAt"]
        return None if stored is None else datetime.fromisoformat(stored)

    assert (await client.get(f"/tokens/{token_id}")).json()["lastUsedAt"] is None
    first = world.now
    assert await used() == first
    world.later(seconds=59)
    assert await used() == first
    world.later(seconds=1)
    assert await used() == world.now


async def test_a_token_reads_while_its_use_cannot_be_written(
    world: ApiHarness, client: httpx.AsyncClient, database_url: str
):
    _, headers = await _token(client, "viewer")
    async with connected(database_url) as db:
        name = await db.fetchval("SELECT current_database()")
        await db.execute(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
    await world.engine.dispose()
    assert (await client.get("/chargers", headers=headers)).status_code == 200


async def test_wrong_tokens_are_limited_and_the_right_one_works(world: ApiHarness, client: httpx.AsyncClient):
    _, headers = await _token(client, "viewer")
    answers = await asyncio.gather(
        *(client.get("/chargers", headers={"Authorization": f"Bearer guess-{n}"}) for n in range(160))
    )
    assert Counter(answer.status_code for answer in answers) == {401: 10, 429: 150}
    refused = next(answer for answer in answers if answer.status_code == 429)
    assert 1 <= int(refused.headers["retry-after"]) <= 60
    assert refused.headers["content-type"] == "application/problem+json"
    assert (await client.get("/chargers", headers=headers)).status_code == 200
    assert (await client.get("/chargers")).status_code == 200


async def test_tokens_on_the_command_line(did: Told, ran: Ran, client: httpx.AsyncClient):
    await did("tokens", "add", "ci", "--role", "operator", "--expires", "90d")
    ci = (await client.get("/tokens")).json()["items"][0]
    assert (datetime.fromisoformat(ci["expiresAt"]) - datetime.now(UTC)).days in {89, 90}
    await did("tokens", "add", "grafana", "--expires", "2100-01-31")
    assert "2100-01-31 00:00:00" in await did("tokens", "list")
    await did("tokens", "revoke", "ci")
    assert "ci" not in await did("tokens", "list")
    assert "revoked 20" in await did("tokens", "list", "--all")
    for wrong in ("soon", "0d", "2020-01-01"):
        assert (await ran("tokens", "add", "x", "--expires", wrong)).exit_code != 0
    assert (await ran("tokens", "revoke", "ci")).exit_code != 0


@pytest.mark.parametrize(
    "headers",
    [
        {"Authorization": ""},
        {"Authorization": "Bearer"},
        {"Authorization": "Bearer "},
        {"Authorization": "Bearer nonsense"},
        {"Authorization": "Basic YWRtaW46YWRtaW4="},
        {"Authorization": b"Bearer \xff\xfe"},
    ],
)
async def test_without_a_good_token_nothing_is_told(
    world: ApiHarness, client: httpx.AsyncClient, headers: dict
):
    await world.connect("CP1")
    for path in ("/chargers", "/chargers/CP1", "/events?clientId=CP1", "/tokens", "/transactions.csv"):
        answer = await client.get(path, headers=headers)
        assert answer.status_code == 401
        assert answer.headers["www-authenticate"].startswith("Bearer")
        assert answer.headers["content-type"] == "application/problem+json"


_READ = [
    ("GET", "/chargers"),
    ("GET", "/chargers/CP1"),
    ("GET", "/chargers/CP1/messages"),
    ("GET", "/chargers/CP1/deviations"),
    ("GET", "/transactions"),
    ("GET", "/transactions.csv"),
    ("GET", "/tags"),
    ("GET", "/tariffs"),
    ("GET", "/groups"),
    ("GET", "/events?clientId=CP1"),
    ("GET", "/quarantine"),
]
_OPERATE = [
    ("PUT", "/chargers/CP2"),
    ("PATCH", "/chargers/CP1"),
    ("POST", "/chargers/CP1/commands"),
    ("PUT", "/tags/T"),
    ("PATCH", "/tags/T"),
    ("DELETE", "/tags/T"),
    ("POST", "/quarantine/1/resolve"),
    ("DELETE", "/chargers/CP2"),
]
_ADMINISTER = [
    ("PUT", "/tariffs/t"),
    ("PATCH", "/tariffs/t"),
    ("DELETE", "/tariffs/t"),
    ("PUT", "/groups/g"),
    ("DELETE", "/groups/g"),
    ("GET", "/tokens"),
    ("POST", "/tokens"),
    ("DELETE", "/tokens/1"),
]


@pytest.mark.parametrize(
    ("role", "allowed", "forbidden"),
    [
        ("viewer", _READ, _OPERATE + _ADMINISTER),
        ("operator", _READ + _OPERATE, _ADMINISTER),
        ("admin", _READ + _OPERATE + _ADMINISTER, []),
    ],
)
async def test_each_role_may_what_it_may(
    world: ApiHarness, client: httpx.AsyncClient, role: str, allowed: list, forbidden: list
):
    await world.connect("CP1")
    _, headers = await _token(client, role)
    body = {"action": "ClearCache", "currency": "EUR", "name": "n", "note": "n"}
    for method, path in allowed:
        answer = await client.request(method, path, headers=headers, json=body if method != "GET" else None)
        assert answer.status_code not in {401, 403}, (method, path)
    for method, path in forbidden:
        answer = await client.request(method, path, headers=headers, json=body if method != "GET" else None)
        assert answer.status_code == 403, (method, path)
        assert role in answer.json()["detail"]
