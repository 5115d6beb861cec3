from collections.abc import AsyncIterator

import httpx
import pytest_asyncio

from csms.api.app import create_app
from tests.harness.api_harness import ADMIN_TOKEN, ApiHarness, running


@pytest_asyncio.fixture
async def world(database_url: str) -> AsyncIterator[ApiHarness]:
    async with running(database_url) as made:
        yield made


@pytest_asyncio.fixture
async def client(world: ApiHarness) -> AsyncIterator[httpx.AsyncClient]:
    """With the administrator's token."""
    transport = httpx.ASGITransport(create_app(world.context), raise_app_exceptions=False)
    async with httpx.AsyncClient(
        transport=transport,
        base_url="http://csms/api/v1",
        headers={"Authorization": f"Bearer {ADMIN_TOKEN}"},
    ) as made:
        yield made
