"""`make soak`: the same as the other files of this folder, for as long as one likes, with figures at the end.

SOAK_KILLS (200), SOAK_SECONDS (at least so long; 0) and SOAK_CHARGERS (20) say how much. The other disasters come in
proportion to the kills.
"""

import contextlib
import os
import time
from collections.abc import Iterator

import pytest
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from tests.harness.soak.audit import AuditResult
from tests.harness.soak.campaign import Losses, Stage, kill_again_and_again
from tests.harness.soak.load import Load
from tests.harness.soak.outages import fill_the_disk, lose_one_of_two, lose_postgres, lose_the_broker
from tests.harness.soak.own_postgres import OwnPostgres
from tests.soak.conftest import FIGURES, Figures

pytestmark = [pytest.mark.soak, pytest.mark.timeout(86_400)]

KILLS = int(os.environ.get("SOAK_KILLS") or 200)
SECONDS = float(os.environ.get("SOAK_SECONDS") or 0)
CHARGERS = int(os.environ.get("SOAK_CHARGERS") or 20)
_OTHERS = max(2, KILLS // 10)
_DISKS = max(1, KILLS // 40)


@contextlib.contextmanager
def watched(what: str, goal: int) -> Iterator[Losses]:
    """The figures of one run, with a bar that shows how far it is."""
    columns = (TextColumn("{task.description:28}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, TextColumn("{task.fields[last]}"), console=Console(stderr=True)) as progress:
        bar = progress.add_task(what, total=goal, last="")
        yield Losses(told=lambda point: progress.update(bar, advance=1, last=point))


def load_for(stage: Stage, *names: str, kills: int = _OTHERS) -> Load:
    urls = [stage.url(name) for name in names]
    return Load(urls, chargers=CHARGERS, budget_s=SECONDS + 3 * kills + 120, seed=int(time.time()))


def note(
    request: pytest.FixtureRequest, what: str, began: float, losses: Losses, load: Load, books: AuditResult
) -> None:
    """Into the table at the end; then the verdict."""
    request.config.stash[FIGURES].append(Figures(what, time.monotonic() - began, losses, load, books))
    assert not books.problems, books.report


async def test_nodes_killed(stage: Stage, request: pytest.FixtureRequest) -> None:
    began = time.monotonic()
    with watched("nodes killed", KILLS) as losses:
        async with (
            load_for(stage, "node-a", kills=KILLS) as load,
            stage.adversaries("node-a", seed=load.seed).beside() as others,
        ):
            async with stage.consumer_restless():
                await kill_again_and_again(stage, losses, KILLS, seed=load.seed, seconds=SECONDS, longest=12)
            books = await stage.settled(load, others=others)
    note(request, "node killed", began, losses, load, books)
    assert losses.total >= KILLS


async def test_brokers_killed(brokerage: Stage, request: pytest.FixtureRequest) -> None:
    began = time.monotonic()
    with watched("brokers killed", _OTHERS) as losses:
        async with (
            load_for(brokerage, "node-a") as load,
            brokerage.adversaries("node-a", seed=load.seed).beside() as others,
        ):
            await lose_the_broker(brokerage, load, losses, _OTHERS, seed=load.seed)
            books = await brokerage.settled(load, replay_from="node-a", others=others)
    note(request, "broker killed", began, losses, load, books)
    assert books.resends == 0, "a charger noticed"


async def test_postgres_killed(shaky: Stage, postgres: OwnPostgres, request: pytest.FixtureRequest) -> None:
    began = time.monotonic()
    with watched("Postgres killed", _OTHERS) as losses:
        async with (
            load_for(shaky, "node-a") as load,
            shaky.adversaries("node-a", seed=load.seed).beside() as others,
        ):
            await lose_postgres(shaky, load, losses, postgres, _OTHERS, seed=load.seed)
            books = await shaky.settled(load, others=others)
    note(request, "Postgres killed", began, losses, load, books)


async def test_disks_full(shaky: Stage, postgres: OwnPostgres, request: pytest.FixtureRequest) -> None:
    began = time.monotonic()
    with watched("disks full", _DISKS) as losses:
        async with (
            load_for(shaky, "node-a") as load,
            shaky.adversaries("node-a", seed=load.seed).beside() as others,
        ):
            await fill_the_disk(shaky, load, losses, postgres, _DISKS)
            books = await shaky.settled(load, others=others)
    note(request, "disk full", began, losses, load, books)


async def test_one_of_two_nodes_killed(stage: Stage, request: pytest.FixtureRequest) -> None:
    began = time.monotonic()
    with watched("one of two nodes killed", _OTHERS) as losses:
        async with (
            load_for(stage, "node-a", "node-b") as load,
            stage.adversaries("node-a", "node-b", seed=load.seed).beside() as others,
        ):
            await lose_one_of_two(stage, load, losses, _OTHERS, seed=load.seed)
            books = await stage.settled(load, others=others)
    note(request, "one of two nodes killed", began, losses, load, books)
