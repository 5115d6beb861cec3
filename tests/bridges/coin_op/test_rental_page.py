"""The page behind the QR code, against a simulated station and a real broker, as a phone's browser asks for it."""

import asyncio
import re
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from csms.rental import translations
from csms.simulate.coin_op import FakeStation, StationBehaviour
from tests.bridges.coin_op.conftest import SLOW_TO_LEAVE, UID, CoinOpSite, CoinOpSiteFactory
from tests.harness.narrowing import present
from tests.harness.waiting import until

PLAIN = StationBehaviour(plug_s=40, charge_s=100_000, unplug_s=30)
_CSRF = re.compile(r'name="csrf" value="([0-9a-f]+)"')


class Phone:
    """A browser that has opened a station's page."""

    def __init__(self, site: CoinOpSite, uid: str) -> None:
        self.site = site
        self.uid = uid
        self.http = httpx.AsyncClient(base_url=site.node.running.http, timeout=20)
        self.text = ""

    async def sign_in(self, amount: str = "100.00") -> "Phone":
        api = self.site.node.api
        await api.put(f"/api/v1/accounts/{self.uid}", json={"currency": "UAH"})
        if amount:
            await api.post(f"/api/v1/accounts/{self.uid}/entries", json={"key": "first", "amount": amount})
        link = (await api.post(f"/api/v1/accounts/{self.uid}/links", json={})).json()
        answer = await self.http.post("/r/sign-in", data={"token": link["token"], "next": "/r/coinop-s1"})
        assert (answer.status_code, answer.headers["location"]) == (303, "/r/coinop-s1")
        return self

    async def scan(self, station_id: str = "s1", **headers: str) -> str:
        answer = await self.http.get(f"/r/coinop-{station_id}", headers=headers)
        self.text = answer.text
        assert answer.status_code == 200, answer.text
        return self.text

    async def look(self, station_id: str = "s1") -> str:
        self.text = (await self.http.get(f"/r/coinop-{station_id}/state?seen=")).text
        return self.text

    async def press(self, button: str, station_id: str = "s1") -> httpx.Response:
        found = _CSRF.search(self.text) or _CSRF.search(await self.scan(station_id))
        assert found is not None, self.text
        return await self.http.post(f"/r/coinop-{station_id}/{button}", data={"csrf": found[1]})

    async def until(self, message: str, language: str = "uk", timeout_s: float = 15) -> str:
        wanted = translations.text(message, language)

        async def is_shown() -> bool:
            return wanted in await self.look()

        await until(
            is_shown, timeout_s, what=lambda: f"{wanted!r} was never shown:\n{self.text}", every_s=0.1
        )
        return self.text

    async def balance(self) -> str:
        return str((await self.site.node.api.get(f"/api/v1/accounts/{self.uid}")).json()["balance"])


@pytest.fixture
async def phones() -> AsyncIterator[Any]:
    opened: list[Phone] = []

    def phone(site: CoinOpSite, uid: str = UID) -> Phone:
        opened.append(Phone(site, uid))
        return opened[-1]

    yield phone
    for one in opened:
        await one.http.aclose()


async def test_a_whole_rental_from_scan_to_receipt(start_site: CoinOpSiteFactory, phones: Any) -> None:
    site = await start_site(FakeStation(id="s1", behaviour=SLOW_TO_LEAVE), require_account=True)
    phone = await phones(site).sign_in()
    await phone.scan()
    await phone.until("B1")
    assert "100.00 UAH" in phone.text
    first, second = await asyncio.gather(phone.press("open"), phone.press("open"))
    assert {first.status_code, second.status_code} == {303}
    await phone.until("B2")
    assert site.stations["s1"].uid == UID
    assert site.sent("connect") == [UID]
    await phone.until("M3")  # charged, by now
    assert translations.text("B2", "uk") in phone.text
    assert "0.110" in phone.text
    again = await phone.scan()  # a reload in mid-session
    assert translations.text("station", "uk") in again
    await phone.until("B2")
    await phone.press("stop")
    await phone.until("M4")
    await phone.until("free")
    (bill,) = await site.node.until(lambda: site.node.of("session_cost"))
    cost = bill["payload"]["amountMinor"]
    assert f"{cost / 100:.2f} UAH" in await phone.until("B1")
    assert await phone.balance() == f"{100 - cost / 100:.2f}"
    assert site.sent("stop") == [UID]
    rows = await site.node.fetch("SELECT state, origin, debits FROM rentals")
    assert rows == [{"state": "ended", "origin": "csms", "debits": 1}]
    assert bill["payload"]["idTag"] == UID


async def test_a_station_in_use_shows_neither_its_renter_nor_a_stop_button(
    start_site: CoinOpSiteFactory, phones: Any
) -> None:
    site = await start_site(FakeStation(id="s1", behaviour=PLAIN), require_account=True)
    renter, other = await phones(site).sign_in(), await phones(site, "other-user").sign_in()
    await renter.scan()
    await renter.until("B1")
    await other.scan()
    await other.until("B1")
    await renter.press("open")
    await renter.until("B2")
    await other.until("M1")
    assert UID not in other.text
    assert translations.text("B2", "uk") not in other.text
    before = list(site.commands)
    refused = await other.http.post(
        "/r/coinop-s1/stop", data={"csrf": present(_CSRF.search(await other.scan()))[1]}
    )
    assert refused.status_code == 403
    assert translations.text("M1", "uk") in refused.text
    assert site.sent("stop") == []
    assert [c for c in site.commands if c not in before and not c[1].startswith("hello:")] == []
    assert await site.number()


async def test_too_little_money_opens_no_door(start_site: CoinOpSiteFactory, phones: Any) -> None:
    site = await start_site(FakeStation(id="s1", behaviour=PLAIN), require_account=True)
    poor, broke = await phones(site).sign_in("1.64"), await phones(site, "broke").sign_in("")
    await broke.scan()
    await broke.until("M5")
    assert translations.text("B1", "uk") not in broke.text
    await poor.scan()
    await poor.until("B1")
    await poor.press("open")
    await poor.until("M5")
    assert site.sent("connect") == []
    assert await site.node.fetch("SELECT id FROM rentals") == []
