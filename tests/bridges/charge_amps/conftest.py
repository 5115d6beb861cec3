"""A simulated Charge Amps cloud on loopback, with a clock that the test moves."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from bridges.charge_amps.adapter import ChargeAmpsAdapter
from bridges.charge_amps.config import ChargeAmpsConfig, ChargeAmpsIntervals
from bridges.charge_amps.eapi import EapiCloud
from bridges.charge_amps.web_api import WebApiCloud
from csms.simulate.charge_amps import (
    FakeChargePoint,
    FakeCloud,
    FakeCloudServer,
)
from csms.simulate.charge_amps.server import API_KEY, EMAIL, PASSWORD
from tests.e2e.conftest import Node

POINT = "020100004457L"
# A Saturday, noon in Amsterdam.
NOON = datetime(2026, 11, 21, 11, tzinfo=UTC)


class HandClock:
    """Time passes when the test says so."""

    def __init__(self, now: datetime = NOON) -> None:
        self.now = now

    def __call__(self) -> datetime:
        return self.now

    def advance(self, **parts: float) -> datetime:
        self.now += timedelta(**parts)
        return self.now


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


@pytest.fixture
async def server(clock: HandClock) -> AsyncIterator[FakeCloudServer]:
    """One Halo of the new kind."""
    async with FakeCloudServer(FakeCloud(FakeChargePoint(POINT), clock=clock)).running() as running:
        yield running


FAST = ChargeAmpsIntervals(
    poll_s=0.05,
    settle_s=120,
    tend_s=0.05,
    retry_s=(0.1, 0.1, 0.1),
    backoff_s=(0.05, 0.1),
    refresh_s=60,
)


class ChargeAmpsSite:
    """A node with the bridge in it, and the cloud it looks at."""

    def __init__(self, server: FakeCloudServer, clock: HandClock, start_node: Any, prefix: str) -> None:
        self.server = server
        self.cloud = server.cloud
        self.clock = clock
        self.prefix = prefix
        self._start_node = start_node

    def clouds(self, which: str = "both") -> tuple[EapiCloud | WebApiCloud, WebApiCloud | None]:
        """The APIs for chargers and for schedules."""
        given: dict[str, Any] = {"write_gap_s": 0.0, "timeout_s": 0.5, "clock": self.clock}
        eapi = EapiCloud(f"{self.server.url}/api/v5", EMAIL, PASSWORD, API_KEY, **given)
        web = WebApiCloud(f"{self.server.url}/api", EMAIL, PASSWORD, **given)
        clouds: dict[str, tuple[EapiCloud | WebApiCloud, WebApiCloud | None]]
        clouds = {"both": (eapi, web), "eapi": (eapi, None), "web": (web, web)}
        return clouds[which]

    def config(self, **changes: Any) -> ChargeAmpsConfig:
        usual: dict[str, Any] = {
            "zone": ZoneInfo("Europe/Amsterdam"),
            "time_zone": "Europe/Amsterdam",
            "price_topic": f"{self.prefix}/energy_prices/attributes",
            "discovery": None,
            "intervals": FAST,
        }
        return ChargeAmpsConfig(**{**usual, **changes})

    async def start(self, which: str = "both", **changes: Any) -> tuple[Node, ChargeAmpsAdapter]:
        adapter = ChargeAmpsAdapter(self.config(**changes), *self.clouds(which), self.clock)
        node = await self._start_node(bridges=[adapter], csms_infer_stop_after_s=0)
        return node, adapter

    async def stop(self, node: Node) -> None:
        node.stop.set()
        await asyncio.wait({node.task}, timeout=20)

    def let(self, **parts: float) -> None:
        """Let time pass in the garage."""
        self.clock.advance(**parts)
        self.cloud.tick()


@pytest.fixture
def site(server: FakeCloudServer, clock: HandClock, start_node: Any, topic_prefix: str) -> ChargeAmpsSite:
    return ChargeAmpsSite(server, clock, start_node, topic_prefix)
