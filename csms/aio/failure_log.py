"""Failures of a step that is repeated until it works: caught, and logged once."""

import asyncio
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Any, TypeVar

import structlog

T = TypeVar("T")
log = structlog.get_logger()


def cause(error: BaseException) -> str:
    """Return what an exception says, of a group its first one."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return str(error) or type(error).__name__


class FailureLog:
    """Catch what a repeated step raises, and log the first failure of a row.

    `while True: with failures: await step()`. The warning `event` has the fields `error` and `fields`; it is logged again
    only after the step has succeeded. Until then failures are logged at level debug. A step that goes on for long calls
    `succeeded` once it works. Cancellation passes through.
    """

    def __init__(self, event: str, **fields: Any) -> None:
        self.error: Exception | None = None  # of the last attempt
        self._event = event
        self._fields = fields

    def succeeded(self) -> None:
        self.error = None

    async def until_done(self, step: Callable[[], Awaitable[T]], pause_s: float) -> T:
        """Repeat a step until it succeeds, with pauses. Return what it returns."""
        while True:
            with self:
                return await step()
            await asyncio.sleep(pause_s)

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        if error is None:
            self.succeeded()
        if not isinstance(error, Exception):
            return False
        self.failed(error)
        return True

    def failed(self, error: Exception) -> None:
        write = log.warning if self.error is None else log.debug
        write(self._event, **self._fields, error=cause(error))
        self.error = error
