"""The log of raw frames: what stood on the wire, written a few times a second by a connection of its own.

Apart from the ledger, so that no charge point waits for it. Best effort: a frame may be lost with the process that
held it for a moment, or when Postgres is away for so long that the log is full, and stand there twice when the answer to
a write was lost. What was reported is the ledger's business, and neither.
"""

import asyncio
import contextlib
import random
from collections import deque
from contextlib import AsyncExitStack
from typing import Any

import structlog
from prometheus_client import Counter
from sqlalchemy.ext.asyncio import AsyncEngine

from csms.core.records import Frame
from csms.db import logs
from csms.db.outages import connection_failed, is_away

log = structlog.get_logger()
_DROPPED = Counter("csms_frames_dropped_total", "Raw frames not logged because the log was full.")
_AT_ONCE = 5_000


class FrameLog:
    """`put` never waits. One per node."""

    def __init__(
        self,
        engine: AsyncEngine,
        *,
        gather_s: float = 0.25,
        max_waiting: int = 50_000,
        write_timeout_s: float = 30,
    ) -> None:
        self._engine = engine
        self._gather_s = gather_s
        self._max_waiting = max_waiting
        self._write_timeout_s = write_timeout_s
        self._frames: deque[Frame] = deque()
        self._some = asyncio.Event()
        self._written = asyncio.Event()
        self._written.set()

    def put(self, frame: Frame) -> None:
        """Keep a frame for the next write. A full log drops it."""
        if len(self._frames) >= self._max_waiting:
            _DROPPED.inc()
            return
        self._frames.append(frame)
        if not self._some.is_set():
            self._some.set()
            self._written.clear()

    async def run(self) -> None:
        """Write until cancelled."""
        while True:
            await self._some.wait()
            await asyncio.sleep(self._gather_s)
            self._some.clear()
            while self._frames:
                await self._write([self._frames.popleft() for _ in range(min(len(self._frames), _AT_ONCE))])
            if not self._some.is_set():
                self._written.set()

    async def drain(self, timeout_s: float = 10) -> None:
        """Wait until all is written, or the time is up (Postgres may be away)."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._written.wait(), timeout_s)

    async def _write(self, frames: list[Frame]) -> None:
        """Write them, however long it takes; what Postgres refuses is lost alone."""
        delay_s = 0.1
        while True:
            try:
                await self._try(frames)
                return
            except Exception as error:
                if not is_away(error):
                    await self._isolate(frames, error)
                    return
            await asyncio.sleep(delay_s * random.uniform(0.5, 1.5))
            delay_s = min(delay_s * 2, 5)

    async def _isolate(self, frames: list[Frame], error: Exception) -> None:
        if len(frames) == 1:
            log.error("frame refused", charger=frames[0].charger_id, error=str(error))
            _DROPPED.inc()
            return
        half = len(frames) // 2
        await self._write(frames[:half])
        await self._write(frames[half:])

    async def _try(self, frames: list[Frame]) -> None:
        async with AsyncExitStack() as stack:
            try:
                connection = await stack.enter_async_context(self._engine.connect())
                db: Any = (await connection.get_raw_connection()).driver_connection
            except Exception as error:
                raise connection_failed(error) from error
            # A server that has gone silent is hung up on: waiting for it to confirm a cancel would take as long.
            watchdog = asyncio.get_running_loop().call_later(self._write_timeout_s, db.terminate)
            try:
                await logs.save_frames(db, frames)
            finally:
                watchdog.cancel()
