"""The rental page in a real browser: Chromium, spoken to in its own protocol. Skipped where there is none."""

import asyncio
import itertools
import json
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from websockets.asyncio.client import connect

from csms.rental import translations
from csms.rental.station_watch import StationWatcher
from csms.simulate.coin_op import FakeStation, StationBehaviour
from tests.bridges.coin_op.conftest import UID, CoinOpSiteFactory
from tests.harness.waiting import until

CHROMIUM = next(
    (p for n in ("chromium", "chromium-browser", "google-chrome") if (p := shutil.which(n))), None
)
STAYS = StationBehaviour(plug_s=40, charge_s=100_000, unplug_s=600)


class Tab:
    """One page of the browser."""

    def __init__(self, socket: Any) -> None:
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
        result = await self.ask("Runtime.evaluate", expression=script, returnByValue=True)
        return result["result"].get("value")

    async def until(self, script: str, timeout_s: float = 20) -> None:
        try:
            await until(lambda: self._holds(script), timeout_s, every_s=0.1)
        except AssertionError:
            shown = await self.run("document.body.innerText")
            raise AssertionError(f"{script} never came true on:\n{shown}") from None

    async def _holds(self, script: str) -> bool:
        """A page that is on its way elsewhere answers with an error: not yet."""
        answer = await self._asked("Runtime.evaluate", expression=script, returnByValue=True)
        return "error" not in answer and bool(answer["result"]["result"].get("value"))

    async def shows(self, message: str) -> None:
        await self.until(f"document.body.innerText.includes({json.dumps(translations.text(message, 'uk'))})")


@pytest.fixture
async def tab(tmp_path: Path) -> AsyncIterator[Tab]:
    if CHROMIUM is None:
        pytest.skip("Chromium is not installed")
    process = await asyncio.create_subprocess_exec(
        CHROMIUM,
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--lang=uk",
        "--window-size=390,780",
        "--remote-debugging-port=0",
        f"--user-data-dir={tmp_path}",
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        port_file = tmp_path / "DevToolsActivePort"
        port = (await until(lambda: port_file.read_text().split() if port_file.exists() else [], 30))[0]
        async with httpx.AsyncClient() as http:
            made = (await http.put(f"http://127.0.0.1:{port}/json/new?about:blank")).json()
        async with connect(made["webSocketDebuggerUrl"], max_size=None) as socket:
            yield Tab(socket)
    finally:
        process.kill()
        await process.wait()


@pytest.mark.timeout(120)
async def test_a_rental_in_a_browser_with_double_taps_a_reload_another_user_and_silence(
    start_site: CoinOpSiteFactory, tab: Tab, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = await start_site(FakeStation(id="s1", behaviour=STAYS), speed=100, require_account=True)
    api, station = site.node.api, site.stations["s1"]
    await api.put(f"/api/v1/accounts/{UID}", json={"currency": "UAH"})
    await api.post(f"/api/v1/accounts/{UID}/entries", json={"key": "1", "amount": "500"})
    await api.put("/api/v1/accounts/other-user", json={"currency": "UAH"})
    address = site.node.running.http.rstrip("/")

    async def sign_in(uid: str) -> None:
        link = (await api.post(f"/api/v1/accounts/{uid}/links", json={})).json()["path"]
        await tab.ask("Page.navigate", url=f"{address}{link}&next=/r/coinop-s1&lang=uk")
        await tab.until(
            "location.pathname === '/r/sign-in' && document.querySelector('button.open') !== null"
        )
        await tab.run("document.querySelector('button.open').click()")
        await tab.until("location.pathname === '/r/coinop-s1' && typeof htmx === 'object'")

    await sign_in(UID)
    await tab.ask("Page.navigate", url=f"{address}/r/coinop-s1?lang=uk")
    await tab.shows("B1")
    await tab.run("(() => { const b = document.querySelector('button.open'); b.click(); b.click(); })()")
    await tab.shows("B2")
    await site.node.until(lambda: station.state == "charging")
    await tab.until("document.querySelector('section.charging dd') !== null")
    before = await tab.run("document.querySelector('dd').innerText")
    await tab.until(f"document.querySelector('dd').innerText !== {json.dumps(before)}")
    await sign_in("other-user")
    await tab.shows("M1")
    assert await tab.run("document.querySelector('button.stop') === null")
    assert not await tab.run(f"document.documentElement.outerHTML.includes('{UID}')")
    await sign_in(UID)
    await tab.ask("Page.reload")
    await tab.until("document.querySelector('section.charging button.stop') !== null")
    await tab.run("(() => { const b = document.querySelector('button.stop'); b.click(); b.click(); })()")
    await tab.shows("M4")
    assert (site.sent("connect"), site.sent("stop")) == ([UID], [UID])
    assert len(await site.node.fetch("SELECT id FROM transactions")) == 1
    assert not await tab.run(f"document.documentElement.outerHTML.includes('{UID}')")
    # The station is gone. The fifteen seconds themselves are in tests/rental/test_station_watch.py, on a virtual clock.
    for name, seconds in (("answer_s", 1.0), ("ask_after_s", 1.0), ("grace_s", 0.0)):
        monkeypatch.setattr(StationWatcher, name, seconds)
    object.__setattr__(station, "behaviour", StationBehaviour(silent=True))
    await tab.ask("Page.reload")
    await tab.shows("M2")
    assert await tab.run("document.querySelector('button.open') === null")
