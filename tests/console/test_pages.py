"""What the pages show, and that nothing a charger sends is taken for markup."""

import re

import httpx
import pytest

from csms.core import reports
from csms.node.health import Check, HealthReport
from tests.harness.api_harness import ApiHarness
from tests.harness.console_browser import EVIL, open_browser, sign_in, text_of


async def test_the_first_page_shows_chargers_sessions_and_totals(
    world: ApiHarness, browser: httpx.AsyncClient
):
    await world.connect("CP1")
    await world.status("CP1", 1, "Charging")
    await world.status("CP1", 2, "Faulted", "GroundFailure")
    await world.connect("CP2")
    await world.record(reports.Disconnected(charger_id="CP2", node="n1", generation=1))
    transaction_id = await world.start("CP1")
    world.later(minutes=65)
    await world.meter("CP1", transaction_id, 8500, 7400)
    page = (await browser.get("/")).text
    shown = text_of(page)
    for words in ("1 / 2 online", "7.4 kW power now", "7.50 kWh", "1 h 05 min", "Charging", "Ground Failure"):
        assert words in shown, words
    assert 'aria-label="offline"' in page
    assert f'href="/transactions/{transaction_id}"' in page


async def test_an_empty_console_says_how_to_connect_a_charger(browser: httpx.AsyncClient):
    assert "Point one at" in (await browser.get("/")).text
    assert "No charger matches" in (await browser.get("/", params={"q": EVIL})).text
    for path in ("/transactions", "/events", "/quarantine", "/quarantine?resolved=true"):
        assert (await browser.get(path)).status_code == 200


async def test_the_search_selects_chargers_on_the_first_page(world: ApiHarness, browser: httpx.AsyncClient):
    await world.connect("NORTH-1")
    await world.connect("SOUTH-1")
    page = (await browser.get("/", params={"q": "north"})).text
    assert "NORTH-1" in page
    assert "SOUTH-1" not in page
    assert 'sse-connect="/stream/overview?q=north"' in page


async def test_a_failing_health_check_is_shown_at_the_top(
    world: ApiHarness, browser: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
):
    report = HealthReport((Check(name="mqtt", state="degraded", detail="The broker is away."),))
    monkeypatch.setattr(world.node, "health", lambda: report)
    assert "The broker is away." in (await browser.get("/")).text


async def test_nothing_that_a_charger_sends_becomes_markup(world: ApiHarness, browser: httpx.AsyncClient):
    charger_id = f"CP{EVIL}"
    await world.record(reports.Connected(charger_id=charger_id, node="n1"))
    await world.record(reports.Boot(charger_id=charger_id, vendor=EVIL, model=EVIL, firmware_version=EVIL))
    await world.record(
        reports.Status(charger_id=charger_id, connector_id=1, status=EVIL, error_code=EVIL, info=EVIL)
    )
    transaction_id = await world.start(charger_id, tag=EVIL)
    await world.meter(charger_id, transaction_id, 1100, 10)
    world.later(minutes=1)
    await world.meter(charger_id, transaction_id, 1200, 10)
    await world.frame(charger_id, f'[2,"1","{EVIL}",{{}}]')
    await world.record(
        reports.Quarantined(
            charger_id=charger_id, action=EVIL, payload=EVIL.encode(), error=EVIL, digest=b"1"
        )
    )
    await world.record(
        reports.Deviated(
            charger_id=charger_id,
            action=EVIL,
            deviations=[reports.Deviation(field=EVIL, kind=EVIL, detail=EVIL)],
        )
    )
    address = "/chargers/CP%3Cscript%3Ealert%28%22x%22%29%3C%2Fscript%3E"
    for path in ("/", address, "/transactions", f"/transactions/{transaction_id}", "/events", "/quarantine"):
        answer = await browser.get(path)
        assert answer.status_code == 200, path
        assert "<script>" not in answer.text, path
        assert "&lt;script&gt;" in answer.text, path
    assert address in (await browser.get("/")).text


async def test_a_charger_page_shows_identity_frames_and_a_sparkline(
    world: ApiHarness, browser: httpx.AsyncClient
):
    await world.connect("CP1")
    transaction_id = await world.start("CP1")
    for number in range(5):
        world.later(minutes=5)
        await world.meter("CP1", transaction_id, 1000 + number * 500, 6000 + number)
    await world.frame("CP1", '[2,"77","Heartbeat",{}]')
    page = (await browser.get("/chargers/CP1")).text
    assert "Acme" in page
    assert '<svg class="spark"' in page
    assert "[2,&#34;77&#34;,&#34;Heartbeat&#34;,{}]" in page
    assert f'value="{transaction_id}"' in page


async def test_a_transaction_page_shows_how_its_energy_was_derived(
    world: ApiHarness, browser: httpx.AsyncClient
):
    forgotten = await world.start("CP1")
    world.later(minutes=10)
    await world.meter("CP1", forgotten, 2500, 9000)
    world.later(minutes=10)
    await world.meter("CP1", forgotten, 4000, 9000)
    finished = await world.session("CP1")
    inferred = (await browser.get(f"/transactions/{forgotten}")).text
    assert "stop inferred" in inferred
    assert "the last reading before it" in inferred
    assert '<svg class="plot"' in inferred
    billed = (await browser.get(f"/transactions/{finished}")).text
    assert "The register the charger reported at the stop" in billed
    assert "5,000 Wh" in billed
    assert "session cost" in billed


async def test_transactions_are_filtered_and_paged(world: ApiHarness):
    ids = [await world.session("CP1") for _ in range(3)]
    running = await world.start("CP2")
    async with open_browser(world, page_size=2) as browser:
        await sign_in(browser)
        first, older = await _listed(browser, "/transactions")
        assert first == [running, ids[2]]
        assert older is not None
        assert await _listed(browser, older) == ([ids[1], ids[0]], None)
        assert (await _listed(browser, "/transactions?only=running"))[0] == [running]
        finished = await _listed(browser, "/transactions?charger=CP1&only=finished")
        assert finished[0] == [ids[2], ids[1]]
        assert (await browser.get("/transactions?cursor=nonsense")).status_code == 422


async def _listed(browser: httpx.AsyncClient, address: str) -> tuple[list[int], str | None]:
    """The transactions on a page, and the address of the next page."""
    page = (await browser.get(address)).text
    older = re.search(r'href="(/transactions\?[^"]*cursor[^"]*)"', page)
    return (
        [int(number) for number in re.findall(r'id="t-(\d+)"', page)],
        older[1].replace("&amp;", "&") if older else None,
    )


@pytest.mark.parametrize(
    "path", ["/nothing", "/chargers/NOPE", "/chargers/a%00b", "/transactions/99", "/transactions/" + "9" * 30]
)
async def test_an_unknown_address_is_answered_with_a_page_and_404(browser: httpx.AsyncClient, path: str):
    answer = await browser.get(path)
    assert answer.status_code == 404
    assert "That did not work" in answer.text
    assert answer.headers["content-type"].startswith("text/html")
