"""Tariffs, their versions and assignment, prices, groups: over REST."""

from datetime import UTC, datetime, timedelta

import httpx
import pytest

from csms.core import reports
from tests.harness.api_harness import ApiHarness, sample

NIGHT = {"name": "night", "start": "22:00", "end": "06:00", "energyRate": "0.20"}
DAY = {
    "currency": "EUR",
    "energyRate": "0.40",
    "sessionFee": 1,
    "idleRate": "0.05",
    "idleGraceMin": 30,
    "bands": [NIGHT],
    "timeZone": "Europe/Vienna",
    "maximum": 50,
    "taxPercent": "20",
}


async def test_a_tariff_with_all_its_terms_comes_back(client: httpx.AsyncClient):
    made = await client.put("/tariffs/day", json=DAY)
    assert made.status_code == 201
    shown = (await client.get("/tariffs/day")).json()
    assert made.json() == shown
    assert shown["bands"] == [
        {
            "name": "night",
            "days": ["mon", "tue", "wed", "thu", "fri", "sat", "sun"],
            "start": "22:00",
            "end": "06:00",
            "energyRate": "0.20",
            "timeRate": None,
            "idleRate": None,
        }
    ]
    assert (shown["maximum"], shown["minimum"], shown["taxPercent"], shown["taxIncluded"]) == (
        "50",
        None,
        "20",
        True,
    )
    assert (await client.put("/tariffs/day", json=DAY)).json()["version"] == 1


async def test_the_minimum_of_a_session_without_energy_is_a_term(client: httpx.AsyncClient):
    made = (await client.put("/tariffs/jp", json={"currency": "JPY", "minimum": "110"})).json()
    assert made["minimumWithoutEnergy"] is False
    session = {"energyKwh": 0, "start": "2026-01-01T00:00:00Z", "end": "2026-01-01T01:00:00Z"}

    async def price() -> object:
        return (await client.post("/tariffs/jp/price", json=session)).json()["cost"]["amountMinor"]

    assert await price() == 0
    made = (await client.patch("/tariffs/jp", json={"minimumWithoutEnergy": True})).json()
    assert (made["minimumWithoutEnergy"], made["version"]) == (True, 2)
    assert await price() == 110


async def test_every_change_is_a_version_and_old_ones_stay_readable(client: httpx.AsyncClient):
    await client.put("/tariffs/day", json=DAY)
    changed = await client.patch("/tariffs/day", json={"bands": []})
    assert (changed.json()["version"], changed.json()["bands"]) == (2, [])
    assert changed.json()["energyRate"] == "0.40"
    await client.patch("/tariffs/day", json={"energyRate": "0.5"})
    kept = (await client.get("/tariffs/day/versions")).json()["items"]
    assert [(v["version"], v["energyRate"], len(v["bands"])) for v in kept] == [
        (3, "0.5", 0),
        (2, "0.40", 0),
        (1, "0.40", 1),
    ]
    assert (await client.get("/tariffs/day", params={"version": 1})).json()["bands"][0]["name"] == "night"
    assert (await client.get("/tariffs/day", params={"version": 4})).status_code == 404


async def test_one_that_comes_back_after_it_was_deleted_goes_on_counting(client: httpx.AsyncClient):
    await client.put("/tariffs/day", json=DAY)
    assert (await client.delete("/tariffs/day")).status_code == 204
    assert len((await client.get("/tariffs/day/versions")).json()["items"]) == 1
    assert (await client.get("/tariffs/day", params={"version": 1})).status_code == 200
    assert (await client.put("/tariffs/day", json=DAY)).json()["version"] == 2
    assert (await client.get("/tariffs/none/versions")).status_code == 404


@pytest.mark.parametrize(
    ("change", "pointer", "words"),
    [
        ({"currency": "ABC"}, "/currency", "not a currency of ISO 4217"),
        ({"timeZone": "Europe/Wien"}, "/timeZone", "not an IANA time zone"),
        ({"minimum": 60}, "/maximum", "below the minimum"),
        ({"bands": [NIGHT | {"end": "6:00"}]}, "/bands/0/end", "'6:00' is not a time of day"),
        ({"bands": [NIGHT | {"days": ["Mon"]}]}, "/bands/0/days", "'Mon' is not a day"),
        (
            {"bands": [NIGHT, {"name": "early", "start": "05:00", "end": "07:00"}]},
            "/bands/1",
            "band 1 ('early') overlaps band 0 ('night') on mon from 05:00 to 06:00",
        ),
        ({"energyRate": "-1"}, "/energyRate", "greater than or equal to 0"),
        ({"bands": [NIGHT | {"energyRate": "x"}]}, "/bands/0/energyRate", "decimal"),
        ({"taxPercent": 101}, "/taxPercent", "100"),
        ({"idleGraceMin": -1}, "/idleGraceMin", "0"),
        ({"surcharge": 1}, "/surcharge", "no such field"),
    ],
)
async def test_what_cannot_be_is_refused_and_named(
    client: httpx.AsyncClient, change: dict[str, object], pointer: str, words: str
):
    await client.put("/tariffs/known", json=DAY)
    for answer in (
        await client.put("/tariffs/new", json=DAY | change),
        await client.patch("/tariffs/known", json=change),
    ):
        assert answer.status_code == 422
        assert answer.headers["content-type"] == "application/problem+json"
        found = [error for error in answer.json()["errors"] if error["pointer"] == pointer]
        assert found, answer.json()
        assert words in found[0]["detail"]
    assert (await client.get("/tariffs/new")).status_code == 404
    assert (await client.get("/tariffs/known")).json()["version"] == 1


async def test_a_session_across_bands_is_billed_with_its_components(
    world: ApiHarness, client: httpx.AsyncClient
):
    await client.put("/tariffs/day", json=DAY | {"taxPercent": None, "maximum": None})
    await client.put("/chargers/CP1", json={"tariffId": "day"})
    world.now = began = datetime(2026, 11, 20, 20, tzinfo=UTC)  # 21:00 in Vienna
    started = await world.record(
        reports.Start(charger_id="CP1", connector_id=1, id_tag="t", key="k", meter_wh=0, at=began)
    )
    world.now = began + timedelta(minutes=60)
    reading = reports.Reading(at=world.now, samples=(sample(9000),))
    await world.record(
        reports.Meter(
            charger_id="CP1", connector_id=1, transaction_id=started.transaction_id, readings=(reading,)
        )
    )
    running = (await client.get(f"/transactions/{started.transaction_id}")).json()
    assert (running["active"], running["energyWh"], running["cost"]["amount"]) == (True, 9000, "4.60")
    listed = (await client.get("/transactions", params={"active": True})).json()["items"]
    assert listed[0]["cost"]["amount"] == "4.60"
    world.now = began + timedelta(minutes=120)
    await world.record(
        reports.Stop(charger_id="CP1", transaction_id=started.transaction_id, meter_wh=12_000, at=world.now)
    )
    cost = (await client.get(f"/transactions/{started.transaction_id}")).json()["cost"]
    assert (cost["amount"], cost["amountMinor"], cost["tax"]) == ("5.20", 520, None)
    assert [(b["component"], b["band"], b["quantity"], b["amountMinor"]) for b in cost["breakdown"]] == [
        ("energy", None, "9", 360),
        ("energy", "night", "3", 60),
        ("session", None, None, 100),
    ]


async def test_what_a_session_would_cost(client: httpx.AsyncClient):
    await client.put("/tariffs/day", json=DAY)
    asked = {"energyKwh": 24, "start": "2026-11-20T20:00", "end": "2026-11-21T06:00", "idleMinutes": 120}
    answer = await client.post("/tariffs/day/price", json=asked)
    assert answer.status_code == 200, answer.text
    told = answer.json()
    assert (told["start"], told["end"]) == ("2026-11-20T19:00:00Z", "2026-11-21T05:00:00Z")
    assert (told["durationS"], told["timeZone"], told["version"]) == (36_000, "Europe/Vienna", 1)
    cost = told["cost"]
    assert [(b["component"], b["band"], b["amountMinor"]) for b in cost["breakdown"]] == [
        ("energy", None, 240),
        ("energy", "night", 360),
        ("session", None, 100),
        ("idle", "night", 450),
    ]
    assert (cost["amountMinor"], cost["tax"]["amountMinor"], cost["tax"]["netMinor"]) == (1150, 192, 958)


@pytest.mark.parametrize(
    "change",
    [
        {"end": "2026-11-20T19:59"},
        {"end": "2027-11-20T19:59"},
        {"end": "2026-11-20T23:00:00Z"},
        {"timeZone": "Europe/Wien", "start": "2026-11-20T20:00"},
        {"energyKwh": -1},
        {"start": "0001-01-01T00:00", "end": "0001-01-01T01:00"},
    ],
)
async def test_sessions_that_cannot_be_have_no_price(client: httpx.AsyncClient, change: dict[str, object]):
    asked = {"energyKwh": 24, "start": "2026-11-20T20:00", "end": "2026-11-21T06:00"}
    await client.put("/tariffs/flat", json={"currency": "EUR", "bands": [NIGHT]})
    answer = await client.post("/tariffs/flat/price", json=asked | change)
    assert answer.status_code == 422
    assert answer.json()["errors"]
    assert (await client.post("/tariffs/none/price", json=asked)).status_code == 404


async def test_groups_give_their_chargers_a_tariff(world: ApiHarness, client: httpx.AsyncClient):
    await client.put("/tariffs/yard", json={"currency": "EUR", "energyRate": "0.30"})
    await client.put("/tariffs/own", json={"currency": "EUR", "energyRate": "0.10"})
    assert (await client.put("/groups/depot", json={"tariffId": "none"})).status_code == 409
    made = await client.put("/groups/depot", json={"tariffId": "yard"})
    assert (made.status_code, made.json()["tariffId"], made.json()["chargers"]) == (201, "yard", 0)
    assert (await client.put("/chargers/CP1", json={"groupId": "none"})).status_code == 409
    await client.put("/chargers/CP1", json={"groupId": "depot"})
    assert (await client.get("/chargers/CP1")).json()["groupId"] == "depot"
    await client.put("/chargers/CP2", json={"groupId": "depot", "tariffId": "own"})
    await client.put("/tags/VIP", json={"tariffId": "own"})
    assert (await client.get("/groups")).json()["items"][0]["chargers"] == 2

    async def tariff_of(charger_id: str, id_tag: str) -> str:
        key = f"{charger_id}{id_tag}"
        started = await world.record(
            reports.Start(
                charger_id=charger_id, connector_id=1, id_tag=id_tag, key=key, meter_wh=0, at=world.now
            )
        )
        transaction = (await client.get(f"/transactions/{started.transaction_id}")).json()
        return str(transaction["tariff"]["id"])

    assert await tariff_of("CP1", "any-tag") == "yard"
    assert await tariff_of("CP1", "vip") == "own"
    assert await tariff_of("CP2", "any-tag") == "own"
    assert await tariff_of("CP3", "any-tag") == "default"
    await client.put("/tariffs/default", json={"currency": "UAH", "energyRate": 9})
    await world.record(reports.Stop(charger_id="CP3", transaction_id=None, meter_wh=0, at=world.now))
    started = await world.record(
        reports.Start(charger_id="CP3", connector_id=1, id_tag="x", key="x", meter_wh=0, at=world.now)
    )
    transaction = (await client.get(f"/transactions/{started.transaction_id}")).json()
    assert (transaction["tariff"]["id"], transaction["tariff"]["currency"]) == ("default", "UAH")


async def test_what_is_in_use_is_not_deleted(client: httpx.AsyncClient):
    await client.put("/tariffs/yard", json={"currency": "EUR"})
    await client.put("/groups/depot", json={"tariffId": "yard"})
    await client.put("/tags/VIP", json={"tariffId": "yard"})
    await client.put("/chargers/CP1", json={"groupId": "depot"})
    assert (await client.delete("/groups/depot")).status_code == 409
    assert (await client.patch("/chargers/CP1", json={"groupId": None})).status_code == 200
    assert (await client.delete("/tariffs/yard")).status_code == 409
    assert (await client.delete("/groups/depot")).status_code == 204
    assert (await client.delete("/groups/depot")).status_code == 404
    assert (await client.get("/groups/depot")).status_code == 404
    assert (await client.delete("/tariffs/yard")).status_code == 409
    assert (await client.patch("/tags/VIP", json={"tariffId": None})).json()["tariffId"] is None
    assert (await client.patch("/tags/VIP", json={"tariffId": "none"})).status_code == 409
    assert (await client.put("/tags/VIP", json={"tariffId": "none"})).status_code == 409
    assert (await client.delete("/tariffs/yard")).status_code == 204
