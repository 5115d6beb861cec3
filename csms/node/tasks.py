"""Tasks that live and end together: the first failure ends all of them."""

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import structlog

log = structlog.get_logger()


class TaskStack:
    """Starts tasks on an exit stack, so that they are cancelled in the reverse order of their start.

    `failed` holds the exception of the first task that ended with one.
    """

    def __init__(self, stack: AsyncExitStack) -> None:
        self.stack = stack
        self.failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def start(self, work: Coroutine[Any, Any, None], name: str) -> None:
        """Run a task until the stack unwinds."""
        await self.stack.enter_async_context(self.task(work, name))

    @asynccontextmanager
    async def task(self, work: Coroutine[Any, Any, None], name: str) -> AsyncIterator["asyncio.Task[None]"]:
        """Run a task for as long as this context."""

        def ended(task: "asyncio.Task[None]") -> None:
            if not task.cancelled() and (error := task.exception()) is not None:
                log.error("part_failed", part=name, error=str(error) or type(error).__name__, exc_info=error)
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
        """Wait until `stop` is set or a task fails."""
        stopping: asyncio.Future[Any] = asyncio.ensure_future(stop.wait())
        await asyncio.wait({stopping, self.failed}, return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
