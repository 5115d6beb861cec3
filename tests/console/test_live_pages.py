"""Live pages: what is sent, what is not, and when a stream ends."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime

import httpx
from msgspec.structs import replace
from starlette.requests import Request

from csms.console.base import Console, ConsoleRequest
from csms.console.formatting import dom_id
from csms.console.live_pages import LivePages, SharedQuery, changed, overview_fragments
from csms.console.sessions import ConsoleSession
from csms.core import reports
from csms.db import access_tokens
from csms.service.access import digest_of, new_secret
from tests.harness.api_harness import ADMIN_TOKEN, ApiHarness


def live(world: ApiHarness, most_rows: int = 400) -> LivePages:
    return LivePages(Console(world.context), every_s=0.01, most_rows=most_rows)


async def _request(world: ApiHarness, query: str = "", secret: str = ADMIN_TOKEN) -> ConsoleRequest:
    http = Request({"type": "http", "path": "/", "headers": [], "query_string": query.encode()})
    identity = await world.context.access.identify(secret)
    assert identity is not None
    session = ConsoleSession(await world.context.access.begin_session(identity))
    return ConsoleRequest(http, identity, session)


def names(chunk: bytes) -> list[str]:
    return [line[7:] for line in chunk.decode().split("\n") if line.startswith("event: ")]


async def _next(stream: AsyncIterator[bytes]) -> bytes:
    async with asyncio.timeout(20):
        async for chunk in stream:
            if chunk:
                return chunk
    raise AssertionError("the stream ended")


async def test_only_fragments_that_changed_are_sent(world: ApiHarness):
    await world.connect("CP1")
    await world.connect("CP2")
    await world.status("CP1", 1, "Available")
    stream = live(world).stream_overview(await _request(world))
    assert names(await _next(stream)) == ["notice", "totals", "running", "cards"]
    await world.status("CP1", 1, "Preparing")
    pushed = await _next(stream)
    assert names(pushed) == [f"card-{dom_id('CP1')}"]
    assert b"Preparing" in pushed
    await world.start("CP1")
    got: set[str] = set()
    while not {f"card-{dom_id('CP1')}", "totals", "running"} <= got:
        got |= set(names(await _next(stream)))
    await world.connect("CP3")
    assert "cards" in names(await _next(stream))
    world.context.closing.set()
    assert [chunk async for chunk in stream if chunk] == []


def test_a_charger_that_comes_or_goes_sends_the_whole_list():
    before = {"totals": "1", "cards": "a", "card-1": "x"}
    assert changed(before, {**before, "card-1": "y", "cards": "b"}) == {"card-1": "y"}
    after = {"totals": "1", "cards": "ab", "card-1": "x", "card-2": "z"}
    assert changed(before, after) == {"totals": "1", "cards": "ab"}


async def test_many_readers_read_the_database_once():
    asked = 0

    async def ask() -> int:
        nonlocal asked
        asked += 1
        await asyncio.sleep(0)
        return asked

    shared = SharedQuery(ask, kept_s=60)
    assert await asyncio.gather(*(shared.get() for _ in range(20))) == [1] * 20


async def test_a_new_event_is_sent_once(world: ApiHarness):
    await world.session("CP1")
    stream = live(world).stream_events(await _request(world))
    assert await anext(stream) == b""
    await world.session("CP2")
    pushed = await _next(stream)
    while b"session cost" not in pushed:
        pushed += await _next(stream)
    assert pushed.count(b"#1<") == 1
    assert b"CP1" not in pushed
    world.context.closing.set()


async def test_after_many_events_the_list_is_sent_anew(world: ApiHarness):
    stream = live(world, most_rows=3).stream_events(await _request(world))
    assert await anext(stream) == b""
    seen: list[str] = []
    for _ in range(2):
        await world.session("CP1")
        while not seen or seen[-1] == "":
            seen.append("")
            seen += names(await _next(stream))
        await world.status("CP1", 1, f"S{len(seen)}")
        seen += names(await _next(stream))
    assert "event-list" in seen
    world.context.closing.set()


async def test_a_charger_page_gets_state_and_frames(world: ApiHarness):
    await world.connect("CP1")
    await world.frame("CP1", "[an old one]")
    stream = live(world).stream_charger(await _request(world), "CP1")
    assert names(await _next(stream)) == ["state", "connectors", "sessions"]
    await world.frame("CP1", '[2,"9","Heartbeat",{}]')
    pushed = await _next(stream)
    assert names(pushed) == ["frames"]
    assert b"an old one" not in pushed
    await world.record(reports.Disconnected(charger_id="CP1", node="n1", generation=1))
    assert "state" in names(await _next(stream))
    world.context.closing.set()


async def test_after_many_frames_the_list_is_sent_anew(world: ApiHarness):
    await world.connect("CP1")
    stream = live(world, most_rows=2).stream_charger(await _request(world), "CP1")
    await _next(stream)
    seen: list[str] = []
    for number in range(3):
        await world.frame("CP1", f"[{number}]")
        seen += names(await _next(stream))
    assert "frame-list" in seen
    world.context.closing.set()


async def test_a_stream_ends_when_its_token_is_revoked(world: ApiHarness):
    secret = new_secret()
    async with world.engine.begin() as db:
        token = await access_tokens.add_token(db, "x", "viewer", digest_of(secret))
    stream = live(world).stream_overview(await _request(world, secret=secret))
    await _next(stream)
    async with world.engine.begin() as db:
        await access_tokens.revoke_token(db, token.id)
    world.context.access.forget()
    async with asyncio.timeout(20):
        assert [chunk async for chunk in stream if b"totals" in chunk] == []


async def test_a_stream_needs_a_session(world: ApiHarness, stranger: httpx.AsyncClient):
    await world.connect("CP1")
    for path in ("/stream/overview", "/stream/events", "/stream/chargers/CP1"):
        assert (await stranger.get(path)).status_code == 401


async def test_streams_are_served_as_event_streams(world: ApiHarness, browser: httpx.AsyncClient):
    await world.connect("CP1")
    world.context.closing.set()
    for path in ("/stream/overview", "/stream/events", "/stream/chargers/CP1"):
        answer = await browser.get(path)
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith("text/event-stream")
        assert answer.text.startswith("retry: ")
    assert (await browser.get("/stream/chargers/NOPE")).status_code == 404


async def test_the_energy_of_today_is_that_of_the_local_day_by_accounting_time(world: ApiHarness):
    world.ledger.policy = replace(world.ledger.policy, time_zone="Europe/Kyiv")
    world.now = datetime(2026, 6, 30, 20, 30, tzinfo=UTC)  # 23:30 in Kyiv
    await world.session("CP1")  # accounted yesterday, ended today
    began = datetime(1970, 1, 1, tzinfo=UTC)
    stuck = await world.record(
        reports.Start(charger_id="CP2", connector_id=1, id_tag="T", key="k", meter_wh=0, at=began)
    )
    world.later(minutes=10)
    await world.meter("CP2", stuck.transaction_id, 1000, 5000)
    await world.stop("CP2", stuck.transaction_id, 2000)
    running = await world.start("CP3", meter_wh=0)
    world.later(minutes=10)
    await world.meter("CP3", running, 500, 3000)
    console = Console(world.context)
    assert "2.5" in (await overview_fragments(console, ""))["totals"]
    world.now = datetime(2026, 7, 1, 21, 30, tzinfo=UTC)  # the day after
    totals = (await overview_fragments(console, ""))["totals"]
    assert "2.5" not in totals
    assert "0.5" in totals
