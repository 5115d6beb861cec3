from collections.abc import AsyncIterator

import httpx
import pytest

from tests.bridges.coin_op.conftest import start_node, start_site
from tests.harness.api_harness import ApiHarness, running
from tests.harness.console_browser import open_browser, sign_in

__all__ = ["start_node", "start_site"]


@pytest.fixture
async def world(database_url: str) -> AsyncIterator[ApiHarness]:
    async with running(database_url) as made:
        yield made


@pytest.fixture
async def stranger(world: ApiHarness) -> AsyncIterator[httpx.AsyncClient]:
    """A browser that has not signed in."""
    async with open_browser(world) as browser:
        yield browser


@pytest.fixture
async def browser(stranger: httpx.AsyncClient) -> httpx.AsyncClient:
    """A browser that has signed in as administrator."""
    return await sign_in(stranger)
