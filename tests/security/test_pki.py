"""The CA: what it signs, what it refuses, and that OpenSSL agrees with what it has made."""

import subprocess
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ed25519
from cryptography.x509.oid import NameOID

from csms.security import certificate_checks, pki
from tests.harness.security_clients import csr, issue, small_keys, station_key

NOW = datetime.now(UTC).replace(microsecond=0)
CA = pki.make_root("Test CPO", now=NOW, lifetime=timedelta(days=30))


@pytest.mark.parametrize("kind", ["ecdsa", "rsa"])
def test_only_the_key_of_a_request_is_signed(kind):
    key = station_key(kind)
    request = certificate_checks.read_request(csr(key, cn="SN-1", o="Another CPO"))
    issued = CA.sign_request(request, "cp-1", organization="Test CPO", now=NOW, lifetime=timedelta(days=10))
    certificate = x509.load_pem_x509_certificate(issued.pem.encode())
    assert certificate.public_key() == key.public_key()
    assert certificate.subject.rfc4514_string() == "CN=cp-1,O=Test CPO"
    assert certificate_checks.presented(certificate).names == ("cp-1",)
    assert certificate.not_valid_before_utc < NOW
    assert issued.not_after == NOW + timedelta(days=10)
    assert certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca is False
    assert certificate.extensions.get_extension_for_class(x509.KeyUsage).value.digital_signature
    assert issued.serial == f"{certificate.serial_number:x}"
    assert len(issued.chain) < pki.MAX_CHAIN
    certificate_checks.verify_issued(certificate, [CA.certificate], NOW)


def test_a_certificate_never_outlives_its_ca():
    _, key = issue(CA, "cp")
    issued = CA.sign_request(
        certificate_checks.read_request(csr(key, cn="cp")),
        "cp",
        organization="Test CPO",
        now=NOW,
        lifetime=timedelta(days=999),
    )
    assert issued.not_after == CA.certificate.not_valid_after_utc


def test_openssl_accepts_the_certificates(tmp_path):
    root, leaf, revoked = tmp_path / "root.pem", tmp_path / "leaf.pem", tmp_path / "crl.pem"
    root.write_text(CA.pem)
    pem, _ = issue(CA, "cp-1", days=1)
    leaf.write_text(pem)
    serial = certificate_checks.serial_of(certificate_checks.read_certificate(pem.encode()))

    def verify(*more):
        return subprocess.run(
            ["openssl", "verify", "-x509_strict", "-purpose", "sslclient", "-CAfile", root, *more, leaf],
            capture_output=True, text=True, timeout=20, check=False,
        )  # fmt: skip

    assert verify().returncode == 0, verify().stderr
    revoked.write_text(CA.revocation_list([], now=NOW, lifetime=timedelta(days=1)))
    assert verify("-crl_check", "-CRLfile", revoked).returncode == 0
    revoked.write_text(CA.revocation_list([(serial, NOW)], now=NOW, lifetime=timedelta(days=1)))
    assert "revoked" in verify("-crl_check", "-CRLfile", revoked).stderr


def test_weak_keys_and_malformed_requests_are_refused():
    for key in small_keys():
        with pytest.raises(certificate_checks.InvalidCertificate, match="bits"):
            certificate_checks.read_request(csr(key, cn="cp"))
    with pytest.raises(certificate_checks.InvalidCertificate):
        certificate_checks.read_request(csr(ed25519.Ed25519PrivateKey.generate(), cn="cp", digest=None))
    good = csr(station_key(), cn="cp")
    lines = good.splitlines()
    lines[-2] = ("A" if lines[-2][0] != "A" else "B") + lines[-2][1:]
    for bad in ("", "x", "-----BEGIN", "zz", good[:200], "\n".join(lines)):
        with pytest.raises(certificate_checks.InvalidCertificate):
            certificate_checks.read_request(bad)


def test_a_request_with_a_foreign_signature_is_refused():
    key, other = station_key(), station_key()
    mine = certificate_checks.read_request(csr(key, cn="cp"))
    theirs = certificate_checks.read_request(csr(other, cn="cp"))
    from cryptography.hazmat.primitives.serialization import Encoding

    der = mine.public_bytes(Encoding.DER)
    forged = der.replace(mine.tbs_certrequest_bytes[-60:], theirs.tbs_certrequest_bytes[-60:])
    with pytest.raises(certificate_checks.InvalidCertificate):
        certificate_checks.read_request(forged.hex())


def test_the_first_edition_of_the_white_paper_sent_der_in_hex():
    from cryptography.hazmat.primitives.serialization import Encoding

    request = certificate_checks.read_request(csr(station_key(), cn="cp"))
    assert certificate_checks.read_request(request.public_bytes(Encoding.DER).hex()) == request


def test_the_subject_must_be_the_charge_points():
    request = certificate_checks.read_request(csr(station_key(), cn="SN-1", o="Test CPO"))
    certificate_checks.check_subject(request, ["cp-1", "SN-1"], "Test CPO")
    certificate_checks.check_subject(request, ["SN-1"], None)
    with pytest.raises(certificate_checks.InvalidCertificate, match="cp-1"):
        certificate_checks.check_subject(request, ["cp-1"], None)
    with pytest.raises(certificate_checks.InvalidCertificate, match="CpoName"):
        certificate_checks.check_subject(request, ["SN-1"], "Another CPO")


def test_a_forwarded_certificate_must_be_of_a_trusted_ca_and_valid_now():
    now = datetime.now(UTC)  # a certificate is valid from a few minutes before it is made
    other = pki.make_root("Other", now=NOW, lifetime=timedelta(days=30))
    certificate = certificate_checks.read_certificate(issue(CA, "cp")[0].encode())
    certificate_checks.verify_issued(certificate, [other.certificate, CA.certificate], now)
    with pytest.raises(certificate_checks.InvalidCertificate, match="trusted"):
        certificate_checks.verify_issued(certificate, [other.certificate], now)
    with pytest.raises(certificate_checks.InvalidCertificate, match="time"):
        certificate_checks.verify_issued(certificate, [CA.certificate], now + timedelta(days=100))
    with pytest.raises(certificate_checks.InvalidCertificate, match="CA"):
        certificate_checks.verify_issued(CA.certificate, [CA.certificate], now)


def test_the_server_certificate_carries_its_name_in_cn_and_alternatives():
    key = pki.new_key("rsa")
    issued = CA.issue_server(
        ["ocpp.example.com", "10.0.0.1"], key, organization="Test CPO", now=NOW, lifetime=timedelta(days=9)
    )
    certificate = x509.load_pem_x509_certificate(issued.pem.encode())
    assert certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value == "ocpp.example.com"
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["ocpp.example.com"]
    assert isinstance(certificate.signature_hash_algorithm, hashes.SHA256)


def test_serial_numbers_are_read_in_each_common_form():
    assert certificate_checks.normal_serial("0A:1B:2c") == "a1b2c"
    assert certificate_checks.normal_serial(" 0x00ff ") == "ff"
    for wrong in ("", "xyz", "-1", "0", "f" * 60):
        assert certificate_checks.normal_serial(wrong) is None


def test_a_ca_needs_its_own_key():
    other = pki.make_root("Other", now=NOW, lifetime=timedelta(days=30))
    with pytest.raises(certificate_checks.InvalidCertificate, match="belong"):
        pki.load_authority(CA.pem.encode(), other.key_pem())
    with pytest.raises(certificate_checks.InvalidCertificate, match="PEM"):
        pki.load_authority(b"x", b"y")
    assert pki.load_authority(CA.pem.encode(), CA.key_pem()).fingerprint == CA.fingerprint
