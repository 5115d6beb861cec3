"""A bench for each case: a node that knows one charge point and one valid idTag."""

from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.conformance.bench import VALID, Bench
from tests.conformance.charge_point import ChargePoint
from tests.e2e.conftest import Node, NodeFactory, start_node

__all__ = ["start_node"]

IDENTITY = "CP-1"
Settings = dict[str, Any]


@pytest.fixture
def node_settings() -> Settings:
    """Strangers wait for an operator, unknown tags are refused, heartbeats are due every second."""
    return {
        "csms_enrollment": "approve",
        "csms_unknown_tags": "reject",
        "csms_heartbeat_interval_s": 1,
    }


@pytest.fixture
async def node(start_node: NodeFactory, node_settings: Settings) -> Node:
    return await start_node(**node_settings)


@pytest.fixture
async def bench(node: Node) -> AsyncIterator[Bench]:
    point = ChargePoint(node.ocpp, IDENTITY)
    bench = Bench(node, point)
    await bench.api("PUT", f"/chargers/{IDENTITY}", json={}, status=201)
    await bench.tag(VALID, status="Accepted")
    try:
        yield bench
        await bench.verify()
    finally:
        await point.hang_up()
