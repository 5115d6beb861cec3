"""Failures of a step that is repeated until it works: caught, and logged once."""

from types import TracebackType
from typing import Any

import structlog

log = structlog.get_logger()


class FailureLog:
    """Catch what a repeated step raises, and log the first failure of a row.

    `while True: with failures: await step()`. The warning `event` has the fields `error` and `fields`; it is logged again
    only after the step has succeeded. Until then failures are logged at level debug. A step that goes on for long calls
    `succeeded` once it works. Cancellation passes through.
    """

    def __init__(self, event: str, **fields: Any) -> None:
        self.failing = False
        self._event = event
        self._fields = fields

    def succeeded(self) -> None:
        self.failing = False

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        if error is None:
            self.succeeded()
        if not isinstance(error, Exception):
            return False
        write = log.debug if self.failing else log.warning
        write(self._event, **self._fields, error=str(error) or type(error).__name__)
        self.failing = True
        return True
