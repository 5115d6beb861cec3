import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from tests.harness.bridges.ev_meter_site import EvMeterSite, at_work


@pytest.fixture
async def start_site(broker: Any) -> AsyncIterator[Callable[..., Any]]:
    """`await start_site(count)` → a EvMeterSite whose backend answers until the end of the test."""
    async with contextlib.AsyncExitStack() as stack:

        async def start(count: int = 1, **given: Any) -> EvMeterSite:
            server = given.pop("on", broker)
            return await stack.enter_async_context(at_work(EvMeterSite(server, count, **given)))

        yield start
