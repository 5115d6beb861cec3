"""The page behind the QR code, against a simulated station and a real broker, as a phone's browser asks for it."""

import asyncio
import re
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from csms.rental import words
from csms.simulate.coin_op import Behaviour, Station
from tests.bridges.coin_op.conftest import SLOW_TO_LEAVE, UID, Site, SiteFactory

PLAIN = Behaviour(plug_s=40, charge_s=100_000, unplug_s=30)
_CSRF = re.compile(r'name="csrf" value="([0-9a-f]+)"')


class Phone:
    """A browser that has opened a station's page."""

    def __init__(self, site: Site, uid: str) -> None:
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
        wanted = words.text(message, language)
        try:
            async with asyncio.timeout(timeout_s):
                while wanted not in await self.look():
                    await asyncio.sleep(0.1)
        except TimeoutError:
            raise AssertionError(f"{wanted!r} was never shown:\n{self.text}") from None
        return self.text

    async def balance(self) -> str:
        return str((await self.site.node.api.get(f"/api/v1/accounts/{self.uid}")).json()["balance"])


@pytest.fixture
async def phones() -> AsyncIterator[Any]:
    opened: list[Phone] = []

    def phone(site: Site, uid: str = UID) -> Phone:
        opened.append(Phone(site, uid))
        return opened[-1]

    yield phone
    for one in opened:
        await one.http.aclose()


async def test_a_whole_rental_from_scan_to_receipt(start_site: SiteFactory, phones: Any) -> None:
    site = await start_site(Station(id="s1", behaviour=SLOW_TO_LEAVE), require_account=True)
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
    assert words.text("B2", "uk") in phone.text
    assert "0.368" in phone.text
    again = await phone.scan()  # a reload in mid-session
    assert words.text("station", "uk") in again
    await phone.until("B2")
    await phone.press("stop")
    await phone.until("M4")
    await phone.until("free")
    (bill,) = await site.node.eventually(lambda: site.node.of("session_cost"))
    cost = bill["payload"]["amountMinor"]
    assert f"{cost / 100:.2f} UAH" in await phone.until("B1")
    assert await phone.balance() == f"{100 - cost / 100:.2f}"
    assert site.sent("stop") == [UID]
    rows = await site.node.fetch("SELECT state, origin, debits FROM rentals")
    assert rows == [{"state": "ended", "origin": "csms", "debits": 1}]
    assert bill["payload"]["idTag"] == UID


async def test_somebody_elses_station(start_site: SiteFactory, phones: Any) -> None:
    site = await start_site(Station(id="s1", behaviour=PLAIN), require_account=True)
    renter, other = await phones(site).sign_in(), await phones(site, "somebody-else").sign_in()
    await renter.scan()
    await renter.until("B1")
    await other.scan()
    await other.until("B1")
    await renter.press("open")
    await renter.until("B2")
    await other.until("M1")
    assert UID not in other.text
    assert words.text("B2", "uk") not in other.text
    before = list(site.commands)
    refused = await other.http.post("/r/coinop-s1/stop", data={"csrf": _CSRF.search(await other.scan())[1]})
    assert refused.status_code == 303
    assert site.sent("stop") == []
    assert [c for c in site.commands if c not in before and not c[1].startswith("hello:")] == []
    assert await site.number()


async def test_a_silent_station(start_site: SiteFactory, phones: Any) -> None:
    site = await start_site(register=False)
    await site.node.api.put("/api/v1/chargers/coinop-s1", json={})
    phone = await phones(site).sign_in()
    assert words.text("asking", "uk") in await phone.scan()
    await phone.until("M2", timeout_s=25)
    assert words.text("B1", "uk") not in phone.text


async def test_too_little_money(start_site: SiteFactory, phones: Any) -> None:
    site = await start_site(Station(id="s1", behaviour=PLAIN), require_account=True)
    poor, broke = await phones(site).sign_in("1.64"), await phones(site, "broke").sign_in("")
    await broke.scan()
    await broke.until("M5")
    assert words.text("B1", "uk") not in broke.text
    await poor.scan()
    await poor.until("B1")
    await poor.press("open")
    await poor.until("M5")
    assert site.sent("connect") == []
    assert await site.node.fetch("SELECT id FROM rentals") == []


async def test_nobody_sees_or_does_anything_without_signing_in(start_site: SiteFactory, phones: Any) -> None:
    site = await start_site(Station(id="s1", behaviour=PLAIN))
    phone = phones(site)
    for answer in (
        await phone.http.get("/r/coinop-s1"),
        await phone.http.get("/r/coinop-s1/state"),
        await phone.http.post("/r/coinop-s1/open", data={"csrf": "x"}),
    ):
        assert (answer.status_code, answer.headers["location"].partition("?")[0]) == (303, "/r/sign-in")
    assert (await phone.http.get("/r/sign-in")).status_code == 200
    wrong = await phone.http.post("/r/sign-in", data={"token": "csms_guess"})
    assert wrong.status_code == 403
    assert words.text("bad_code", "uk") in wrong.text


async def test_a_link_is_good_once_and_a_look_does_not_use_it_up(
    start_site: SiteFactory, phones: Any
) -> None:
    site = await start_site()
    api = site.node.api
    await api.put(f"/api/v1/accounts/{UID}", json={"currency": "UAH"})
    link = (await api.post(f"/api/v1/accounts/{UID}/links", json={"expiresInS": 60})).json()
    phone = phones(site)
    shown = await phone.http.get(link["path"])
    assert link["token"] in shown.text
    first = await phone.http.post(
        "/r/sign-in", data={"token": link["token"], "next": "https://evil.example/"}
    )
    assert first.headers["location"] == "/r/sign-in"
    second = await phones(site).http.post("/r/sign-in", data={"token": link["token"]})
    assert second.status_code == 403
    stored = await site.node.fetch("SELECT digest FROM account_tokens")
    assert all(link["token"].encode() not in row["digest"] for row in stored)


async def test_a_form_of_another_site_is_refused(start_site: SiteFactory, phones: Any) -> None:
    site = await start_site(Station(id="s1", behaviour=PLAIN))
    phone = await phones(site).sign_in()
    answer = await phone.http.post("/r/coinop-s1/open", data={"csrf": "0" * 64})
    assert answer.status_code == 403
    assert site.sent("connect") == []


async def test_english_for_those_who_ask_for_it(start_site: SiteFactory, phones: Any) -> None:
    site = await start_site(Station(id="s1", behaviour=PLAIN))
    phone = await phones(site).sign_in()
    page = await phone.scan(**{"Accept-Language": "en-GB,en;q=0.9,uk;q=0.8"})
    assert "Charging station" in page
    assert 'lang="en"' in page
    assert "Зарядна станція" in await phone.scan(**{"Accept-Language": "de"})


async def test_only_the_numbers_are_sent_while_nothing_else_changes(
    start_site: SiteFactory, phones: Any
) -> None:
    site = await start_site(Station(id="s1", behaviour=PLAIN))
    phone = await phones(site).sign_in()
    await phone.scan()
    page = await phone.until("B1")
    address = re.search(r'hx-get="([^"]+)"', page)
    assert address is not None
    again = await phone.http.get(address[1].replace("&amp;", "&"))
    assert again.headers["hx-reswap"] == "none"
    assert 'hx-swap-oob="true"' in again.text
    assert "<form" not in again.text


@pytest.mark.parametrize("path", ["/r/nowhere", "/r/coinop-s1/nowhere", "/r/"])
async def test_there_is_nothing_else(start_site: SiteFactory, phones: Any, path: str) -> None:
    site = await start_site()
    phone = await phones(site).sign_in()
    assert (await phone.http.get(path)).status_code == 404
