"""Two nodes, one plan: the node that holds the charger sends it, once; both hear the HEMS; a restart sends nothing anew."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiomqtt
import pytest

from tests.e2e.conftest import Node, NodeFactory, nodes
from tests.plans.conftest import PlannedCharger
from tests.plans.test_planner import asked, limits, profiles


@pytest.fixture
async def start_node(
    database_url: str, broker: Any, topic_prefix: str, tmp_path: Path
) -> AsyncIterator[NodeFactory]:
    async with nodes(database_url, broker, topic_prefix, tmp_path) as start:
        yield start


async def stop(node: Node) -> None:
    node.stop.set()
    await asyncio.wait({node.task}, timeout=20)


async def test_a_plan_goes_where_its_charger_is(
    start_node: NodeFactory, broker: Any, topic_prefix: str
) -> None:
    first = await start_node(csms_node="node-a", collect=False)
    second = await start_node(csms_node="node-b", collect=False)
    here = PlannedCharger(first, "CP1")
    there = PlannedCharger(second, "CP1")

    async def wish(content: dict[str, Any]) -> None:
        async with aiomqtt.Client(broker.host, broker.port_v5, protocol=aiomqtt.ProtocolVersion.V5) as client:
            body = json.dumps(content)
            await client.publish(f"{topic_prefix}/hems/ocpp/CP1/schedule/set", body, qos=1)

    async with here.connected() as point:
        await there.put(mode="hems")
        await wish(asked((30, 60)))
        await here.delivered("in_place")
        assert len(profiles(point)) == 1
    async with there.connected() as point:
        await there.node.until(lambda: profiles(point))
        await wish(asked((30, 60), max_current=8))
        await there.until(lambda seen: [one["currentA"] for one in seen["running"]] == [8])
        assert [limit for _, limit in limits(profiles(point)[-1])] == [0, 8]
        assert len(profiles(point)) == 2
    # What is on the charger outlives the node that has put it there.
    await stop(second)
    again = await start_node(csms_node="node-b", collect=False)
    seen = await PlannedCharger(again, "CP1").seen()
    assert (seen["delivery"], [one["currentA"] for one in seen["running"]]) == ("in_place", [8])
