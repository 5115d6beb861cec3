"""Limits on failed logins in a sliding window, in bounded memory. Pure: the caller gives the time.

Three counts: of one identity from one address, of one address, of one identity. The first has the lowest limit, so that a
charge point with a wrong password is refused before others behind the same router are.
"""

from collections import OrderedDict, deque
from typing import Final

_ADDRESS_FACTOR: Final = 6
_IDENTITY_FACTOR: Final = 10
_WINDOW_S: Final = 60.0


class LoginAttempts:
    """`limit` failures in a minute; 0: no limit. Of more than `max_keys` counts the oldest is dropped."""

    def __init__(self, limit: int, *, max_keys: int = 20_000) -> None:
        self._limit = limit
        self._max_keys = max_keys
        self._failures: OrderedDict[tuple[str, str], deque[float]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._failures)

    def wait_s(self, address: str, charger_id: str, now: float) -> float:
        """Seconds until the next login is checked; 0: now. A login refused for this reason does not count."""
        if not self._limit or not self._failures:
            return 0.0
        return max(
            self._left(key, self._limit * factor, now) for key, factor in self._keys(address, charger_id)
        )

    def failed(self, address: str, charger_id: str, now: float) -> None:
        if not self._limit:
            return
        for key, factor in self._keys(address, charger_id):
            times = self._failures.get(key)
            if times is None:
                times = self._failures[key] = deque(maxlen=self._limit * factor)
            times.append(now)
            self._failures.move_to_end(key)
        while len(self._failures) > self._max_keys:
            self._failures.popitem(last=False)

    def succeeded(self, address: str, charger_id: str) -> None:
        """Forget the failures of this identity from this address."""
        if self._failures:
            self._failures.pop((address, charger_id), None)

    def _left(self, key: tuple[str, str], limit: int, now: float) -> float:
        times = self._failures.get(key)
        if times is None:
            return 0.0
        while times and times[0] <= now - _WINDOW_S:
            times.popleft()
        if not times:
            del self._failures[key]
            return 0.0
        return times[0] + _WINDOW_S - now if len(times) >= limit else 0.0

    @staticmethod
    def _keys(address: str, charger_id: str) -> tuple[tuple[tuple[str, str], int], ...]:
        return (
            ((address, charger_id), 1),
            ((address, ""), _ADDRESS_FACTOR),
            (("", charger_id), _IDENTITY_FACTOR),
        )
