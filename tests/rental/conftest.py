"""The rental page on a real database, with a clock that the test sets and a station that sends what the test says."""

import re
from collections.abc import AsyncIterator
from typing import Any

import httpx
import msgspec
import pytest
from starlette.applications import Starlette
from starlette.routing import Mount

from csms.adapter import BrokerMessage
from csms.db import accounts
from csms.rental import translations
from csms.rental.app import RentalPage, create_rental
from csms.service.access import digest_of
from tests.harness.api_harness import ApiHarness, running
from tests.harness.waiting import until

UID, OTHER = "lDpl3b3d21Ma0vUBoMYdJuoOsVI3", "another-renter"
CHARGER = "coinop-1"
_CSRF = re.compile(r'name="csrf" value="([0-9a-f]+)"')
IN_JSON = {"Accept": "application/json"}


class RentalHarness:
    """The page of one station. `advance` moves the database's and the page's clock."""

    def __init__(self, world: ApiHarness, provider: Any = None) -> None:
        self.world = world
        self.seconds = 1000.0
        self.rental = RentalPage(world.context, provider=provider, clock=lambda: self.seconds)
        self.app = Starlette(routes=[Mount("/r", create_rental(self.rental))])
        self.phones: list[httpx.AsyncClient] = []

    def advance(self, seconds: float) -> None:
        self.seconds += seconds
        self.world.later(seconds=seconds)

    def station_sends(self, status: str, age_s: float = 0.0, **more: Any) -> None:
        body = msgspec.json.encode({"status": status, "ageS": age_s} | more)
        self.rental.watcher.receive(BrokerMessage(topic=f"rentals/{CHARGER}/live", body=body))

    async def phone(self, uid: str = UID, amount_minor: int = 10_000) -> "Phone":
        async with self.world.engine.begin() as db:
            if await accounts.put(db, uid, "UAH") and amount_minor:
                await accounts.add_entry(
                    db, uid, key=uid, kind="top_up", amount_minor=amount_minor, note=None, now=self.world.now
                )
            digest = digest_of(f"link of {uid}")
            await accounts.add_token(db, uid, accounts.LINK, digest, self.world.now.replace(year=2100))
        http = self.new_browser()
        await http.post("/r/sign-in", data={"token": f"link of {uid}", "next": f"/r/{CHARGER}"})
        return Phone(http)

    def new_browser(self) -> httpx.AsyncClient:
        transport = httpx.ASGITransport(self.app)
        self.phones.append(httpx.AsyncClient(transport=transport, base_url="http://rent"))
        return self.phones[-1]

    async def settled(self) -> None:
        """Wait until no command is under way."""
        await until(lambda: not self.rental.pending)


class Phone:
    """A signed-in renter's browser."""

    def __init__(self, http: httpx.AsyncClient) -> None:
        self.http = http
        self.text = ""

    async def scan(self, **headers: str) -> str:
        self.text = (await self.http.get(f"/r/{CHARGER}", headers=headers)).text
        return self.text

    async def refresh(self) -> str:
        self.text = (await self.http.get(f"/r/{CHARGER}/state?seen=")).text
        return self.text

    async def press(self, button: str, **headers: str) -> httpx.Response:
        found = _CSRF.search(await self.scan())
        assert found is not None
        return await self.http.post(f"/r/{CHARGER}/{button}", data={"csrf": found[1]}, headers=headers)

    def shows(self, message: str, language: str = "uk") -> bool:
        return translations.text(message, language) in self.text


@pytest.fixture
async def world(database_url: str) -> AsyncIterator[ApiHarness]:
    async with running(database_url) as made:
        yield made


@pytest.fixture
async def site(world: ApiHarness) -> AsyncIterator[RentalHarness]:
    made = RentalHarness(world)
    await world.connect(CHARGER, protocol="coinop-mqtt")
    await world.status(CHARGER, 1, "Available")
    yield made
    await made.settled()
    for http in made.phones:
        await http.aclose()
