"""The command line with the REST interface behind it, without a socket and a process."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import httpx

Told = Callable[..., Awaitable[str]]  # runs a command that succeeds: what it prints
Ran = Callable[..., Awaitable[Any]]  # runs a command: its result


class LoopClient:
    """The part of httpx.Client that the command line uses: requests from its thread, answered in the test's loop."""

    def __init__(self, client: httpx.AsyncClient) -> None:
        self._client = client
        self._loop = asyncio.get_running_loop()

    def request(self, method: str, path: str, **kwargs: Any) -> httpx.Response:
        asked = self._client.request(method, path, **kwargs)
        return asyncio.run_coroutine_threadsafe(asked, self._loop).result(30)
