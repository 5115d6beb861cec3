"""The adversary's stories over a whole node, with Postgres and a broker: each by a charger of its own, several at a time.

`CSMS_ADVERSARY_STORIES` says how many (docs/energy.md has the figures of a long run), `CSMS_ADVERSARY_SEED` which.
"""

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from msgspec import Struct

from csms.core.work import Policy
from csms.db.audit import AuditPeriod
from csms.db.engine import create_engine
from csms.service.audit import audited
from tests.e2e.conftest import Node, node_for_many
from tests.harness import ledger_harness
from tests.harness.adversary import course as courses
from tests.harness.adversary import stories, verdicts
from tests.harness.adversary.charge_point import (
    AdversarialChargePoint,
    at_once,
    stored_bill,
    told_otherwise,
)
from tests.harness.adversary.course import Course, Told
from tests.harness.adversary.desk import TARIFF, Bill
from tests.harness.adversary.stories import MAX_W, Story

STORIES = int(os.environ.get("CSMS_ADVERSARY_STORIES", "20"))
SEED = int(os.environ.get("CSMS_ADVERSARY_SEED", "1"))
AT_ONCE = 8

pytestmark = pytest.mark.timeout(60 + 6 * STORIES)


class Telling(Struct):
    """A story, told by a charger."""

    charger: str
    course: Course
    line: list[Told]
    point: AdversarialChargePoint


@pytest.fixture(scope="module")
def told() -> list[Story]:
    """Drawn before a node runs beside it: Hypothesis takes its random numbers for those of a strategy."""
    corrected = stories.stories(stories.CORRECTED, stories.ANY_MISCHIEF)
    return stories.drawn(STORIES - STORIES // 4, SEED) + stories.drawn(STORIES // 4, SEED, corrected)


@pytest.fixture(scope="module")
async def node(
    told: list[Story],
    databases: Any,
    template_database: str,
    broker: Any,
    tmp_path_factory: pytest.TempPathFactory,
) -> AsyncIterator[Node]:
    # httpcore looks for it on the disk at each lock that it makes, unless it is known to be absent.
    monkeypatch = pytest.MonkeyPatch()
    monkeypatch.setitem(sys.modules, "sniffio", None)
    directory = tmp_path_factory.mktemp("adversary")
    settings: dict[str, Any] = {"csms_infer_stop_after_s": 0, "mqtt_protocol_events_enabled": False}
    async with node_for_many(databases, template_database, broker, directory, **settings) as node:
        yield node
    monkeypatch.undo()


async def test_no_story_makes_a_wrong_bill(told: list[Story], node: Node) -> None:
    engine = create_engine(node.database_url)
    gate = asyncio.Semaphore(AT_ONCE)

    async def correct(number: int, word: str) -> None:
        body = {"note": "looked at the meter"} | ({"energyWh": 777} if word == "correct" else {})
        answer = await node.api.post(f"/api/v1/transactions/{number}/{word}", json=body)
        assert answer.status_code in {200, 409, 422}, answer.text

    async def tell(number: int, story: Story) -> Telling:
        charger = f"ADV-{number}"
        course = courses.take(story, datetime.now(UTC) - timedelta(days=1))
        line = at_once(courses.told(course, story.mischief))
        point = AdversarialChargePoint(
            lambda: node.ocpp.rstrip("/"), charger, course, ledger=ledger, engine=engine, correct=correct
        )
        async with gate:
            made = await node.api.put(f"/api/v1/chargers/{charger}", json={"maxPowerW": MAX_W})
            assert made.status_code == 201, made.text
            await point.play(line)
        return Telling(charger, course, line, point)

    try:
        async with ledger_harness.running(node.database_url) as ledger:
            tellings = await asyncio.gather(*(tell(n, s) for n, s in enumerate(told)))
        differing = [
            (one.charger_id, one.differences)
            async for one in audited(engine, AuditPeriod(), Policy())
            if one.differences
        ]
    finally:
        await engine.dispose()
    failed = [line for telling in tellings for line in await wrong(node, telling)]
    assert not failed, f"{len(failed)} in {len(tellings)} stories{''.join(failed[:10])}"
    assert not differing, (
        f"the audit finds {len(differing)} bills that their evidence contradicts: {differing[:5]}"
    )


async def wrong(node: Node, telling: Telling) -> list[str]:
    """What is wrong in the bills of a story, as they are stored and as a consumer was told them."""
    rows = await node.fetch("SELECT * FROM transactions WHERE charger_id = $1 ORDER BY id", telling.charger)
    bills = [stored_bill(row, telling.point.sessions.get(row["id"], -1)) for row in rows]
    await node.until(lambda: all(is_told(node, bill) for bill in bills))
    found = verdicts.problems(telling.course, telling.line, bills, TARIFF)
    found += told_otherwise(bills, [event for event in node.events if event["clientId"] == telling.charger])
    return [f"\n{telling.course.story}: {problem}" for problem in found]


def is_told(node: Node, bill: Bill) -> bool:
    return any(
        event["eventType"] in {"session_cost", "cost_held"}
        and event["payload"]["transactionId"] == bill.number
        and event["payload"]["revision"] == bill.revision
        for event in list(node.events)
    )
