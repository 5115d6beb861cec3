"""What else may be lost beside a node: the broker, Postgres, the disk, one node of two."""

import asyncio
import itertools
import random
import time

from csms.db.outbox import LANES
from tests.harness.soak import kill_points
from tests.harness.soak.campaign import Losses, Stage, met
from tests.harness.soak.load import Load
from tests.harness.soak.node_forker import NodeProcess
from tests.harness.soak.own_postgres import NO_SPACE, OwnPostgres
from tests.harness.waiting import until

_WAIT_S = 30.0
_FULL_S = 1.0


async def lose_the_broker(stage: Stage, load: Load, losses: Losses, times: int, *, seed: int = 0) -> None:
    """kill -9 of the broker. Chargers are served meanwhile, and the consumer is back before the next time."""
    rng = random.Random(seed)
    await stage.up("node-a")
    for _ in range(times):
        await load.progress(rng.randint(20, 80))
        stage.broker.kill()
        await load.progress(rng.randint(20, 60))
        stage.broker.start()
        losses.count("broker killed")
        await stage.consumer.back()


async def lose_postgres(
    stage: Stage, load: Load, losses: Losses, postgres: OwnPostgres, times: int, *, seed: int = 0
) -> None:
    """In turn: an immediate shutdown and a restart, and the kill of one of its processes."""
    rng = random.Random(seed)
    node = await stage.up("node-a")
    for number in range(times):
        await load.progress(rng.randint(20, 80))
        if number % 2:
            await postgres.crash_a_process()
            losses.count("Postgres: one process killed")
        else:
            postgres.crash()
            await asyncio.sleep(rng.uniform(0.1, 1))
            postgres.start()
            losses.count("Postgres: immediate shutdown")
    await load.progress(20)
    assert not node.dead.is_set(), "the node did not survive Postgres"


async def fill_the_disk(stage: Stage, load: Load, losses: Losses, postgres: OwnPostgres, times: int) -> None:
    """The database's disk runs full, nothing can be recorded, space is made. The node is not touched."""
    node = await stage.up("node-a")
    for _ in range(times):
        await load.progress(50)
        # Postgres' own log lies on the full disk: the node says what it was answered.
        refused = stage.forker.log.count(NO_SPACE)
        await postgres.fill()
        await until(lambda refused=refused: stage.forker.log.count(NO_SPACE) > refused, _WAIT_S)
        await asyncio.sleep(_FULL_S)
        await postgres.free()
        losses.count("disk full" if postgres.real_disk else "disk full, as a trigger says")
        await load.progress(50)
    assert not node.dead.is_set(), "the node did not survive a full disk"


async def lose_one_of_two(stage: Stage, load: Load, losses: Losses, times: int, *, seed: int = 0) -> None:
    """The node that holds the lanes is killed; its chargers dial the other, which takes the lanes over."""
    rng = random.Random(seed)
    points = itertools.cycle(
        (kill_points.ACKNOWLEDGED, kill_points.RANDOM, kill_points.PUBLISHED, kill_points.DELETED)
    )
    names = itertools.cycle(("node-a", "node-b"))
    holder = await stage.doomed(next(names), next(points), rng.randint(20, 60))
    assert await holder.ready_or_dead()
    for number in range(times):
        # A node without lanes neither publishes nor deletes: its own end can only come after the holder's.
        point = next(points) if number < times - 1 else kill_points.RANDOM
        other = await stage.doomed(next(names), point, rng.randint(20, 60))
        assert await other.ready_or_dead(), f"{other.name} did not start; see {stage.forker.log_path}"
        losses.count(await met(stage, holder, rng))
        died = time.monotonic()

        async def has_taken_over(other: NodeProcess = other) -> bool:
            # It has the lanes, or had them long enough to meet its own end.
            return await stage.lanes_held() >= LANES or other.dead.is_set()

        await until(has_taken_over, _WAIT_S)
        losses.slowest_takeover_s = max(losses.slowest_takeover_s, time.monotonic() - died)
        holder = other
    await load.progress(50)
    assert not holder.dead.is_set()
