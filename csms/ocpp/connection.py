"""The connection of one charge point: its socket, its session, its frames and what is known of the charge point.

Of several connections of one charge point the newest counts. Unregistering compares the connection, never only the id.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator
from datetime import UTC, datetime, tzinfo
from typing import Any, Final

from msgspec import Struct
from websockets.exceptions import ConnectionClosed
from websockets.frames import CloseCode

from csms.adapter import EVERY_GENERATION
from csms.core.masking import masked_frame
from csms.core.records import Frame
from csms.ocpp import frames, time_zones
from csms.ocpp.messages import Decoded
from csms.ocpp.quirks import Behaviours, quirks_for
from csms.ocpp.session import CallToken, OcppSession
from csms.ocpp.websocket import ChargePointSocket

_LONGEST_LOGGED_ID: Final = 255


class ServerTimings(Struct, frozen=True, kw_only=True):
    """How long the server waits, in seconds, where no setting says so."""

    sweep_s: float = 2.0  # between two looks at all connections
    write_s: float = 30.0  # until a charge point that does not read is disconnected
    close_s: float = 6.0  # until a closing handshake is given up
    stop_s: float = 5.0  # for calls that are being recorded when the server stops
    seen_every_s: float = 60.0  # between two records that a charge point was heard


DEFAULT_TIMINGS: Final = ServerTimings()


class ChargePointConnection:
    """One socket of one charge point, from its handshake to its end.

    `profile` is the security profile that the handshake reached. `record_frame` takes every frame, masked.
    `accepted_frame_bytes`: how large a frame may be once the charge point is accepted.
    """

    def __init__(
        self,
        charger_id: str,
        socket: ChargePointSocket,
        *,
        address: str | None,
        profile: int,
        record_frame: Callable[[Frame], None],
        accepted_frame_bytes: int,
        timings: ServerTimings = DEFAULT_TIMINGS,
    ) -> None:
        now = time.monotonic()
        self.charger_id = charger_id
        self.socket = socket
        self.address = address
        self.profile = profile
        self.session = OcppSession(charger_id)
        self.connected_at = now
        self.seen_posted_at = now
        self.generation = 0  # 0: not on record yet
        self.superseded_by = 0
        self._accepted = False
        self._accepted_frame_bytes = accepted_frame_bytes
        self.has_booted = False
        self.has_called = False  # it has sent a CALL and had its answer, so it has booted (OCPP 1.6, 4.2)
        self.answering = False  # a CALL of the charge point is being recorded
        self.answered_ping = False
        self.pinging = False
        self.triggered: set[str] = set()  # actions that a TriggerMessage has asked for
        self.last_csr: tuple[bytes, float] | None = None
        # Answers that a caller waits for, by the token of the call.
        self.pending: dict[CallToken, asyncio.Future[Decoded[dict[str, Any]]]] = {}
        # What to do with the status that answers a change of credentials, also when it comes late.
        self.unsettled: dict[CallToken, Callable[[str], Awaitable[None]]] = {}
        self.behaviours = Behaviours()
        self.zone: tzinfo = UTC
        self._record_frame = record_frame
        self._timings = timings

    @property
    def accepted(self) -> bool:
        """Whether an operator, or the enrollment, has accepted the charge point."""
        return self._accepted

    @accepted.setter
    def accepted(self, accepted: bool) -> None:
        self._accepted = accepted
        if accepted:
            self.socket.protocol.max_message_size = self._accepted_frame_bytes

    def quiet_s(self, now: float) -> float:
        """Seconds since anything came, by the monotonic clock."""
        return now - max(self.socket.heard_at, self.connected_at)

    def know(
        self, vendor: str | None, model: str | None, firmware: str | None, time_zone: str | None
    ) -> None:
        """Take what decides how messages are read: quirks, and the zone of times that come without one."""
        self.behaviours = quirks_for(vendor, model, firmware)
        self.zone = time_zones.time_zone(time_zone)

    # --- frames out ------------------------------------------------------------------------------

    async def flush(self, action: str | None = None) -> None:
        """Write what the session has to send. `action`: of the CALL that is answered, for the log of frames."""
        for data in self.session.data_to_send():
            self._log_sent(data, action)
            if self.socket.send_now(data):
                continue
            try:
                async with asyncio.timeout(self._timings.write_s):
                    await self.socket.send(data, text=True)
            except TimeoutError:
                await self.close(CloseCode.POLICY_VIOLATION, "this charge point does not read")
                return
            except ConnectionClosed:
                return

    async def close(self, code: int, reason: str) -> None:
        try:
            async with asyncio.timeout(self._timings.close_s):
                await self.socket.close(code, reason)
        except Exception:
            # The closing frame itself waits for room when the other side does not read.
            self.socket.transport.abort()

    async def close_if_superseded(self) -> bool:
        """End this connection if a newer one is on record; whether it was one. One without a generation waits for it."""
        if 0 < self.generation < self.superseded_by:
            elsewhere = "a newer connection of this charge point is open elsewhere"
            ended = "an operator has ended this connection"
            by_operator = self.superseded_by == EVERY_GENERATION
            await self.close(CloseCode.NORMAL_CLOSURE, ended if by_operator else elsewhere)
            return not by_operator
        return False

    # --- the log of frames -----------------------------------------------------------------------

    def log_frame(
        self, frame: bytes, kind: str, action: str | None, message_id: str | None = None, *, outgoing: bool = False
    ) -> bool:  # fmt: skip
        """Log a frame with its secrets masked. Returns whether it has any.

        `kind`: call, result, error, or odd for what is none of them.
        """
        masked = masked_frame(frame)
        self._record_frame(
            Frame(
                charger_id=self.charger_id,
                at=datetime.now(UTC),
                outgoing=outgoing,
                kind=kind,
                action=action,
                message_id=None if message_id is None else message_id[:_LONGEST_LOGGED_ID],
                frame=masked,
            )
        )
        return masked is not frame

    def _log_sent(self, data: bytes, action: str | None) -> None:
        if data.startswith(b"[2,"):
            sent = frames.parse(data)
            assert isinstance(sent, frames.CallFrame)
            self.log_frame(data, "call", sent.action, sent.message_id, outgoing=True)
        else:
            self.log_frame(data, "error" if data.startswith(b"[4,") else "result", action, outgoing=True)


class ConnectionRegistry:
    """The live connections of this node, by charge point."""

    def __init__(self) -> None:
        self._by_charger: dict[str, ChargePointConnection] = {}

    def add(self, connection: ChargePointConnection) -> ChargePointConnection | None:
        """Register the newest connection; the one it replaces, if any."""
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
