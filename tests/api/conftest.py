import asyncio
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
import pytest_asyncio
from typer.testing import CliRunner

from csms.api.app import create_app
from csms.cli import app
from tests.harness.api_harness import ADMIN_TOKEN, ApiHarness, running
from tests.harness.command_line import LoopClient, Ran, Told


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


@pytest.fixture
async def ran(world: ApiHarness, client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch) -> Ran:
    sync_client = LoopClient(client)
    monkeypatch.setattr(httpx, "Client", lambda **_: sync_client)

    async def run(*arguments: str) -> Any:
        return await asyncio.to_thread(CliRunner().invoke, app, list(arguments))

    return run


@pytest.fixture
async def did(ran: Ran) -> Told:
    async def do(*arguments: str) -> str:
        result = await ran(*arguments)
        assert result.exit_code == 0, (result.output, result.exception)
        return str(result.stdout)

    return do
