"""The tasks of a program: vital ones, whose failure ends it, and parts, which are started again."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import structlog

from csms.aio import Parts, cause
from csms.errors import StartError

log = structlog.get_logger()
_Work = Coroutine[Any, Any, None]


class TaskStack:
    """Starts tasks on an exit stack, so that they are cancelled in the reverse order of their start.

    `failed` holds the exception of the first vital task that ended with one. `parts`: what is wrong with the others.
    """

    first_pause_s = 1.0
    longest_pause_s = 60.0
    # A part that has run for so long works.
    settled_s = 30.0

    def __init__(self, stack: AsyncExitStack) -> None:
        self.stack = stack
        self.parts = Parts()
        self.failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def start(self, work: _Work, name: str) -> None:
        """Run a vital task until the stack unwinds."""
        await self.stack.enter_async_context(self.task(work, name))

    async def keep(self, work: Callable[[], _Work], name: str) -> None:
        """Run a part until the stack unwinds. When it fails it is started again, after a pause that grows.

        A StartError ends the program: it is a mistake in the settings, which no repetition mends.
        """
        await self.start(self._keep(work, name), name)

    async def _keep(self, work: Callable[[], _Work], name: str) -> None:
        pause_s = self.first_pause_s
        with self.parts.part(name, "part_failed") as part:
            while True:
                began = time.monotonic()
                error = await self._outcome(work(), name, part.succeeded)
                if error is None:
                    return
                if isinstance(error, StartError):
                    raise error
                part.failed(error)
                if time.monotonic() - began > self.settled_s:
                    pause_s = self.first_pause_s
                await asyncio.sleep(pause_s)
                pause_s = min(2 * pause_s, self.longest_pause_s)

    async def _outcome(self, work: _Work, name: str, settled: Callable[[], None]) -> Exception | None:
        """Run a part once. Return what it raised, None if it ended; `settled` is called when it has run for a while."""
        task = asyncio.create_task(work, name=name)
        try:
            if not (await asyncio.wait({task}, timeout=self.settled_s))[0]:
                settled()
            await asyncio.wait({task})
        finally:
            task.cancel()
            await asyncio.wait({task})
        if task.cancelled():
            return None
        error = task.exception()
        if error is not None and not isinstance(error, Exception):
            raise error
        return error

    @asynccontextmanager
    async def task(self, work: _Work, name: str) -> AsyncIterator["asyncio.Task[None]"]:
        """Run a vital task for as long as this context."""

        def ended(task: "asyncio.Task[None]") -> None:
            if not task.cancelled() and (error := task.exception()) is not None:
                log.error("vital_part_failed", part=name, error=cause(error), exc_info=error)
                if not self.failed.done():
                    self.failed.set_exception(error)

        task = asyncio.create_task(work, name=name)
        task.add_done_callback(ended)
        try:
            yield task
        finally:
            task.cancel()
            await asyncio.wait({task})

    async def until(self, stop: asyncio.Event) -> None:
        """Wait until `stop` is set or a vital task fails."""
        stopping: asyncio.Future[Any] = asyncio.ensure_future(stop.wait())
        await asyncio.wait({stopping, self.failed}, return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
