"""The certificate authority of csms: makes keys, certificates and revocation lists. Pure: no files, no clock.

The certificates obey the OCPP 1.6 security white paper, 2.6.1; see csms/security/certificate_checks.py.
"""

import ipaddress
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from msgspec import Struct

from csms.security.certificate_checks import InvalidCertificate, attribute_values, serial_of

PrivateKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey
MAX_CHAIN = 10_000  # CertificateSigned.req: certificateChain, string[0..10000]
LONGEST_NAME = 64  # X.520 ub-common-name
_BACKDATED = timedelta(minutes=5)  # clocks of chargers are not exact


class IssuedCertificate(Struct, frozen=True, kw_only=True):
    """A certificate that was made here. `pem` is the leaf alone, `chain` what a charger is sent."""

    serial: str
    subject: str
    pem: str
    chain: str
    not_before: datetime
    not_after: datetime


class CertificateAuthority:
    """A CA: certificate and private key. `chain`: sub-CAs up to, and without, the root."""

    def __init__(
        self, certificate: x509.Certificate, key: PrivateKey, chain: Sequence[x509.Certificate] = ()
    ) -> None:
        if certificate.public_key() != key.public_key():
            raise InvalidCertificate("the CA's key does not belong to its certificate")
        self.certificate = certificate
        self._key = key
        self._chain = tuple(chain)

    @property
    def pem(self) -> str:
        return _pem(self.certificate)

    @property
    def organization(self) -> str | None:
        return next(iter(attribute_values(self.certificate.subject, NameOID.ORGANIZATION_NAME)), None)

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the certificate, in hex with colons."""
        return self.certificate.fingerprint(hashes.SHA256()).hex(":")

    def key_pem(self) -> bytes:
        return key_pem(self._key)

    def sign_request(
        self,
        request: x509.CertificateSigningRequest,
        name: str,
        *,
        organization: str,
        now: datetime,
        lifetime: timedelta,
    ) -> IssuedCertificate:
        """Make a client certificate for the key of a request. CN is `name`: nothing else of the request is taken.

        Raises InvalidCertificate.
        """
        if len(name) > LONGEST_NAME:
            raise InvalidCertificate(
                f"a certificate's CN has at most {LONGEST_NAME} characters: set this charger's certificateName"
            )
        elliptic = isinstance(request.public_key(), ec.EllipticCurvePublicKey)
        usage = _usage(digital_signature=True, key_agreement=elliptic)
        subject = _subject(name, organization)
        builder = self._builder(subject, request.public_key(), now, lifetime)
        builder = (
            builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(usage, critical=True)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False)
        )
        return self._issued(builder)

    def issue_server(
        self,
        names: Sequence[str],
        key: PrivateKey,
        *,
        organization: str,
        now: datetime,
        lifetime: timedelta,
    ) -> IssuedCertificate:
        """Make a certificate for the central system. CN and the first subjectAltName are the first name."""
        subject = _subject(names[0], organization)
        usage = _usage(digital_signature=True, key_encipherment=isinstance(key, rsa.RSAPrivateKey))
        builder = self._builder(subject, key.public_key(), now, lifetime)
        builder = (
            builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(usage, critical=True)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
            .add_extension(x509.SubjectAlternativeName([_alternative(n) for n in names]), critical=False)
        )
        return self._issued(builder)

    def revocation_list(
        self, revoked: Iterable[tuple[str, datetime]], *, now: datetime, lifetime: timedelta
    ) -> str:
        """Make the CRL (RFC 5280) of these serial numbers (hex) and times, in PEM."""
        builder = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(self.certificate.subject)
            .last_update(now)
            .next_update(now + lifetime)
            .add_extension(x509.CRLNumber(int(now.timestamp())), critical=False)
            .add_extension(self._authority_key(), critical=False)
        )
        for serial, at in revoked:
            builder = builder.add_revoked_certificate(
                x509.RevokedCertificateBuilder().serial_number(int(serial, 16)).revocation_date(at).build()
            )
        crl = builder.sign(self._key, hashes.SHA256())
        return crl.public_bytes(serialization.Encoding.PEM).decode()

    def _builder(
        self, subject: x509.Name, public_key: object, now: datetime, lifetime: timedelta
    ) -> x509.CertificateBuilder:
        until = min(now + lifetime, self.certificate.not_valid_after_utc)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self.certificate.subject)
            .public_key(public_key)  # type: ignore[arg-type]
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - _BACKDATED)
            .not_valid_after(until)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)  # type: ignore[arg-type]
            .add_extension(self._authority_key(), critical=False)
        )

    def _authority_key(self) -> x509.AuthorityKeyIdentifier:
        return x509.AuthorityKeyIdentifier.from_issuer_public_key(self.certificate.public_key())  # type: ignore[arg-type]

    def _issued(self, builder: x509.CertificateBuilder) -> IssuedCertificate:
        certificate = builder.sign(self._key, hashes.SHA256())
        parts = [certificate]
        if not _is_root(self.certificate):
            parts.append(self.certificate)
        parts += self._chain
        return IssuedCertificate(
            serial=serial_of(certificate),
            subject=certificate.subject.rfc4514_string(),
            pem=_pem(certificate),
            chain="".join(_pem(part) for part in parts),
            not_before=certificate.not_valid_before_utc,
            not_after=certificate.not_valid_after_utc,
        )


# --- making ----------------------------------------------------------------------------------------------


def make_root(organization: str, *, now: datetime, lifetime: timedelta) -> CertificateAuthority:
    """Make a root CA with a P-256 key."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = _subject(f"{organization} charging root", organization)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _BACKDATED)
        .not_valid_after(now + lifetime)
        .add_extension(x509.BasicConstraints(ca=True, path_length=1), critical=True)
        .add_extension(_usage(key_cert_sign=True, crl_sign=True, digital_signature=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    return CertificateAuthority(certificate, key)


def load_authority(certificates_pem: bytes, private_key_pem: bytes) -> CertificateAuthority:
    """Load a CA. The first certificate is the CA's own, the others lead to the root. Raises InvalidCertificate."""
    try:
        first, *others = x509.load_pem_x509_certificates(certificates_pem)
        key = serialization.load_pem_private_key(private_key_pem, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise InvalidCertificate(f"not a CA certificate and its unencrypted key in PEM: {error}") from None
    if not isinstance(key, ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey):
        raise InvalidCertificate("the CA's key must be RSA or EC")
    return CertificateAuthority(first, key, [c for c in others if not _is_root(c)])


def new_key(kind: str) -> PrivateKey:
    """Make a key of a kind: `ecdsa` (P-256) or `rsa` (2048 bits)."""
    if kind == "rsa":
        return rsa.generate_private_key(public_exponent=65537, key_size=2048)
    return ec.generate_private_key(ec.SECP256R1())


def key_pem(key: PrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


# --- parts -----------------------------------------------------------------------------------------------


def _pem(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(serialization.Encoding.PEM).decode()


def _is_root(certificate: x509.Certificate) -> bool:
    return certificate.subject == certificate.issuer


def _subject(name: str, organization: str) -> x509.Name:
    return x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, organization[:LONGEST_NAME]),
            x509.NameAttribute(NameOID.COMMON_NAME, name[:LONGEST_NAME]),
        ]
    )


def _alternative(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _usage(**used: bool) -> x509.KeyUsage:
    every = (
        "digital_signature",
        "content_commitment",
        "key_encipherment",
        "data_encipherment",
        "key_agreement",
        "key_cert_sign",
        "crl_sign",
        "encipher_only",
        "decipher_only",
    )
    return x509.KeyUsage(**{name: used.get(name, False) for name in every})
