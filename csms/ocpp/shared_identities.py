"""Two devices under one identity: each new connection displaces a live one, or serial numbers alternate.

A charge point with a bad line displaces its own dead connections: those do not answer the closing frame and do not count.
"""

from collections import OrderedDict, deque
from dataclasses import dataclass, field
from typing import Final

import structlog

from csms.adapter import AdapterHost
from csms.core.reports import Deviation
from csms.ocpp.connection import ChargePointConnection
from csms.ocpp.deviation_reports import record_deviations

log = structlog.get_logger()
_DISPLACEMENTS: Final = 3
_DISPLACED_WITHIN_S: Final = 600.0
_ALTERNATED_WITHIN_S: Final = 3600.0
_WARNED_EVERY_S: Final = 3600.0
_KEPT: Final = 4  # addresses and serial numbers that a warning names
_REMEDY: Final = (
    "Give each of the devices an identity of its own: the newest connection displaces the others."
)


@dataclass
class _Evidence:
    displaced_at: deque[float] = field(default_factory=lambda: deque(maxlen=_DISPLACEMENTS))
    addresses: deque[str] = field(default_factory=lambda: deque(maxlen=_KEPT))
    serials: deque[tuple[str, float]] = field(default_factory=lambda: deque(maxlen=3))
    warned_at: float | None = None


class SharedIdentities:
    """What points to a second device, by identity; pure. Of more than `most` identities the oldest is forgotten.

    `displaced` and `booted` return what a warning says, at most once an hour for an identity; None: no warning is due.
    """

    def __init__(self, *, most: int = 10_000) -> None:
        self._most = most
        self._evidence: OrderedDict[str, _Evidence] = OrderedDict()

    def displaced(self, charger_id: str, addresses: tuple[str | None, ...], now: float) -> str | None:
        """A live connection was displaced by a newer one. `addresses`: of both."""
        known = self._known(charger_id)
        known.displaced_at.append(now)
        for address in addresses:
            if address is not None and address not in known.addresses:
                known.addresses.append(address)
        times = known.displaced_at
        often = len(times) == _DISPLACEMENTS and now - times[0] <= _DISPLACED_WITHIN_S
        return self._warning(known, now) if often else None

    def booted(self, charger_id: str, serial: str | None, now: float) -> str | None:
        """A boot with a serial number: one that was replaced by another and comes back is a second device's."""
        if serial is None:
            return None
        serials = self._known(charger_id).serials
        if serials and serials[-1][0] == serial:
            return None
        serials.append((serial, now))
        first = serials[0]
        alternating = len(serials) == 3 and first[0] == serial and now - first[1] <= _ALTERNATED_WITHIN_S
        return self._warning(self._known(charger_id), now) if alternating else None

    def _known(self, charger_id: str) -> _Evidence:
        known = self._evidence.setdefault(charger_id, _Evidence())
        self._evidence.move_to_end(charger_id)
        if len(self._evidence) > self._most:
            self._evidence.popitem(last=False)
        return known

    @staticmethod
    def _warning(known: _Evidence, now: float) -> str | None:
        if known.warned_at is not None and now - known.warned_at < _WARNED_EVERY_S:
            return None
        known.warned_at = now
        serials = dict.fromkeys(serial for serial, _ in known.serials)
        return "; ".join(
            f"{name}: {', '.join(values)}"
            for name, values in (("addresses", known.addresses), ("serial numbers", serials))
            if values
        )


class IdentityWatch:
    """Warns in the log and among the charger's deviations when two devices use one identity."""

    def __init__(self, node: AdapterHost) -> None:
        self._node = node
        self._shared = SharedIdentities()

    async def displaced(self, connection: ChargePointConnection, by_address: str | None, now: float) -> None:
        """A connection was closed because a newer one came. `by_address`: where that came from; None: not known."""
        if connection.socket.protocol.close_rcvd is None:
            return  # nothing answered: its line was dead
        addresses = (connection.address, by_address)
        await self._warn(connection, self._shared.displaced(connection.charger_id, addresses, now))

    async def booted(self, connection: ChargePointConnection, serial: str | None, now: float) -> None:
        await self._warn(connection, self._shared.booted(connection.charger_id, serial, now))

    async def _warn(self, connection: ChargePointConnection, evidence: str | None) -> None:
        if evidence is None:
            return
        charger_id = connection.charger_id
        log.warning("identity_shared", charger=charger_id, evidence=evidence, remedy=_REMEDY)
        found = [Deviation(field="", kind="identity_shared", detail=evidence)]
        await record_deviations(self._node, charger_id, "", found)
