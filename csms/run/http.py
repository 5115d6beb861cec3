"""The HTTP server: uvicorn in the node's own loop."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import uvicorn
from starlette.types import ASGIApp, Receive, Scope, Send

from csms.adapter import AdapterHost
from csms.api.app import create_app
from csms.api.deps import Api
from csms.console.app import create_console
from csms.rental.app import Rental, create_rental
from csms.rental.payments import PaymentProvider
from csms.run.assembly import Company


class Below:
    """What lies below a path goes to one application, all else to another."""

    def __init__(self, path: str, below: ASGIApp, otherwise: ASGIApp) -> None:
        self._path, self._below, self._otherwise = path, below, otherwise

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        inside = scope["type"] == "http" and scope["path"].startswith(self._path)
        await (self._below if inside else self._otherwise)(scope, receive, send)


class _Http(uvicorn.Server):
    """Signals are the command's business."""

    @contextlib.contextmanager
    def capture_signals(self) -> Any:
        yield


@asynccontextmanager
async def http(
    api: Api,
    sock: socket.socket,
    company: Company,
    node: AdapterHost | None = None,
    *,
    provider: PaymentProvider | None = None,
) -> AsyncIterator[None]:
    """REST, console, rental page, health and metrics on a bound socket, for as long as this context."""
    rental = Rental(api, node, provider=provider)
    await company.start(rental.run(), "rental pages")
    pages = Below("/r/", create_rental(rental), create_console(api))
    config = uvicorn.Config(
        create_app(api, console=pages),
        log_config=None,
        access_log=False,
        lifespan="off",
        timeout_graceful_shutdown=3,
        # Longer than clients and proxies keep one: who hangs up first must not be we, in the middle of a request.
        timeout_keep_alive=75,
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
