"""All cases of tests/field/cases on one node, those of a file at a time. tests/field/steps.py has their language."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from csms.db.engine import create_engine
from tests.e2e.conftest import Node, node_for_many
from tests.field import cases
from tests.field.player import Player
from tests.harness import ledger_harness

AT_ONCE = 8


@pytest.fixture(scope="module")
async def node(
    databases: Any, template_database: str, broker: Any, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Node]:
    directory = tmp_path_factory.mktemp("field")
    async with node_for_many(
        databases, template_database, broker, directory, csms_infer_stop_after_s=0
    ) as node:
        yield node


@pytest.mark.parametrize("kind", cases.kinds())
async def test_cases(node: Node, kind: str) -> None:
    engine = create_engine(node.database_url)
    gate = asyncio.Semaphore(AT_ONCE)

    async def played(case: cases.Case, number: int) -> str:
        async with gate:
            problems = await Player(node, case, number, ledger, engine).play()
        if case.not_yet:
            problems = [] if problems else ["it is as expected now: remove its not_yet"]
        return "".join(f"\n{case.id}: {problem}" for problem in problems)

    try:
        async with ledger_harness.running(node.database_url) as ledger:
            stories = cases.load(kind).case
            first = 100 * cases.kinds().index(kind)  # no two cases have the same number
            failed = await asyncio.gather(
                *(played(case, number) for number, case in enumerate(stories, first))
            )
    finally:
        await engine.dispose()
    assert not any(failed), f"{sum(map(bool, failed))} of {len(stories)} cases differ{''.join(failed)}"
