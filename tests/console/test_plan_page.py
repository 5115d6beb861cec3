"""A charger's plan in the console: the drawing, its local hours, the tables, the page."""

import re
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any
from xml.etree import ElementTree as ET
from zoneinfo import ZoneInfo

import httpx
import pytest
from msgspec.structs import replace

from csms.console.plan_chart import plot
from csms.console.plan_table import has_gaps, slots_by_day, upcoming
from csms.core import reports
from csms.db import plans
from csms.scheduling.periods import ChargePeriod
from csms.scheduling.plan_view import PlanningTerms, PlanSlot, PlanView
from csms.scheduling.prices import day_bounds
from tests.harness.api_harness import ApiHarness
from tests.harness.console_browser import EVIL, text_of

ZONE = ZoneInfo("Europe/Amsterdam")
QUARTER = timedelta(minutes=15)
NOON = datetime(2026, 11, 21, 11, 7, tzinfo=UTC)


def view(day: date = date(2026, 11, 21), prices: Any = None, **more: Any) -> PlanView:
    """Two local days of quarters, the first four of each chosen and on the charger."""
    begin, _ = day_bounds(day, ZONE)
    middle, end = day_bounds(day + timedelta(days=1), ZONE)
    count = (end - begin) // QUARTER
    price = prices or (lambda n: Decimal("0.10") if n < 4 else Decimal("0.20") if n < 60 else Decimal("0.40"))
    slots = tuple(
        PlanSlot(
            begin + n * QUARTER,
            begin + (n + 1) * QUARTER,
            price(n),
            n < 4 or 0 <= n - (middle - begin) // QUARTER < 4,
        )
        for n in range(count)
    )
    chosen = (
        ChargePeriod(begin, begin + 4 * QUARTER, 16),
        ChargePeriod(middle, middle + 4 * QUARTER, 16),
    )
    usual: dict[str, Any] = {
        "charger_id": "CP1",
        "connector_id": 0,
        "mode": "standalone",
        "state": "scheduled",
        "message": "4 slots at 1 price levels",
        "delivery": "in_place",
        "source": "standalone",
        "zone": "Europe/Amsterdam",
        "currency": "EUR",
        "max_price": Decimal("0.25"),
        "slots": slots,
        "slots_chosen": 4,
        "price_levels": 1,
        "periods": chosen,
        "running": chosen,
    }
    return PlanView(**(usual | more))


def drawn(shown: PlanView, now: datetime = NOON) -> ET.Element:
    svg = plot(shown, now)
    assert "nan" not in svg
    return ET.fromstring(svg)


def of(svg: ET.Element, kind: str) -> list[ET.Element]:
    return [one for one in svg if one.get("class") == kind]


def labels(svg: ET.Element) -> list[str]:
    return [str(one.text) for one in svg if one.tag == "text" and re.fullmatch(r"\d\d:\d\d", str(one.text))]


def test_prices_choice_schedule_limit_and_now_are_drawn() -> None:
    svg = drawn(view())
    assert [len(of(svg, kind)) for kind in ("chosen", "left", "dear", "running")] == [8, 56, 128, 2]
    assert len(of(svg, "threshold")) == 1
    (now,) = [one for one in of(svg, "now") if one.tag == "line"]
    # 12:07 of 48 hours.
    assert float(now.get("x1", 0)) == pytest.approx(52 + 832 * (12 + 7 / 60) / 48, abs=0.1)
    titles = [str(one[0].text) for one in of(svg, "chosen")]
    assert titles[0] == "Sat 00:00 to 00:15: 0.1000 EUR, chosen"
    # What is on the charger is right below what was chosen.
    (first, _), chosen = of(svg, "running"), of(svg, "chosen")
    assert first.get("x") == chosen[0].get("x")
    assert not [one for one in of(drawn(view(), NOON + timedelta(days=9)), "now") if one.tag == "line"]


@pytest.mark.parametrize(
    ("day", "hours"), [(date(2026, 3, 28), 47), (date(2026, 10, 24), 49), (date(2026, 11, 21), 48)]
)
def test_the_axis_has_local_hours_when_clocks_are_set(day: date, hours: int) -> None:
    """Each label comes once, and an hour is as wide on a day of 23 hours as on one of 25."""
    svg = drawn(view(day))
    assert labels(svg) == [f"{hour:02}:00" for _ in range(2) for hour in range(0, 24, 3)] + ["00:00"]
    assert [one.text for one in of(svg, "date")] == [
        f"{one:%a %d %b}" for one in (day, day + timedelta(days=1))
    ]
    at = [float(one.get("x", 0)) for one in svg if one.tag == "text" and one.text in {"00:00", "03:00"}]
    width = 832 / hours
    gone_or_twice = {47: 2, 49: 4, 48: 3}[hours]
    assert at[1] - at[0] == pytest.approx(3 * width, abs=0.2)
    assert at[3] - at[2] == pytest.approx(gone_or_twice * width, abs=0.2)


def test_an_hour_that_comes_twice_is_shown_with_its_zone() -> None:
    (_, rows) = slots_by_day(view(date(2026, 10, 24)), NOON).values()
    assert len(rows) == 100
    assert [row.start for row in rows if row.start.startswith("02:00")] == ["02:00 CEST", "02:00 CET"]


@pytest.mark.parametrize(
    "prices",
    [
        lambda _: Decimal(0),
        lambda n: Decimal(n - 100) / 100,
        lambda _: Decimal("-0.0001"),
        lambda _: Decimal("12345.6789"),
    ],
)
def test_bars_stay_within_the_plot_area_for_any_prices(prices: Any) -> None:
    svg = drawn(view(prices=prices, max_price=Decimal("-1.5")))
    for bar in (*of(svg, "chosen"), *of(svg, "left"), *of(svg, "dear")):
        top, height = float(bar.get("y", 0)), float(bar.get("height", 0))
        assert top >= 26
        assert top + height <= 239


def test_the_currents_that_a_hems_wants_are_drawn() -> None:
    wanted = (
        ChargePeriod(NOON - QUARTER, NOON + QUARTER, 16),
        ChargePeriod(NOON + QUARTER, NOON + 8 * QUARTER, 10),
    )
    shown = view(mode="hems", slots=(), max_price=None, currency=None, periods=wanted, running=())
    svg = drawn(shown)
    assert len(of(svg, "chosen")) == 2
    assert not of(svg, "running")
    assert [one.text for one in of(svg, "unit")] == ["A"]
    assert [(row.start, row.end, row.limit_a, row.now, row.price) for row in upcoming(shown, NOON)] == [
        ("11:52", "12:22", 16, True, None),
        ("12:22", "14:07", 10, False, None),
    ]
    assert not plot(replace(shown, periods=()), NOON)


def test_an_upcoming_period_has_the_mean_price_of_its_slots() -> None:
    shown = view()
    assert [(row.day, row.start, row.end, row.price) for row in upcoming(shown, NOON)] == [
        ("Sun 22 Nov", "00:00", "01:00", "0.4000")
    ]
    assert not has_gaps(shown)
    assert has_gaps(replace(shown, slots=(*shown.slots[:3], *shown.slots[5:])))


# --- the page --------------------------------------------------------------------------------------------


async def show(world: ApiHarness, *shown: PlanView) -> None:
    async with world.engine.begin() as db:
        for one in shown:
            await plans.put_view(db, one, [each.connector_id for each in shown])


async def test_the_page_of_an_ocpp_charger(world: ApiHarness, browser: httpx.AsyncClient) -> None:
    await world.connect("CP/1")
    page = (await browser.get("/chargers/CP%2F1/plan")).text
    assert "csms plans set CP/1" in text_of(page)
    async with world.engine.begin() as db:
        await plans.put(db, "CP/1", PlanningTerms(levels=7, otherwise="wait"), NOON)
    assert "it is made when the charger connects" in (await browser.get("/chargers/CP%2F1/plan")).text
    await show(
        world,
        view(charger_id="CP/1", delivery="refused", problem=f"The charger rejects {EVIL}", confirmed=False),
    )
    page = (await browser.get("/chargers/CP%2F1/plan")).text
    assert EVIL not in page
    assert page.count('<rect class="chosen"') == 8
    shown = text_of(page)
    for words in (
        "refused by the charger",
        "up to 0.25 EUR/kWh",
        "local time, Europe/Amsterdam",
        "says something else",
        "waits while prices are known",
        "96 prices as a table",
    ):
        assert words in shown, words
    assert "scheduled, refused" in text_of((await browser.get("/chargers/CP%2F1")).text)
    assert (await browser.get("/chargers/UNKNOWN/plan")).status_code == 404


async def test_the_page_of_a_bridges_charger_has_every_connector(
    world: ApiHarness, browser: httpx.AsyncClient
) -> None:
    await world.record(
        reports.Connected(charger_id="HALO", node="n1", remote_address="cloud", protocol="charge-amps")
    )
    assert "Its bridge has no plan" in (await browser.get("/chargers/HALO/plan")).text
    hems = view(
        charger_id="HALO", connector_id=2, mode="hems", state="idle", slots=(), periods=(), running=()
    )
    await show(world, view(charger_id="HALO", connector_id=1), replace(hems, message=""))
    shown = text_of((await browser.get("/chargers/HALO/plan")).text)
    for words in ("Connector 1", "Connector 2", "by a HEMS", "No schedule from the HEMS."):
        assert words in shown, words


async def test_a_plan_needs_a_session(world: ApiHarness, stranger: httpx.AsyncClient) -> None:
    await world.connect("CP1")
    assert (await stranger.get("/chargers/CP1/plan")).status_code == 303
