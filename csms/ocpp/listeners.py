"""The OCPP server's listening sockets: one for ws:// and, if TLS is set up, one for wss://."""

import socket
import ssl
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from msgspec import Struct
from websockets.asyncio.server import Server, ServerConnection, serve

from csms.ocpp.admission import AdmissionControl
from csms.ocpp.websocket import ChargePointSocket

_OPENING_S = 20


class TlsListener(Struct, frozen=True, kw_only=True):
    """The socket for wss://. `watch` reloads the certificates of `context` when their files change, until cancelled."""

    sock: socket.socket
    context: ssl.SSLContext
    watch: Callable[[], Coroutine[Any, Any, None]]


async def listen(
    handle: Callable[[ServerConnection], Awaitable[None]],
    gate: AdmissionControl,
    sock: socket.socket,
    tls: ssl.SSLContext | None = None,
    *,
    max_frame_bytes: int,
) -> Server:
    """Accept charge points on a bound socket: `admission` decides on each handshake, `handle` serves the connection."""
    return await serve(
        handle,
        sock=sock,
        ssl=tls,
        ssl_handshake_timeout=None if tls is None else _OPENING_S,
        backlog=4096,
        process_request=gate.process_request,
        select_subprotocol=gate.select_subprotocol,
        compression=None,  # costs 30 to 40 KiB a connection, and small devices gain nothing
        max_size=max_frame_bytes,
        max_queue=8,
        ping_interval=None,  # the server's sweep pings: any frame is a sign of life, not only a pong
        open_timeout=_OPENING_S,
        close_timeout=5,
        server_header=None,
        create_connection=ChargePointSocket,
    )
