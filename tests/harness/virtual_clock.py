"""An event loop whose clock jumps to the next thing that is due: hours of timers pass in milliseconds.

For code that waits for nothing outside the process: no sockets, no threads.
"""

import asyncio
import selectors
from collections.abc import Callable, Coroutine
from typing import Any


class _NoWaiting(selectors.DefaultSelector):
    """Instead of waiting it says how long it would have waited."""

    def __init__(self, skip: Callable[[float], None]) -> None:
        super().__init__()
        self._skip = skip

    def select(self, timeout: float | None = None) -> Any:
        ready = super().select(0)
        if ready or timeout == 0:
            return ready
        if timeout is None:
            raise RuntimeError("all tasks wait for something that will never come")
        self._skip(max(timeout, 0))
        return ready


class VirtualLoop(asyncio.SelectorEventLoop):
    """Begins at 0 seconds."""

    def __init__(self) -> None:
        self._virtual_s = 0.0
        super().__init__(_NoWaiting(self._pass))

    def _pass(self, seconds: float) -> None:
        # A timer that is due now by less than the clock's resolution must not keep us here for ever.
        self._virtual_s += seconds + 1e-9

    def time(self) -> float:
        return self._virtual_s


def run(story: Coroutine[Any, Any, Any]) -> Any:
    """Run it on a clock of its own; what it has left running is cancelled."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(story)
