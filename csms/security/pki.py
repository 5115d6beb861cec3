"""X.509 for charge points: our own small CA, requests checked and signed, certificates read. Pure: no files, no clock.

Rules of the OCPP 1.6 security white paper, 2.6.1: keys of at least 2048 bits (RSA) or on a curve of at least
224 bits, ECDSA or RSA signatures with SHA-256 or better, O = the operator, CN = FQDN of the central system or
serial number of the charge point, a serial number, Key Usage.
"""

import ipaddress
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from msgspec import Struct

from csms.errors import CsmsError

PrivateKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey
MAX_CHAIN = 10_000  # CertificateSigned.req: certificateChain, string[0..10000]
_BACKDATED = timedelta(minutes=5)  # clocks of charge points are not exact
_MIN_RSA_BITS, _MIN_EC_BITS = 2048, 224
_HASHES = (hashes.SHA256, hashes.SHA384, hashes.SHA512)


class InvalidCertificate(CsmsError):
    """A certificate or request that cannot be used; the sentence says why."""


class PresentedCertificate(Struct, frozen=True, kw_only=True):
    """What a certificate says. `names`: CN, then subjectAltName (DNS, URI); `addresses`: its IP addresses."""

    serial: str
    names: tuple[str, ...]
    addresses: tuple[str, ...] = ()
    organizations: tuple[str, ...]
    not_after: datetime


class IssuedCertificate(Struct, frozen=True, kw_only=True):
    """A certificate we have made. `pem` is the leaf alone, `chain` what a charge point gets."""

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
        return _first(self.certificate.subject, NameOID.ORGANIZATION_NAME)

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the certificate, as people compare it."""
        return self.certificate.fingerprint(hashes.SHA256()).hex(":")

    def key_pem(self) -> bytes:
        return key_pem(self._key)

    def sign_request(
        self, request: x509.CertificateSigningRequest, *, now: datetime, lifetime: timedelta
    ) -> IssuedCertificate:
        """A client certificate for a charge point: the request's own subject and key, nothing else of it."""
        elliptic = isinstance(request.public_key(), ec.EllipticCurvePublicKey)
        usage = _usage(digital_signature=True, key_agreement=elliptic)
        builder = self._builder(request.subject, request.public_key(), now, lifetime)
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
        """A certificate for the central system: CN and the first subjectAltName are the first name."""
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
        """The CRL (RFC 5280) over these serial numbers (hex) and times, in PEM."""
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
    """A new root CA with a P-256 key."""
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
    """The first certificate is the CA's, the others lead to the root. Raises InvalidCertificate."""
    try:
        first, *others = x509.load_pem_x509_certificates(certificates_pem)
        key = serialization.load_pem_private_key(private_key_pem, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise InvalidCertificate(f"not a CA certificate and its unencrypted key in PEM: {error}") from None
    if not isinstance(key, ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey):
        raise InvalidCertificate("the CA's key must be RSA or EC")
    return CertificateAuthority(first, key, [c for c in others if not _is_root(c)])


def new_key(kind: str) -> PrivateKey:
    """`ecdsa` (P-256) or `rsa` (2048 bits)."""
    if kind == "rsa":
        return rsa.generate_private_key(public_exponent=65537, key_size=2048)
    return ec.generate_private_key(ec.SECP256R1())


def key_pem(key: PrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


# --- reading and judging ---------------------------------------------------------------------------------


def read_request(text: str) -> x509.CertificateSigningRequest:
    """A charge point's CSR, PEM or (edition 1 of the white paper) hex or base64 of the DER. Checks signature and key.

    Raises InvalidCertificate.
    """
    request = _parse_request(text)
    try:
        public_key = request.public_key()
        if not request.is_signature_valid:
            raise InvalidCertificate("the request's signature is not valid")
        algorithm = request.signature_hash_algorithm
    except (InvalidSignature, UnsupportedAlgorithm, ValueError) as error:
        raise InvalidCertificate(f"the request's signature cannot be checked: {error}") from None
    if isinstance(public_key, rsa.RSAPublicKey):
        if public_key.key_size < _MIN_RSA_BITS:
            raise InvalidCertificate(f"an RSA key of {public_key.key_size} bits: 2048 are needed")
    elif isinstance(public_key, ec.EllipticCurvePublicKey):
        if public_key.key_size < _MIN_EC_BITS:
            raise InvalidCertificate(f"an EC key of {public_key.key_size} bits: 224 are needed")
    else:
        raise InvalidCertificate("the key must be RSA or EC")
    if not isinstance(algorithm, _HASHES):
        raise InvalidCertificate("the request must be signed with SHA-256 or better")
    return request


def _parse_request(text: str) -> x509.CertificateSigningRequest:
    compact = text.strip()
    try:
        if compact.startswith("-----BEGIN"):
            return x509.load_pem_x509_csr(compact.replace("\\n", "\n").encode())
        return x509.load_der_x509_csr(bytes.fromhex(compact))
    except (ValueError, UnicodeEncodeError) as error:
        raise InvalidCertificate(f"not a certificate signing request in PEM: {error}") from None


def check_subject(
    request: x509.CertificateSigningRequest, allowed_names: Sequence[str], organization: str | None
) -> None:
    """The CN must be one of the charge point's own names; O, when we know the operator's, the operator.

    Raises InvalidCertificate.
    """
    name = _first(request.subject, NameOID.COMMON_NAME)
    if name is None or name not in allowed_names:
        raise InvalidCertificate(
            f"the request is for CN={name}; this charge point is {' or '.join(allowed_names)}"
        )
    owners = _all(request.subject, NameOID.ORGANIZATION_NAME)
    if organization is not None and organization not in owners:
        raise InvalidCertificate(
            f"the request is for O={', '.join(owners) or '(none)'}, not {organization}: set CpoName"
        )


def read_presented(der_or_pem: bytes) -> x509.Certificate:
    """Raises InvalidCertificate."""
    try:
        if b"-----BEGIN CERTIFICATE-----" in der_or_pem:
            return x509.load_pem_x509_certificate(der_or_pem)
        return x509.load_der_x509_certificate(der_or_pem)
    except ValueError as error:
        raise InvalidCertificate(f"not a certificate: {error}") from None


def presented(certificate: x509.Certificate) -> PresentedCertificate:
    """What of a client certificate decides whom it belongs to."""
    names, addresses = list(_all(certificate.subject, NameOID.COMMON_NAME)), list[str]()
    try:
        alternative = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        names += alternative.get_values_for_type(x509.DNSName)
        names += alternative.get_values_for_type(x509.UniformResourceIdentifier)
        addresses = [str(address) for address in alternative.get_values_for_type(x509.IPAddress)]
    except (x509.ExtensionNotFound, x509.DuplicateExtension, ValueError):
        pass
    return PresentedCertificate(
        serial=serial_of(certificate),
        names=tuple(names),
        addresses=tuple(addresses),
        organizations=tuple(_all(certificate.subject, NameOID.ORGANIZATION_NAME)),
        not_after=certificate.not_valid_after_utc,
    )


def verify_issued(
    certificate: x509.Certificate, authorities: Sequence[x509.Certificate], now: datetime
) -> None:
    """For a certificate that came in a proxy's header: signed by one of these CAs and valid now.

    Raises InvalidCertificate.
    """
    if not certificate.not_valid_before_utc <= now <= certificate.not_valid_after_utc:
        raise InvalidCertificate("the client certificate is not valid at this time")
    try:
        constraints = certificate.extensions.get_extension_for_class(x509.BasicConstraints).value
        is_ca = constraints.ca
    except (x509.ExtensionNotFound, x509.DuplicateExtension, ValueError):
        is_ca = False
    if is_ca:
        raise InvalidCertificate("a CA's certificate is no charge point's")
    for authority in authorities:
        try:
            certificate.verify_directly_issued_by(authority)
        except (ValueError, TypeError, InvalidSignature):
            continue
        return
    raise InvalidCertificate("the client certificate was not issued by a CA that is trusted here")


def belongs_to(certificate: PresentedCertificate, charger_id: str, certificate_name: str | None) -> bool:
    """Whether one of its names is the charge point's identity, or the name an operator has set for it."""
    allowed = [charger_id] if certificate_name is None else [charger_id, certificate_name]
    return any(name in allowed for name in certificate.names)


def serial_of(certificate: x509.Certificate) -> str:
    """The serial number in lower-case hex, as we keep it."""
    return f"{certificate.serial_number:x}"


def normal_serial(text: str) -> str | None:
    """A serial number as people write it (`0A:1B…`, `0x…`) to the form we keep; None if it is none."""
    digits = text.strip().lower().removeprefix("0x").replace(":", "").replace(" ", "")
    try:
        number = int(digits, 16)
    except ValueError:
        return None
    return f"{number:x}" if 0 < number < 2**161 else None


# --- parts -----------------------------------------------------------------------------------------------


def _pem(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(serialization.Encoding.PEM).decode()


def _is_root(certificate: x509.Certificate) -> bool:
    return certificate.subject == certificate.issuer


def _subject(name: str, organization: str) -> x509.Name:
    return x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, organization[:64]),
            x509.NameAttribute(NameOID.COMMON_NAME, name[:64]),
        ]
    )


def _alternative(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _all(name: x509.Name, oid: x509.ObjectIdentifier) -> list[str]:
    return [str(attribute.value) for attribute in name.get_attributes_for_oid(oid)]


def _first(name: x509.Name, oid: x509.ObjectIdentifier) -> str | None:
    return next(iter(_all(name, oid)), None)


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
