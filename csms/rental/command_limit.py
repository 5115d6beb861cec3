"""How often a renter may send a command: counted on each node by itself."""

import time
from collections.abc import Callable
from typing import Final

A_COMMAND_S: Final = 1.0
_MOST: Final = 100_000


class CommandLimiter:
    """One command a second for each user."""

    def __init__(self, *, every_s: float = A_COMMAND_S, clock: Callable[[], float] = time.monotonic) -> None:
        self._every_s = every_s
        self._clock = clock
        self._last: dict[str, float] = {}

    def wait_s(self, uid: str) -> float:
        """How long this user has to wait; 0: go ahead, and it is counted."""
        now = self._clock()
        left_s = self._last.get(uid, float("-inf")) + self._every_s - now
        if left_s > 0:
            return left_s
        if len(self._last) >= _MOST:
            self._last = {who: at for who, at in self._last.items() if now - at < self._every_s}
        self._last[uid] = now
        return 0.0
