"""Certificates and signatures of the bench's own, and what a charge point says of a certificate it holds."""

import base64
import hashlib
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID


class Authority:
    """A root certificate and its key."""

    def __init__(self, name: str) -> None:
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.certificate = self._signed(name, self.key.public_key(), ca=True)

    @property
    def pem(self) -> str:
        return pem(self.certificate)

    def issue(self, name: str, key: ec.EllipticCurvePublicKey) -> x509.Certificate:
        return self._signed(name, key, ca=False)

    def _signed(self, name: str, key: ec.EllipticCurvePublicKey, *, ca: bool) -> x509.Certificate:
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        now = datetime.now(UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(subject if ca else self.certificate.subject)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(hours=1))
            .not_valid_after(now + timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
            .sign(self.key, hashes.SHA256())
        )


def pem(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(serialization.Encoding.PEM).decode()


def request(name: str, key: ec.EllipticCurvePrivateKey) -> str:
    """A certificate signing request in PEM."""
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    made = x509.CertificateSigningRequestBuilder().subject_name(subject).sign(key, hashes.SHA256())
    return made.public_bytes(serialization.Encoding.PEM).decode()


def write_pair(directory: Path, chain: str, key: ec.EllipticCurvePrivateKey) -> tuple[Path, Path]:
    """The files that the `ssl` module wants; they may be written over once they are loaded."""
    chain_file, key_file = directory / "point.pem", directory / "point-key.pem"
    chain_file.write_text(chain)
    key_file.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    return chain_file, key_file


def hash_data(certificate_pem: str, algorithm: str = "SHA256") -> dict[str, str]:
    """CertificateHashDataType of a root: issuer name and key hashed, serial number in hex (as in OCSP)."""
    certificate = x509.load_pem_x509_certificate(certificate_pem.encode())
    key = certificate.public_key().public_bytes(
        serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint
    )

    def digest(data: bytes) -> str:
        return hashlib.new(algorithm, data).hexdigest()

    return {
        "hashAlgorithm": algorithm,
        "issuerNameHash": digest(certificate.issuer.public_bytes()),
        "issuerKeyHash": digest(key),
        "serialNumber": f"{certificate.serial_number:x}",
    }


def sign(firmware: bytes, key: ec.EllipticCurvePrivateKey) -> str:
    return base64.b64encode(key.sign(firmware, ec.ECDSA(hashes.SHA256()))).decode()


def is_genuine(firmware: bytes, signature: str, certificate_pem: str) -> bool:
    """What a charge point finds out before it installs."""
    key = x509.load_pem_x509_certificate(certificate_pem.encode()).public_key()
    assert isinstance(key, ec.EllipticCurvePublicKey)
    try:
        key.verify(base64.b64decode(signature), firmware, ec.ECDSA(hashes.SHA256()))
    except InvalidSignature:
        return False
    return True
