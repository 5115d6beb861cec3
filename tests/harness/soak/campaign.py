"""A run: nodes under load, what is done to them, and the figures of it."""

import itertools
import random
import time
from collections import Counter
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any

import asyncpg
import httpx

from csms.core.tariffs import Tariff
from csms.db.outbox import LOCK_CLASS
from tests.harness.adversary import stories
from tests.harness.servers import Mosquitto, unused_port
from tests.harness.soak import kill_points
from tests.harness.soak.adversaries import Adversaries
from tests.harness.soak.audit import AuditResult, audit
from tests.harness.soak.consumer import Consumer
from tests.harness.soak.load import Load
from tests.harness.soak.node_forker import NodeForker, NodeProcess

TARIFF = Tariff(energy_rate=Decimal("0.37"), time_rate=Decimal("0.013"))
# A death that waits for something which does not happen comes all the same.
_PATIENCE_S = 4.0
_TOKEN = "token-of-the-soak-campaign"


@dataclass(slots=True)
class Stage:
    """What a run needs, on this database and this broker."""

    forker: NodeForker
    database_url: str
    broker: Any
    prefix: str
    data_dir: Path
    consumer: Consumer
    ports: dict[str, tuple[int, int]] = field(default_factory=dict)

    def settings(self, name: str) -> dict[str, Any]:
        """Of one node; a restarted node has those of the one before."""
        ocpp, http = self.ports.setdefault(name, (unused_port(), unused_port()))
        return {
            "database_url": self.database_url,
            "csms_data_dir": str(self.data_dir),
            "csms_ocpp_host": "127.0.0.1",
            "csms_ocpp_port": ocpp,
            "csms_http_port": http,
            "csms_enrollment": "open",
            "csms_unknown_tags": "accept",
            "csms_admin_token": _TOKEN,
            "csms_node": name,
            "csms_log": "json",
            "csms_energy_rate": str(TARIFF.energy_rate),
            "csms_time_rate": str(TARIFF.time_rate),
            "mqtt_host": self.broker.host,
            "mqtt_port": self.broker.port_v5,
            "mqtt_topic_prefix": self.prefix,
            "mqtt_client_id": self.prefix.replace("/", "-"),
            "mqtt_reconnect_min_s": 0.05,
            "mqtt_reconnect_max_s": 0.3,
        }

    def url(self, name: str) -> str:
        return f"ws://127.0.0.1:{self.settings(name)['csms_ocpp_port']}"

    async def start(self, name: str, **doomed: Any) -> NodeProcess:
        return await self.forker.start(name, self.settings(name), doomed or None)

    async def up(self, name: str) -> NodeProcess:
        """A node that is to stay."""
        node = await self.start(name)
        assert await node.ready_or_dead(), f"{name} did not start; see {self.forker.log_path}"
        return node

    async def doomed(self, name: str, point: str, occurrence: int) -> NodeProcess:
        """A node that will die at the n-th occurrence of a point (at RANDOM: when we say so)."""
        if point == kill_points.RANDOM:
            return await self.start(name)
        return await self.start(name, point=point, occurrence=occurrence)

    def consumer_restless(self) -> AbstractAsyncContextManager[None]:
        """The consumer comes and goes, where the broker keeps sessions."""
        return self.consumer.restless() if isinstance(self.broker, Mosquitto) else nullcontext()

    async def lanes_held(self) -> int:
        """How many lanes of the outbox some live node has."""
        db = await asyncpg.connect(self.database_url)
        try:
            held = await db.fetchval(
                "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND classid = $1::int8::oid"
                " AND database = (SELECT oid FROM pg_database WHERE datname = current_database())",
                LOCK_CLASS,
            )
        finally:
            await db.close()
        return int(held)

    def adversaries(self, *names: str, seed: int = 0, plots: int = 200) -> Adversaries:
        """Chargers that lie, on these nodes."""
        urls = [self.url(name) for name in names]
        return Adversaries(self.database_url, urls, stories.drawn(plots, seed))

    async def settled(
        self, load: Load, *, replay_from: str | None = None, others: Adversaries | None = None
    ) -> AuditResult:
        """The chargers finish and deliver, the books are compared.

        `replay_from`: a node whose REST API may close gaps that a killed broker left. `others`: chargers that lie.
        """
        if others is not None:
            await others.finish()
        await load.finish()
        if replay_from is None:
            return await audit(load, self.database_url, self.consumer, TARIFF, others=others)
        url = f"http://127.0.0.1:{self.ports[replay_from][1]}"
        async with httpx.AsyncClient(
            base_url=url, headers={"Authorization": f"Bearer {_TOKEN}"}, timeout=20
        ) as api:
            return await audit(load, self.database_url, self.consumer, TARIFF, api, others)


@dataclass(slots=True)
class Losses:
    """What was done, how often, and how long it took to get over it."""

    by_point: Counter[str] = field(default_factory=Counter)
    slowest_start_s: float = 0.0
    slowest_takeover_s: float = 0.0
    told: Callable[[str], None] = lambda _point: None

    @property
    def total(self) -> int:
        return self.by_point.total()

    def count(self, point: str) -> None:
        self.by_point[point] += 1
        self.told(point)


async def kill_again_and_again(
    stage: Stage, losses: Losses, kills: int, *, seed: int = 0, seconds: float = 0, longest: int = 8
) -> None:
    """Start a node, have it killed, start it again; the points take turns. The last one stays up.

    At least `kills`, and for at least so many seconds. A node dies at the first to `longest`-th occurrence.
    """
    rng = random.Random(seed)
    until = time.monotonic() + seconds
    for point in itertools.cycle(kill_points.POINTS):
        losses.count(await _one_death(stage, "node-a", point, rng, losses, longest))
        if losses.total >= kills and time.monotonic() >= until:
            break
    await stage.up("node-a")


async def _one_death(
    stage: Stage, name: str, point: str, rng: random.Random, losses: Losses, longest: int
) -> str:
    """How it died in the end."""
    if point == kill_points.STARTING:
        node = await stage.start(name)
        if await node.ended(rng.uniform(0, 0.25)):
            raise AssertionError(f"{name} ended while it started; see {stage.forker.log_path}")
        node.kill()
        await node.dead.wait()
        return point
    node = await stage.doomed(name, point, rng.randint(1, longest))
    if await node.ready_or_dead():
        losses.slowest_start_s = max(losses.slowest_start_s, time.monotonic() - node.began)
    return await met(stage, node, rng)


async def met(stage: Stage, node: NodeProcess, rng: random.Random) -> str:
    """Wait for a doomed node's end, or bring it about; the point at which it died."""
    # Chargers dial the moment it listens: it may have met its end before it could say that it was ready.
    if await node.ended(_PATIENCE_S if node.doom else rng.uniform(0.05, 0.9)):
        assert node.doom, f"{node.name} ended by itself; see {stage.forker.log_path}"
        return node.doom
    node.kill()
    await node.dead.wait()
    return kill_points.RANDOM
