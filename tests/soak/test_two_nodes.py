"""Two nodes on one database and one broker: one is killed, the other takes over its chargers and its lanes."""

import pytest

from tests.harness.soak.campaign import Losses, Stage
from tests.harness.soak.load import Load
from tests.harness.soak.outages import lose_one_of_two


@pytest.mark.timeout(120)
async def test_the_other_node_takes_over_chargers_and_lanes(stage: Stage) -> None:
    losses = Losses()
    async with Load([stage.url("node-a"), stage.url("node-b")], chargers=4, budget_s=60) as load:
        await lose_one_of_two(stage, load, losses, 2)
        books = await stage.settled(load)
    print(f"{dict(losses.by_point)}; {books}; lanes taken over within {losses.slowest_takeover_s:.1f} s")
    assert not books.problems, books.report
    assert losses.total == 2
    assert load.moved > 0
    assert losses.slowest_takeover_s < 10
    assert books.transactions >= load.chargers * load.connectors
