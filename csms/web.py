"""The HTTP server: uvicorn in the node's own loop."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import uvicorn

from csms.api.app import create_app
from csms.api.deps import Api
from csms.assembly import Company
from csms.console.app import create_console


class _Http(uvicorn.Server):
    """Signals are the command's business."""

    @contextlib.contextmanager
    def capture_signals(self) -> Any:
        yield


@asynccontextmanager
async def http(api: Api, sock: socket.socket, company: Company) -> AsyncIterator[None]:
    """REST, console, health and metrics on a bound socket, for as long as this context."""
    config = uvicorn.Config(
        create_app(api, console=create_console(api)),
        log_config=None,
        access_log=False,
        lifespan="off",
        timeout_graceful_shutdown=3,
        server_header=False,
    )
    server = _Http(config)
    async with company.task(server.serve(sockets=[sock]), "http") as task:
        try:
            yield
        finally:
            api.closing.set()
            server.should_exit = True
            await asyncio.wait({task}, timeout=5)
