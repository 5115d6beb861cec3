"""Where the events stand, and what the broker refused."""

from typing import Any

import httpx
from sqlalchemy import text

from tests.harness.api_harness import ApiHarness


async def park(world: ApiHarness, *keys: tuple[str, int]) -> None:
    """As the relay does after ten refusals; all else the broker has taken."""
    async with world.engine.begin() as db:
        for charger_id, seq in keys:
            await db.execute(
                text(
                    "UPDATE outbox SET dead = true, attempts = 10, last_error = 'Not authorized (0x87)'"
                    " WHERE charger_id = :charger_id AND seq = :seq"
                ),
                {"charger_id": charger_id, "seq": seq},
            )
        await db.execute(text("DELETE FROM outbox WHERE NOT dead"))


async def test_positions_are_every_chargers_last_seq(world: ApiHarness, client: httpx.AsyncClient):
    for charger_id in ("CP2", "CP1", "CP/3"):
        await world.session(charger_id)
    await world.session("CP1", meter_wh=50_000)
    items: list[dict[str, object]] = []
    params: dict[str, Any] = {"limit": 2}
    while "cursor" not in params or params["cursor"]:
        page = (await client.get("/events/positions", params=params)).json()
        items += page["items"]
        params["cursor"] = page["nextCursor"]
    last = {event.charger_id: event.seq for event in world.events}
    assert {item["clientId"]: item["lastSeq"] for item in items} == last
    assert [item["clientId"] for item in items] == sorted(last)


async def test_parked_events_are_listed_revived_and_discarded(world: ApiHarness, client: httpx.AsyncClient):
    await world.session("CP1")
    await world.session("CP2")
    await park(world, ("CP1", 1), ("CP1", 4), ("CP2", 2))
    listed = (await client.get("/events/parked")).json()["items"]
    assert [(e["clientId"], e["seq"]) for e in listed] == [("CP1", 1), ("CP1", 4), ("CP2", 2)]
    assert listed[1]["topic"] == "csms/billing/CP1/session_cost"
    assert (listed[1]["error"], listed[1]["attempts"]) == ("Not authorized (0x87)", 10)
    assert listed[1]["eventId"] == next(e for e in world.events if e.seq == 4).event_id
    only = (await client.get("/events/parked", params={"clientId": "CP2"})).json()["items"]
    assert [e["clientId"] for e in only] == ["CP2"]

    revived = await client.post("/events/parked/revive", json={"clientId": "CP1"})
    assert revived.json() == {"events": 2}
    async with world.engine.connect() as db:
        rows = (
            await db.execute(text("SELECT charger_id, seq, attempts, dead FROM outbox ORDER BY 1, 2"))
        ).all()
    assert [tuple(row) for row in rows] == [("CP1", 1, 0, False), ("CP1", 4, 0, False), ("CP2", 2, 10, True)]

    assert (await client.post("/events/parked/discard", json={})).json() == {"events": 1}
    assert (await client.get("/events/parked")).json() == {"items": []}
    assert len((await client.get("/events", params={"clientId": "CP2"})).json()) == 4


async def test_a_viewer_sees_and_an_operator_frees(world: ApiHarness, client: httpx.AsyncClient):
    made = await client.post("/tokens", json={"name": "grafana", "role": "viewer"})
    headers = {"Authorization": f"Bearer {made.json()['token']}"}
    assert (await client.get("/events/parked", headers=headers)).status_code == 200
    assert (await client.get("/events/positions", headers=headers)).status_code == 200
    for how in ("revive", "discard"):
        assert (await client.post(f"/events/parked/{how}", json={}, headers=headers)).status_code == 403
        assert (await client.post(f"/events/parked/{how}", json={"clientId": "\0"})).status_code == 404
        assert (await client.post(f"/events/parked/{how}", json={"charger": "CP1"})).status_code == 422


async def test_an_event_that_is_no_longer_stored_is_said_to_be(world: ApiHarness, client: httpx.AsyncClient):
    await world.session("CP1")
    await park(world, ("CP1", 1))
    async with world.engine.begin() as db:
        await db.execute(text("DELETE FROM events"))
    (item,) = (await client.get("/events/parked")).json()["items"]
    assert (item["eventId"], item["topic"], item["seq"]) == (None, None, 1)
