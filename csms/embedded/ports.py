"""Chooses TCP ports on loopback for servers that cannot be asked to choose their own."""

import socket
from collections.abc import Collection
from contextlib import closing

from csms.embedded.errors import EmbeddedError

LOOPBACK = "127.0.0.1"


def is_free(port: int) -> bool:
    """Whether a server could listen on this loopback port now.

    SO_REUSEADDR, because the servers set it too: connections that are merely closing do not count.
    """
    with closing(socket.socket(socket.AF_INET, socket.SOCK_STREAM)) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
            probe.listen(1)
        except OSError:
            return False
        return True


def any_free_port() -> int:
    """A port the kernel considers free; somebody else may still take it before we do."""
    with closing(socket.socket(socket.AF_INET, socket.SOCK_STREAM)) as probe:
        probe.bind((LOOPBACK, 0))
        return int(probe.getsockname()[1])


def next_free_port(wanted: int, *, taken: Collection[int] = (), tries: int = 100) -> int:
    """The wanted port, or the first free one above it; 0 asks for any. `taken` are spoken for."""
    if wanted == 0:
        return any_free_port()
    for port in range(wanted, min(wanted + tries, 65_536)):
        if port not in taken and is_free(port):
            return port
    raise EmbeddedError(
        f"No free port between {wanted} and {min(wanted + tries, 65_536) - 1} on {LOOPBACK}: "
        "stop one of the programs listening there, or ask for another port."
    )


def is_accepting(port: int) -> bool:
    """Whether somebody accepts connections on this loopback port."""
    with closing(socket.socket(socket.AF_INET, socket.SOCK_STREAM)) as client:
        client.settimeout(0.5)
        return client.connect_ex((LOOPBACK, port)) == 0
