"""Which profile a handshake reaches, and whether it is enough: the whole table."""

from datetime import UTC, datetime
from http import HTTPStatus

import pytest

from csms.adapter import Admission
from csms.ocpp import login
from csms.ocpp.handshake import HandshakeRefusal
from csms.ocpp.login import ClientCertificate, LoginCredentials
from csms.security import certificate_checks
from tests.harness.narrowing import of_type

CP = "cp-1"


def certificate(*names, owner=None, status=None, organizations=("Test CPO",)):
    presented = certificate_checks.PresentedCertificate(
        serial="1", names=names or (CP,), organizations=organizations, not_after=datetime.now(UTC)
    )
    return ClientCertificate(presented=presented, owner=owner, status=status)


def admission(profile=None, *, password="h", name=None):
    return Admission(
        charger_id=CP,
        enrollment="Accepted",
        password_hash=password,
        security_profile=profile,
        certificate_name=name,
    )


NOTHING = LoginCredentials(tls=False)
PASSWORD = LoginCredentials(tls=False, password_given=True, opened_by="h")
WRONG = LoginCredentials(tls=False, password_given=True)
TLS = LoginCredentials(tls=True)
TLS_PASSWORD = LoginCredentials(tls=True, password_given=True, opened_by="h")
TLS_WRONG = LoginCredentials(tls=True, password_given=True)
CERTIFICATE = LoginCredentials(tls=True, certificate=certificate())
OTHERS_CERTIFICATE = LoginCredentials(tls=True, certificate=certificate("cp-2"))


@pytest.mark.parametrize(
    ("came", "profile"),
    [
        (NOTHING, 0),
        (WRONG, 0),
        (PASSWORD, 1),
        (TLS, 0),
        (TLS_WRONG, 0),
        (TLS_PASSWORD, 2),
        (CERTIFICATE, 3),
        (OTHERS_CERTIFICATE, 0),
    ],
)
def test_every_login_passes_where_its_profile_is_enough_and_nowhere_else(came, profile):
    for required in range(4):
        verdict = login.judge(came, admission(required))
        if profile >= required:
            assert verdict == profile
        else:
            assert isinstance(verdict, HandshakeRefusal)
            assert verdict.status in {HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN}
            assert len(verdict.text.split()) > 5


def test_a_password_requires_profile_1_unless_an_operator_sets_another():
    assert admission().required_profile == 1
    assert admission(password=None).required_profile == 0
    assert login.judge(NOTHING, admission(password=None)) == 0


def refusal(came: LoginCredentials, *, required: int) -> HandshakeRefusal:
    return of_type(HandshakeRefusal, login.judge(came, admission(required)))


def test_a_wrong_password_is_401_and_missing_tls_403():
    assert refusal(WRONG, required=1).status is HTTPStatus.UNAUTHORIZED
    assert refusal(TLS_WRONG, required=2).status is HTTPStatus.UNAUTHORIZED
    assert refusal(PASSWORD, required=2).status is HTTPStatus.FORBIDDEN
    assert refusal(PASSWORD, required=3).status is HTTPStatus.FORBIDDEN
    assert refusal(TLS_PASSWORD, required=3).status is HTTPStatus.FORBIDDEN


def test_a_revoked_certificate_is_refused_with_any_password():
    for required in range(4):
        came = LoginCredentials(tls=True, certificate=certificate(status="revoked"), opened_by="h")
        assert "revoked" in refusal(came, required=required).text


def test_a_certificate_matches_the_charge_point_it_is_issued_to_or_names():
    def matches(given, name=None, organization=None):
        return login.certificate_matches(given, admission(name=name), organization)

    assert matches(certificate(CP))
    assert matches(certificate("other", CP))  # CN, then subjectAltName
    assert matches(certificate("SN-1"), name="SN-1")
    assert not matches(certificate("SN-1"))
    assert not matches(certificate("cp-11"))
    assert matches(certificate("SN-1", owner=CP, status="accepted"))  # we have issued it to this one
    assert not matches(certificate(CP, owner="cp-2", status="accepted"))
    assert matches(certificate(CP), organization="Test CPO")
    assert not matches(certificate(CP, organizations=()), organization="Test CPO")
