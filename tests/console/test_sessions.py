"""Signing in and out, forged and stale cookies, form tokens, roles, headers."""

import re
from datetime import timedelta

import httpx
import pytest

from csms.console.sessions import SESSION_COOKIE, ConsoleSessions, ticket
from csms.db import admin
from csms.service.access import digest_of, new_secret
from tests.harness.api_harness import ADMIN_TOKEN, ApiHarness
from tests.harness.console_browser import form_token


async def _token(world: ApiHarness, role: str) -> tuple[int, str]:
    secret = new_secret()
    async with world.engine.begin() as db:
        made = await admin.add_token(db, role, role, digest_of(secret))
    return made.id, secret


@pytest.mark.parametrize("path", ["/", "/chargers/CP1", "/transactions", "/events", "/quarantine"])
async def test_a_reader_without_a_session_is_sent_to_sign_in_and_back(
    world: ApiHarness, stranger: httpx.AsyncClient, path: str
):
    await world.connect("CP1")
    away = await stranger.get(path)
    assert away.status_code == 303
    assert away.headers["location"].startswith("/sign-in")
    form = await stranger.get(away.headers["location"])
    following = re.search(r'name="next" value="([^"]*)"', form.text)
    assert following
    back = await stranger.post("/sign-in", data={"token": ADMIN_TOKEN, "next": following[1]})
    assert (back.status_code, back.headers["location"]) == (303, path)
    assert (await stranger.get(path)).status_code == 200


async def test_the_cookie_is_strict_and_holds_no_token(stranger: httpx.AsyncClient):
    answer = await stranger.post("/sign-in", data={"token": ADMIN_TOKEN})
    cookie = answer.headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "samesite=strict" in cookie.lower()
    assert ADMIN_TOKEN not in cookie
    assert digest_of(ADMIN_TOKEN).hex() not in cookie


@pytest.mark.parametrize("following", ["//evil.example", "/\\evil.example", "https://evil.example", "x", ""])
async def test_signing_in_leads_to_no_other_site(stranger: httpx.AsyncClient, following: str):
    answer = await stranger.post("/sign-in", data={"token": ADMIN_TOKEN, "next": following})
    assert answer.headers["location"] == "/"


@pytest.mark.parametrize("token", ["", "wrong", "\0", "ключ"])
async def test_a_wrong_token_does_not_sign_in(stranger: httpx.AsyncClient, token: str):
    answer = await stranger.post("/sign-in", data={"token": token})
    assert answer.status_code == 401
    assert "set-cookie" not in answer.headers
    assert "unknown or has been revoked" in answer.text


@pytest.mark.parametrize(
    "value", ["", ".", "0.9999999999.x.", "0.9999999999.x." + "0" * 64, "é.", "a.b.c.d.e"]
)
async def test_a_forged_cookie_is_no_session(stranger: httpx.AsyncClient, value: str):
    answer = await stranger.get("/", headers={b"Cookie": f"{SESSION_COOKIE}={value}".encode()})
    assert answer.status_code == 303


async def test_a_session_ends_with_time_and_with_the_administrators_token(
    world: ApiHarness, browser: httpx.AsyncClient
):
    assert (await browser.get("/")).status_code == 200
    world.later(hours=13)
    assert (await browser.get("/")).status_code == 303
    other = ConsoleSessions("another token")
    assert not other.take_ticket(ticket(ADMIN_TOKEN, world.now), world.now)


async def test_a_revoked_token_ends_its_sessions(world: ApiHarness, stranger: httpx.AsyncClient):
    token_id, secret = await _token(world, "viewer")
    await stranger.post("/sign-in", data={"token": secret})
    assert (await stranger.get("/")).status_code == 200
    async with world.engine.begin() as db:
        await admin.revoke_token(db, token_id)
    world.context.access.forget()
    assert (await stranger.get("/")).status_code == 303


async def test_a_ticket_signs_in_once_and_in_time(world: ApiHarness, stranger: httpx.AsyncClient):
    good = ticket(ADMIN_TOKEN, world.now)
    answer = await stranger.get("/sign-in", params={"ticket": good})
    assert answer.status_code == 303
    assert (await stranger.get("/")).status_code == 200
    again = await stranger.get("/sign-in", params={"ticket": good})
    assert "used or is too old" in again.text
    stale = ticket(ADMIN_TOKEN, world.now - timedelta(hours=2))
    assert (await stranger.get("/sign-in", params={"ticket": stale})).status_code == 200
    assert (await stranger.get("/sign-in", params={"ticket": "9999999999.x.y"})).status_code == 200


async def test_a_form_without_the_token_of_its_session_does_nothing(
    world: ApiHarness, browser: httpx.AsyncClient
):
    await world.connect("CP1")
    token = form_token((await browser.get("/chargers/CP1")).text)
    body = {"action": "Reset", "type": "Soft"}
    for wrong in ({}, {"csrf": ""}, {"csrf": "0" * 64}, {"csrf": token[:-1]}):
        assert (await browser.post("/chargers/CP1/commands", data={**body, **wrong})).status_code == 403
    assert world.asked == []
    assert (await browser.post("/chargers/CP1/commands", data={**body, "csrf": token})).status_code == 200
    assert len(world.asked) == 1


async def test_signing_out_needs_the_form_and_ends_the_session(browser: httpx.AsyncClient):
    assert (await browser.post("/sign-out")).status_code == 403
    token = form_token((await browser.get("/")).text)
    assert (await browser.post("/sign-out", data={"csrf": token})).status_code == 303
    assert (await browser.get("/")).status_code == 303


async def test_a_viewer_reads_every_page_and_changes_nothing(world: ApiHarness, stranger: httpx.AsyncClient):
    await world.connect("CP1")
    _, secret = await _token(world, "viewer")
    await stranger.post("/sign-in", data={"token": secret})
    page = (await stranger.get("/chargers/CP1")).text
    assert "Remote start" not in page
    assert "/settings" not in page
    token = form_token(page)
    for path in ("/chargers/CP1/commands", "/chargers/CP1/settings", "/quarantine/1/resolve"):
        assert (await stranger.post(path, data={"csrf": token})).status_code == 403
    assert world.asked == []


async def test_a_page_may_load_files_of_this_site_only(browser: httpx.AsyncClient):
    page = await browser.get("/")
    policy = page.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert page.headers["x-frame-options"] == "DENY"
    assert page.headers["cache-control"] == "no-store"
    assert "<style" not in page.text
    assert " style=" not in page.text
    assert not re.search(r"<script(?![^>]* src=)", page.text)
    assert not re.search(r'(?:src|href)="(?:https?:)?//', page.text)
    files = set(re.findall(r'(?:src|href)="(/static/[^"]+)"', page.text))
    assert len(files) >= 6
    for address in files:
        asset = await browser.get(address)
        assert asset.status_code == 200
        assert "immutable" in asset.headers["cache-control"]
    for path in ("/static/../app.py", "/static/%2e%2e/app.py", "/static/nothing.js"):
        assert (await browser.get(path)).status_code == 404


async def test_a_bearer_token_opens_no_page_and_a_session_no_api(browser: httpx.AsyncClient):
    assert (await browser.get("/api/v1/chargers")).status_code == 401
    browser.cookies.clear()
    answer = await browser.get("/", headers={"Authorization": f"Bearer {ADMIN_TOKEN}"})
    assert answer.status_code == 303
