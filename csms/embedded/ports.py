"""Choose TCP ports for servers that cannot choose their own, on loopback unless another address is named."""

import socket
from collections.abc import Collection
from contextlib import closing

from csms.embedded.errors import EmbeddedError

LOOPBACK = "127.0.0.1"


def is_free(port: int, host: str = LOOPBACK) -> bool:
    """Whether a server could listen on this port now.

    With SO_REUSEADDR, which the servers set too: connections that are closing do not occupy a port.
    """
    with closing(socket.socket(socket.AF_INET, socket.SOCK_STREAM)) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
            probe.listen(1)
        except OSError:
            return False
        return True


def any_free_port(host: str = LOOPBACK) -> int:
    """Return a free port. Another program may take it before the caller does."""
    with closing(socket.socket(socket.AF_INET, socket.SOCK_STREAM)) as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])


def next_free_port(
    preferred: int, *, host: str = LOOPBACK, taken: Collection[int] = (), tries: int = 100
) -> int:
    """Return the preferred port or the first free one above it, but none of `taken`. 0 asks for any port.

    Raises EmbeddedError when there is none within `tries`.
    """
    if preferred == 0:
        return any_free_port(host)
    for port in range(preferred, min(preferred + tries, 65_536)):
        if port not in taken and is_free(port, host):
            return port
    raise EmbeddedError(
        f"No free port between {preferred} and {min(preferred + tries, 65_536) - 1} on {host}: "
        "stop one of the programs listening there, or ask for another port."
    )


def is_accepting(port: int, host: str = LOOPBACK) -> bool:
    """Whether a server accepts connections on this port."""
    with closing(socket.socket(socket.AF_INET, socket.SOCK_STREAM)) as client:
        client.settimeout(0.5)
        return client.connect_ex((host, port)) == 0
