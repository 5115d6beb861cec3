"""Transactions over REST: figures so far and final, filters, stable pages, readings, CSV, query plans."""

import csv
import io
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from msgspec.structs import replace

from csms.core import reports
from tests.harness.api_harness import ApiHarness


async def _all(client: httpx.AsyncClient, path: str, **params: Any) -> list[dict[str, object]]:
    items: list[dict[str, object]] = []
    for _ in range(50):
        page = (await client.get(path, params=params)).json()
        items += page["items"]
        if page["nextCursor"] is None:
            return items
        params["cursor"] = page["nextCursor"]
    raise AssertionError("pages without end")


async def test_a_running_transaction_shows_the_figures_so_far(world: ApiHarness, client: httpx.AsyncClient):
    await client.put("/tariffs/t", json={"currency": "EUR", "energyRate": 0.5, "timeRate": "0.1"})
    await client.put("/chargers/CP1", json={"tariffId": "t"})
    transaction_id = await world.start("CP1")
    world.later(minutes=10)
    await world.meter("CP1", transaction_id, 3000, 11_000)
    transaction = (await client.get(f"/transactions/{transaction_id}")).json()
    assert transaction["active"] is True
    assert (transaction["energyWh"], transaction["powerW"], transaction["durationS"]) == (2000, 11_000, 600)
    cost = transaction["cost"]
    assert (cost["amount"], cost["amountMinor"], cost["currency"], cost["tax"]) == ("2.00", 200, "EUR", None)
    assert [(b["component"], b["amountMinor"]) for b in cost["breakdown"]] == [("energy", 100), ("time", 100)]
    assert transaction["stoppedAt"] is None


async def test_a_finished_transaction_says_how_its_energy_was_derived(
    world: ApiHarness, client: httpx.AsyncClient
):
    finished = await world.session("CP1")
    forgotten = await world.start("CP1")
    world.later(minutes=1)
    await world.meter("CP1", forgotten, 1700, 100)
    world.later(minutes=1)
    await world.start("CP1", meter_wh=1800)
    first = (await client.get(f"/transactions/{finished}")).json()
    assert (first["energyWh"], first["energySource"], first["durationS"]) == (5000, "meter_stop", 3600)
    assert (first["meterStartWh"], first["meterStopWh"], first["active"]) == (1000, 6000, False)
    second = (await client.get(f"/transactions/{forgotten}")).json()
    assert (second["inferred"], second["energySource"], second["energyWh"]) == (True, "last_reading", 700)


@pytest.mark.parametrize("path", ["0", "-1", "99", "2147483648", "9" * 30])
async def test_an_unknown_transaction_is_404(client: httpx.AsyncClient, path: str):
    for address in (f"/transactions/{path}", f"/transactions/{path}/readings"):
        answer = await client.get(address)
        assert answer.status_code == 404
        assert answer.json()["type"] == "urn:csms:problem:not-found"


async def test_filters(world: ApiHarness, client: httpx.AsyncClient):
    begin = world.now
    one = await world.session("CP1")
    two = await world.session("CP2", tag="Other")
    running = await world.start("CP1")

    async def ids(**params: object) -> list[object]:
        return [item["id"] for item in await _all(client, "/transactions", **params)]

    assert await ids() == [running, two, one]
    assert await ids(charger="CP1") == [running, one]
    assert await ids(active="true") == [running]
    assert await ids(active="false", charger="CP1") == [one]
    assert await ids(idTag="OTHER") == [two]
    middle = begin + timedelta(minutes=30)
    assert await ids(**{"from": middle.isoformat()}) == [running, two]
    assert await ids(to=middle.isoformat().replace("+00:00", "Z")) == [one]
    assert await ids(charger="' OR ''='") == []
    assert await ids(charger="\0") == []
    unescaped = await client.get(f"/transactions?from={begin:%Y-%m-%dT%H:%M:%S}+00:00&to=2200-01-01")
    assert len(unescaped.json()["items"]) == 3


@pytest.mark.parametrize(
    "query",
    [
        "from=yesterday",
        "from=0001-01-01T00:00:00%2B14:00",
        "active=perhaps",
        "limit=0",
        "limit=100000",
        "cursor=x",
        "cursor=WzFd",
        "cursor=%00",
    ],
)
async def test_filters_that_cannot_be_are_refused(client: httpx.AsyncClient, query: str):
    answer = await client.get(f"/transactions?{query}")
    assert answer.status_code == 422
    assert answer.headers["content-type"] == "application/problem+json"


async def test_pages_stay_the_same_while_transactions_begin(world: ApiHarness, client: httpx.AsyncClient):
    ids = []
    for number in range(7):  # some of one moment: the id decides
        ids.append(await world.start(f"CP{number}"))
        if number % 3 == 2:
            world.later(seconds=1)
    first = (await client.get("/transactions", params={"limit": 3})).json()
    world.later(seconds=1)
    await world.start("CP9")
    rest = await _all(client, "/transactions", limit=3, cursor=first["nextCursor"])
    assert [item["id"] for item in [*first["items"], *rest]] == ids[::-1]


async def test_readings_come_in_order_and_in_pages(world: ApiHarness, client: httpx.AsyncClient):
    transaction_id = await world.start("CP1")
    other = await world.start("CP1", connector_id=2)
    for number in range(5):
        world.later(minutes=1)
        await world.meter("CP1", transaction_id, 1000 + number * 100, 6000)
        await world.meter("CP1", other, 5, 5, connector_id=2)
    readings = await _all(client, f"/transactions/{transaction_id}/readings", limit=2)
    assert [reading["energyWh"] for reading in readings] == [1000, 1100, 1200, 1300, 1400]
    assert readings[0]["samples"] == [
        {"value": "1000", "measurand": "Energy.Active.Import.Register", "unit": "Wh"},
        {"value": "6000", "measurand": "Power.Active.Import", "unit": "W"},
    ]


async def test_csv_holds_every_transaction_once(world: ApiHarness, client: httpx.AsyncClient):
    world.context.export_page = 2
    ids = [await world.session("CP1", tag=tag) for tag in ("A", "=1+1", 'B"x,y', "D")]
    running = await world.start("CP1")
    answer = await client.get("/transactions.csv", params={"charger": "CP1"})
    assert answer.headers["content-type"] == "text/csv; charset=utf-8"
    rows = list(csv.DictReader(io.StringIO(answer.text)))
    assert [int(row["id"]) for row in rows] == [running, *ids[::-1]]
    assert [row["idTag"] for row in rows] == ["TAG1", "D", 'B"x,y', "'=1+1", "A"]
    assert (rows[1]["energyWh"], rows[1]["durationSeconds"], rows[1]["active"]) == ("5000", "3600", "false")
    assert (rows[0]["stoppedAt"], rows[0]["active"]) == ("", "true")
    empty = await client.get("/transactions.csv", params={"charger": "unknown"})
    assert empty.text.startswith("id,charger,connector")
    assert empty.text.count("\n") == 1


async def _ids(client: httpx.AsyncClient, **params: Any) -> list[object]:
    return [item["id"] for item in await _all(client, "/transactions", **params)]


async def test_a_session_stamped_1970_is_listed_by_the_time_it_was_received(
    world: ApiHarness, client: httpx.AsyncClient
):
    first = await world.session("CP1")
    received_at, began = world.now, world.now.replace(year=1970)
    await world.record(
        reports.Start(charger_id="CP2", connector_id=1, id_tag="TAG1", key="k", meter_wh=0, at=began)
    )
    (stuck,) = await _ids(client, charger="CP2")
    world.later(minutes=1)
    last = await world.session("CP3")
    assert await _ids(client) == [last, stuck, first]
    assert await _ids(client, limit=1) == [last, stuck, first]
    since = (received_at - timedelta(seconds=1)).isoformat()
    assert await _ids(client, **{"from": since}) == [last, stuck]
    assert await _ids(client, to="1990-01-01") == []
    answer = await client.get("/transactions.csv", params={"from": since})
    rows = list(csv.DictReader(io.StringIO(answer.text)))
    assert [int(row["id"]) for row in rows] == [last, stuck]
    assert rows[1]["startedAt"] == began.isoformat().replace("+00:00", "Z")
    assert rows[1]["accountingAt"] == received_at.isoformat().replace("+00:00", "Z")


async def test_a_date_alone_is_a_day_of_the_charger_or_of_the_settings(
    world: ApiHarness, client: httpx.AsyncClient
):
    world.ledger.policy = replace(world.ledger.policy, time_zone="Europe/Kyiv")
    await client.put("/chargers/CP1", json={"timeZone": "America/New_York"})
    world.now = datetime(2026, 6, 30, 20, 30, tzinfo=UTC)  # 23:30 in Kyiv, 16:30 in New York
    june = await world.start("CP1")
    world.later(hours=1)
    july_in_kyiv = await world.start("CP1", connector_id=2)
    assert await _ids(client, **{"from": "2026-07-01"}) == [july_in_kyiv]
    assert await _ids(client, to="2026-07-01") == [june]
    assert await _ids(client, charger="CP1", to="2026-07-01") == [july_in_kyiv, june]
    assert await _ids(client, charger="CP1", **{"from": "2026-07-01"}) == []
    assert await _ids(client, **{"from": "2026-06-30T21:00:00Z", "to": "2026-07-02"}) == [july_in_kyiv]
    for day in ("2026-06-31", "0001-01-01"):
        assert (await client.get("/transactions", params={"from": day})).status_code == 422


async def test_transactions_are_filtered_by_their_billing(world: ApiHarness, client: httpx.AsyncClient):
    billed = await world.session("CP1")
    voided = await world.session("CP1")
    await client.post(f"/transactions/{voided}/void", json={"note": "a test"})
    running = await world.start("CP2")
    assert await _ids(client, billing="billed") == [billed]
    assert await _ids(client, billing="void") == [voided]
    assert await _ids(client, billing="held") == []
    assert await _ids(client) == [running, voided, billed]
    assert (await client.get("/transactions?billing=perhaps")).status_code == 422
