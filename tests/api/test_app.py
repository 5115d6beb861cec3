"""The application as a whole: OpenAPI, problems everywhere, health, metrics, Postgres away."""

import contextlib
from typing import Any

import asyncpg
import httpx
import pytest
from structlog.testing import capture_logs

from csms.api.app import create_app
from csms.core.work import Policy
from csms.db.engine import create_engine
from csms.node.frame_log import FrameLog
from csms.node.health import Check, HealthReport
from csms.node.ledger import Ledger
from csms.node.node import Node
from csms.service.context import ServiceContext
from tests.harness.api_harness import ADMIN_TOKEN, ApiHarness
from tests.harness.ledger_harness import connected
from tests.harness.servers import DatabaseFactory


async def test_openapi_describes_every_address_of_the_contract(client: httpx.AsyncClient):
    answer = await client.get("/openapi.json", headers={"Authorization": ""})
    assert answer.status_code == 200
    described = answer.json()
    expected = {
        "/api/v1/chargers": {"get"},
        "/api/v1/chargers/{charger_id}": {"get", "put", "patch", "delete"},
        "/api/v1/chargers/{charger_id}/commands": {"post"},
        "/api/v1/chargers/{charger_id}/messages": {"get"},
        "/api/v1/chargers/{charger_id}/deviations": {"get"},
        "/api/v1/transactions": {"get"},
        "/api/v1/transactions/{transaction_id}": {"get"},
        "/api/v1/transactions/{transaction_id}/readings": {"get"},
        "/api/v1/transactions.csv": {"get"},
        "/api/v1/tags": {"get"},
        "/api/v1/tags/{id_tag}": {"get", "put", "patch", "delete"},
        "/api/v1/tariffs/{tariff_id}": {"get", "put", "patch", "delete"},
        "/api/v1/tariffs/{tariff_id}/versions": {"get"},
        "/api/v1/tariffs/{tariff_id}/price": {"post"},
        "/api/v1/groups": {"get"},
        "/api/v1/groups/{group_id}": {"get", "put", "delete"},
        "/api/v1/tokens": {"get", "post"},
        "/api/v1/tokens/{token_id}": {"get", "delete"},
        "/api/v1/events": {"get"},
        "/api/v1/quarantine": {"get"},
        "/api/v1/quarantine/{held_id}/resolve": {"post"},
    }
    for path, methods in expected.items():
        assert methods <= described["paths"][path].keys(), path
    assert described["components"]["securitySchemes"]


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "http://csms/api/v1/nothing", 404),
        ("GET", "http://csms/api", 404),
        ("GET", "http://csms/docs", 404),
        ("GET", "http://csms/health/other", 404),
        ("POST", "/chargers", 405),
        ("DELETE", "/transactions", 405),
        ("POST", "/transactions/1", 405),
    ],
)
async def test_a_wrong_address_or_method_is_a_problem(
    client: httpx.AsyncClient, method: str, path: str, status: int
):
    answer = await client.request(method, path)
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["status"] == status


async def test_a_body_that_is_no_json_is_400(client: httpx.AsyncClient):
    answer = await client.put("/tags/T", content=b'{"status": ', headers={"Content-Type": "application/json"})
    assert answer.status_code == 400
    assert answer.json()["type"] == "urn:csms:problem:malformed-json"


async def test_a_validation_error_names_the_field_and_keeps_the_value_to_itself(client: httpx.AsyncClient):
    answer = await client.put("/chargers/CP1", json={"password": "s3cret", "heartbeatIntervalS": "often"})
    assert answer.status_code == 422
    assert "s3cret" not in answer.text
    assert {item["pointer"] for item in answer.json()["errors"]} == {"/password", "/heartbeatIntervalS"}


async def test_a_body_too_large_is_413(client: httpx.AsyncClient):
    async def endless():
        for _ in range(40):
            yield b"x" * 65536

    for content in (b'"' + b"x" * 2_000_000 + b'"', endless()):
        answer = await client.put("/tags/T", content=content, headers={"Content-Type": "application/json"})
        assert answer.status_code == 413
        assert answer.headers["content-type"] == "application/problem+json"


async def test_every_answer_forbids_sniffing(client: httpx.AsyncClient):
    answer = await client.get("/chargers")
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["cache-control"] == "no-store"


# --- health, metrics -------------------------------------------------------------------------------------


async def test_live_and_ready_need_no_token(client: httpx.AsyncClient):
    for path in ("live", "ready"):
        answer = await client.get(f"http://csms/health/{path}", headers={"Authorization": ""})
        assert answer.status_code == 200
        assert answer.json()["status"] == "ok"


@pytest.mark.parametrize(("state", "status"), [("degraded", 200), ("failing", 503)])
async def test_ready_says_what_is_wrong(
    world: ApiHarness, client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch, state: Any, status: int
):
    report = HealthReport((Check(name="mqtt", state=state, detail="The broker is away."),))
    monkeypatch.setattr(world.node, "health", lambda: report)
    answer = await client.get("http://csms/health/ready")
    assert answer.status_code == status
    assert answer.json()["status"] == state
    assert {"name": "mqtt", "state": state, "detail": "The broker is away."} in answer.json()["checks"]


async def test_the_worse_of_two_opinions_of_one_part_counts():
    report = HealthReport((Check(name="database", state="degraded"),))
    assert report.with_check(Check(name="database")).state == "degraded"
    assert report.with_check(Check(name="database", state="failing")).state == "failing"


async def test_metrics_tell_the_reports_and_what_the_database_holds(
    world: ApiHarness, client: httpx.AsyncClient
):
    await world.connect("CP1")
    await world.start("CP1")
    answer = await client.get("http://csms/metrics", headers={"Authorization": ""})
    assert answer.headers["content-type"].startswith("text/plain")
    assert "csms_database_up 1.0" in answer.text
    assert "csms_chargers_connected 1.0" in answer.text
    assert "csms_transactions_open 1.0" in answer.text
    assert "csms_outbox_events 1.0" in answer.text
    assert 'csms_reports_total{outcome="recorded",report="Start"}' in answer.text


async def test_while_postgres_is_away_answers_are_503_and_health_says_so(databases: DatabaseFactory):
    url = await databases.create()
    await databases.drop(url)

    engine = create_engine(url)
    node = Node("n1", engine, Ledger(engine, Policy()), FrameLog(engine))
    context = ServiceContext(node=node, admin_token=ADMIN_TOKEN)
    transport = httpx.ASGITransport(create_app(context), raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://csms") as client:
        headers = {"Authorization": f"Bearer {ADMIN_TOKEN}"}
        for path in ("/chargers", "/transactions.csv", "/events?clientId=x"):
            answer = await client.get(f"/api/v1{path}", headers=headers)
            assert answer.status_code == 503, answer.text
            assert answer.headers["retry-after"] == "5"
            assert answer.json()["type"] == "urn:csms:problem:database-away"
        unknown = await client.get("/api/v1/chargers", headers={"Authorization": "Bearer other"})
        assert unknown.status_code == 503
        ready = await client.get("/health/ready")
        assert ready.status_code == 503
        assert ready.json()["checks"][0]["name"] == "database"
        assert (await client.get("/health/live")).status_code == 200
        metrics = await client.get("/metrics")
        assert metrics.status_code == 200
        assert "csms_database_up 0.0" in metrics.text
    with contextlib.suppress(asyncpg.PostgresError):
        await engine.dispose()


async def test_a_bug_is_a_problem_without_its_insides(world: ApiHarness, client: httpx.AsyncClient):
    await world.connect("CP1")
    world.answer = RuntimeError("secret insides")
    answer = await client.post("/chargers/CP1/commands", json={"action": "ClearCache"})
    assert answer.status_code == 500
    assert answer.headers["content-type"] == "application/problem+json"
    assert "secret" not in answer.text


OUTAGES = {
    "a standby after a failover": "ALTER DATABASE {name} SET default_transaction_read_only = on",
    "a migration that has renamed the table": "ALTER TABLE tags RENAME TO hidden",
    "a migration that has renamed a column": "ALTER TABLE tags RENAME status TO hidden",
}


@pytest.mark.parametrize("change", OUTAGES.values(), ids=OUTAGES)
async def test_a_write_that_can_succeed_later_is_answered_with_503(
    client: httpx.AsyncClient, world: ApiHarness, database_url: str, change: str
):
    async with connected(database_url) as db:
        await db.execute(change.format(name=await db.fetchval("SELECT current_database()")))
    await world.engine.dispose()
    answer = await client.put("/tags/T1", json={})
    assert answer.status_code == 503, answer.text
    assert answer.headers["retry-after"] == "5"
    assert answer.json()["type"] == "urn:csms:problem:database-away"


async def test_a_lock_that_is_not_given_in_time_is_answered_with_503(
    client: httpx.AsyncClient, world: ApiHarness, database_url: str
):
    async with connected(database_url) as db, db.transaction():
        await db.execute(
            f"ALTER DATABASE {await db.fetchval('SELECT current_database()')} SET lock_timeout = '10ms'"
        )
    await world.engine.dispose()
    async with connected(database_url) as db, db.transaction():
        await db.execute("LOCK TABLE tags")
        answer = await client.put("/tags/T1", json={})
    assert answer.status_code == 503, answer.text


async def test_an_error_of_the_database_that_would_come_again_is_answered_with_500(
    client: httpx.AsyncClient, database_url: str
):
    async with connected(database_url) as db:
        await db.execute("ALTER TABLE tags ADD CHECK (status <> 'Blocked')")
    with capture_logs() as logged:
        answer = await client.put("/tags/T1", json={"status": "Blocked"})
    assert answer.status_code == 500, answer.text
    assert [entry["log_level"] for entry in logged] == ["error"]
    assert answer.json()["type"] == "urn:csms:problem:internal-error"
