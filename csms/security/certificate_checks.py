"""X.509 of chargers: read certificates and signing requests, and decide whether to accept them. Pure.

Rules of the OCPP 1.6 security white paper, 2.6.1: keys of at least 2048 bits (RSA) or on a curve of at least 224 bits,
ECDSA or RSA signatures with SHA-256 or better, O = the operator, CN = FQDN of the central system or serial number of the
charge point.
"""

from collections.abc import Sequence
from datetime import datetime

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID
from msgspec import Struct

from csms.errors import CsmsError

_MIN_RSA_BITS, _MIN_EC_BITS = 2048, 224
_HASHES = (hashes.SHA256, hashes.SHA384, hashes.SHA512)


class InvalidCertificate(CsmsError):
    """A certificate or request that cannot be used. The text says why."""


class CertificateLimitReached(InvalidCertificate):
    """As many certificates were issued within a day as may be. The text names the setting."""


class PresentedCertificate(Struct, frozen=True, kw_only=True):
    """What a certificate says. `names`: CN, then subjectAltName (DNS, URI); `addresses`: its IP addresses."""

    serial: str
    names: tuple[str, ...]
    addresses: tuple[str, ...] = ()
    organizations: tuple[str, ...]
    not_after: datetime


def read_request(text: str) -> x509.CertificateSigningRequest:
    """Read a certificate signing request and check its signature and key. Raises InvalidCertificate.

    It is PEM, or (edition 1 of the white paper) DER in hex.
    """
    request = _parse_request(text)
    try:
        public_key = request.public_key()
        if not request.is_signature_valid:
            raise InvalidCertificate("the request's signature is not valid")
        algorithm = request.signature_hash_algorithm
    except (InvalidSignature, UnsupportedAlgorithm, ValueError):
        raise InvalidCertificate(
            "the request's signature cannot be checked: it must be RSA or ECDSA with SHA-256 or better"
        ) from None
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
    except (ValueError, UnicodeEncodeError):
        raise InvalidCertificate(
            "the request cannot be read: a PKCS #10 request in PEM is expected (-----BEGIN CERTIFICATE REQUEST-----)"
        ) from None


def check_subject(
    request: x509.CertificateSigningRequest, allowed_names: Sequence[str], organization: str | None
) -> None:
    """Check that CN is one of the charger's names and, if `organization` is given, that O is the operator.

    What is asked for is not what is signed: a request for another name shows that two charge points are mixed up.
    Raises InvalidCertificate.
    """
    name = next(iter(attribute_values(request.subject, NameOID.COMMON_NAME)), None)
    if name is None or name not in allowed_names:
        raise InvalidCertificate(
            f"the request is for CN={name}; this charger is {' or '.join(allowed_names)}"
        )
    owners = attribute_values(request.subject, NameOID.ORGANIZATION_NAME)
    if organization is not None and organization not in owners:
        raise InvalidCertificate(
            f"the request is for O={', '.join(owners) or '(none)'}, not {organization}: set CpoName"
        )


def read_certificate(der_or_pem: bytes) -> x509.Certificate:
    """Read a certificate. Raises InvalidCertificate."""
    try:
        if b"-----BEGIN CERTIFICATE-----" in der_or_pem:
            return x509.load_pem_x509_certificate(der_or_pem)
        return x509.load_der_x509_certificate(der_or_pem)
    except ValueError:
        raise InvalidCertificate("the certificate cannot be read: X.509 in PEM or DER is expected") from None


def presented(certificate: x509.Certificate) -> PresentedCertificate:
    """Return what decides to which charger a client certificate belongs."""
    names, addresses = list(attribute_values(certificate.subject, NameOID.COMMON_NAME)), list[str]()
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
        organizations=tuple(attribute_values(certificate.subject, NameOID.ORGANIZATION_NAME)),
        not_after=certificate.not_valid_after_utc,
    )


def verify_issued(
    certificate: x509.Certificate, authorities: Sequence[x509.Certificate], now: datetime
) -> None:
    """Check that one of these CAs has signed a certificate from a proxy's header, and that it is valid now.

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
        raise InvalidCertificate("the client certificate is that of a CA")
    for authority in authorities:
        try:
            certificate.verify_directly_issued_by(authority)
        except (ValueError, TypeError, InvalidSignature):
            continue
        return
    raise InvalidCertificate("the client certificate was not issued by a CA that is trusted here")


def belongs_to(certificate: PresentedCertificate, charger_id: str, certificate_name: str | None) -> bool:
    """Whether one of its names is the charger's identity, or the certificate name that an operator has set."""
    allowed = [charger_id] if certificate_name is None else [charger_id, certificate_name]
    return any(name in allowed for name in certificate.names)


def serial_of(certificate: x509.Certificate) -> str:
    """Return the serial number in lower-case hex, as it is stored."""
    return f"{certificate.serial_number:x}"


def normal_serial(text: str) -> str | None:
    """Convert a serial number as operators write it (`0A:1B…`, `0x…`) to the stored form; None: it is none."""
    digits = text.strip().lower().removeprefix("0x").replace(":", "").replace(" ", "")
    try:
        number = int(digits, 16)
    except ValueError:
        return None
    return f"{number:x}" if 0 < number < 2**161 else None


def attribute_values(name: x509.Name, oid: x509.ObjectIdentifier) -> list[str]:
    return [str(attribute.value) for attribute in name.get_attributes_for_oid(oid)]
