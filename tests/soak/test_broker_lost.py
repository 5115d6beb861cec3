"""kill -9 of the broker under a live load: chargers are served, and the consumer gets everything in the end."""

import pytest

from tests.harness.soak.campaign import Losses, Stage
from tests.harness.soak.load import Load
from tests.harness.soak.outages import lose_the_broker


@pytest.mark.timeout(120)
async def test_a_killed_broker_costs_no_event_and_no_charger_notices(brokerage: Stage) -> None:
    losses = Losses()
    async with Load([brokerage.url("node-a")], chargers=4, budget_s=60) as load:
        await lose_the_broker(brokerage, load, losses, 2)
        connections = load.count("connections")
        books = await brokerage.settled(load, replay_from="node-a")
    print(f"{dict(losses.by_point)}; {books}")
    assert not books.problems, books.report
    assert losses.total == 2
    assert connections == load.chargers, "a charger lost its line for the broker's sake"
    assert books.resends == 0
    assert books.transactions >= load.chargers * load.connectors
