"""The console as a browser sees it."""

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx

from csms.api.app import create_app
from csms.console.app import create_console
from tests.harness.api_harness import ADMIN_TOKEN, ApiHarness

EVIL = '<script>alert("x")</script>'


@asynccontextmanager
async def open_browser(world: ApiHarness, *, page_size: int = 50) -> AsyncIterator[httpx.AsyncClient]:
    """A browser that has not signed in."""
    app = create_app(world.context, console=create_console(world.context, page_size=page_size))
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://csms") as browser:
        yield browser


async def sign_in(browser: httpx.AsyncClient, token: str = ADMIN_TOKEN) -> httpx.AsyncClient:
    answer = await browser.post("/sign-in", data={"token": token})
    assert answer.status_code == 303
    return browser


def text_of(page: str) -> str:
    """The page's text without markup, white space as single spaces."""
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", page))


def form_token(page: str) -> str:
    found = re.search(r'name="csrf" value="([^"]+)"', page)
    assert found
    return found[1]
