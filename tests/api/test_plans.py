"""Plans over REST and by `csms plans`: set, shown, taken back, whether or not a node looks after them."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal

import httpx
import pytest
from msgspec.structs import replace

from csms.core import reports
from csms.db import plans
from csms.scheduling.periods import ChargePeriod
from csms.scheduling.plan_delivery import InstalledPlan, PlanDelivery
from csms.scheduling.plan_view import PlanningTerms, PlanSlot, PlanView
from tests.harness.api_harness import ApiHarness
from tests.harness.command_line import Ran, Told

PLAN = "/chargers/CP1/plan"
NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)
PERIOD = ChargePeriod(NOW, NOW + timedelta(hours=1), 16)
VIEW = PlanView(
    charger_id="CP1",
    connector_id=0,
    mode="standalone",
    state="scheduled",
    message="1 slots at 1 price levels",
    delivery="in_place",
    source="standalone",
    currency="EUR",
    max_price=Decimal("0.25"),
    slots=(PlanSlot(PERIOD.start, PERIOD.end, Decimal("0.1"), True),),
    slots_chosen=1,
    price_levels=1,
    periods=(PERIOD,),
    running=(PERIOD,),
    since=NOW,
)


async def show(world: ApiHarness, view: PlanView) -> None:
    async with world.engine.begin() as db:
        await plans.put_view(db, view, [view.connector_id])


async def test_a_plan_is_made_changed_and_removed(
    world: ApiHarness, client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    nudged: list[int] = []
    monkeypatch.setattr(world.context, "plan_changed", lambda: nudged.append(1))
    assert (await client.get(PLAN)).status_code == 404
    assert (await client.put(PLAN, json={})).status_code == 404
    await client.put("/chargers/CP1", json={})
    problem = (await client.get(PLAN)).json()
    assert (problem["status"], problem["detail"]) == (404, "CP1 has no charging plan.")
    assert (await client.delete(PLAN)).status_code == 404
    made = (await client.put(PLAN, json={"maxPrice": "-0.01", "levels": 4})).json()
    assert (made["terms"]["maxPrice"], made["terms"]["levels"], made["terms"]["limitA"]) == ("-0.01", 4, 16)
    assert made["connectors"][0]["delivery"] == "away"
    # What is not named stays.
    changed = (await client.put(PLAN, json={"maxPrice": None, "mode": "hems", "limitA": 16.1})).json()
    assert (changed["terms"]["maxPrice"], changed["terms"]["levels"], changed["terms"]["mode"]) == (
        None,
        4,
        "hems",
    )
    listed = (await client.get("/plans")).json()
    assert [one["chargerId"] for one in listed["items"]] == ["CP1"]
    assert len(nudged) == 2
    # Nothing of it was ever told or sent: gone at once, and a new one begins with the defaults.
    assert (await client.delete(PLAN)).status_code == 204
    assert (await client.get(PLAN)).status_code == 404
    assert (await client.put(PLAN, json={})).json()["terms"]["levels"] == 16


async def test_what_is_on_the_charger_is_taken_off_first(
    world: ApiHarness, client: httpx.AsyncClient
) -> None:
    await client.put("/chargers/CP1", json={})
    await client.put(PLAN, json={})
    held = InstalledPlan(
        source="standalone",
        periods=(PERIOD,),
        until=PERIOD.end,
        profile_id=1,
        connector_id=0,
        stack_level=1,
        unit="A",
        phases=3,
        pushed_at=NOW,
    )
    async with world.engine.begin() as db:
        await plans.put_delivery(db, "CP1", PlanDelivery(installed=held))
    assert (await client.delete(PLAN)).status_code == 204
    assert (await client.get(PLAN)).json()["connectors"][0]["state"] == "removing"
    async with world.engine.begin() as db:
        plan = await plans.get(db, "CP1")
        assert plan is not None
        assert plan.removed
        assert plan.delivery.installed == held
        await plans.forget(db, "CP1")
    assert (await client.get(PLAN)).status_code == 404


@pytest.mark.parametrize(
    "wrong",
    [
        {"limitA": 5},
        {"limitA": 16.05},
        {"levels": 0},
        {"phases": 4},
        {"mode": "auto"},
        {"otherwise": "stop"},
        {"maxPrice": "much"},
        {"price": 1},
    ],
)
async def test_what_cannot_be_is_refused(
    world: ApiHarness, client: httpx.AsyncClient, wrong: dict[str, object]
) -> None:
    await client.put("/chargers/CP1", json={})
    assert (await client.put(PLAN, json=wrong)).status_code == 422
    assert (await client.get(PLAN)).status_code == 404


async def test_a_bridges_plan_is_shown_and_not_set_here(world: ApiHarness, client: httpx.AsyncClient) -> None:
    await world.record(
        reports.Connected(charger_id="CP1", node="n1", remote_address="cloud", protocol="charge-amps")
    )
    await show(world, VIEW)
    await show(world, PlanView(charger_id="UNKNOWN", connector_id=1, mode="hems", state="idle"))
    shown = (await client.get(PLAN)).json()
    assert shown["terms"] is None
    (one,) = shown["connectors"]
    assert one["slots"] == [
        {"start": "2026-11-21T12:00:00Z", "end": "2026-11-21T13:00:00Z", "price": "0.1", "chosen": True}
    ]
    assert one["running"] == [
        {"start": "2026-11-21T12:00:00Z", "end": "2026-11-21T13:00:00Z", "currentA": 16.0}
    ]
    refused = await client.put(PLAN, json={})
    assert refused.status_code == 409
    assert "its bridge's settings" in refused.json()["detail"]


async def test_every_word_of_a_plan_comes_back_from_the_database(
    world: ApiHarness, client: httpx.AsyncClient
) -> None:
    await client.put("/chargers/CP1", json={})
    await show(world, VIEW)
    await show(world, VIEW)
    terms = PlanningTerms(
        mode="hems", max_price=None, levels=3, limit_a=6.5, phases=1, connector_id=2, stack_level=4
    )
    async with world.engine.begin() as db:
        await plans.put(db, "CP1", terms, NOW)
        assert await plans.list_views(db, "CP1") == [VIEW]
        plan = await plans.get(db, "CP1")
        assert plan is not None
        assert (plan.terms, plan.delivery, plan.online, plan.lost) == (terms, PlanDelivery(), False, False)
        other = replace(VIEW, connector_id=1)
        assert await plans.put_view(db, other, [1])
        assert await plans.list_views(db, "CP1") == [other]
        assert not await plans.put_view(db, replace(VIEW, charger_id="UNKNOWN"), [0])


async def test_the_command_line_sets_and_shows_plans(
    did: Told, ran: Ran, world: ApiHarness, client: httpx.AsyncClient
) -> None:
    await client.put("/chargers/CP%2F1", json={})
    told = await did("plans", "set", "CP/1", "--max-price", "0.20", "--limit", "10", "--wait")
    assert told == "CP/1\tstandalone\tidle\taway\t0 periods\t–\n"
    await did("plans", "set", "CP/1", "--hems", "--max-price", "none")
    shown = await did("plans", "show", "CP/1")
    assert '"limitA": 10.0' in shown
    assert '"maxPrice": null' in shown
    assert '"otherwise": "wait"' in shown
    assert (await did("plans", "list")).startswith("CP/1\thems\t")
    assert await did("plans", "remove", "CP/1") == "CP/1: removed\n"
    assert await did("plans", "list") == ""
    assert (await ran("plans", "show", "CP/1")).exit_code != 0
