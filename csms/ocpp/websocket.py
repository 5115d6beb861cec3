"""The WebSocket of a charge point, with a fast path for nearly all traffic (docs/decisions/0009).

A whole, masked, unfragmented data frame that is all that the socket brought is read without the library's parser, and
an answer that fits into the socket's buffer is written without waiting. The library handles the rest: handshakes,
control frames, fragments, frames in pieces or several at once, errors. This halves the cost of a message. It relies on
internals of the library, hence the narrow version in pyproject.toml.
"""

import asyncio
import time
from typing import Final

from websockets.asyncio.server import ServerConnection
from websockets.frames import CloseCode, Frame, Opcode
from websockets.protocol import OPEN, Event

try:
    from websockets.speedups import apply_mask
except ImportError:  # a platform without the compiled part
    from websockets.utils import apply_mask

_FINAL_TEXT: Final = 0x80 | Opcode.TEXT
_FINAL_BINARY: Final = 0x80 | Opcode.BINARY
_TWO_BYTES, _EIGHT_BYTES = 126, 127


class ChargePointSocket(ServerConnection):
    """`heard_at`: when anything came last, by the monotonic clock. Some charge points send only pings for hours."""

    heard_at = 0.0
    _waiter: "asyncio.Future[bytes | None] | None" = None

    def process_event(self, event: Event) -> None:
        self.heard_at = time.monotonic()
        super().process_event(event)

    @property
    def end(self) -> tuple[int, str]:
        """Code and reason of the closing frame that came first, from either side; 1006: there was none."""
        protocol = self.protocol
        first = protocol.close_rcvd if protocol.close_rcvd_then_sent else protocol.close_sent
        first = first or protocol.close_rcvd
        return (CloseCode.ABNORMAL_CLOSURE, "") if first is None else (first.code, first.reason)

    # --- in --------------------------------------------------------------------------------------

    async def receive(self) -> bytes:
        """The next message, text or binary, as bytes. Raises ConnectionClosed. For one reader."""
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
        """Whether a message is there that `receive` has not returned yet."""
        return bool(self.recv_messages.frames.queue)

    def data_received(self, data: bytes) -> None:
        message = self._whole_message(data)
        if message is None:
            super().data_received(data)
            self._wake_reader()
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
        self._wake_reader()

    def _wake_reader(self) -> None:
        """Wake `receive` if the library has a message for it, or the connection has ended."""
        waiter = self._waiter
        if waiter is not None and not waiter.done() and (self.waiting or self.recv_messages.closed):
            waiter.set_result(None)

    def _whole_message(self, data: bytes) -> bytes | None:
        """The message in `data` if that is exactly one whole frame and the library holds no part of another."""
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
        """Write a text frame if that needs no waiting. False: nothing was written, use `send`."""
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
