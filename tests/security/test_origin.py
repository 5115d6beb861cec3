"""Headers of a proxy count only if the proxy is trusted."""

import base64
import ipaddress
from datetime import UTC, datetime, timedelta
from urllib.parse import quote

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from csms.ocpp.origin import ForwardedHeaders, certificate_in, origin_of
from csms.security import certificate_checks, pki
from tests.harness.narrowing import present
from tests.harness.security_clients import issue

TRUSTED = [ipaddress.ip_network("10.0.0.0/8"), ipaddress.ip_network("fd00::/8")]
SAID = ForwardedHeaders(protocol=["https"], addresses=["203.0.113.9"], certificate="MAA=")


def test_without_a_trusted_proxy_only_the_socket_counts():
    for peer in ("192.0.2.1", "2001:db8::1", "local", "::ffff:192.0.2.1"):
        origin = origin_of(peer, None, SAID, TRUSTED, tls=False)
        assert (origin.address, origin.tls, origin.certificate) == (peer, False, None)
    assert not origin_of("10.0.0.1", None, SAID, [], tls=False).tls


@pytest.mark.parametrize("peer", ["10.1.2.3", "fd00::1", "::ffff:10.1.2.3"])
def test_the_headers_of_a_trusted_proxy_count(peer):
    origin = origin_of(peer, None, SAID, TRUSTED, tls=False)
    assert origin.address == "203.0.113.9"
    assert origin.tls
    assert origin.certificate == b"0\0"
    assert not origin.verified


def test_a_forwarded_certificate_without_tls_is_ignored():
    origin = origin_of(
        "10.1.2.3", None, ForwardedHeaders(protocol=["http"], certificate="MAA="), TRUSTED, tls=False
    )
    assert not origin.tls
    assert origin.certificate is None


@pytest.mark.parametrize(
    ("addresses", "client"),
    [
        (["203.0.113.9"], "203.0.113.9"),
        (["1.1.1.1", "203.0.113.9"], "203.0.113.9"),  # the client may have written the first one
        (["203.0.113.9", "10.9.9.9"], "203.0.113.9"),
        (["203.0.113.9:5012"], "203.0.113.9"),
        (["[2001:db8::7]:443"], "2001:db8::7"),
        (["nonsense", "10.9.9.9"], "10.9.9.9"),
        ([], "10.0.0.1"),
    ],
)
def test_the_client_is_the_last_address_that_is_no_proxys(addresses, client):
    assert (
        origin_of("10.0.0.1", None, ForwardedHeaders(addresses=addresses), TRUSTED, tls=False).address
        == client
    )


def test_a_certificate_is_read_in_every_form_proxies_send_it():
    ca = pki.make_root("Test CPO", now=datetime.now(UTC), lifetime=timedelta(days=1))
    pem, _ = issue(ca, "cp-1")
    der = certificate_checks.read_certificate(pem.encode()).public_bytes(Encoding.DER)
    in_base64 = base64.b64encode(der).decode()
    for header in (
        quote(pem, safe=""),  # nginx: $ssl_client_escaped_cert
        pem.replace("\n", " "),
        pem.replace("\n", "\t"),
        f'By=spiffe://x;Hash=ab12;Cert="{quote(pem, safe="")}";Subject="CN=cp-1"',  # Envoy
        in_base64,  # HAProxy
        f"{in_base64},{in_base64}",  # Traefik, with the chain
        quote(in_base64, safe=""),
    ):
        assert certificate_checks.presented(
            certificate_checks.read_certificate(present(certificate_in(header)))
        ).names == ("cp-1",)


def test_an_undecodable_header_is_an_unreadable_certificate():
    assert certificate_in(None) is None
    assert certificate_in("") is None
    with pytest.raises(certificate_checks.InvalidCertificate):
        certificate_checks.read_certificate(present(certificate_in("%%%")))
    with pytest.raises(certificate_checks.InvalidCertificate):
        certificate_checks.read_certificate(
            present(certificate_in("-----BEGIN CERTIFICATE-----\nx\n-----END CERTIFICATE-----"))
        )
