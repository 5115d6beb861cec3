"""Chromium, spoken to in its own protocol: real clicks and keys on real pages. Skipped where it is not installed."""

import asyncio
import contextlib
import itertools
import json
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection, connect

from tests.harness.waiting import until

CHROMIUM = next(
    (p for n in ("chromium", "chromium-browser", "google-chrome") if (p := shutil.which(n))), None
)


class Tab:
    """One page of the browser."""

    def __init__(self, socket: ClientConnection) -> None:
        self._socket = socket
        self._ids = itertools.count(1)

    async def ask(self, method: str, **params: Any) -> Any:
        answer = await self._asked(method, **params)
        assert "error" not in answer, answer
        return answer["result"]

    async def _asked(self, method: str, **params: Any) -> Any:
        number = next(self._ids)
        await self._socket.send(json.dumps({"id": number, "method": method, "params": params}))
        async with asyncio.timeout(20):
            while (answer := json.loads(await self._socket.recv())).get("id") != number:
                pass
        return answer

    async def run(self, script: str) -> Any:
        """Return the value of an expression, awaited if it is a promise."""
        result = await self.ask("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in result, (script, result["exceptionDetails"])
        return result["result"].get("value")

    async def until(self, script: str, timeout_s: float = 20) -> None:
        try:
            await until(lambda: self._holds(script), timeout_s, every_s=0.02)
        except AssertionError:
            shown = await self.run("document.body.innerText")
            raise AssertionError(f"{script} never came true on:\n{shown}") from None

    async def _holds(self, script: str) -> bool:
        """A page that is on its way elsewhere answers with an error: not yet."""
        answer = await self._asked("Runtime.evaluate", expression=script, returnByValue=True)
        return "error" not in answer and bool(answer["result"]["result"].get("value"))

    async def shows(self, text: str) -> None:
        await self.until(f"document.body.innerText.includes({json.dumps(text)})")

    async def go(self, address: str) -> None:
        """Open an address, and wait until the page and its scripts are loaded."""
        await self.ask("Page.navigate", url=address)
        await self.until("document.readyState === 'complete'")

    async def text(self, element: str) -> str:
        """Return what an element shows."""
        return str(await self.run(f"document.querySelector({json.dumps(element)}).innerText"))

    async def click(self, element: str, *, times: int = 1) -> None:
        """Press the mouse button on the middle of an element: `times` 2 is a double click."""
        found = json.dumps(element)
        await self.until(f"document.querySelector({found}) !== null")
        x, y = await self.run(
            f"(() => {{ const e = document.querySelector({found}); e.scrollIntoView({{block: 'center'}});"
            " const r = e.getBoundingClientRect(); return [r.x + r.width / 2, r.y + r.height / 2]; })()"
        )
        for count in range(1, times + 1):
            for kind in ("mousePressed", "mouseReleased"):
                await self.ask(
                    "Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=count
                )

    async def type(self, element: str, text: str) -> None:
        """Replace the content of a field by what is typed."""
        found = json.dumps(element)
        await self.until(f"document.querySelector({found}) !== null")
        await self.run(f"(() => {{ const e = document.querySelector({found}); e.focus(); e.select(); }})()")
        await self.ask("Input.insertText", text=text)

    async def offline(self, off: bool) -> None:
        """Take the network away, or give it back."""
        await self.ask("Network.enable")
        await self.ask(
            "Network.emulateNetworkConditions",
            offline=off,
            latency=0,
            downloadThroughput=-1,
            uploadThroughput=-1,
        )

    async def choose(self, element: str, value: str) -> None:
        """Set a field that has a picker, such as one for dates."""
        await self.run(f"document.querySelector({json.dumps(element)}).value = {json.dumps(value)}")


class Chromium:
    """A running browser: every page that it opens is another user's, with cookies of its own."""

    def __init__(self, port: str, browser: Tab, stack: contextlib.AsyncExitStack) -> None:
        self._port = port
        self._browser = browser
        self._stack = stack

    async def open(self, *, width: int = 1280, height: int = 900, zone: str = "UTC") -> Tab:
        """Open a blank page for a new user, whose clock is in the time zone `zone`."""
        context = (await self._browser.ask("Target.createBrowserContext"))["browserContextId"]
        target = await self._browser.ask("Target.createTarget", url="about:blank", browserContextId=context)
        address = f"ws://127.0.0.1:{self._port}/devtools/page/{target['targetId']}"
        tab = Tab(await self._stack.enter_async_context(connect(address, max_size=None)))
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        await tab.ask("Emulation.setDeviceMetricsOverride", **size)
        await tab.ask("Emulation.setTimezoneOverride", timezoneId=zone)
        return tab


@contextlib.asynccontextmanager
async def chromium(directory: Path, *, language: str = "en") -> AsyncIterator[Chromium]:
    """Run Chromium with its files in `directory`; skip the test where there is none."""
    if CHROMIUM is None:
        pytest.skip("Chromium is not installed")
    process = await asyncio.create_subprocess_exec(
        CHROMIUM,
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-extensions",
        "--disable-sync",
        "--no-first-run",
        f"--lang={language}",
        "--remote-debugging-port=0",
        f"--user-data-dir={directory}",
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        port_file = directory / "DevToolsActivePort"
        port, path = await until(lambda: port_file.read_text().split() if port_file.exists() else [], 30)
        async with contextlib.AsyncExitStack() as stack:
            socket = await stack.enter_async_context(connect(f"ws://127.0.0.1:{port}{path}", max_size=None))
            yield Chromium(port, Tab(socket), stack)
    finally:
        process.kill()
        await process.wait()
