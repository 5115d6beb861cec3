"""Limits on failed logins in a sliding minute, in bounded memory. Pure: the caller gives the time."""

import ipaddress
from collections import OrderedDict, deque
from typing import Final

_ADDRESS_FACTOR: Final = 6
_IDENTITY_FACTOR: Final = 10
_WINDOW_S: Final = 60.0
_MAX_KEYS: Final = 20_000
Key = tuple[str, str]


def network_of(address: str) -> str:
    """Return what counts as one address: an IPv4 address, the /64 of an IPv6 address, any other text as it is."""
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(parsed, ipaddress.IPv4Address):
        return str(parsed)
    if parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    return str(ipaddress.ip_network((parsed.packed[:8] + bytes(8), 64)))


class FailureWindow:
    """The times of failures by key. Of more than `max_keys` keys the one that failed longest ago is dropped."""

    def __init__(self, *, max_keys: int = _MAX_KEYS) -> None:
        self._max_keys = max_keys
        self._times: OrderedDict[Key, deque[float]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._times)

    def wait_s(self, key: Key, limit: int, now: float) -> float:
        """Return the seconds until fewer than `limit` failures are in the window; 0: there are fewer now."""
        times = self._times.get(key)
        if times is None:
            return 0.0
        while times and times[0] <= now - _WINDOW_S:
            times.popleft()
        if not times:
            del self._times[key]
            return 0.0
        return times[-limit] + _WINDOW_S - now if len(times) >= limit else 0.0

    def add(self, key: Key, limit: int, now: float) -> None:
        """Count a failure. Of those in the window the last `limit` are kept."""
        times = self._times.get(key)
        if times is None:
            times = self._times[key] = deque(maxlen=limit)
        times.append(now)
        self._times.move_to_end(key)
        while len(self._times) > self._max_keys:
            self._times.popitem(last=False)

    def take_back(self, key: Key, at: float) -> None:
        """Take back the failure that was counted at this time."""
        times = self._times.get(key)
        if times is not None and at in times:
            times.remove(at)

    def forget(self, key: Key) -> None:
        self._times.pop(key, None)


class LoginAttempts:
    """Attempts of identities: each is counted as a failure before it is verified, and a success takes it back.

    `limit` failures in a minute of one identity from one address, six times that of one address; 0: no limit. After ten
    times the limit of one identity from all addresses, each address has a single attempt for it: the right password is
    verified from a new address, however many were tried from others. An identity that has logged in from an address is held to the
    first limit only.
    """

    def __init__(self, limit: int, *, max_keys: int = _MAX_KEYS) -> None:
        self._limit = limit
        self._max_keys = max_keys
        self._failures = FailureWindow(max_keys=max_keys)
        self._known: OrderedDict[Key, None] = OrderedDict()

    def __len__(self) -> int:
        return len(self._failures) + len(self._known)

    def known(self, address: str, identity: str) -> bool:
        """Whether the identity has logged in from the address."""
        return (network_of(address), identity) in self._known

    def wait_s(self, address: str, identity: str, now: float) -> float:
        """Return the seconds until the next attempt is verified; 0: now."""
        if not self._limit:
            return 0.0
        pair, of_address, of_identity = _keys(address, identity)
        if pair in self._known:
            return self._failures.wait_s(pair, self._limit, now)
        tried = self._failures.wait_s(of_identity, self._limit * _IDENTITY_FACTOR, now)
        return max(
            self._failures.wait_s(pair, 1 if tried else self._limit, now),
            self._failures.wait_s(of_address, self._limit * _ADDRESS_FACTOR, now),
        )

    def reserve(self, address: str, identity: str, now: float) -> float:
        """Count an attempt as failed and return 0, or return the seconds to wait: then it must not be verified."""
        wait_s = self.wait_s(address, identity, now)
        if self._limit and not wait_s:
            pair, of_address, of_identity = _keys(address, identity)
            self._failures.add(pair, self._limit, now)
            self._failures.add(of_address, self._limit * _ADDRESS_FACTOR, now)
            self._failures.add(of_identity, self._limit * _IDENTITY_FACTOR, now)
        return wait_s

    def give_back(self, address: str, identity: str, at: float) -> None:
        """Take back the attempt reserved at this time: it was no failure."""
        for key in _keys(address, identity):
            self._failures.take_back(key, at)

    def succeeded(self, address: str, identity: str) -> None:
        """Forget the failures of this identity from this address, and remember that it has logged in from there."""
        pair = (network_of(address), identity)
        self._failures.forget(pair)
        self._known[pair] = None
        self._known.move_to_end(pair)
        if len(self._known) > self._max_keys:
            self._known.popitem(last=False)


def _keys(address: str, identity: str) -> tuple[Key, Key, Key]:
    network = network_of(address)
    return (network, identity), (network, ""), ("", identity)
