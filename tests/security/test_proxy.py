"""Behind a proxy that ends TLS: its headers count, those of other peers do not."""

from datetime import UTC, datetime, timedelta
from urllib.parse import quote

import pytest

from csms import settings
from csms.errors import SettingsError
from csms.security import pki
from tests.harness.security_clients import KEY, basic, booted, issue, refused
from tests.security.test_keys import charger, register


def behind(certificates, **more):
    return {"csms_ca_cert_file": certificates.root, "csms_ca_key_file": certificates.root_key, **more}


async def test_tls_at_a_trusted_proxy_reaches_profile_2(start_node, certificates):
    node = await start_node(mqtt=False, **behind(certificates, csms_trusted_proxies="127.0.0.0/8, ::1"))
    await register(node, "cp", password=KEY, securityProfile=2)
    headers = basic("cp", KEY)
    assert (await refused(node.ocpp, "cp", additional_headers=headers))[0] == 403
    assert (await refused(node.ocpp, "cp", additional_headers=headers | {"X-Forwarded-Proto": "http"}))[
        0
    ] == 403
    forwarded = headers | {"X-Forwarded-Proto": "https", "X-Forwarded-For": "198.51.100.7"}
    station = await booted(node.ocpp, "cp", additional_headers=forwarded)
    assert (await charger(node, "cp"))["remoteAddress"] == "198.51.100.7"
    await station.close()


async def test_a_certificate_in_the_proxys_header_reaches_profile_3(start_node, certificates):
    settings = behind(
        certificates, csms_trusted_proxies="127.0.0.1", csms_trusted_proxy_cert_header="X-Client"
    )
    node = await start_node(mqtt=False, **settings)
    await register(node, "cp", securityProfile=3)

    def with_header(pem, name="X-Client"):
        return {"X-Forwarded-Proto": "wss", name: quote(pem, safe="")}

    own, _ = issue(certificates.ca, "cp")
    await (await booted(node.ocpp, "cp", additional_headers=with_header(own))).close()
    others, _ = issue(certificates.ca, "cp-2")
    expired, _ = issue(certificates.ca, "cp", days=-0.001)
    stranger, _ = issue(pki.make_root("S", now=datetime.now(UTC), lifetime=timedelta(days=1)), "cp")
    for headers in (
        {},
        {"X-Forwarded-Proto": "wss"},
        with_header(others),
        with_header(expired),
        with_header(stranger),  # the proxy may not have verified it: we do
        with_header("rubbish"),
        with_header(own, "X-SSL-Client-Cert"),
        with_header(own) | {"X-Forwarded-Proto": "http"},
    ):
        assert (await refused(node.ocpp, "cp", additional_headers=headers))[0] == 403


async def test_headers_of_other_peers_are_ignored(start_node, certificates):
    for trusted in ("", "192.0.2.0/24"):
        node = await start_node(mqtt=False, **behind(certificates, csms_trusted_proxies=trusted))
        await register(node, "cp", password=KEY, securityProfile=2)
        own, _ = issue(certificates.ca, "cp")
        headers = basic("cp", KEY) | {
            "X-Forwarded-Proto": "https",
            "X-Forwarded-For": "192.0.2.1",
            "X-SSL-Client-Cert": quote(own, safe=""),
        }
        assert (await refused(node.ocpp, "cp", additional_headers=headers))[0] == 403
        await register(node, "cp", securityProfile=1)
        station = await booted(node.ocpp, "cp", additional_headers=headers)
        assert (await charger(node, "cp"))["remoteAddress"].startswith("127.0.0.1:")
        await station.close()
        node.stop.set()
        await node.task


async def test_failures_are_counted_for_the_client_not_for_the_proxy(start_node):
    node = await start_node(
        mqtt=False, csms_trusted_proxies="127.0.0.1", csms_ocpp_login_failures_per_minute=1
    )
    await register(node, "cp", password=KEY)

    def from_(address, password):
        return basic("cp", password) | {"X-Forwarded-For": address}

    assert (await refused(node.ocpp, "cp", additional_headers=from_("203.0.113.1", "wrong")))[0] == 401
    assert (await refused(node.ocpp, "cp", additional_headers=from_("203.0.113.1", KEY)))[0] == 429
    await (await booted(node.ocpp, "cp", additional_headers=from_("203.0.113.2", KEY))).close()


def test_an_invalid_proxy_network_stops_the_start():
    with pytest.raises(SettingsError, match="CSMS_TRUSTED_PROXIES='proxy'.*10.0.0.5"):
        settings.load(_env_file=None, csms_trusted_proxies="proxy")
