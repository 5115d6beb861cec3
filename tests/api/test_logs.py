"""Events byte for byte, raw frames paged and live."""

import asyncio
import json
from datetime import timedelta

import httpx
import pytest
from sqlalchemy import text

from csms.api import logs as logs_api
from csms.db import access_tokens
from csms.service import cursors
from csms.service.access import digest_of, new_secret
from tests.harness.api_harness import ADMIN_TOKEN, ApiHarness


async def test_events_are_replayed_byte_for_byte(world: ApiHarness, client: httpx.AsyncClient):
    await world.status("CP1", 1, "Faulted", "GroundFailure")
    await world.session("CP1", tag="Ключ €")
    await world.session("CP2")
    mine = [event for event in world.events if event.charger_id == "CP1"]
    answer = await client.get("/events", params={"clientId": "CP1"})
    assert answer.headers["content-type"] == "application/json"
    assert answer.content == b"[" + b",".join(event.body for event in mine) + b"]"
    assert [item["seq"] for item in answer.json()] == list(range(1, len(mine) + 1))
    assert answer.headers["x-last-seq"] == str(mine[-1].seq)
    lines = await client.get(
        "/events", params={"clientId": "CP1"}, headers={"Accept": "application/x-ndjson"}
    )
    assert lines.headers["content-type"].startswith("application/x-ndjson")
    assert lines.content == b"".join(event.body + b"\n" for event in mine)


async def test_a_replay_goes_on_where_it_left_off(world: ApiHarness, client: httpx.AsyncClient):
    await world.session("CP1")
    seqs, after = [], "0"
    for _ in range(10):
        answer = await client.get("/events", params={"clientId": "CP1", "afterSeq": after, "limit": 3})
        if not answer.json():
            break
        seqs += [item["seq"] for item in answer.json()]
        after = answer.headers["x-last-seq"]
    assert seqs == [1, 2, 3, 4]
    assert answer.headers["x-last-seq"] == "4"
    ahead = await client.get("/events", params={"clientId": "CP1", "afterSeq": 2**63 - 1})
    assert ahead.json() == []


async def test_what_retention_has_dropped_is_410(world: ApiHarness, client: httpx.AsyncClient):
    await world.session("CP1")
    async with world.engine.begin() as db:
        await db.execute(text("DELETE FROM events WHERE seq <= 2"))
    gone = await client.get("/events", params={"clientId": "CP1", "afterSeq": 1})
    assert gone.status_code == 410
    assert (gone.json()["firstSeq"], gone.json()["lastSeq"]) == (3, 4)
    assert (await client.get("/events", params={"clientId": "CP1", "afterSeq": 0})).status_code == 410
    for params in ({"afterSeq": 2}, {}):
        answer = await client.get("/events", params={"clientId": "CP1", **params})
        assert [item["seq"] for item in answer.json()] == [3, 4]
    async with world.engine.begin() as db:
        await db.execute(text("DELETE FROM events"))
    assert (await client.get("/events", params={"clientId": "CP1", "afterSeq": 3})).status_code == 410
    up_to_date = await client.get("/events", params={"clientId": "CP1", "afterSeq": 4})
    assert (up_to_date.status_code, up_to_date.json(), up_to_date.headers["x-last-seq"]) == (200, [], "4")


async def test_without_a_charger_the_newest_events_of_all_come_in_order(
    world: ApiHarness, client: httpx.AsyncClient
):
    await world.session("CP1")
    await world.session("CP2")
    answer = await client.get("/events", params={"limit": 6})
    assert [(item["clientId"], item["seq"]) for item in answer.json()] == [
        ("CP1", 3),
        ("CP1", 4),
        ("CP2", 1),
        ("CP2", 2),
        ("CP2", 3),
        ("CP2", 4),
    ]
    assert (await client.get("/events", params={"afterSeq": 3})).status_code == 422


async def test_an_unknown_charger_has_no_events(client: httpx.AsyncClient):
    assert (await client.get("/events", params={"clientId": "unknown"})).status_code == 404
    assert (await client.get("/events", params={"clientId": "\0"})).status_code == 404
    for wrong in ({"afterSeq": -1}, {"afterSeq": 2**63}, {"limit": 0}, {"afterSeq": "x"}):
        assert (await client.get("/events", params={"clientId": "CP1", **wrong})).status_code == 422


# --- raw frames ------------------------------------------------------------------------------------------


async def test_frames_come_newest_first_in_pages_even_within_one_moment(
    world: ApiHarness, client: httpx.AsyncClient
):
    await world.connect("CP1")
    for number in range(6):
        await world.frame("CP1", f'[2,"{number}","Heartbeat",{{}}]', outgoing=number % 2 == 1)
        if number == 3:
            world.later(seconds=1)
    await world.frame("CP2", "another's")
    frames, cursor = [], None
    for _ in range(10):
        params = {"limit": 2} | ({"cursor": cursor} if cursor else {})
        page = (await client.get("/chargers/CP1/messages", params=params)).json()
        frames += page["items"]
        cursor = page["nextCursor"]
        if cursor is None:
            break
        await world.frame("CP1", "[a newer one]", at=world.now + timedelta(minutes=1))
    assert [json.loads(item["frame"])[1] for item in frames] == ["5", "4", "3", "2", "1", "0"]
    assert [item["direction"] for item in frames[:2]] == ["out", "in"]
    assert frames[0]["frame"] == '[2,"5","Heartbeat",{}]'
    assert frames[0]["action"] == "Heartbeat"


async def test_the_stream_ends_with_its_token(world: ApiHarness):
    await world.connect("CP1")
    for ended in ("revoked", "expired"):
        secret = new_secret()
        async with world.engine.begin() as db:
            ends = world.now + timedelta(hours=1)
            made = await access_tokens.add_token(db, ended, "viewer", digest_of(secret), ends)
        who = await world.context.access.identify(secret)
        assert who is not None
        looks = logs_api._live_messages(world.context, "CP1", who, every_s=0.01)
        assert await anext(looks) == b""
        if ended == "revoked":
            async with world.engine.begin() as db:
                await access_tokens.revoke_token(db, made.id)
            world.context.access.forget()
        else:
            world.later(hours=1)
        async with asyncio.timeout(20):
            assert [chunk async for chunk in looks] == []


@pytest.mark.parametrize("place", ["(1,1)'; --", "(1,1", "(99999999999,1)", ""])
async def test_a_forged_cursor_is_refused(world: ApiHarness, client: httpx.AsyncClient, place: str):
    await world.connect("CP1")
    cursor = cursors.encode(world.now, place)
    answer = await client.get("/chargers/CP1/messages", params={"cursor": cursor})
    assert answer.status_code == 422


async def test_frames_arrive_live(world: ApiHarness):
    await world.connect("CP1")
    await world.frame("CP1", "[an old one]")
    who = await world.context.access.identify(ADMIN_TOKEN)
    assert who is not None
    looks = logs_api._live_messages(world.context, "CP1", who, every_s=0.01)
    assert await anext(looks) == b""
    await world.frame("CP1", '[2,"1","Heartbeat",{}]')
    await world.frame("CP1", '[3,"1",{}]', outgoing=True)
    got: list[dict[str, str]] = []
    async with asyncio.timeout(20):
        async for chunk in looks:
            for event in chunk.decode().split("\n\n")[:-1]:
                name, data, *_ = event.split("\n")
                assert name == "event: message"
                got.append(json.loads(data.removeprefix("data: ")))
            if len(got) == 2:
                world.context.closing.set()
    assert [item["frame"] for item in got] == ['[2,"1","Heartbeat",{}]', '[3,"1",{}]']
    assert [item["direction"] for item in got] == ["in", "out"]


async def test_a_live_stream_ends_when_the_program_does(world: ApiHarness, client: httpx.AsyncClient):
    await world.connect("CP1")
    world.context.closing.set()
    answer = await client.get("/chargers/CP1/messages", headers={"Accept": "text/event-stream"})
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert answer.text == "retry: 2000\n\n"
    missing = await client.get("/chargers/CP9/messages", headers={"Accept": "text/event-stream"})
    assert missing.status_code == 404


async def test_a_token_in_the_address_is_no_token(world: ApiHarness, client: httpx.AsyncClient):
    answer = await client.get("/events", params={"token": ADMIN_TOKEN}, headers={"Authorization": ""})
    assert answer.status_code == 401
