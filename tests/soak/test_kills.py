"""kill -9 of a node, again and again, under a live load: no loss, no second effect, order kept."""

import pytest

from tests.harness.soak import kill_points
from tests.harness.soak.campaign import Losses, Stage, kill_again_and_again
from tests.harness.soak.load import Load

_KILLS = 20


@pytest.mark.timeout(120)
async def test_a_node_killed_twenty_times_loses_nothing(stage: Stage) -> None:
    losses = Losses()
    async with (
        Load([stage.url("node-a")], chargers=5, budget_s=60) as load,
        stage.adversaries("node-a", plots=6).beside() as others,
    ):
        async with stage.consumer_restless():
            await kill_again_and_again(stage, losses, _KILLS)
        books = await stage.settled(load, others=others)
    print(
        f"{losses.total} kills: {dict(losses.by_point)}; {books}; slowest start {losses.slowest_start_s:.2f} s"
    )
    assert not books.problems, books.report
    assert losses.total == _KILLS
    assert len(losses.by_point) >= len(kill_points.POINTS) - 2
    assert books.transactions >= load.chargers * load.connectors
    assert books.adversarial > 0
    assert books.audited >= books.transactions + books.adversarial
    assert books.duplicates > 0, "no kill fell between a PUBACK and the DELETE"
    assert books.resends > 0, "no kill fell between a commit and its answer"
