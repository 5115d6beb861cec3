"""A stage for each run: a database, a broker that keeps sessions, a consumer that has one, and a nursery of nodes."""

import contextlib
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from tests import services
from tests.services import Mosquitto
from tests.soak.campaign import Stage
from tests.soak.consumer import Consumer
from tests.soak.nursery import Nursery
from tests.soak.servers import OwnPostgres, own_postgres

# A consumer that is away or slow is to lose nothing, and a killed broker is to come back with its sessions.
DURABLE = (
    "persistence true",
    "autosave_on_changes true",
    "autosave_interval 1",
    "max_inflight_messages 0",
    "max_queued_messages 0",
    "set_tcp_nodelay true",
)


@pytest.fixture
def durable_broker(request: pytest.FixtureRequest, broker: Any) -> Any:
    """Mosquitto where it is installed, with what a durable consumer needs; else the embedded broker."""
    if services.mosquitto_program() is None:
        return broker
    start: Callable[..., Mosquitto] = request.getfixturevalue("mosquitto")
    return start(*DURABLE)


@pytest_asyncio.fixture
async def nursery(tmp_path: Path) -> AsyncIterator[Nursery]:
    async with Nursery(tmp_path / "nodes.log") as running:
        yield running
        assert running.unexpected == []


@contextlib.contextmanager
def consuming(broker: Any, prefix: str) -> Iterator[Consumer]:
    consumer = Consumer(broker.host, broker.port_v5, prefix, f"{prefix.replace('/', '-')}-consumer")
    consumer.arrive()
    try:
        yield consumer
    finally:
        consumer.leave()


@pytest.fixture(scope="module")
def postgres() -> Iterator[OwnPostgres]:
    """A Postgres that a test may break; repaired, it serves the next test of the module."""
    with own_postgres() as server:
        yield server


@pytest.fixture
def stage(
    nursery: Nursery, database_url: str, durable_broker: Any, topic_prefix: str, tmp_path: Path
) -> Iterator[Stage]:
    with consuming(durable_broker, topic_prefix) as consumer:
        yield Stage(nursery, database_url, durable_broker, topic_prefix, tmp_path, consumer)
