"""The WebSocket of a charge point, with a short way for what nearly all traffic is.

A whole, masked, unfragmented frame of data, alone in what the socket brought, needs none of the parser's care, and
an answer that fits into the socket's buffer needs nobody to wait for it. Everything else goes the library's way:
handshakes, control frames, fragments, frames in pieces or several at once, errors. Halves the cost of a message
(docs/decisions/0009). It leans on the library's insides, hence the narrow version in pyproject.toml.
"""

import asyncio
import time
from typing import Final

from websockets.asyncio.server import ServerConnection
from websockets.frames import Frame, Opcode
from websockets.protocol import OPEN, Event

try:
    from websockets.speedups import apply_mask
except ImportError:  # a platform without the compiled part
    from websockets.utils import apply_mask

_FINAL_TEXT: Final = 0x80 | Opcode.TEXT
_FINAL_BINARY: Final = 0x80 | Opcode.BINARY
_TWO_BYTES, _EIGHT_BYTES = 126, 127


class ChargePointSocket(ServerConnection):
    """Knows when anything came last: some charge points send nothing but pings for hours, others never answer one."""

    heard_at = 0.0
    _waiter: "asyncio.Future[bytes | None] | None" = None

    def process_event(self, event: Event) -> None:
        self.heard_at = time.monotonic()
        super().process_event(event)

    # --- in --------------------------------------------------------------------------------------

    async def receive(self) -> bytes:
        """The next message, as bytes whatever its opcode. Raises ConnectionClosed. For one reader."""
        if self.waiting or self.recv_messages.closed:
            return await self.recv(decode=False)
        self._waiter = self.loop.create_future()
        try:
            message = await self._waiter
        finally:
            self._waiter = None
        return await self.recv(decode=False) if message is None else message

    @property
    def waiting(self) -> bool:
        """Whether there is more than `receive` has given out."""
        return bool(self.recv_messages.frames.queue)

    def data_received(self, data: bytes) -> None:
        message = self._alone(data)
        if message is None:
            super().data_received(data)
            self._look()
            return
        self.heard_at = time.monotonic()
        waiter = self._waiter
        if waiter is not None and not waiter.done():
            waiter.set_result(message)
        else:
            opcode = Opcode.TEXT if data[0] == _FINAL_TEXT else Opcode.BINARY
            self.recv_messages.put(Frame(opcode, message))

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._look()

    def _look(self) -> None:
        """The library has something for whoever waits here."""
        waiter = self._waiter
        if waiter is not None and not waiter.done() and (self.waiting or self.recv_messages.closed):
            waiter.set_result(None)

    def _alone(self, data: bytes) -> bytes | None:
        """The message in `data`, where that is one whole frame, neither more nor less, and nothing went before."""
        size = len(data)
        if size < 6 or self.request is None:
            return None
        first, length, head = data[0], data[1], 2
        if first not in (_FINAL_TEXT, _FINAL_BINARY) or length < 0x80:
            return None
        length &= 0x7F
        if length == _TWO_BYTES:
            length, head = data[2] << 8 | data[3], 4
        elif length == _EIGHT_BYTES:
            return None
        protocol = self.protocol
        if (
            size != head + 4 + length
            or protocol.state is not OPEN
            or protocol.reader.buffer
            or protocol.current_size is not None
            or (protocol.max_message_size is not None and length > protocol.max_message_size)
        ):
            return None
        mask = data[head : head + 4]
        payload = data[head + 4 :]
        return payload if mask == b"\0\0\0\0" else apply_mask(payload, mask)

    # --- out -------------------------------------------------------------------------------------

    def send_now(self, text: bytes) -> bool:
        """Write a text frame if that needs no waiting. False: nothing was done, use `send`."""
        if self.protocol.state is not OPEN or self.paused or self.send_in_progress is not None:
            return False
        size = len(text)
        if size < _TWO_BYTES:
            self.transport.write(b"%c%c%b" % (_FINAL_TEXT, size, text))
        elif size < 1 << 16:
            self.transport.write(b"%c%c%b%b" % (_FINAL_TEXT, _TWO_BYTES, size.to_bytes(2, "big"), text))
        else:
            return False
        return True
