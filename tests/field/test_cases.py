"""All cases of tests/field/cases on one node, those of a file at a time. tests/field/steps.py has their language."""

import asyncio
import sys
from collections.abc import AsyncIterator, Awaitable
from typing import Any

import pytest

from csms.core.work import Policy
from csms.db.audit import AuditPeriod
from csms.db.engine import create_engine
from csms.service.audit import audited
from tests.e2e.conftest import Node, node_for_many
from tests.field import cases
from tests.field.player import Player
from tests.harness import ledger_harness

AT_ONCE = 8


@pytest.fixture(scope="module")
async def node(
    databases: Any, template_database: str, broker: Any, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Node]:
    # httpcore looks for it on the disk at each lock that it makes, unless it is known to be absent.
    monkeypatch = pytest.MonkeyPatch()
    monkeypatch.setitem(sys.modules, "sniffio", None)
    directory = tmp_path_factory.mktemp("field")
    async with node_for_many(
        databases,
        template_database,
        broker,
        directory,
        csms_infer_stop_after_s=0,
        mqtt_protocol_events_enabled=False,
    ) as node:
        yield node
    monkeypatch.undo()


@pytest.mark.parametrize("kind", cases.kinds())
async def test_cases(node: Node, kind: str) -> None:
    engine = create_engine(node.database_url)
    gate = asyncio.Semaphore(AT_ONCE)

    async def one_of_few(work: Awaitable[Any]) -> Any:
        async with gate:
            return await work

    try:
        async with ledger_harness.running(node.database_url) as ledger:
            first = 100 * cases.kinds().index(kind)  # no two cases have the same number
            stories = enumerate(cases.load(kind).case, first)
            players = [Player(node, case, number, ledger, engine) for number, case in stories]
            await asyncio.gather(*(one_of_few(player.play()) for player in players))
            listed = await everything(node)
            found = await asyncio.gather(*(one_of_few(player.compare(listed)) for player in players))
            differing = [
                (one.charger_id, one.differences)
                async for one in audited(engine, AuditPeriod(), Policy())
                if one.differences
            ]
    finally:
        await engine.dispose()
    failed = [
        line for player, problems in zip(players, found, strict=True) for line in said(player, problems)
    ]
    assert not differing, "the audit finds in bills what their evidence does not show"
    assert not failed, f"{len(failed)} differences in {len(players)} cases{''.join(failed)}"


def said(player: Player, problems: list[str]) -> list[str]:
    """What a test says of a case. One that csms does not do yet must differ."""
    if player.case.not_yet:
        problems = [] if problems else ["it is as expected now: remove its not_yet"]
    return [f"\n{player.case.id}: {problem}" for problem in problems]


async def everything(node: Node) -> list[dict[str, Any]]:
    """All transactions that REST lists."""
    found: list[dict[str, Any]] = []
    cursor: str | None = ""
    while cursor is not None:
        query = {"limit": "1000"} | ({"cursor": cursor} if cursor else {})
        page = (await node.api.get("/api/v1/transactions", params=query)).json()
        found += page["items"]
        cursor = page["nextCursor"]
    return found
