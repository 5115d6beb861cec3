"""A WebSocket client that does nothing by itself: it answers no ping, and reads only when told to."""

import asyncio
import base64
import json
import os
import socket
from typing import Any
from urllib.parse import urlsplit


class BareChargePoint:
    """Bytes on a TCP connection, for the charge points that no library would let us play."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    @classmethod
    async def dial(cls, url: str, identity: str, *, receive_buffer: int | None = None) -> "BareChargePoint":
        address = urlsplit(url)
        sock = socket.socket()
        if receive_buffer is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        sock.setblocking(False)
        await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", address.port or 80))
        reader, writer = await asyncio.open_connection(sock=sock, limit=2**16)
        key = base64.b64encode(os.urandom(16)).decode()
        writer.write(
            f"GET /{identity} HTTP/1.1\r\nHost: {address.netloc}\r\nUpgrade: websocket\r\n"
            f"Connection: Upgrade\r\nSec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n"
            "Sec-WebSocket-Protocol: ocpp1.6\r\n\r\n".encode()
        )
        head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 101"), head
        return cls(reader, writer)

    def put(self, data: bytes, opcode: int = 1) -> None:
        """A frame, masked with zeros."""
        assert len(data) < 2**16
        length = bytes([0x80 | len(data)]) if len(data) < 126 else b"\xfe" + len(data).to_bytes(2, "big")
        self.writer.write(bytes([0x80 | opcode]) + length + b"\0\0\0\0" + data)

    def call(self, message_id: str, action: str, payload: Any) -> None:
        self.put(json.dumps([2, message_id, action, payload]).encode())

    async def frame(self) -> tuple[int, bytes]:
        """The next frame of the server: opcode and data."""
        first, length = await self.reader.readexactly(2)
        if length == 126:
            length = int.from_bytes(await self.reader.readexactly(2), "big")
        return first & 0x0F, await self.reader.readexactly(length)

    async def answer(self) -> Any:
        """The next text frame; pings are passed over, and not answered."""
        while True:
            opcode, data = await self.frame()
            if opcode == 1:
                return json.loads(data)
            assert opcode == 9, (opcode, data)

    async def close_code(self) -> int | None:
        """Read to the end: the code of the closing frame, None if the connection just broke off."""
        try:
            while True:
                opcode, data = await self.frame()
                if opcode == 8:
                    return int.from_bytes(data[:2], "big")
        except (asyncio.IncompleteReadError, ConnectionError):
            return None

    def vanish(self) -> None:
        """Gone without a word; the server's TCP learns of it, its WebSocket does not."""
        self.writer.transport.abort()
