"""Signing in and out, forged and stale cookies, form tokens, roles, headers."""

import asyncio
import re
from collections import Counter
from datetime import timedelta

import httpx
import pytest
from sqlalchemy import func, select, update

from csms.api.app import create_app
from csms.console.app import create_console
from csms.console.sessions import SESSION_COOKIE
from csms.db import access_tokens, tables
from csms.service.access import digest_of, new_secret
from csms.service.context import ServiceContext
from tests.harness.api_harness import ADMIN_TOKEN, ApiHarness
from tests.harness.console_browser import form_token, sign_in


async def _token(world: ApiHarness, role: str) -> tuple[int, str]:
    secret = new_secret()
    async with world.engine.begin() as db:
        made = await access_tokens.add_token(db, role, role, digest_of(secret))
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
    assert "unknown, has been revoked or has expired" in answer.text


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
    successor = ServiceContext(node=world.node, admin_token="another-token-of-settings")
    app = create_app(successor, console=create_console(successor))
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(app), base_url="http://csms", cookies=browser.cookies
    ) as same:
        assert (await same.get("/")).status_code == 303
    world.later(hours=13)
    assert (await browser.get("/")).status_code == 303


async def test_a_stolen_cookie_is_of_no_use_after_signing_out(world: ApiHarness, browser: httpx.AsyncClient):
    stolen = {"Cookie": f"{SESSION_COOKIE}={browser.cookies[SESSION_COOKIE]}"}
    other = ServiceContext(node=world.node, admin_token=ADMIN_TOKEN)  # another node
    token = form_token((await browser.get("/")).text)
    assert (await browser.post("/sign-out", data={"csrf": token})).status_code == 303
    assert (await browser.get("/", headers=stolen)).status_code == 303
    app = create_app(other, console=create_console(other))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://csms") as there:
        assert (await there.get("/", headers=stolen)).status_code == 303


async def test_a_session_ends_when_its_token_expires_or_changes_its_role(
    world: ApiHarness, stranger: httpx.AsyncClient
):
    secret = new_secret()
    async with world.engine.begin() as db:
        made = await access_tokens.add_token(
            db, "brief", "operator", digest_of(secret), world.now + timedelta(hours=1)
        )
    await sign_in(stranger, secret)
    async with world.engine.begin() as db:
        await db.execute(update(tables.tokens).where(tables.tokens.c.id == made.id).values(role="admin"))
    world.context.access.forget()
    assert (await stranger.get("/")).status_code == 303
    await sign_in(stranger, secret)
    assert (await stranger.get("/")).status_code == 200
    world.later(hours=1)
    assert (await stranger.get("/")).status_code == 303
    assert (await stranger.post("/sign-in", data={"token": secret})).status_code == 401


async def test_sessions_that_have_expired_are_deleted(world: ApiHarness, stranger: httpx.AsyncClient):
    for _ in range(3):
        await sign_in(stranger)
    world.later(hours=13)
    await sign_in(stranger)
    async with world.engine.connect() as db:
        assert await db.scalar(select(func.count()).select_from(tables.console_sessions)) == 1


async def test_wrong_tokens_are_limited_and_the_right_one_signs_in(stranger: httpx.AsyncClient):
    answers = await asyncio.gather(
        *(stranger.post("/sign-in", data={"token": f"guess {number}"}) for number in range(40))
    )
    assert Counter(answer.status_code for answer in answers) == {401: 10, 429: 30}
    refused = next(answer for answer in answers if answer.status_code == 429)
    assert 1 <= int(refused.headers["retry-after"]) <= 60
    assert "Too many wrong tokens" in refused.text
    assert (await stranger.get("/api/v1/tags", headers={"Authorization": "Bearer x"})).status_code == 429
    await sign_in(stranger)
    assert (await stranger.get("/")).status_code == 200


async def test_a_revoked_token_ends_its_sessions(world: ApiHarness, stranger: httpx.AsyncClient):
    token_id, secret = await _token(world, "viewer")
    await stranger.post("/sign-in", data={"token": secret})
    assert (await stranger.get("/")).status_code == 200
    async with world.engine.begin() as db:
        await access_tokens.revoke_token(db, token_id)
    world.context.access.forget()
    assert (await stranger.get("/")).status_code == 303


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
async def test_a_form_of_another_site_does_nothing(
    world: ApiHarness, browser: httpx.AsyncClient, stranger: httpx.AsyncClient, site: str
):
    await world.connect("CP1")
    elsewhere = {"Sec-Fetch-Site": site}
    body = {"action": "Reset", "type": "Soft", "csrf": form_token((await browser.get("/")).text)}
    assert (await browser.post("/chargers/CP1/commands", data=body, headers=elsewhere)).status_code == 403
    assert world.asked == []
    answer = await stranger.post("/sign-in", data={"token": ADMIN_TOKEN}, headers=elsewhere)
    assert answer.status_code == 403
    assert "set-cookie" not in answer.headers


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
