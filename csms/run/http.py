"""The HTTP server: uvicorn in the node's own loop."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.routing import Mount

from csms.api.app import create_app
from csms.console.app import create_console
from csms.node.tasks import TaskStack
from csms.ocpp.origin import IpNetwork
from csms.rental.app import RentalPage, create_rental
from csms.rental.payments import PaymentProvider
from csms.run.proxies import TrustedProxies
from csms.service.context import ServiceContext


class _Http(uvicorn.Server):
    """Leaves signals to the command."""

    @contextlib.contextmanager
    def capture_signals(self) -> Any:
        yield


def create_pages(context: ServiceContext, rental: RentalPage) -> Starlette:
    """The pages for people: the rental page below /r, the console at every other address."""
    return Starlette(
        routes=[Mount("/r", create_rental(rental)), Mount("/", create_console(context))],
    )


@asynccontextmanager
async def http(
    context: ServiceContext,
    sock: socket.socket,
    tasks: TaskStack,
    *,
    trusted_proxies: Sequence[IpNetwork] = (),
    provider: PaymentProvider | None = None,
) -> AsyncIterator[None]:
    """REST, console, rental page, health and metrics on a bound socket, for as long as this context."""
    rental = RentalPage(context, provider=provider)
    await tasks.keep(rental.run, "rental pages")
    config = uvicorn.Config(
        TrustedProxies(create_app(context, console=create_pages(context, rental)), trusted_proxies),
        # It would believe 127.0.0.1 without being told to.
        proxy_headers=False,
        log_config=None,
        access_log=False,
        lifespan="off",
        timeout_graceful_shutdown=3,
        # Longer than clients and proxies keep one: this side must not close in the middle of a request.
        timeout_keep_alive=75,
        server_header=False,
    )
    server = _Http(config)
    async with tasks.task(server.serve(sockets=[sock]), "http") as task:
        try:
            yield
        finally:
            context.closing.set()
            server.should_exit = True
            await asyncio.wait({task}, timeout=5)
