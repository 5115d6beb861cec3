"""A whole node and its charge points in a thread of their own, for tests that are not asynchronous themselves."""

import asyncio
import threading
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import asyncpg

from tests.e2e.conftest import Node, NodeFactory, nodes
from tests.harness.charge_points.raw import RawChargePoint

T = TypeVar("T")
_PATIENCE_S = 30


class Driver:
    """Runs coroutines on the node's loop; `restart` replaces the node by a new one on the same database."""

    def __init__(self, loop: asyncio.AbstractEventLoop, start: NodeFactory, node: Node, db: Any) -> None:
        self._loop = loop
        self._start = start
        self._db = db
        self.node = node

    def do(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(_PATIENCE_S)

    def restart(self) -> None:
        self.do(self._restart())

    async def _restart(self) -> None:
        self.node.stop.set()
        await asyncio.wait({self.node.task}, timeout=20)
        self.node = await self._start(mqtt=False)

    async def dial(self, charger: str) -> RawChargePoint:
        return await RawChargePoint.dial(self.node.ocpp, charger)

    def fetch(self, query: str, *args: Any) -> list[dict[str, Any]]:
        async def fetch() -> list[dict[str, Any]]:
            return [dict(row) for row in await self._db.fetch(query, *args)]

        return self.do(fetch())


@contextmanager
def driving(database_url: str, directory: Path) -> Iterator[Driver]:
    """A node on this database without a broker, running in a thread until the end."""
    ready = threading.Event()
    found: list[Driver] = []
    leave: list[Callable[[], object]] = []

    async def run() -> None:
        loop, done = asyncio.get_running_loop(), asyncio.Event()
        leave.append(lambda: loop.call_soon_threadsafe(done.set))
        db = await asyncpg.connect(database_url)
        async with nodes(database_url, None, "", directory) as start:
            found.append(Driver(loop, start, await start(mqtt=False), db))
            ready.set()
            await done.wait()
        await db.close()

    thread = threading.Thread(target=asyncio.run, args=(run(),), name="driver")
    thread.start()
    assert ready.wait(_PATIENCE_S)
    try:
        yield found[0]
    finally:
        leave[0]()
        thread.join(_PATIENCE_S)
