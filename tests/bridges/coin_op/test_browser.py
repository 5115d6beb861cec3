"""The rental page in a real browser: Chromium, spoken to in its own protocol. Skipped where there is none."""

import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from csms.rental import translations
from csms.rental.station_watch import StationWatcher
from csms.simulate.coin_op import FakeStation, StationBehaviour
from tests.bridges.coin_op.conftest import UID, CoinOpSiteFactory
from tests.harness.chromium import Tab, chromium

STAYS = StationBehaviour(plug_s=40, charge_s=100_000, unplug_s=600)


async def shows(tab: Tab, message: str) -> None:
    await tab.shows(translations.text(message, "uk"))


@pytest.fixture
async def tab(tmp_path: Path) -> AsyncIterator[Tab]:
    async with chromium(tmp_path, language="uk") as browser:
        yield await browser.open(width=390, height=780)


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
    await shows(tab, "B1")
    await tab.run("(() => { const b = document.querySelector('button.open'); b.click(); b.click(); })()")
    await shows(tab, "B2")
    await site.node.until(lambda: station.state == "charging")
    await tab.until("document.querySelector('section.charging dd') !== null")
    before = await tab.run("document.querySelector('dd').innerText")
    await tab.until(f"document.querySelector('dd').innerText !== {json.dumps(before)}")
    await sign_in("other-user")
    await shows(tab, "M1")
    assert await tab.run("document.querySelector('button.stop') === null")
    assert not await tab.run(f"document.documentElement.outerHTML.includes('{UID}')")
    await sign_in(UID)
    await tab.ask("Page.reload")
    await tab.until("document.querySelector('section.charging button.stop') !== null")
    await tab.run("(() => { const b = document.querySelector('button.stop'); b.click(); b.click(); })()")
    await shows(tab, "M4")
    assert (site.sent("connect"), site.sent("stop")) == ([UID], [UID])
    assert len(await site.node.fetch("SELECT id FROM transactions")) == 1
    assert not await tab.run(f"document.documentElement.outerHTML.includes('{UID}')")
    # The station is gone. The fifteen seconds themselves are in tests/rental/test_station_watch.py, on a virtual clock.
    for name, seconds in (("answer_s", 1.0), ("ask_after_s", 1.0), ("grace_s", 0.0)):
        monkeypatch.setattr(StationWatcher, name, seconds)
    object.__setattr__(station, "behaviour", StationBehaviour(silent=True))
    await tab.ask("Page.reload")
    await shows(tab, "M2")
    assert await tab.run("document.querySelector('button.open') === null")
