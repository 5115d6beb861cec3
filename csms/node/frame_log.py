"""The log of raw frames as they crossed the wire, written a few times a second over a connection of its own.

It is apart from the ledger, so that no charger waits for it. Best effort: frames are lost with the process that
holds them, or when the log is full because Postgres is away for long; frames are stored twice when the answer to
a write was lost. Neither affects what the ledger records.
"""

import asyncio
import contextlib
from collections import deque

import structlog
from prometheus_client import Counter
from sqlalchemy.ext.asyncio import AsyncEngine

from csms.core.records import Frame
from csms.db.logs import save_frames
from csms.node.batch_writer import BatchWriter

log = structlog.get_logger()
_DROPPED = Counter("csms_frames_dropped_total", "Raw frames not logged because the log was full.")
_MOST_IN_ONE_WRITE = 5_000


class FrameLog:
    """One per node. `put` never waits; `run` writes."""

    def __init__(
        self,
        engine: AsyncEngine,
        *,
        gather_s: float = 0.25,
        max_waiting: int = 50_000,
        write_timeout_s: float = 30,
    ) -> None:
        self._gather_s = gather_s
        self._max_waiting = max_waiting
        self._writer = BatchWriter(
            "frame_log", engine, save_frames, refused=_refused, timeout_s=write_timeout_s
        )
        self._frames: deque[Frame] = deque()
        self._arrived = asyncio.Event()
        self._all_written = asyncio.Event()
        self._all_written.set()

    def put(self, frame: Frame) -> None:
        """Keep a frame for the next write. A full log drops it."""
        if len(self._frames) >= self._max_waiting:
            _DROPPED.inc()
            return
        self._frames.append(frame)
        if not self._arrived.is_set():
            self._arrived.set()
            self._all_written.clear()

    async def run(self) -> None:
        """Write until cancelled."""
        try:
            while True:
                await self._arrived.wait()
                await asyncio.sleep(self._gather_s)
                self._arrived.clear()
                while self._frames:
                    count = min(len(self._frames), _MOST_IN_ONE_WRITE)
                    await self._writer.store([self._frames.popleft() for _ in range(count)])
                if not self._arrived.is_set():
                    self._all_written.set()
        finally:
            await self._writer.close()

    async def drain(self, timeout_s: float = 10) -> None:
        """Wait until all frames are written, at most `timeout_s`: Postgres may be away."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._all_written.wait(), timeout_s)


def _refused(frame: Frame, error: Exception) -> None:
    log.error("frame_refused", charger=frame.charger_id, error=str(error))
    _DROPPED.inc()
