"""Failed logins in a sliding window, in bounded memory. Pure: the time comes from the caller.

Three counts: of one identity from one address, of one address, of one identity. The first is the smallest, so a charge
point with a wrong password is put off before its neighbours behind the same router are.
"""

from collections import OrderedDict, deque
from typing import Final

_ADDRESS_FACTOR: Final = 6
_IDENTITY_FACTOR: Final = 10


class LoginAttempts:
    """`limit` failures in `window_s` seconds; 0: no limit. At most `max_keys` counts are kept, the oldest go."""

    def __init__(self, limit: int, *, window_s: float = 60, max_keys: int = 20_000) -> None:
        self._limit = limit
        self._window_s = window_s
        self._max_keys = max_keys
        self._failures: OrderedDict[tuple[str, str], deque[float]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._failures)

    def wait_s(self, address: str, charger_id: str, now: float) -> float:
        """For how long no login is looked at; 0: it is. Logins that are put off are not counted."""
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
        """It knows its password after all: its own count begins anew."""
        if self._failures:
            self._failures.pop((address, charger_id), None)

    def _left(self, key: tuple[str, str], limit: int, now: float) -> float:
        times = self._failures.get(key)
        if times is None:
            return 0.0
        while times and times[0] <= now - self._window_s:
            times.popleft()
        if not times:
            del self._failures[key]
            return 0.0
        return times[0] + self._window_s - now if len(times) >= limit else 0.0

    @staticmethod
    def _keys(address: str, charger_id: str) -> tuple[tuple[tuple[str, str], int], ...]:
        return (
            ((address, charger_id), 1),
            ((address, ""), _ADDRESS_FACTOR),
            (("", charger_id), _IDENTITY_FACTOR),
        )
