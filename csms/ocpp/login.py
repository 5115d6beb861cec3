"""Which security profile a login reaches, and whether that is enough (white paper, 2 and A05). Pure."""

from collections.abc import Sequence
from http import HTTPStatus
from typing import Final

from msgspec import Struct

from csms.adapter import Admission
from csms.ocpp.handshake import HandshakeRefusal
from csms.security import certificate_checks

NONE, BASIC, TLS_BASIC, TLS_CERTIFICATE = range(4)
_REVOKED: Final = "revoked"


class ClientCertificate(Struct, frozen=True, kw_only=True):
    """A client certificate whose signature by a trusted CA is verified.

    `owner` (charge point) and `status` are those of the certificate that this system has issued under its serial number;
    None: it has issued none.
    """

    presented: certificate_checks.PresentedCertificate
    owner: str | None = None
    status: str | None = None


class LoginCredentials(Struct, frozen=True, kw_only=True):
    """The credentials of one handshake. `opened_by`: the stored hash that the password has matched."""

    tls: bool
    certificate: ClientCertificate | None = None
    bad_certificate: str | None = None
    password_given: bool = False
    opened_by: str | None = None


def certificate_matches(
    certificate: ClientCertificate, admission: Admission, organization: str | None
) -> bool:
    """Whether the certificate is this charge point's: issued to it by this system, or named after it.

    White paper, A00.FR.404 and A00.FR.405.
    """
    if certificate.status == _REVOKED:
        return False
    if certificate.owner is not None:
        return certificate.owner == admission.charger_id
    presented = certificate.presented
    if organization is not None and organization not in presented.organizations:
        return False
    return certificate_checks.belongs_to(presented, admission.charger_id, admission.certificate_name)


def reached(login: LoginCredentials, admission: Admission, organization: str | None = None) -> int:
    """The security profile that this login satisfies, 0 to 3."""
    certificate = login.certificate
    if login.tls and certificate is not None and certificate_matches(certificate, admission, organization):
        return TLS_CERTIFICATE
    if login.opened_by is not None:
        return TLS_BASIC if login.tls else BASIC
    return NONE


def judge(
    login: LoginCredentials, admission: Admission, organization: str | None = None
) -> int | HandshakeRefusal:
    """The profile reached, or why that is not enough. A profile above the one required is accepted."""
    if login.certificate is not None and login.certificate.status == _REVOKED:
        return _forbidden("This client certificate has been revoked: ask for a new one.")
    profile, required = reached(login, admission, organization), admission.required_profile
    if profile >= required:
        return profile
    if required >= TLS_BASIC and not login.tls:
        return _forbidden(f"Security profile {required} is required: connect with wss:// (TLS).")
    if required == TLS_CERTIFICATE:
        if login.certificate is not None:
            name = next(iter(login.certificate.presented.names), "a subject without a name")
            return _forbidden(f"The client certificate belongs to {name}, not to {admission.charger_id}.")
        reason = login.bad_certificate or "no client certificate came"
        return _forbidden(f"Security profile 3 is required: {reason}.")
    if not login.password_given:
        return HandshakeRefusal(
            HTTPStatus.UNAUTHORIZED,
            f"Security profile {required} is required: send identity and password (HTTP Basic).\n",
        )
    return HandshakeRefusal(HTTPStatus.UNAUTHORIZED, "Identity and password do not match.\n")


def candidates(admission: Admission) -> Sequence[str]:
    """The hashes that a password may match: the confirmed one, then the pending ones."""
    known = () if admission.password_hash is None else (admission.password_hash,)
    return (*known, *admission.pending_password_hashes)


def _forbidden(text: str) -> HandshakeRefusal:
    return HandshakeRefusal(HTTPStatus.FORBIDDEN, f"{text}\n")
