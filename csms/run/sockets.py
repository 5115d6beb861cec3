"""Listening sockets, bound before anything else starts: a taken port is a sentence, never a traceback."""

import errno
import socket

from csms.errors import StartError

_NEXT_PORTS = 50


def listening(host: str, port: int, *, what: str, variable: str, or_next: bool = False) -> socket.socket:
    """A socket listening on `host:port`. `or_next`: if the port is taken, on the next free one.

    Raises StartError that names the port's purpose and the variable that changes it.
    """
    for candidate in range(port, min(port + _NEXT_PORTS, 65_536) if or_next and port else port + 1):
        try:
            family = socket.AF_INET6 if ":" in host else socket.AF_INET
            return socket.create_server((host, candidate), family=family, backlog=4096)
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise StartError(
                    f"{what} cannot listen on {host}:{port} ({error.strerror}): change {variable}_HOST or {variable}_PORT."
                ) from None
    raise StartError(
        f"port {port} for {what} is taken: stop the other program, or set {variable}_PORT to a free one."
    )
