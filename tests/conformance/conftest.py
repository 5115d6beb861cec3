"""A bench for each case: a node that knows its charge point and one valid idTag."""

import itertools
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.e2e.conftest import Node, node_for_many, start_node
from tests.harness.conformance.bench import VALID, Bench
from tests.harness.conformance.charge_point import ChargePoint

__all__ = ["start_node"]

SETTINGS = {
    # Strangers wait for an operator, unknown tags are refused, heartbeats are due every second.
    "csms_enrollment": "approve",
    "csms_unknown_tags": "reject",
    "csms_heartbeat_interval_s": 1,
}
_numbers = itertools.count(1)


@pytest.fixture(scope="module")
async def node(
    databases: Any, template_database: str, broker: Any, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Node]:
    """One for all cases of a module: each has a charge point of its own."""
    directory = tmp_path_factory.mktemp("node")
    async with node_for_many(databases, template_database, broker, directory, **SETTINGS) as made:
        yield made


@pytest.fixture
def identity() -> str:
    return f"CP-{next(_numbers)}"


@pytest.fixture
async def bench(node: Node, identity: str) -> AsyncIterator[Bench]:
    point = ChargePoint(node.ocpp, identity)
    bench = Bench(node, point)
    await bench.api("PUT", f"/chargers/{identity}", json={}, status=201)
    await bench.tag(VALID, status="Accepted")
    try:
        yield bench
        await bench.verify()
    finally:
        await point.hang_up()
