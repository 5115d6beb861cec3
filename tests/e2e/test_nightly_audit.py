"""The nightly audit: one node at a time, each night once, in a process of its own; and what operators see of it."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime, time, timedelta
from typing import Any

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine
from structlog.testing import capture_logs

from csms.core.work import Policy
from csms.db.engine import create_engine
from csms.errors import CsmsError
from csms.service import nightly_audit
from csms.service.audit_process import AuditJob, AuditStep, audited_beside
from csms.service.nightly_audit import NightlyAudit
from tests.e2e.conftest import Node, NodeFactory
from tests.e2e.test_audit import audited, charged, execute
from tests.e2e.test_audit_booking import booked
from tests.harness.charging_site import OcppSite
from tests.harness.ledger_harness import connected

pytestmark = pytest.mark.timeout(120)  # it starts processes
ZONE = "Europe/Vienna"
NIGHT = datetime(2026, 3, 10, 2, 30, tzinfo=UTC)  # 03:30 in Vienna


@pytest.fixture
async def site(shared_node: Node) -> AsyncIterator[OcppSite]:
    site = OcppSite(shared_node)
    yield site
    await site.hang_up()
    for table in ("audit_runs", "audit_findings"):
        await execute(site, f"DELETE FROM {table}")


@pytest.fixture
async def engine(database_url: str) -> AsyncIterator[AsyncEngine]:
    engine = create_engine(database_url)
    yield engine
    await engine.dispose()


class Clock:
    """A clock to set; it has stood still since."""

    def __init__(self, now: datetime) -> None:
        self.now = now

    def __call__(self) -> datetime:
        return self.now


class FakeAudit:
    """Notes what it was asked to audit, and may fail or wait."""

    def __init__(self, *, error: Exception | None = None, wait: asyncio.Event | None = None) -> None:
        self.asked: list[Sequence[int]] = []
        self.begun = asyncio.Event()
        self._error = error
        self._wait = wait

    async def __call__(self, ids: Sequence[int]) -> AsyncIterator[AuditStep]:
        self.asked.append(ids)
        self.begun.set()
        if self._wait is not None:
            await self._wait.wait()
        if self._error is not None:
            raise self._error
        yield AuditStep(audited=len(ids), findings=())


def nightly(engine: AsyncEngine, audit: Any, clock: Clock, node: str = "n1", **given: Any) -> NightlyAudit:
    return NightlyAudit(engine, node, audit, at=time(3, 30), zone=ZONE, clock=clock, **given)


async def rows(url: str) -> list[tuple[Any, ...]]:
    async with connected(url) as db:
        found = await db.fetch(
            "SELECT node, started_at, ended_at IS NOT NULL, audited, differing FROM audit_runs ORDER BY id"
        )
    return [tuple(row) for row in found]


# --- when ---------------------------------------------------------------------------------------------------------------


async def test_it_runs_once_a_night_at_the_local_time(engine: AsyncEngine) -> None:
    clock, audit = Clock(NIGHT - timedelta(minutes=20)), FakeAudit()
    night = nightly(engine, audit, clock)
    assert await night.once() == 1200  # the first one waits for its moment
    clock.now = NIGHT
    assert await night.once() == 3600
    clock.now += timedelta(hours=23, minutes=30)
    assert await night.once() == 1800
    assert len(audit.asked) == 1
    clock.now = datetime(2026, 3, 29, 1, 29, tzinfo=UTC)  # the clocks have been put forward at 01:00
    await night.once()
    assert len(audit.asked) == 2  # the nights before are made up for by one
    clock.now = datetime(2026, 3, 29, 1, 30, tzinfo=UTC)
    assert await night.once() == 3600
    assert len(audit.asked) == 3


async def test_a_missed_night_is_made_up_for_at_the_next_start(engine: AsyncEngine) -> None:
    clock, audit = Clock(NIGHT - timedelta(minutes=1)), FakeAudit()
    night = nightly(engine, audit, clock)
    clock.now = NIGHT
    await night.once()
    clock.now += timedelta(hours=30)
    await nightly(engine, audit, clock).once()
    assert len(audit.asked) == 2
    clock.now += timedelta(hours=1)
    await nightly(engine, audit, clock).once()
    assert len(audit.asked) == 2


async def test_of_two_nodes_one_audits(engine: AsyncEngine, database_url: str) -> None:
    clock, go_on = Clock(NIGHT - timedelta(minutes=1)), asyncio.Event()
    first, second = FakeAudit(wait=go_on), FakeAudit()
    nodes = nightly(engine, first, clock, "n1"), nightly(engine, second, clock, "n2")
    clock.now = NIGHT
    running = asyncio.create_task(nodes[0].once())
    await first.begun.wait()
    assert await nodes[1].once() == 60  # it looks again, should the other one end early
    go_on.set()
    await running
    assert await nodes[1].once() == 3600
    assert second.asked == []
    assert await rows(database_url) == [("n1", NIGHT, True, 0, 0)]


async def test_an_audit_that_was_interrupted_is_made_again(engine: AsyncEngine, database_url: str) -> None:
    clock, never = Clock(NIGHT - timedelta(minutes=1)), FakeAudit(wait=asyncio.Event())
    night = nightly(engine, never, clock)
    clock.now = NIGHT
    running = asyncio.create_task(night.once())
    await never.begun.wait()
    running.cancel()
    await asyncio.wait([running])
    assert await rows(database_url) == [("n1", NIGHT, False, None, None)]
    clock.now += timedelta(minutes=5)
    again = FakeAudit()
    await nightly(engine, again, clock, "n2").once()
    assert len(again.asked) == 1
    assert await rows(database_url) == [("n2", clock.now, True, 0, 0)]


async def test_a_failure_is_logged_once_and_tried_again_later_and_later(engine: AsyncEngine) -> None:
    clock, slept = Clock(NIGHT), list[float]()

    async def sleep(seconds: float) -> None:
        slept.append(seconds)
        clock.now = NIGHT + timedelta(days=1)
        if len(slept) == 10:
            raise asyncio.CancelledError

    night = nightly(engine, FakeAudit(error=CsmsError("no")), clock, sleep=sleep)
    with capture_logs() as logs, pytest.raises(asyncio.CancelledError):
        await night.run()
    assert slept == [300, 60, 120, 240, 480, 960, 1920, 3600, 3600, 3600]
    written = [(line["event"], line["error"]) for line in logs if line["log_level"] == "warning"]
    assert written == [("audit_failed", "no")]


async def test_it_audits_what_has_ended_since_the_last_run(engine: AsyncEngine, database_url: str) -> None:
    clock, audit = Clock(NIGHT), FakeAudit()
    columns = "id, charger_id, connector_id, key, id_tag, authorization_status, meter_start_wh, tariff"
    async with connected(database_url) as db:
        for number, hours, began_days in (
            (1, -2, 1),
            (2, 25 + 24, 3),
            (3, 23 + 24, 30),
            (4, 24 * 7, 8),
            (5, 24 * 9, 9),
        ):
            ended = NIGHT - timedelta(hours=hours)
            await db.execute(
                f"INSERT INTO transactions ({columns}, started_at, start_received_at, accounting_at, stopped_at,"
                " stop_received_at) VALUES ($1, 'CP1', 1, $1::int4::text, 't', 'Accepted', 0, '{}', $2, $2, $2, $3, $3)",
                number,
                NIGHT - timedelta(days=began_days),
                ended,
            )
        await db.execute("INSERT INTO audit_findings VALUES (5, 1, '{cost_minor}')")
        night = nightly(engine, audit, clock)
        clock.now += timedelta(days=1)
        await night.once()
        # The first one goes back seven days, and a day more; what it had found before is audited once more.
        assert audit.asked == [[1, 2, 3, 4, 5]]
        assert await db.fetchval("SELECT count(*) FROM audit_findings") == 0
        clock.now += timedelta(days=1)
        await night.once()
        assert audit.asked[1] == [1]


# --- what ---------------------------------------------------------------------------------------------------------------


async def _audit_night(site: OcppSite) -> list[Any]:
    """One night on the site's database, with the real process. Returns what was logged."""
    engine = create_engine(site.node.database_url)

    def audit(ids: Sequence[int]) -> AsyncIterator[AuditStep]:
        return audited_beside(AuditJob(database_url=site.node.database_url, policy=Policy(), ids=ids))

    now = datetime.now(UTC)
    clock = Clock(now - timedelta(days=1, minutes=1))
    night = NightlyAudit(engine, "n1", audit, at=now.time(), zone="UTC", clock=clock)
    clock.now = now + timedelta(seconds=1)
    try:
        with capture_logs() as logs:
            await night.once()
        return logs
    finally:
        await engine.dispose()


async def _gauges(site: OcppSite) -> dict[str, float]:
    text = (await site.node.api.get("/metrics")).text
    return {
        line.split()[0]: float(line.split()[1])
        for line in text.splitlines()
        if line.startswith("csms_audit_")
    }


async def test_operators_see_what_differs_until_it_is_booked(site: OcppSite) -> None:
    number = await charged(site, 6000)
    other = await charged(site, 6000, timestamp="2023-12-07T08:00:00Z")
    await audited(site)
    await execute(site, "UPDATE transactions SET accounting_at = now() WHERE charger_id = $1", site.charger)
    await execute(site, "UPDATE transactions SET energy_wh = 1 WHERE id = $1", number)
    logs = await _audit_night(site)
    ended = next(line for line in logs if line["event"] == "audit_ended")
    assert (ended["audited"], ended["differing"]) == (2, 2)
    first = next(line for line in logs if line["event"] == "bill_difference_found")
    assert (first["log_level"], first["transaction"]) == ("warning", number)
    assert "energy_wh" in first["fields"]
    assert (await site.node.fetch("SELECT differing FROM audit_runs"))[0]["differing"] == 2

    async def differing(expected: int) -> bool:
        return (await _gauges(site))["csms_audit_differing_transactions"] == expected

    await site.node.until(lambda: differing(2))
    assert (
        abs(
            (await _gauges(site))["csms_audit_last_success_timestamp_seconds"] - datetime.now(UTC).timestamp()
        )
        < 60
    )
    await booked(site, number)
    await site.node.until(lambda: differing(1))
    await execute(site, "UPDATE transactions SET accounting_at = started_at WHERE id = $1", other)
    await execute(site, "DELETE FROM audit_runs")
    await _audit_night(site)
    await site.node.until(lambda: differing(0))


async def test_warnings_are_bounded(site: OcppSite, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nightly_audit, "MOST_WARNINGS", 1)
    for hour in (7, 8):
        await charged(site, 6000, timestamp=f"2023-12-07T{hour:02}:00:00Z")
    await execute(site, "UPDATE transactions SET accounting_at = now() WHERE charger_id = $1", site.charger)
    logs = await _audit_night(site)
    assert [line["event"] for line in logs if line["log_level"] == "warning"] == ["bill_difference_found"]


async def test_a_process_that_fails_says_why(database_url: str) -> None:
    job = AuditJob(database_url="postgresql://none@127.0.0.1:1/none", policy=Policy(), ids=[1])
    with pytest.raises(CsmsError, match="the process of the audit ended with 1: .*Connect"):
        [step async for step in audited_beside(job)]


async def test_the_process_ends_with_its_reader(site: OcppSite) -> None:
    numbers = [await charged(site, timestamp=f"2023-12-07T{hour:02}:00:00Z") for hour in range(3)]
    job = AuditJob(database_url=site.node.database_url, policy=Policy(), ids=numbers * 1000)
    steps = audited_beside(job)
    assert (await anext(steps)).audited == 100
    await steps.aclose()


async def test_a_node_makes_the_audit_again_that_was_interrupted(
    start_node: NodeFactory, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nightly_audit, "_AFTER_START_S", 0.01)
    async with connected(database_url) as db:
        await db.execute("INSERT INTO audit_runs (node, started_at) VALUES ('node-b', now())")
    node = await start_node(csms_audit_at="03:30", mqtt=False)
    await node.until(lambda: node.fetch("SELECT 1 FROM audit_runs WHERE ended_at IS NOT NULL"), 60)
    assert [row[0] for row in await rows(database_url)] == ["node-a"]
