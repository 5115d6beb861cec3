"""Postgres killed, and its disk full, under a live load: what was acknowledged is there, the rest comes again."""

import pytest

from tests.harness.soak.campaign import Losses, Stage
from tests.harness.soak.load import Load
from tests.harness.soak.outages import fill_the_disk, lose_postgres
from tests.harness.soak.own_postgres import OwnPostgres


@pytest.mark.timeout(120)
async def test_a_killed_postgres_costs_nothing_that_was_acknowledged(
    shaky: Stage, postgres: OwnPostgres
) -> None:
    losses = Losses()
    async with Load([shaky.url("node-a")], chargers=4, budget_s=60) as load:
        await lose_postgres(shaky, load, losses, postgres, 2)
        books = await shaky.settled(load)
    print(f"{dict(losses.by_point)}; {books}; longest without a line {load.longest_outage_s:.1f} s")
    assert not books.problems, books.report
    assert losses.total == 2
    assert books.transactions >= load.chargers * load.connectors


@pytest.mark.timeout(120)
async def test_a_full_disk_costs_nothing_once_there_is_space(shaky: Stage, postgres: OwnPostgres) -> None:
    losses = Losses()
    async with Load([shaky.url("node-a")], chargers=4, budget_s=60) as load:
        await fill_the_disk(shaky, load, losses, postgres, 1)
        books = await shaky.settled(load)
    print(f"{dict(losses.by_point)}; {books}; longest without a line {load.longest_outage_s:.1f} s")
    assert not books.problems, books.report
    assert losses.total == 1
    assert books.transactions >= load.chargers * load.connectors
