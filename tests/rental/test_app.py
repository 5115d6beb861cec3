"""What the rental page shows and answers: the document's messages at their moments, errors in both languages, limits."""

import asyncio
from decimal import Decimal

import httpx
import pytest

from csms.core.reports import Rent, RentalTerms, Start
from csms.core.tariffs import Tariff
from csms.db import accounts, tariffs
from csms.errors import ChargerOffline
from csms.rental import translations
from csms.rental.station_watch import LiveStation
from csms.service.access import digest_of
from tests.rental.conftest import CHARGER, IN_JSON, OTHER, UID, Phone, RentalHarness


async def test_nothing_is_shown_or_done_without_signing_in(site: RentalHarness) -> None:
    http = site.new_browser()
    for answer in (
        await http.get(f"/r/{CHARGER}"),
        await http.get(f"/r/{CHARGER}/state"),
        await http.post(f"/r/{CHARGER}/open", data={"csrf": "x"}),
    ):
        assert (answer.status_code, answer.headers["location"].partition("?")[0]) == (303, "/r/sign-in")
    assert (await http.get("/r/sign-in")).status_code == 200
    wrong = await http.post("/r/sign-in", data={"token": "csms_guess"})
    assert wrong.status_code == 403
    assert translations.text("bad_code", "uk") in wrong.text
    assert site.world.asked == []


async def test_a_link_signs_in_once_and_opening_it_does_not_use_it_up(site: RentalHarness) -> None:
    await site.phone()  # used
    stranger = site.new_browser()
    shown = await stranger.get("/r/sign-in?token=abc&next=https://evil.example/")
    assert 'value="abc"' in shown.text
    assert "evil" not in shown.text
    again = await stranger.post("/r/sign-in", data={"token": f"link of {UID}"})
    assert again.status_code == 403


async def test_a_form_of_another_site_is_refused(site: RentalHarness) -> None:
    phone = await site.phone()
    answer = await phone.http.post(f"/r/{CHARGER}/open", data={"csrf": "0" * 64})
    assert answer.status_code == 403
    assert site.world.asked == []


async def test_the_language_is_the_one_that_is_asked_for_and_stays(site: RentalHarness) -> None:
    phone = await site.phone()
    page = await phone.scan(**{"Accept-Language": "en-GB,en;q=0.9,uk;q=0.8"})
    assert "Charging station" in page
    assert 'lang="en"' in page
    assert "Зарядна станція" in await phone.scan(**{"Accept-Language": "de"})
    assert "Charging station" in (await phone.http.get(f"/r/{CHARGER}?lang=en")).text
    assert "Charging station" in await phone.scan()  # from now on


@pytest.mark.parametrize("path", ["/r/nowhere", f"/r/{CHARGER}/nowhere", "/r/", "/r/%2B", "/r/%23"])
async def test_an_unknown_address_is_404_and_watches_no_station(site: RentalHarness, path: str) -> None:
    phone = await site.phone()
    assert (await phone.http.get(path)).status_code == 404
    site.station_sends("ready")
    assert site.rental.watcher.station(CHARGER, UID) == LiveStation()


async def test_only_the_numbers_are_sent_while_the_state_is_the_same(site: RentalHarness) -> None:
    phone = await site.phone()
    await phone.scan()
    site.station_sends("ready")
    page = await phone.refresh()
    key = page.partition("?seen=")[2].partition('"')[0]
    again = await phone.http.get(f"/r/{CHARGER}/state?seen={key}")
    assert again.headers["hx-reswap"] == "none"
    assert 'hx-swap-oob="true"' in again.text
    assert "<form" not in again.text


# --- the 15 seconds --------------------------------------------------------------------------------------


async def test_a_station_that_does_not_answer_is_reported_after_fifteen_seconds(site: RentalHarness) -> None:
    phone = await site.phone()
    await phone.scan()
    site.advance(14.9)
    assert phone.shows("asking")
    await phone.refresh()
    assert not phone.shows("M2")
    site.advance(0.1)
    await phone.refresh()
    assert phone.shows("M2")
    assert not phone.shows("B1")
    site.advance(5)
    site.station_sends("ready")
    await phone.refresh()
    assert phone.shows("B1")
    assert not phone.shows("M2")


async def test_a_station_that_falls_silent_during_a_rental_keeps_its_numbers_and_its_stop(
    site: RentalHarness,
) -> None:
    phone = await site.phone()
    number = await site.world.start(CHARGER, tag=UID, meter_wh=0)
    await site.world.status(CHARGER, 1, "Charging")
    await phone.scan()
    site.station_sends("charging", uid=UID, timeS=600, energyWh=125, powerW=2210)
    await phone.refresh()
    assert "0.125" in phone.text
    site.advance(16)
    await phone.refresh()  # the station is asked again
    assert not phone.shows("M2")
    site.advance(15)
    await phone.refresh()
    assert phone.shows("M2")
    assert phone.shows("B2")
    assert "0.125" in phone.text
    assert number


async def test_without_scripts_the_page_reloads_and_does_not_wait_anew(site: RentalHarness) -> None:
    phone = await site.phone()
    assert f"url=/r/{CHARGER}?again=1" in await phone.scan()
    for _ in range(3):
        site.advance(5)
        page = (await phone.http.get(f"/r/{CHARGER}?again=1")).text
    assert translations.text("M2", "uk") in page


# --- reminders -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("time_s", "reminded"), [(0, False), (299, False), (300, True), (4000, True)])
async def test_a_renter_who_has_not_plugged_in_is_reminded_after_five_minutes(
    site: RentalHarness, time_s: int, reminded: bool
) -> None:
    phone = await site.phone()
    await site.world.start(CHARGER, tag=UID, meter_wh=0)
    await phone.scan()
    site.station_sends("busy", uid=UID, timeS=time_s, energyWh=0)
    await phone.refresh()
    assert phone.shows("busy")
    assert phone.shows("M6") is reminded


@pytest.mark.parametrize(
    ("seconds", "also"),
    [(0, set()), (119, set()), (120, {"unplug"}), (899, {"unplug"}), (900, {"unplug", "call_support"})],
)
async def test_a_renter_who_has_not_shut_the_door_is_reminded_after_two_minutes(
    site: RentalHarness, seconds: int, also: set[str]
) -> None:
    phone = await site.phone()
    number = await site.world.start(CHARGER, tag=UID, meter_wh=0)
    site.advance(60)
    await site.world.stop(CHARGER, number, 100)
    await phone.scan()
    site.advance(seconds)
    site.station_sends("done", uid=UID)
    await phone.refresh()
    assert phone.shows("M4")
    assert {name for name in ("unplug", "call_support") if phone.shows(name)} == also


@pytest.mark.parametrize("dynamic", [False, True])
@pytest.mark.parametrize(
    ("energy_wh", "told"), [(700, set()), (800, {"most_spent"}), (999, {"most_spent"}), (1000, {"all_spent"})]
)
async def test_a_balance_that_runs_out_is_announced_at_80_and_at_100_per_cent(
    site: RentalHarness, dynamic: bool, energy_wh: int, told: set[str]
) -> None:
    async with site.world.engine.begin() as db:
        await tariffs.put_tariff(db, Tariff(id="default", currency="UAH", energy_rate=Decimal(100)))
    phone = await site.phone(amount_minor=10_000)
    terms = RentalTerms(dynamic=dynamic, min_balance=Decimal(1))
    await site.world.record(Rent(charger_id=CHARGER, connector_id=1, account_id=UID, terms=terms))
    started = await site.world.record(
        Start(
            charger_id=CHARGER,
            connector_id=1,
            id_tag=UID,
            account_id=UID,
            key="k",
            meter_wh=0,
            at=site.world.now,
        )
    )
    site.advance(600)
    await site.world.meter(CHARGER, started.transaction_id, 600, 2000)
    await phone.scan()
    site.station_sends("charging", uid=UID, timeS=700, energyWh=energy_wh)
    await phone.refresh()
    assert {name for name in ("most_spent", "all_spent") if phone.shows(name)} == told


# --- whose station ---------------------------------------------------------------------------------------


async def test_the_stop_of_another_user_is_refused_with_the_message_of_the_document(
    site: RentalHarness,
) -> None:
    await site.world.start(CHARGER, tag=OTHER, meter_wh=0)
    phone = await site.phone()
    refused = await phone.press("stop")
    assert refused.status_code == 403
    assert translations.text("M1", "uk") in refused.text
    assert OTHER not in refused.text
    quietly = await phone.press("stop", **{"HX-Request": "true"})
    assert quietly.status_code == 403
    assert OTHER not in quietly.text
    in_json = await phone.press("stop", **IN_JSON, **{"Accept-Language": "en"})
    assert (in_json.status_code, in_json.headers["content-type"]) == (403, "application/problem+json")
    assert in_json.json() == {
        "type": "urn:csms:problem:rental:M1",
        "title": translations.text("M1", "en"),
        "status": 403,
        "detail": translations.text("M1", "en"),
        "id": "M1",
        "messages": {"uk": translations.text("M1", "uk"), "en": translations.text("M1", "en")},
    }
    assert site.world.asked == []


async def test_a_stop_after_the_end_of_the_rental_sends_nothing(site: RentalHarness) -> None:
    phone = await site.phone()
    assert (await phone.press("stop")).status_code == 303
    assert site.world.asked == []


async def test_the_renters_stop_is_sent_for_the_running_transaction(site: RentalHarness) -> None:
    number = await site.world.start(CHARGER, tag=UID, meter_wh=0)
    phone = await site.phone()
    assert (await phone.press("stop")).status_code == 303
    await site.settled()
    ((charger_id, command),) = site.world.asked
    assert (charger_id, command.action, command.payload) == (
        CHARGER,
        "RemoteStopTransaction",
        {"transactionId": number},
    )


# --- how often -------------------------------------------------------------------------------------------


async def test_a_user_who_presses_again_within_a_second_is_refused(site: RentalHarness) -> None:
    site.world.answer = {"status": "Rejected", "statusInfo": {"reasonCode": "NoMoney"}}
    phone = await site.phone()
    assert (await phone.press("open")).status_code == 303
    await site.settled()
    for headers in ({}, {"HX-Request": "true"}, IN_JSON):
        refused = await phone.press("open", **headers)
        assert (refused.status_code, refused.headers["retry-after"]) == (429, "1")
    assert refused.json()["messages"]["en"] == translations.text("too_often", "en")
    other = await site.phone(OTHER)
    assert (await other.press("open")).status_code == 303
    site.advance(1)
    assert (await phone.press("open")).status_code == 303
    await site.settled()
    assert len(site.world.asked) == 3


async def test_a_second_tap_while_the_first_is_under_way_sends_nothing(
    site: RentalHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, done = [], asyncio.Event()

    async def slowly(charger_id: str, command: object) -> dict[str, str]:
        asked.append(command)
        await done.wait()
        return {"status": "Accepted"}

    monkeypatch.setattr(site.world.node, "send", slowly)
    phone = await site.phone()
    assert [(await phone.press("open")).status_code for _ in range(3)] == [303, 303, 303]
    assert (await phone.press("open", **IN_JSON)).json() == {"pending": "open"}
    done.set()
    await site.settled()
    assert len(asked) == 1


async def test_a_station_that_gets_commands_too_often_is_reported_for_thirty_seconds(
    site: RentalHarness,
) -> None:
    site.world.answer = {"status": "Rejected", "statusInfo": {"reasonCode": "TooOften"}}
    phone = await site.phone()
    await phone.press("open")
    await site.settled()
    site.station_sends("ready")
    await phone.refresh()
    assert phone.shows("too_often")
    site.advance(31)
    site.station_sends("ready")
    await phone.refresh()
    assert not phone.shows("too_often")


# --- an app instead of a browser -------------------------------------------------------------------------


async def app_of(site: RentalHarness, uid: str = UID) -> httpx.AsyncClient:
    """Signed in with a bearer token, without a cookie."""
    await site.phone(uid)
    async with site.world.engine.begin() as db:
        await accounts.add_token(
            db, uid, accounts.LINK, digest_of("another"), site.world.now.replace(year=2100)
        )
    http = site.new_browser()
    answer = await http.post("/r/sign-in", data={"token": "another"}, headers=IN_JSON)
    http.headers.update(IN_JSON | {"Authorization": f"Bearer {answer.json()['token']}"})
    assert not http.cookies
    return http


async def test_an_app_rents_by_json(site: RentalHarness) -> None:
    app = await app_of(site)
    assert (await app.get(f"/r/{CHARGER}")).json()["state"] == "asking"
    site.station_sends("ready")
    free = (await app.get(f"/r/{CHARGER}/state")).json()
    assert (free["state"], free["button"], free["balance"]) == (
        "free",
        "open",
        {"amount": "100.00", "currency": "UAH"},
    )
    answer = await app.post(f"/r/{CHARGER}/open")
    assert (answer.status_code, answer.json()) == (202, {"pending": "open"})
    await site.settled()
    await site.world.start(CHARGER, tag=UID, meter_wh=0)
    site.station_sends("completed", uid=UID, timeS=600, energyWh=125, powerW=3.2)
    running = (await app.get(f"/r/{CHARGER}/state", headers={"Accept-Language": "en"})).json()
    assert running["numbers"]["timeS"] == 600
    assert running["messages"] == [
        {
            "id": "M3",
            "text": "Charging is complete.",
            "texts": {"uk": "Заряджання завершено.", "en": "Charging is complete."},
        }
    ]
    assert UID not in str(running)
    assert (await app.post("/r/sign-out")).status_code == 204
    assert (await app.get(f"/r/{CHARGER}/state")).status_code == 401


@pytest.mark.parametrize(("language", "wanted"), [("uk", "uk"), ("en", "en"), ("de", "uk"), (None, "uk")])
async def test_errors_come_in_the_language_that_is_asked_for_and_in_both(
    site: RentalHarness, language: str | None, wanted: str
) -> None:
    http = site.new_browser()
    headers = IN_JSON | ({} if language is None else {"Accept-Language": language})
    for answer, status, message in (
        (await http.get(f"/r/{CHARGER}", headers=headers), 401, "sign_in_hint"),
        (await http.post("/r/sign-in", data={"token": "x"}, headers=headers), 403, "bad_code"),
        (await http.get("/r/a/b/c", headers=headers), 404, "no_station"),
    ):
        body = answer.json()
        assert (answer.status_code, body["status"], body["id"]) == (status, status, message)
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.headers["content-language"] == wanted
        assert body["detail"] == translations.text(message, wanted)
        assert body["messages"] == {
            "uk": translations.text(message, "uk"),
            "en": translations.text(message, "en"),
        }


async def test_a_station_that_cannot_be_reached_is_reported_as_the_document_says(site: RentalHarness) -> None:
    site.world.answer = ChargerOffline("coinop-1 does not answer.")
    phone: Phone = await site.phone()
    await phone.press("open")
    await site.settled()
    site.station_sends("ready")
    await phone.refresh()
    assert phone.shows("M2")
