"""Passwords, security profiles, TLS and charge points' certificates."""

import asyncio
import base64
import ssl
import warnings
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID
from websockets.exceptions import InvalidHandshake, InvalidStatus

from tests.conformance.conftest import SETTINGS
from tests.e2e.conftest import NodeFactory
from tests.harness.conformance.bench import ACCEPTED, BOOT, VALID, Bench
from tests.harness.conformance.certificates import Authority, pem, request, write_pair
from tests.harness.conformance.charge_point import ChargePoint, Payload
from tests.harness.servers import unused_port
from tests.harness.waiting import until

PASSWORD, FQDN = "twenty-letters-long!", "localhost"
NEW_KEY = "00ff" * 9 + "beef"

IDENTITY = "CP-1"


def basic(password: bytes, identity: str = IDENTITY) -> dict[str, str]:
    token = base64.b64encode(f"{identity}:".encode() + password).decode()
    return {"Authorization": f"Basic {token}"}


@pytest.fixture
async def secure_bench(start_node: NodeFactory, tmp_path: Path) -> Any:
    """A node that speaks TLS beside plain WebSocket, with a CA of its own, and takes certificates of the
    bench's CA; the charger has a password and uses profile 2."""
    maker = Authority("Bench Root")
    trusted = tmp_path / "trusted.pem"
    trusted.write_text(maker.pem)
    node = await start_node(
        **SETTINGS,
        csms_ocpp_tls_port=unused_port(),
        csms_ocpp_tls_names=FQDN,
        csms_ocpp_tls_client_ca_file=trusted,
    )
    secured = SecureBench(node, ChargePoint(f"{node.running.ocpp_tls}".replace("127.0.0.1", FQDN), IDENTITY))
    secured.maker, secured.directory = maker, tmp_path
    await secured.api(
        "PUT", f"/chargers/{IDENTITY}", json={"password": PASSWORD, "securityProfile": 2}, status=201
    )
    await secured.tag(VALID, status="Accepted")
    secured.root = (await node.api.get("/api/v1/ca/certificate")).text
    secured.point.options |= {"ssl": secured.trusting(), "additional_headers": basic(PASSWORD.encode())}
    try:
        yield secured
        await secured.verify()
    finally:
        await secured.point.hang_up()


class SecureBench(Bench):
    """`root`: the PEM that a charge point must trust. `maker`: a CA beside the central system's own."""

    maker: Authority
    directory: Path
    root: str

    def trusting(
        self, certificate: str | None = None, key: ec.EllipticCurvePrivateKey | None = None
    ) -> ssl.SSLContext:
        """A charge point's TLS: it checks the chain and the name; with a certificate of its own, if it has one."""
        context = ssl.create_default_context(cadata=self.root)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        if certificate is not None and key is not None:
            context.load_cert_chain(*write_pair(self.directory, certificate, key))
        return context

    async def refused(self, status: int, **options: Any) -> None:
        with pytest.raises(InvalidStatus) as refusal:
            await self.point.dial(**options)
        assert refusal.value.response.status_code == status
        assert (await self.charger())["online"] is False

    async def offline(self) -> None:
        await self.point.hang_up()
        await self.goes_offline()


# --- passwords and profiles ----------------------------------------------------------------------------------


async def test_tc_073_update_password_for_http_basic_authentication(bench: Bench) -> None:
    """ChangeConfiguration sets AuthorizationKey to 40 hex digits; the operator receives Accepted; from then on the old
    password is refused with 401 and the new one admitted; neither log nor protocol stream shows the key."""
    await bench.api("PATCH", f"/chargers/{bench.id}", json={"password": PASSWORD})
    bench.point.options["additional_headers"] = basic(PASSWORD.encode(), bench.id)
    await bench.booted()
    await bench.command("ChangeConfiguration", {"key": "AuthorizationKey", "value": NEW_KEY}, ACCEPTED)
    assert (await bench.charger())["passwordPending"] is False
    await bench.point.hang_up()
    with pytest.raises(InvalidStatus) as refused:
        await bench.point.dial()
    assert refused.value.response.status_code == 401
    bench.point.options["additional_headers"] = basic(bytes.fromhex(NEW_KEY), bench.id)
    await bench.booted()
    await bench.verify()
    kept = await bench.node.fetch("SELECT frame FROM messages WHERE charger_id = $1", bench.id)
    assert not any(NEW_KEY.encode() in row["frame"] for row in kept)
    assert NEW_KEY not in str(bench.node.protocol)


async def test_tc_083_upgrade_security_profile_accepted(secure_bench: SecureBench) -> None:
    """From profile 1 ChangeConfiguration sets SecurityProfile 2 and Reset Hard follows, both Accepted; the charge
    point is accepted over TLS, then refused without, then accepted over TLS again; the new profile is stored."""
    bench = secure_bench
    await bench.api("PATCH", f"/chargers/{bench.id}", json={"securityProfile": 1})
    secure_url, bench.point.url = bench.point.url, bench.node.ocpp
    await bench.point.dial(ssl=None)
    await bench.boot()
    await bench.command("ChangeConfiguration", {"key": "SecurityProfile", "value": "2"}, ACCEPTED)
    charger = await bench.charger()
    assert (charger["securityProfile"], charger["pendingSecurityProfile"]) == (1, 2)
    await bench.command("Reset", {"type": "Hard"}, ACCEPTED)
    bench.point.url = secure_url
    await bench.booted()
    charger = await bench.charger()
    assert (charger["securityProfile"], charger["pendingSecurityProfile"]) == (2, None)
    await bench.offline()
    bench.point.url = bench.node.ocpp
    await bench.refused(403, ssl=None)
    bench.point.url = secure_url
    await bench.booted()


# --- TLS -----------------------------------------------------------------------------------------------------


async def _peer(bench: SecureBench, context: ssl.SSLContext) -> tuple[str, str, x509.Certificate]:
    """Version, suite and certificate that the server comes up with."""
    url = urlsplit(bench.point.url)
    async with asyncio.timeout(10):
        _, writer = await asyncio.open_connection(url.hostname, url.port, ssl=context)
    tls = writer.get_extra_info("ssl_object")
    version, (suite, *_), der = tls.version(), tls.cipher(), tls.getpeercert(binary_form=True)
    writer.transport.abort()
    return version, suite, x509.load_der_x509_certificate(der)


async def test_tc_086_tls_server_side_certificate(secure_bench: SecureBench) -> None:
    """TLS 1.2 and 1.3 are accepted, 1.1 is refused; each of the four suites that are asked for is served, with an
    RSA key of 2048 bits or an EC key of 256, a serial number, the FQDN as CN and a chain that is valid; then
    the charge point is accepted with its password, and refused without."""
    bench = secure_bench
    for suite, kind in (
        ("ECDHE-ECDSA-AES128-GCM-SHA256", ec.EllipticCurvePublicKey),
        ("ECDHE-ECDSA-AES256-GCM-SHA384", ec.EllipticCurvePublicKey),
        ("AES128-GCM-SHA256", rsa.RSAPublicKey),
        ("AES256-GCM-SHA384", rsa.RSAPublicKey),
    ):
        context = bench.trusting()
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        context.set_ciphers(suite)
        version, chosen, certificate = await _peer(bench, context)
        assert (version, chosen) == ("TLSv1.2", suite)
        key = certificate.public_key()
        assert isinstance(key, kind)
        assert key.key_size >= (2048 if kind is rsa.RSAPublicKey else 224)
        assert certificate.serial_number > 0
        (name,) = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
        assert name.value == FQDN
    assert (await _peer(bench, bench.trusting()))[0] == "TLSv1.3"
    old = bench.trusting()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        old.minimum_version = old.maximum_version = ssl.TLSVersion.TLSv1_1
    old.set_ciphers("ALL:@SECLEVEL=0")
    # Refused by the server, with an alert or without one; not by our own side, which says `no protocols`.
    with pytest.raises((ssl.SSLError, ConnectionResetError)) as refused:
        await _peer(bench, old)
    assert isinstance(refused.value, ConnectionResetError) or "ALERT" in str(refused.value).upper()
    await bench.refused(401, additional_headers={})
    await bench.booted()


async def test_tc_087_tls_client_side_certificate(secure_bench: SecureBench) -> None:
    """In profile 3 the upgrade is refused without a client certificate, with another charge point's, and with one
    of a CA that is not trusted; with the right one it is admitted without a password, and the charge point accepted."""
    bench = secure_bench
    await bench.api("PATCH", f"/chargers/{bench.id}", json={"securityProfile": 3})
    bench.point.options["additional_headers"] = {}
    key = ec.generate_private_key(ec.SECP256R1())

    def holding(authority: Authority, name: str) -> ssl.SSLContext:
        return bench.trusting(pem(authority.issue(name, key.public_key())), key)

    await bench.refused(403)
    await bench.refused(403, additional_headers=basic(PASSWORD.encode()))
    await bench.refused(403, ssl=holding(bench.maker, "CP-2"))
    with pytest.raises((ssl.SSLError, InvalidHandshake, OSError)):
        await bench.point.dial(ssl=holding(Authority("Other CA"), IDENTITY))
    assert (await bench.charger())["online"] is False
    bench.point.options["ssl"] = holding(bench.maker, IDENTITY)
    await bench.booted()
    assert (await bench.charger())["online"] is True


# --- charge points' certificates -----------------------------------------------------------------------------


async def _certificate(
    bench: SecureBench, answer: Payload, cn: str = IDENTITY
) -> tuple[str, ec.EllipticCurvePrivateKey]:
    """Triggered by the operator the charge point asks for a certificate, and gets one; its chain and key."""
    await bench.booted()
    key = ec.generate_private_key(ec.SECP256R1())
    await bench.command(
        "ExtendedTriggerMessage", {"requestedMessage": "SignChargePointCertificate"}, ACCEPTED
    )
    bench.point.will_answer("CertificateSigned", answer)
    assert await bench.point.call("SignCertificate", csr=request(cn, key)) == ACCEPTED

    def signed() -> list[Payload]:
        return [r.payload for r in bench.point.received if r.action == "CertificateSigned"]

    (payload,) = await bench.node.until(signed)
    chain = payload["certificateChain"]
    certificate = x509.load_pem_x509_certificates(chain.encode())[0]
    assert certificate.public_key() == key.public_key()
    (name,) = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    assert name.value == cn
    certificate.verify_directly_issued_by(x509.load_pem_x509_certificate(bench.root.encode()))
    await _certificate_stands(bench, answer["status"].lower(), certificate)
    return chain, key


async def _certificate_stands(bench: Bench, status: str, certificate: x509.Certificate) -> None:
    """Stored under its serial number, with what the charge point said of it."""
    expected = [(f"{certificate.serial_number:x}", status)]

    async def is_stored() -> bool:
        items = (await bench.api("GET", f"/chargers/{bench.id}/certificates"))["items"]
        return [(item["serial"], item["status"]) for item in items] == expected

    await until(is_stored, 10)


@pytest.mark.parametrize("cn", [BOOT["chargePointSerialNumber"], IDENTITY])
async def test_tc_074_update_charge_point_certificate_by_request(secure_bench: SecureBench, cn: str) -> None:
    """ExtendedTriggerMessage asks for a request, which is Accepted; CertificateSigned brings a chain of the
    central system's CA for the key asked for and the name on record (the serial number that an operator has set,
    otherwise the identity); it is stored as accepted, and with it the charge point is admitted without a password."""
    bench = secure_bench
    if cn != IDENTITY:
        await bench.api("PATCH", f"/chargers/{bench.id}", json={"certificateName": cn})
    chain, key = await _certificate(bench, ACCEPTED, cn)
    await bench.api("PATCH", f"/chargers/{bench.id}", json={"securityProfile": 3})
    await bench.offline()
    bench.point.options |= {"ssl": bench.trusting(chain, key), "additional_headers": {}}
    await bench.booted()
    assert (await bench.charger())["online"] is True


async def test_tc_077_invalid_charge_point_certificate_security_event(secure_bench: SecureBench) -> None:
    """As 074, but the charge point rejects the certificate: it is stored as rejected, and the event
    InvalidChargePointCertificate answered and stored."""
    bench = secure_bench
    await _certificate(bench, {"status": "Rejected"})
    await bench.security_event("InvalidChargePointCertificate")
