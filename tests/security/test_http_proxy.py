"""HTTP behind a proxy that ends TLS: what a trusted one forwards counts, what other peers send does not."""

from collections import Counter

import httpx
import pytest

from csms.api.app import create_app
from csms.console.app import create_console
from csms.run.proxies import TrustedProxies
from csms.settings import load
from tests.e2e.conftest import TOKEN
from tests.harness.api_harness import ADMIN_TOKEN, ApiHarness, running
from tests.security.test_keys import register

HTTPS = {"X-Forwarded-Proto": "https", "X-Forwarded-Host": "csms.example.com:8443"}


@pytest.fixture
async def world(database_url: str):
    async with running(database_url) as made:
        yield made


def client_of(world: ApiHarness, peer: str, trusted: str) -> httpx.AsyncClient:
    networks = load(_env_file=None, csms_trusted_proxies=trusted).csms_trusted_proxies
    app = TrustedProxies(create_app(world.context, console=create_console(world.context)), networks)
    return httpx.AsyncClient(
        transport=httpx.ASGITransport(app, client=(peer, 1234)), base_url="http://inside"
    )


async def test_a_trusted_proxy_says_that_the_client_came_over_tls_and_by_which_name(start_node):
    node = await start_node(mqtt=False, csms_trusted_proxies="127.0.0.1")
    await register(node, "CP1")
    async with httpx.AsyncClient(base_url=node.running.http) as browser:
        answer = await browser.post("/sign-in", data={"token": TOKEN}, headers=HTTPS)
        assert answer.status_code == 303
        assert "; Secure" in answer.headers["set-cookie"]
        assert answer.headers["strict-transport-security"] == "max-age=31536000"
        secret = answer.cookies["csms_session"]
        code = await browser.get("/chargers/CP1/qr.svg", headers=HTTPS | {"Cookie": f"csms_session={secret}"})
        assert code.status_code == 200
        plain = await browser.post("/sign-in", data={"token": TOKEN})
        assert "Secure" not in plain.headers["set-cookie"]
        assert "strict-transport-security" not in plain.headers


async def test_a_peer_that_is_not_named_is_not_believed_not_even_this_machine(start_node):
    node = await start_node(mqtt=False)
    async with httpx.AsyncClient(base_url=node.running.http) as browser:
        answer = await browser.post("/sign-in", data={"token": TOKEN}, headers=HTTPS)
        assert answer.status_code == 303
        assert "Secure" not in answer.headers["set-cookie"]
        assert "strict-transport-security" not in answer.headers


@pytest.mark.parametrize(
    ("peer", "forwarded", "client"),
    [
        ("10.0.0.5", "198.51.100.7", "198.51.100.7"),
        ("10.0.0.5", "203.0.113.9, 198.51.100.7, 10.0.0.6", "198.51.100.7"),
        ("192.0.2.1", "198.51.100.7", "192.0.2.1"),
        ("::ffff:10.0.0.5", "2001:db8::1", "2001:db8::1"),
    ],
)
async def test_the_limit_is_the_clients_not_the_proxys(
    world: ApiHarness, peer: str, forwarded: str, client: str
):
    async with client_of(world, peer, "10.0.0.0/8") as http:
        for _ in range(10):
            headers = {"Authorization": "Bearer wrong", "X-Forwarded-For": forwarded}
            assert (await http.get("/api/v1/tags", headers=headers)).status_code == 401
    async with client_of(world, client, "") as direct:
        wrong, right = {"Authorization": "Bearer wrong"}, {"Authorization": f"Bearer {ADMIN_TOKEN}"}
        assert (await direct.get("/api/v1/tags", headers=wrong)).status_code == 429
        assert (await direct.get("/api/v1/tags", headers=right)).status_code == 200
    async with client_of(world, "203.0.113.50", "") as other:
        assert (await other.get("/api/v1/tags", headers=wrong)).status_code == 401


async def test_an_ipv6_client_has_one_limit_for_its_64(world: ApiHarness):
    found: Counter[int] = Counter()
    for number in range(20):
        async with client_of(world, f"2001:db8::{number + 1:x}", "") as http:
            answer = await http.get("/api/v1/tags", headers={"Authorization": "Bearer wrong"})
            found[answer.status_code] += 1
    assert found == {401: 10, 429: 10}


@pytest.mark.parametrize("host", ["evil.example/x", "a b", "user@host", "", "[::1"])
async def test_a_host_that_is_none_is_ignored(world: ApiHarness, host: str):
    async with client_of(world, "10.0.0.5", "10.0.0.5") as http:
        answer = await http.get("/health/live", headers={"X-Forwarded-Host": host})
        assert answer.status_code == 200
