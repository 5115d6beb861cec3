"""Every route, page and form with every role: walked from the routers, so that a new one is walked too.

A route of the REST interface without a role cannot be made (csms/api/security.py). A page without one fails here, unless it
is listed as public.
"""

import itertools
import re
from collections.abc import AsyncIterator, Iterator
from datetime import timedelta
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.routing import Mount

from csms.api import app as api_app
from csms.api.app import create_app
from csms.api.security import GuardedRoute, guarded_router
from csms.console.sessions import SESSION_COOKIE, ConsoleSession
from csms.db import access_tokens, accounts
from csms.rental.app import RentalPage
from csms.run.http import create_pages
from csms.service.access import ADMIN, OPERATOR, ROLES, VIEWER, WrongTokens, digest_of, new_secret
from tests.harness.api_harness import ApiHarness

PUBLIC = {"/api/v1/openapi.json", "/health/live", "/health/ready", "/metrics"}
PUBLIC_PAGES = {"/sign-in", "/static", "/static/vendor"}
PUBLIC_RENTAL = {"/sign-in", "/payments/{provider}", "/static", "/static/vendor"}
CHANGING = {"POST", "PUT", "PATCH", "DELETE"}
# What an operator must not do: this list is kept by hand.
ADMINISTRATORS = {
    ("POST", "/api/v1/accounts/{account_id:segment}/entries"),
    ("POST", "/api/v1/accounts/{account_id:segment}/links"),
    ("PUT", "/api/v1/tariffs/{tariff_id:segment}"),
    ("PATCH", "/api/v1/tariffs/{tariff_id:segment}"),
    ("DELETE", "/api/v1/tariffs/{tariff_id:segment}"),
    ("PUT", "/api/v1/groups/{group_id:segment}"),
    ("DELETE", "/api/v1/groups/{group_id:segment}"),
    ("GET", "/api/v1/tokens"),
    ("GET", "/api/v1/tokens/{token_id}"),
    ("POST", "/api/v1/tokens"),
    ("DELETE", "/api/v1/tokens/{token_id}"),
}


def routes_of(router: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    for route in router.routes:
        inner = getattr(route, "original_router", None)
        if inner is None:
            yield prefix + route.path, route
        else:
            yield from routes_of(inner, prefix + route.include_context.prefix)


def example(path: str) -> str:
    return re.sub(r"\{[^}]+\}", "4711", path)


def methods_of(route: Any) -> list[str]:
    return sorted(route.methods - {"HEAD"})


class Body:
    """A request's body that tells whether it was read."""

    def __init__(self, content: bytes = b"{}") -> None:
        self.read = False
        self._content = content

    async def __aiter__(self) -> AsyncIterator[bytes]:
        self.read = True
        yield self._content


@pytest.fixture
async def served(world: ApiHarness) -> AsyncIterator[httpx.AsyncClient]:
    """All faces as they are served, to a client that says nothing of itself."""
    world.context.wrong_tokens = WrongTokens(0)
    world.context.closing.set()  # streams end at once
    app = create_app(world.context, console=create_pages(world.context, RentalPage(world.context)))
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://csms") as client:
        yield client


async def _secrets(world: ApiHarness) -> dict[str, str]:
    """A token of each role, and tokens that are none."""
    made = {name: new_secret() for name in (*ROLES, "revoked", "expired")}
    async with world.engine.begin() as db:
        for name, secret in made.items():
            role = name if name in ROLES else ADMIN
            ends = world.now - timedelta(hours=1) if name == "expired" else None
            token = await access_tokens.add_token(db, name, role, digest_of(secret), ends)
            if name == "revoked":
                await access_tokens.revoke_token(db, token.id)
    return {**made, "unknown": "csms_unknown"}


async def test_every_route_of_the_interface_with_every_token(world: ApiHarness, served: httpx.AsyncClient):
    secrets = await _secrets(world)
    walked, administrators = 0, set()
    # All that are none are refused at one place: a route is tried without a token and with one of these.
    refused = itertools.cycle(("unknown", "revoked", "expired"))
    for path, route in routes_of(api_app._app().router):
        if path in PUBLIC:
            answer = await served.get(path)
            assert answer.status_code == 200, path
            continue
        assert isinstance(route, GuardedRoute), f"{path} is neither public nor guarded"
        for method in methods_of(route):
            walked += 1
            if route.role == ADMIN:
                administrators.add((method, path))
            assert method == "GET" or route.role != VIEWER or path.endswith("/price"), (method, path)
            for name in ("none", next(refused), *ROLES):
                body, secret = Body(), secrets.get(name)
                headers = {"Content-Type": "application/json"}
                if secret:
                    headers["Authorization"] = f"Bearer {secret}"
                content = body if method in CHANGING else None
                answer = await served.request(method, example(path), headers=headers, content=content)
                case = f"{method} {path} as {name}: {answer.status_code} {answer.text[:200]}"
                if name not in ROLES:
                    assert answer.status_code == 401, case
                    assert not body.read, case
                elif ROLES.index(name) < ROLES.index(route.role):
                    assert answer.status_code == 403, case
                    assert not body.read, case
                else:
                    assert answer.status_code not in {401, 403}, case
                    assert answer.status_code < 500, case
    assert walked > 70
    assert administrators == ADMINISTRATORS


def test_a_route_without_a_role_or_with_two_cannot_be_made():
    router = guarded_router()

    async def endpoint() -> None: ...

    for roles in ([], [api_security_dependency(VIEWER), api_security_dependency(ADMIN)]):
        with pytest.raises(LookupError, match="must depend on one of"):
            router.add_api_route("/new", endpoint, dependencies=roles)


def api_security_dependency(role: str) -> Any:
    from csms.api import security

    return {VIEWER: security.viewer, OPERATOR: security.operator, ADMIN: security.administrator}[role]


async def test_a_body_is_refused_by_its_size_only_after_the_token(
    world: ApiHarness, served: httpx.AsyncClient
):
    secrets = await _secrets(world)
    for secret, status in (("", 401), (secrets[VIEWER], 403), (secrets[OPERATOR], 413)):
        body = Body(b"x" * 2_000_000)
        headers = {"Content-Type": "application/json", "Authorization": f"Bearer {secret}"}
        answer = await served.put("/api/v1/tags/T", content=body, headers=headers)
        assert (answer.status_code, body.read) == (status, status == 413)


def _mounted(world: ApiHarness, at: str) -> Any:
    pages: Starlette = create_pages(world.context, RentalPage(world.context))
    return next(route.app for route in pages.routes if isinstance(route, Mount) and route.path == at)


async def test_every_page_and_form_of_the_console_with_every_role(
    world: ApiHarness, served: httpx.AsyncClient
):
    secrets = await _secrets(world)
    identities = {role: await world.context.access.identify(secrets[role]) for role in ROLES}

    async def session(role: str) -> ConsoleSession:
        identity = identities[role]
        assert identity is not None
        return ConsoleSession(await world.context.access.begin_session(identity))

    async def post(path: str, used: ConsoleSession | None, csrf: str, **headers: str) -> int:
        cookie = {} if used is None else {"Cookie": f"{SESSION_COOKIE}={used.secret}"}
        data = {"csrf": csrf}
        return (await served.post(example(path), data=data, headers=cookie | headers)).status_code

    walked, sessions, other = 0, {role: await session(role) for role in ROLES}, await session(ADMIN)
    for path, route in routes_of(_mounted(world, "")):
        if path in PUBLIC_PAGES:
            continue
        needed = route.endpoint.role
        for method in methods_of(route):
            walked += 1
            away = await served.request(method, example(path))
            assert away.status_code in {303, 401}, f"{method} {path} without a session"
            assert away.status_code == 401 or away.headers["location"].startswith("/sign-in")
            for role in ROLES:
                used = sessions[role] if path != "/sign-out" else await session(role)
                case = f"{method} {path} as {role}"
                if method == "GET":
                    cookie = {"Cookie": f"{SESSION_COOKIE}={used.secret}"}
                    answer = await served.get(example(path), headers=cookie)
                    assert answer.status_code in {200, 404}, case
                    continue
                assert method == "POST", case
                csrf = used.form_token()
                for wrong in ("", other.form_token()):
                    assert await post(path, used, wrong) == 403, case
                elsewhere = {"Sec-Fetch-Site": "cross-site"}
                assert await post(path, used, csrf, **elsewhere) == 403, case
                status = await post(path, used, csrf)
                assert (status == 403) == (ROLES.index(role) < ROLES.index(needed)), f"{case}: {status}"
                assert status < 500, case
    assert walked > 20


async def test_every_page_and_form_of_the_rental_page_needs_its_session(
    world: ApiHarness, served: httpx.AsyncClient
):
    secret = new_secret()
    async with world.engine.begin() as db:
        await accounts.put(db, "renter", "UAH")
        ends = world.now.replace(year=2100)
        await accounts.add_token(db, "renter", accounts.SESSION, digest_of(secret), ends)
    walked = 0
    for path, route in routes_of(_mounted(world, "/r")):
        if path in PUBLIC_RENTAL:
            continue
        for method in methods_of(route):
            walked += 1
            address = f"/r{example(path)}"
            away = await served.request(method, address)
            assert away.status_code == 303, (method, path)
            assert away.headers["location"].startswith("/r/sign-in")
            assert (await served.request(method, address, headers=_bearer("csms_x"))).status_code == 303
            if method == "POST":
                cookie = {"Cookie": f"csms_rental={secret}"}
                assert (await served.post(address, headers=cookie)).status_code == 403, path
            else:
                assert (await served.get(address, headers=_bearer(secret))).status_code in {200, 404}, path
    assert walked >= 6


def _bearer(secret: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {secret}"}
