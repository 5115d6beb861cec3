"""The tariffs' page, and the components of a cost on a transaction's."""

from decimal import Decimal

import httpx

from csms.core import tariffs as terms
from csms.core.records import Tag
from csms.db import admin, tariffs
from tests.harness.api_harness import ApiHarness
from tests.harness.console_browser import EVIL, text_of

NIGHT = terms.Band(name=f"night {EVIL}", start="22:00", end="06:00", energy_rate=Decimal("0.20"))


async def test_tariffs_are_shown_with_their_week_and_groups(world: ApiHarness, browser: httpx.AsyncClient):
    assert "No tariff yet" in (await browser.get("/tariffs")).text
    tariff = terms.Tariff(id=f"day {EVIL}", currency="EUR", energy_rate=Decimal("0.40"), bands=(NIGHT,))
    async with world.engine.begin() as db:
        await tariffs.put_tariff(db, tariff)
        await tariffs.put_group(db, "depot", tariff.id)
    page = (await browser.get("/tariffs")).text
    assert EVIL not in page
    assert 'aria-label="Bands of the week"' in page
    assert page.count('class="band-0"') == 14  # two parts of the night a day
    shown = text_of(page)
    for words in ("0.4 EUR/kWh, 1 band", "22:00 to 06:00: 0.2 EUR/kWh", "depot"):
        assert words in shown, words


async def test_a_transaction_shows_its_components(world: ApiHarness, browser: httpx.AsyncClient):
    tariff = terms.Tariff(
        id="t", currency="EUR", energy_rate=Decimal(1), session_fee=Decimal(2), tax_percent=Decimal(20)
    )
    async with world.engine.begin() as db:
        await tariffs.put_tariff(db, tariff)
    await world.connect("CP1")
    async with world.engine.begin() as db:
        await admin.put_tag(db, Tag(id_tag="TAG1", tariff_id="t"))
        await admin.change_charger(db, "CP1", {"tariff_id": "t"})
    transaction_id = await world.start("CP1")
    world.later(minutes=30)
    await world.meter("CP1", transaction_id, 4000, 7000)
    shown = text_of((await browser.get(f"/transactions/{transaction_id}")).text)
    assert "energy 3 kWh 3.00 EUR session 2.00 EUR of which tax 20 % 0.83 EUR" in shown
