"""How often a renter may send a command. Each node counts by itself."""

import time
from collections.abc import Callable
from typing import Final

_MOST_USERS: Final = 100_000
_INTERVAL_S: Final = 1.0


class CommandLimiter:
    """Allows each user one command a second."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._last: dict[str, float] = {}

    def wait_s(self, uid: str) -> float:
        """Return how long this user has to wait; 0 allows a command, which counts from now on."""
        now = self._clock()
        left_s = self._last.get(uid, float("-inf")) + _INTERVAL_S - now
        if left_s > 0:
            return left_s
        if len(self._last) >= _MOST_USERS:
            self._last = {user: at for user, at in self._last.items() if now - at < _INTERVAL_S}
        self._last[uid] = now
        return 0.0
