"""What the tests of security have in common: clients with certificates, Basic headers, charge points that answer."""

import asyncio
import base64
import copy
import shutil
import ssl
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID
from websockets.exceptions import InvalidStatus

from csms.security import ca_files, certificate_checks, pki
from tests.harness.charge_points.raw import RawChargePoint

_SHA256 = hashes.SHA256()
KEY = "8f3c19d2a47be05566778899aabbccdd"  # 16 bytes in hex
OTHER_KEY = "00112233445566778899aabbccddeeff01020304"


def basic(identity: str, password: str | bytes) -> dict[str, str]:
    secret = password.encode() if isinstance(password, str) else password
    return {"Authorization": "Basic " + base64.b64encode(identity.encode() + b":" + secret).decode()}


def csr(key: Any, *, cn: str, o: str | None = "Test CPO", digest: Any = _SHA256) -> str:
    attributes = [x509.NameAttribute(NameOID.COMMON_NAME, cn)]
    if o is not None:
        attributes.append(x509.NameAttribute(NameOID.ORGANIZATION_NAME, o))
    request = x509.CertificateSigningRequestBuilder().subject_name(x509.Name(attributes)).sign(key, digest)
    return request.public_bytes(serialization.Encoding.PEM).decode()


def station_key(kind: str = "ecdsa") -> Any:
    return pki.new_key(kind)


def issue(ca: pki.CertificateAuthority, cn: str, *, o: str = "Test CPO", days: float = 30) -> tuple[str, Any]:
    """A client certificate in PEM, and its key."""
    key = station_key()
    request = certificate_checks.read_request(csr(key, cn=cn, o=o))
    lifetime = timedelta(days=days)
    issued = ca.sign_request(request, cn, organization=o, now=datetime.now(UTC), lifetime=lifetime)
    return issued.chain, key


class Pki:
    """A CA of the test's own in files, as an operator would give it."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.directory = directory
        self.ca = pki.make_root("Test CPO", now=datetime.now(UTC), lifetime=timedelta(days=30))
        self.root = directory / "root.pem"
        self.root.write_text(self.ca.pem)
        self.root_key = directory / "root.key"
        self.root_key.write_bytes(self.ca.key_pem())
        self.issue_server()

    def copied(self, directory: Path) -> "Pki":
        """The same in another directory: RSA keys take their time."""
        shutil.copytree(self.directory, directory)
        same = copy.copy(self)
        same.directory = directory
        same.root, same.root_key = directory / self.root.name, directory / self.root_key.name
        same.pairs = ca_files.server_pairs(directory)
        return same

    def issue_server(self) -> None:
        self.pairs = ca_files.issue_server(
            self.ca, self.directory, ["localhost", "127.0.0.1"], organization="Test CPO"
        )

    @property
    def settings(self) -> dict[str, Any]:
        """What turns TLS on for a node of `start_node`."""
        from tests.harness.servers import unused_port

        return {
            "csms_ocpp_tls_port": unused_port(),
            "csms_ocpp_tls_cert_file": ",".join(str(cert) for cert, _ in self.pairs),
            "csms_ocpp_tls_key_file": ",".join(str(key) for _, key in self.pairs),
            "csms_ca_cert_file": self.root,
            "csms_ca_key_file": self.root_key,
        }

    def client(self, chain: str | None = None, key: Any = None) -> ssl.SSLContext:
        """A charge point's TLS: trusts our root, shows a certificate if it has one."""
        context = ssl.create_default_context(cadata=self.ca.pem)
        if chain is not None:
            cert_file, key_file = self.directory / "client.pem", self.directory / "client.key"
            cert_file.write_text(chain)
            key_file.write_bytes(pki.key_pem(key))
            context.load_cert_chain(cert_file, key_file)
        return context


async def refused(url: str, identity: str, **options: Any) -> tuple[int, str]:
    """The status and the sentence that a handshake is refused with."""
    try:
        station = await RawChargePoint.dial(url, identity, **options)
    except InvalidStatus as error:
        return error.response.status_code, error.response.body.decode()
    await station.close()
    raise AssertionError(f"{identity} was let in")


@asynccontextmanager
async def dialled(url: str, identity: str, **options: Any) -> Any:
    station = await RawChargePoint.dial(url, identity, **options)
    try:
        yield station
    finally:
        await station.close()


async def command(node: Any, station: RawChargePoint, action: str, payload: Any, answer: Any) -> Any:
    """An operator sends a command, the charge point answers with `answer` (None: not at all); the HTTP response."""
    identity = station.identity
    body = {"action": action, "payload": payload, "timeoutS": 1 if answer is None else 10}
    asked = asyncio.create_task(node.api.post(f"/api/v1/chargers/{identity}/commands", json=body))
    call = await station.receive()
    assert call[0] == 2, call
    assert call[2] == action, call
    assert call[3] == payload, call
    if answer is not None:
        await station.send([4, call[1], *answer] if isinstance(answer, list) else [3, call[1], answer])
    return call[1], await asked


async def booted(url: str, identity: str, **options: Any) -> RawChargePoint:
    station = await RawChargePoint.dial(url, identity, **options)
    assert (await station.boot())["status"] == "Accepted"
    return station


def is_rsa(certificate: x509.Certificate) -> bool:
    return isinstance(certificate.public_key(), rsa.RSAPublicKey)


def small_keys() -> list[Any]:
    return [
        rsa.generate_private_key(public_exponent=65537, key_size=1024),
        ec.generate_private_key(ec.SECP192R1()),
    ]
