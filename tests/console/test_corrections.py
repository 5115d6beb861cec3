"""Corrections in the console: state and history of a bill, forms with a preview, and the page of what needs attention."""

import re
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest

from csms.console.explanations import explained
from csms.core import evidence, reports, session_register
from csms.db import access_tokens, audit_runs
from csms.db.driver import driver_connection
from csms.service.access import digest_of, new_secret
from tests.harness.api_harness import ApiHarness
from tests.harness.console_browser import EVIL, form_token, open_browser, sign_in, text_of

HTMX = {"HX-Request": "true"}


async def press(
    browser: httpx.AsyncClient, transaction_id: int, action: str, *, htmx: bool = False, **fields: Any
) -> httpx.Response:
    page = (await browser.get(f"/transactions/{transaction_id}")).text
    data = {"csrf": form_token(page), "note": "by hand"} | fields
    return await browser.post(
        f"/transactions/{transaction_id}/{action}", data=data, headers=HTMX if htmx else {}
    )


async def held(world: ApiHarness) -> int:
    transaction_id = await world.start("CP1")
    world.later(minutes=30)
    await world.meter("CP1", transaction_id, 3500, 5000)
    await world.stop("CP1", transaction_id, 2**32 - 1)
    return transaction_id


async def page_of(browser: httpx.AsyncClient, transaction_id: int) -> str:
    answer = await browser.get(f"/transactions/{transaction_id}")
    assert answer.status_code == 200
    return text_of(answer.text)


async def test_a_held_bill_says_why_and_is_released(world: ApiHarness, browser: httpx.AsyncClient):
    transaction_id = await held(world)
    page = await page_of(browser, transaction_id)
    assert "The bill is held" in page
    assert page.count(explained(evidence.IMPLAUSIBLE_METER_STOP)) == 3  # the bill, the anomaly, the event
    listed = text_of((await browser.get("/transactions?only=held")).text)
    assert f" {transaction_id} " in listed
    done = await press(browser, transaction_id, "release", note=EVIL)
    assert (done.status_code, done.headers["location"]) == (303, f"/transactions/{transaction_id}")
    page = await page_of(browser, transaction_id)
    assert "The bill is held" not in page
    assert "admin" in page
    assert EVIL not in (await browser.get(f"/transactions/{transaction_id}")).text
    assert "No transaction." in (await browser.get("/transactions?only=held")).text


async def test_a_correction_is_previewed_and_then_made(world: ApiHarness, browser: httpx.AsyncClient):
    transaction_id = await world.session("CP1")
    shown = await press(browser, transaction_id, "correct/preview", htmx=True, energyWh="4000")
    assert "5,000 Wh 4,000 Wh" in text_of(shown.text)
    assert "<html" not in shown.text
    whole = await press(browser, transaction_id, "correct/preview", energyWh="4000")
    assert "not changed yet" in whole.text
    assert "by hand" not in await page_of(browser, transaction_id)
    await press(browser, transaction_id, "correct", energyWh="4000", note="photo of the meter")
    page = await page_of(browser, transaction_id)
    assert "An operator has entered it" in page
    assert "photo of the meter Energy 5,000 Wh → 4,000 Wh" in page
    await press(browser, transaction_id, "void")
    page = await page_of(browser, transaction_id)
    assert "The bill is void" in page
    assert "Void the bill" not in page


async def test_a_running_transaction_is_stopped_by_hand(world: ApiHarness, browser: httpx.AsyncClient):
    transaction_id = await world.start("CP1")
    at = world.later(minutes=30)
    world.later(hours=4)
    fields: dict[str, Any] = {"meterStopWh": "3000", "stoppedAt": f"{at:%Y-%m-%dT%H:%M:%S}"}
    shown = await press(browser, transaction_id, "stop/preview", htmx=True, **fields)
    assert "running billed" in text_of(shown.text)
    assert (await press(browser, transaction_id, "stop", **fields)).status_code == 303
    page = await page_of(browser, transaction_id)
    assert "stop inferred" in page
    assert "2.00 kWh" in page


@pytest.mark.parametrize(
    ("action", "fields", "status", "sentence"),
    [
        ("correct", {"energyWh": "1", "note": " "}, 422, "A reason is needed"),
        ("correct", {"energyWh": "-1"}, 422, "“Energy” must be a whole number"),
        ("correct", {"stoppedAt": "yesterday"}, 422, "“Stopped at” must be a date and time"),
        ("correct", {"meterStopWh": "5"}, 422, "is below that at the start"),
        ("stop", {}, 409, "correct it instead"),
        ("release", {}, 409, "not held"),
        ("explode", {}, 404, "nothing at this address"),
    ],
)
async def test_what_cannot_be_is_a_sentence(
    world: ApiHarness,
    browser: httpx.AsyncClient,
    action: str,
    fields: dict[str, Any],
    status: int,
    sentence: str,
):
    transaction_id = await world.session("CP1")
    answer = await press(browser, transaction_id, action, **fields)
    assert (answer.status_code, sentence in text_of(answer.text)) == (status, True)
    shown = await press(browser, transaction_id, f"{action}/preview", htmx=True, **fields)
    assert (shown.status_code, sentence in text_of(shown.text)) == (200, True)


async def test_a_refusal_stands_at_its_field_and_the_next_answer_takes_it_away(
    world: ApiHarness, browser: httpx.AsyncClient
):
    transaction_id = await world.session("CP1")

    async def wrong(**fields: Any) -> dict[str, str]:
        shown = (await press(browser, transaction_id, "correct", htmx=True, **fields)).text
        found = re.findall(r'<small class="error" id="correct-(\w+)-wrong"[^>]*>([^<]*)</small>', shown)
        assert len(found) == 6
        return {name: sentence for name, sentence in found if sentence}

    assert "of at most 15 digits" in (await wrong(energyWh="1" + "0" * 400))["energyWh"]
    assert list(await wrong(meterStopWh="24,000")) == ["meterStopWh"]
    assert list(await wrong(meterStopWh="5")) == ["meterStopWh"]  # of the two that the sentence names
    assert list(await wrong()) == ["meterStartWh"]
    assert "501 characters, where 500 are kept" in (await wrong(note=501 * "x"))["note"]
    assert await wrong(energyWh=str(10**9)) == {}
    early = await press(
        browser, transaction_id, "correct", htmx=True, startedAt="2014-12-31T23:00", zone="UTC"
    )
    assert '<time datetime="2014-12-31T23:00:00Z" data-show="exact">' in early.text
    shown = await press(browser, transaction_id, "correct/preview", htmx=True, energyWh="1")
    assert shown.text.count('hx-swap-oob="true"></small>') == 6


async def test_a_page_that_is_out_of_date_books_nothing(world: ApiHarness, browser: httpx.AsyncClient):
    transaction_id = await held(world)
    await press(browser, transaction_id, "release", revision="1")
    for action in ("void", "void/preview"):
        stale = await press(browser, transaction_id, action, revision="1")
        assert (stale.status_code, "its revision is 2, not 1" in stale.text) == (409, True)
        shown = await press(browser, transaction_id, action, htmx=True, revision="1")
        assert f'<a href="/transactions/{transaction_id}">' in shown.text
    assert "The bill is void" not in await page_of(browser, transaction_id)
    done = await press(browser, transaction_id, "void", htmx=True, revision="2")
    assert (done.status_code, done.headers["hx-redirect"]) == (204, f"/transactions/{transaction_id}")


@pytest.mark.parametrize(
    ("zone", "hour"), [("Europe/Kyiv", 8), ("America/New_York", 15), ("UTC", 10), ("Mars/Olympus", 10)]
)
async def test_times_are_entered_in_the_zone_of_the_page(
    world: ApiHarness, browser: httpx.AsyncClient, zone: str, hour: int
):
    transaction_id = await world.session("CP1")
    fields: dict[str, Any] = {"startedAt": "2024-01-10T10:00", "stoppedAt": "2024-01-10T11:00", "zone": zone}
    done = await press(browser, transaction_id, "correct", **fields)
    assert done.status_code == 303, done.text
    assert (
        f'datetime="2024-01-10T{hour:02}:00:00+00:00"'
        in (await browser.get(f"/transactions/{transaction_id}")).text
    )


async def test_a_number_that_no_transaction_can_have_is_not_found(browser: httpx.AsyncClient):
    for number in ("0", "9" * 18, "9" * 19, "9" * 5000):
        assert (await browser.get(f"/transactions/{number}")).status_code == 404


async def test_a_viewer_sees_the_history_and_no_form(world: ApiHarness):
    transaction_id = await held(world)
    secret = new_secret()
    async with world.engine.begin() as db:
        await access_tokens.add_token(db, "vera", "viewer", digest_of(secret))
    async with open_browser(world) as stranger:
        viewer = await sign_in(stranger, secret)
        page = await page_of(viewer, transaction_id)
        assert "Revisions" in page
        assert "Release the bill" not in page
        assert (await press(viewer, transaction_id, "void")).status_code == 403
        assert (await viewer.get("/attention")).status_code == 200


async def test_what_needs_attention_is_on_one_page(world: ApiHarness, browser: httpx.AsyncClient):
    page = text_of((await browser.get("/attention")).text)
    assert page.count("None.") == 6
    bill = await held(world)
    await world.session("CP2")  # nothing is wrong with it
    forgotten = await world.start("CP3")
    world.later(minutes=1)
    await world.start("CP3")
    stuck = await world.record(
        reports.Start(
            charger_id="CP4",
            connector_id=1,
            id_tag="T",
            key="k",
            meter_wh=0,
            at=datetime(1970, 1, 1, tzinfo=UTC),
        )
    )
    blind = await world.record(
        reports.Start(charger_id="CP5", connector_id=1, id_tag="T", key="k", meter_wh=None, at=world.now)
    )
    await world.stop("CP6", 999_999, 100)
    shown = (await browser.get("/attention")).text
    for number in (bill, forgotten, stuck.transaction_id, blind.transaction_id):
        assert f'href="/transactions/{number}"' in shown
    assert "CP2" not in shown
    for sentence in (evidence.IMPLAUSIBLE_METER_STOP, session_register.NO_METER_START):
        assert explained(sentence) in shown
    assert "StopTransaction" in shown
    await press(browser, bill, "void")
    assert f'href="/transactions/{bill}"' not in (await browser.get("/attention")).text


async def test_what_the_nightly_audit_has_found_needs_attention_until_it_is_revised(
    world: ApiHarness, browser: httpx.AsyncClient
):
    transaction_id = await world.session("CP1")
    assert "No nightly audit has ended yet" in text_of((await browser.get("/attention")).text)
    async with world.engine.connect() as connection:
        db = await driver_connection(connection)
        finding = audit_runs.AuditFinding(
            transaction_id=transaction_id, revision=1, fields=("energy_wh", EVIL)
        )
        number = await audit_runs.begin_run(db, "n1", world.now)
        await audit_runs.end_run(db, number, world.now, 1, [finding])
    shown = (await browser.get("/attention")).text
    assert f'href="/transactions/{transaction_id}"' in shown
    assert EVIL not in shown
    page = text_of(shown)
    assert "energy_wh, " in page
    assert "csms audit --book" in page
    await press(browser, transaction_id, "correct", energyWh="4000")
    assert f'href="/transactions/{transaction_id}"' not in (await browser.get("/attention")).text


def test_every_anomaly_has_a_sentence():
    sources = {evidence.METER_STOP, evidence.LAST_READING, evidence.NO_READING, evidence.OPERATOR}
    constants = vars(evidence) | vars(session_register)
    words = {
        value for name, value in constants.items() if name.isupper() and isinstance(value, str)
    } - sources
    assert len(words) > 10
    assert [word for word in words if explained(word) == f"{word.replace('_', ' ').capitalize()}."] == []
