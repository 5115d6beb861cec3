"""Accounts in the console: balances, running rentals, entries, top-ups."""

import re
from decimal import Decimal

import httpx
import pytest

from csms.core import reports
from csms.core.tariffs import Tariff
from csms.db import access_tokens, accounts, tariffs
from csms.service.access import digest_of
from tests.harness.api_harness import ApiHarness
from tests.harness.console_browser import EVIL, sign_in, text_of

UID = "lDpl3b3d21Ma0vUBoMYdJuoOsVI3"


async def opened(world: ApiHarness, uid: str, amount_minor: int) -> None:
    async with world.engine.begin() as db:
        await accounts.put(db, uid, "EUR")
        if amount_minor:
            await accounts.add_entry(
                db, uid, key=uid, kind="top_up", amount_minor=amount_minor, note=f"n {EVIL}", now=world.now
            )


async def renting(world: ApiHarness, uid: str, charger_id: str = "coinop-1") -> int:
    async with world.engine.begin() as db:
        await tariffs.put_tariff(db, Tariff(id="default", currency="EUR", energy_rate=Decimal("0.50")))
    await world.connect(charger_id, protocol="coinop-mqtt")
    rented = await world.record(
        reports.Rent(
            charger_id=charger_id,
            connector_id=1,
            account_id=uid,
            terms=reports.RentalTerms(min_balance=Decimal(1)),
        )
    )
    assert rented.status == "Accepted"
    started = await world.record(
        reports.Start(
            charger_id=charger_id,
            connector_id=1,
            id_tag=uid,
            account_id=uid,
            key=f"{uid}{world.now}",
            meter_wh=0,
            at=world.now,
        )
    )
    return int(started.transaction_id)


async def test_accounts_are_listed_with_their_holds_and_running_rentals(
    world: ApiHarness, browser: httpx.AsyncClient
) -> None:
    assert "No account yet" in (await browser.get("/accounts")).text
    await opened(world, UID, 10_000)
    await opened(world, f"odd {EVIL}/x", 0)
    number = await renting(world, UID)
    world.later(minutes=30)
    await world.meter("coinop-1", number, 1500, 3000)
    page = (await browser.get("/accounts")).text
    assert EVIL not in page
    shown = text_of(page)
    for words in (
        "Renting now",
        "coinop-1",
        "1.50 kWh",
        "100.00 EUR",
        "1.00 EUR",
        "99.00 EUR",
        "0.75 EUR",
        "running",
    ):
        assert words in shown, words
    assert f'href="/transactions/{number}"' in page
    found = text_of((await browser.get("/accounts?q=lDp")).text)
    assert (UID in found, "odd" in found.partition("100.00")[2]) == (True, False)
    assert "No account begins like that" in (await browser.get("/accounts?q=%25")).text


async def test_accounts_are_paged(world: ApiHarness, browser: httpx.AsyncClient) -> None:
    async with world.engine.begin() as db:
        for number in range(51):
            await accounts.put(db, f"user-{number:02}", "EUR")
    first = (await browser.get("/accounts")).text
    assert "user-49" in first
    assert "user-50" not in first
    more = re.search(r'href="(/accounts\?[^"]+cursor[^"]+)"', first)
    assert more is not None
    assert "user-50" in (await browser.get(more[1].replace("&amp;", "&"))).text


async def test_one_account_shows_its_entries_and_its_rental(
    world: ApiHarness, browser: httpx.AsyncClient
) -> None:
    await opened(world, UID, 10_000)
    number = await renting(world, UID)
    world.later(minutes=60)
    await world.stop("coinop-1", number, 2000)
    page = (await browser.get(f"/accounts/{UID}")).text
    shown = text_of(page)
    for words in ("top-up", "debit", "-1.00 EUR", "99.00 EUR", "Nothing is ever taken away"):
        assert words in shown, words
    assert EVIL not in page
    assert "Renting now" not in page
    assert f'href="/transactions/{number}"' in page
    assert (await browser.get("/accounts/unknown")).status_code == 404
    assert (await browser.get(f"/accounts/{UID}?cursor=x")).status_code == 422


def form_of(page: str) -> dict[str, str]:
    return dict(re.findall(r'name="(csrf|key)" value="([^"]+)"', page))


async def balance(world: ApiHarness, uid: str = UID) -> int:
    async with world.engine.connect() as db:
        view = await accounts.get(db, uid)
    assert view is not None
    return view.account.balance_minor


async def test_a_top_up_that_is_sent_twice_is_entered_once(
    world: ApiHarness, browser: httpx.AsyncClient
) -> None:
    await opened(world, f"{UID}/a b", 0)
    place = f"/accounts/{UID}%2Fa%20b"
    form = form_of((await browser.get(place)).text)
    for _ in range(2):
        answer = await browser.post(f"{place}/entries", data=form | {"amount": "12,50", "note": "cash"})
        assert (answer.status_code, answer.headers["location"]) == (303, place)
    assert await balance(world, f"{UID}/a b") == 1250
    other = await browser.post(f"{place}/entries", data=form | {"amount": "13"})
    assert other.status_code == 409
    again = form_of((await browser.get(place)).text)
    corrected = again | {"amount": "-2.50", "kind": "correction"}
    assert (await browser.post(f"{place}/entries", data=corrected)).status_code == 303
    assert await balance(world, f"{UID}/a b") == 1000


async def test_an_entry_that_cannot_be_made_is_refused_with_a_reason(
    world: ApiHarness, browser: httpx.AsyncClient
) -> None:
    await opened(world, UID, 0)
    form = form_of((await browser.get(f"/accounts/{UID}")).text)
    for wrong in ({"amount": "x"}, {"amount": "-1"}, {"amount": "0"}, {"amount": "0.005"}, {"amount": "1", "kind": "debit"},
                  {"amount": "1", "key": ""}):  # fmt: skip
        assert (await browser.post(f"/accounts/{UID}/entries", data=form | wrong)).status_code == 422, wrong
    assert (await browser.post("/accounts/unknown/entries", data=form | {"amount": "1"})).status_code == 404
    assert (
        await browser.post(f"/accounts/{UID}/entries", data={"amount": "1", "key": "k"})
    ).status_code == 403
    assert await balance(world) == 0


@pytest.mark.parametrize("role", ["viewer", "operator"])
async def test_only_an_administrator_enters_money(
    world: ApiHarness, stranger: httpx.AsyncClient, role: str
) -> None:
    await opened(world, UID, 0)
    async with world.engine.begin() as db:
        await access_tokens.add_token(db, "eyes", role, digest_of("viewers"))
    await sign_in(stranger, "viewers")
    page = (await stranger.get(f"/accounts/{UID}")).text
    assert "Enter money" not in page
    csrf = form_of(page)
    answer = await stranger.post(f"/accounts/{UID}/entries", data=csrf | {"key": "k", "amount": "1"})
    assert answer.status_code == 403
    assert await balance(world) == 0


async def test_an_entry_outside_the_limits_is_refused_with_the_limit(
    world: ApiHarness, browser: httpx.AsyncClient
) -> None:
    await opened(world, UID, 0)
    form = form_of((await browser.get(f"/accounts/{UID}")).text) | {"amount": "1"}
    number = "The amount must be a number"
    limits = f"{number} from -1000000000 to 1000000000 with at most 3 decimals."
    for wrong, sentence in (
        ({"amount": "x"}, f"{number} such as 12.50."),
        ({"amount": "NaN"}, limits),
        ({"amount": "-Infinity"}, limits),
        ({"amount": "1000000000,001"}, limits),
        ({"amount": "1e999999"}, limits),
        ({"amount": "0.0001"}, limits),
        ({"note": "n" * 501}, "The note may have at most 500 characters; this one has 501."),
        ({"key": "k" * 129}, "The key must have 1 to 128 characters; this one has 129."),
        ({"key": ""}, "The key must have 1 to 128 characters; this one has 0."),
        ({"kind": "debit"}, "An entry is a top-up or a correction."),
    ):
        answer = await browser.post(f"/accounts/{UID}/entries", data=form | wrong)
        assert answer.status_code == 422, wrong
        assert sentence in text_of(answer.text), wrong
    assert await balance(world) == 0
    longest = {"note": "n" * 500, "key": "k" * 128}
    assert (await browser.post(f"/accounts/{UID}/entries", data=form | longest)).status_code == 303
    assert await balance(world) == 100
