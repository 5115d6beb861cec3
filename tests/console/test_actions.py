"""Buttons: commands and their answers, enrollment, settings, quarantine."""

import re

import httpx
import pytest
from starlette.datastructures import FormData

from csms.console.actions import FormError, command_of
from csms.core import enrollment, reports
from csms.db import admin
from csms.errors import ChargerOffline, ChargerRefused
from tests.api.test_outbox import park
from tests.harness.api_harness import ApiHarness
from tests.harness.console_browser import form_token


async def _press(
    browser: httpx.AsyncClient, path: str, page: str | None = None, **fields: str
) -> httpx.Response:
    token = form_token((await browser.get(page or path.rpartition("/")[0])).text)
    return await browser.post(path, data={"csrf": token, **fields}, headers={"HX-Request": "true"})


@pytest.mark.parametrize(
    ("form", "expected"),
    [
        (
            {"action": "RemoteStartTransaction", "idTag": " T ", "connectorId": "2"},
            ("RemoteStartTransaction", {"idTag": "T", "connectorId": 2}),
        ),
        (
            {"action": "RemoteStartTransaction", "idTag": "T", "connectorId": ""},
            ("RemoteStartTransaction", {"idTag": "T"}),
        ),
        (
            {"action": "RemoteStopTransaction", "transactionId": "7"},
            ("RemoteStopTransaction", {"transactionId": 7}),
        ),
        ({"action": "Reset", "type": "Soft"}, ("Reset", {"type": "Soft"})),
        (
            {"action": "TriggerMessage", "requestedMessage": "Heartbeat", "connectorId": ""},
            ("TriggerMessage", {"requestedMessage": "Heartbeat"}),
        ),
        ({"action": "UnlockConnector", "connectorId": "1"}, ("UnlockConnector", {"connectorId": 1})),
        (
            {"action": "Custom", "customAction": "GetConfiguration", "payload": '{"key": ["a"]}'},
            ("GetConfiguration", {"key": ["a"]}),
        ),
        ({"action": "Custom", "customAction": "ClearCache", "payload": ""}, ("ClearCache", {})),
    ],
)
def test_a_form_becomes_a_command(form: dict[str, str], expected: tuple[str, dict[str, object]]):
    assert command_of(FormData(form)) == expected


@pytest.mark.parametrize(
    "form",
    [
        {"action": "RemoteStopTransaction", "transactionId": "seven"},
        {"action": "UnlockConnector", "connectorId": "-1"},
        {"action": "UnlockConnector", "connectorId": "²"},
        {"action": "Custom", "customAction": "X", "payload": "{"},
        {"action": "Custom", "customAction": "X", "payload": "[]"},
    ],
)
def test_a_form_that_is_no_command_is_refused(form: dict[str, str]):
    with pytest.raises(FormError):
        command_of(FormData(form))


async def test_the_chargers_answer_is_shown(world: ApiHarness, browser: httpx.AsyncClient):
    await world.connect("CP1")
    world.answer = {"status": "Rejected", "note": "<b>"}
    answer = await _press(browser, "/chargers/CP1/commands", action="Reset", type="Soft")
    assert "Reset: Rejected" in answer.text
    assert "answer bad" in answer.text
    assert "&lt;b&gt;" in answer.text
    assert world.asked[0][1].payload == {"type": "Soft"}


async def test_an_invalid_command_is_explained_and_not_sent(world: ApiHarness, browser: httpx.AsyncClient):
    await world.connect("CP1")
    answer = await _press(browser, "/chargers/CP1/commands", action="Reset", type="Warm")
    assert "not sent" in answer.text
    assert "is not one of Hard, Soft" in answer.text
    bad = await _press(browser, "/chargers/CP1/commands", action="Custom", customAction="X", payload="{")
    assert "not JSON" in bad.text
    assert world.asked == []


async def test_a_command_that_fails_shows_why(world: ApiHarness, browser: httpx.AsyncClient):
    await world.connect("CP1")
    world.answer = ChargerOffline("CP1 is not connected.")
    answer = await _press(browser, "/chargers/CP1/commands", action="Reset", type="Soft")
    assert "CP1 is not connected." in answer.text
    world.answer = ChargerRefused("NotImplemented", "no", {"a": 1})
    answer = await _press(browser, "/chargers/CP1/commands", action="Reset", type="Soft")
    assert "NotImplemented: no" in answer.text


async def test_without_scripts_the_answer_is_a_page(world: ApiHarness, browser: httpx.AsyncClient):
    await world.connect("CP1")
    token = form_token((await browser.get("/chargers/CP1")).text)
    answer = await browser.post(
        "/chargers/CP1/commands", data={"csrf": token, "action": "Reset", "type": "Soft"}
    )
    assert "<!doctype html>" in answer.text
    assert "Back to the charger" in answer.text


async def test_a_new_charger_is_accepted_with_one_button(world: ApiHarness, browser: httpx.AsyncClient):
    await world.connect("CP1")
    await world.record(reports.Boot(charger_id="CP1"))
    await _press(browser, "/chargers/CP1/settings", enrollment="Pending")
    page = (await browser.get("/chargers/CP1")).text
    assert "waits for your approval" in page
    answer = await _press(browser, "/chargers/CP1/settings", enrollment="Accepted")
    assert answer.headers["hx-refresh"] == "true"
    assert (await world.record(reports.Boot(charger_id="CP1"))).status == "Accepted"
    assert "waits for your approval" not in (await browser.get("/chargers/CP1")).text
    wrong = await _press(browser, "/chargers/CP1/settings", enrollment="Perhaps")
    assert "Accepted, Pending or Rejected" in wrong.text
    none = await _press(browser, "/chargers/CP1/settings", tariffId="none")
    assert "no tariff" in none.text


async def test_settings_are_saved_from_a_plain_form(world: ApiHarness, browser: httpx.AsyncClient):
    await world.connect("CP1")
    token = form_token((await browser.get("/chargers/CP1")).text)
    fields = {"csrf": token, "displayName": "Yard <1>", "tariffId": "", "enrollment": "Accepted"}
    answer = await browser.post("/chargers/CP1/settings", data=fields)
    assert (answer.status_code, answer.headers["location"]) == (303, "/chargers/CP1")
    assert "Yard &lt;1&gt;" in (await browser.get("/")).text


async def test_quarantine_is_resolved_with_a_note(world: ApiHarness, browser: httpx.AsyncClient):
    await world.stop("CP1", 0, 500)
    page = (await browser.get("/quarantine")).text
    assert "no transaction fits this stop" in page.lower()
    (address,) = re.findall(r'action="/quarantine/(\d+/resolve)"', page)
    answer = await _press(browser, f"/quarantine/{address}", page="/quarantine", note="credited by hand")
    assert answer.status_code == 303
    assert "credited by hand" in (await browser.get("/quarantine?resolved=true")).text
    assert "everything the chargers said was understood" in (await browser.get("/quarantine")).text
    again = await _press(browser, f"/quarantine/{address}", page="/quarantine", note="twice")
    assert "dealt with already" in again.text


async def test_quarantine_is_repaired_and_booked(world: ApiHarness, browser: httpx.AsyncClient):
    transaction_id = await world.start("CP1")
    other = await world.start("CP1", connector_id=2, tag="TAG2")
    await world.stop("CP1", 0, 5000)
    page = (await browser.get("/quarantine")).text
    assert "&#34;meterStop&#34;: 5000" in page
    (address,) = re.findall(r'action="(/quarantine/\d+/repair)"', page)
    message = '{"meterStop": 5000, "timestamp": "2027-01-01T00:00:00Z", "transactionId": 0}'
    broken = await _press(browser, address, page="/quarantine", payload="[")
    assert "must be a JSON object" in broken.text
    unclear = await _press(browser, address, page="/quarantine", payload=message)
    assert "name the one that it ended" in unclear.text
    done = await _press(
        browser,
        address,
        page="/quarantine",
        payload=message,
        transactionId=str(other),
        note="asked the driver",
    )
    assert (done.status_code, done.headers["location"]) == (303, f"/transactions/{other}")
    assert "asked the driver" in (await browser.get("/quarantine?resolved=true")).text
    assert transaction_id != other


async def test_parked_events_are_shown_with_the_brokers_reason_and_sent_again(
    world: ApiHarness, browser: httpx.AsyncClient
):
    assert "Parked" not in (await browser.get("/events")).text
    await world.start("CP1")
    await park(world, ("CP1", 1))
    page = (await browser.get("/events")).text
    assert "csms/transactions/CP1/started" in page
    assert "Not authorized (0x87)" in page
    assert (await _press(browser, "/events/revive", "/events")).status_code == 303
    assert "Parked" not in (await browser.get("/events")).text


async def test_messages_of_chargers_that_are_not_accepted_are_shown_apart(
    world: ApiHarness, browser: httpx.AsyncClient
):
    await world.connect("CP1")
    async with world.engine.begin() as db:
        await admin.change_charger(db, "CP1", {"enrollment": "Pending"})
    await world.record(
        enrollment.Deferred(
            charger_id="CP1", message_id="1", action="StopTransaction", payload=b"{}", identity=b"1"
        )
    )
    page = (await browser.get("/quarantine")).text
    assert "everything the chargers said was understood" in page
    assert "1 of chargers that are not accepted" in page
    apart = (await browser.get("/quarantine?deferred=true")).text
    assert "Pending enrollment: booked when an operator accepts the charger." in apart
    assert "Repair and book" not in apart
    assert "/resolve" in apart
    assert "in quarantine" not in (await browser.get("/")).text
