from collections.abc import AsyncIterator

import httpx
import pytest_asyncio

from csms.api.app import create_app
from csms.console.app import create_console
from tests.harness.api_harness import ADMIN_TOKEN, World, running


@pytest_asyncio.fixture
async def world(database_url: str) -> AsyncIterator[World]:
    async with running(database_url) as made:
        yield made


@pytest_asyncio.fixture
async def stranger(world: World) -> AsyncIterator[httpx.AsyncClient]:
    """A browser that has not signed in."""
    app = create_app(world.context, console=create_console(world.context))
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://csms") as made:
        yield made


@pytest_asyncio.fixture
async def browser(stranger: httpx.AsyncClient) -> httpx.AsyncClient:
    """Signed in as administrator."""
    answer = await stranger.post("/sign-in", data={"token": ADMIN_TOKEN})
    assert answer.status_code == 303
    return stranger
