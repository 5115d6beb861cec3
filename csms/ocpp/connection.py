"""Which socket is a charge point's: the newest, always. Unregistering compares the connection, not the id."""

import time
from collections.abc import Awaitable, Callable, Iterator
from datetime import UTC, tzinfo
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from csms.ocpp.quirks import Behaviours, quirks_for
from csms.ocpp.session import OcppSession
from csms.ocpp.websocket import ChargePointSocket

if TYPE_CHECKING:
    import asyncio


class ChargePointConnection:
    """One socket of one charge point, from its handshake to its end."""

    __slots__ = (
        "__weakref__",
        "accepted",
        "answered_ping",
        "answering",
        "behaviours",
        "charger_id",
        "connected_at",
        "generation",
        "has_called",
        "last_csr",
        "pending",
        "pinging",
        "profile",
        "seen_posted_at",
        "session",
        "socket",
        "superseded_by",
        "triggered",
        "unsettled",
        "zone",
    )

    def __init__(self, charger_id: str, socket: ChargePointSocket, *, profile: int = 0) -> None:
        now = time.monotonic()
        self.charger_id = charger_id
        self.socket = socket
        self.session = OcppSession(charger_id)
        self.generation = 0
        self.superseded_by = 0
        self.accepted = False
        self.has_called = False  # it has sent a CALL, so it has booted before (OCPP 1.6, 4.2)
        self.connected_at = now
        self.seen_posted_at = now
        self.answered_ping = False
        self.pinging = False
        self.triggered: set[str] = set()
        self.answering = False  # a call of the charge point is being recorded
        self.pending: dict[object, asyncio.Future[dict[str, Any]]] = {}
        self.profile = profile
        self.last_csr: tuple[bytes, float] | None = None
        # What to do with the status that answers a change of credentials, also when it comes late.
        self.unsettled: dict[object, Callable[[str], Awaitable[None]]] = {}
        self.behaviours = Behaviours()
        self.zone: tzinfo = UTC

    def quiet_s(self, now: float) -> float:
        """For how long nothing has come, by the monotonic clock."""
        return now - max(self.socket.heard_at, self.connected_at)

    def know(
        self, vendor: str | None, model: str | None, firmware: str | None, time_zone: str | None
    ) -> None:
        """Who it is decides how its messages are read. `time_zone` is for times that come without one."""
        self.behaviours = quirks_for(vendor, model, firmware)
        try:
            self.zone = UTC if time_zone is None else ZoneInfo(time_zone)
        except (ZoneInfoNotFoundError, ValueError):
            self.zone = UTC


class ConnectionRegistry:
    """The live connections of this node, by charge point."""

    def __init__(self) -> None:
        self._by_charger: dict[str, ChargePointConnection] = {}

    def add(self, connection: ChargePointConnection) -> ChargePointConnection | None:
        """Register the newest connection. Returns the one it replaces."""
        replaced = self._by_charger.get(connection.charger_id)
        self._by_charger[connection.charger_id] = connection
        return replaced

    def remove(self, connection: ChargePointConnection) -> bool:
        """Unregister this very connection. False: a newer one has taken its place."""
        if self._by_charger.get(connection.charger_id) is not connection:
            return False
        del self._by_charger[connection.charger_id]
        return True

    def get(self, charger_id: str) -> ChargePointConnection | None:
        return self._by_charger.get(charger_id)

    def __iter__(self) -> Iterator[ChargePointConnection]:
        return iter(list(self._by_charger.values()))

    def __len__(self) -> int:
        return len(self._by_charger)
