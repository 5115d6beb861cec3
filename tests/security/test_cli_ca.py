"""`csms ca` on files."""

from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from typer.testing import CliRunner

from csms.cli.ca import app
from csms.errors import CsmsError, StartError
from csms.security import certificate_checks

run = CliRunner()


@pytest.fixture(autouse=True)
def _home(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CSMS_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("CSMS_CPO_NAME", "Test CPO")


def invoke(*words):
    result = run.invoke(app, list(words))
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.output


def test_init_makes_the_ca_once(tmp_path):
    with pytest.raises(CsmsError, match="csms ca init"):
        invoke("show")
    shown = invoke("init")
    assert "O=Test CPO" in shown
    key_file = tmp_path / "data" / "ca" / "root.key"
    assert key_file.stat().st_mode & 0o777 == 0o600
    with pytest.raises(StartError, match="already"):
        invoke("init")
    assert invoke("show").splitlines() == shown.splitlines()[:3]
    certificate = x509.load_pem_x509_certificate(invoke("show", "--pem").encode())
    key = certificate.public_key()
    assert isinstance(key, ec.EllipticCurvePublicKey)
    assert key.curve.name == "secp256r1"


def test_issue_server_writes_both_kinds(tmp_path):
    invoke("init")
    lines = invoke("issue-server", "ocpp.example.com", "10.0.0.1").splitlines()
    assert len(lines) == 2
    for line in lines:
        certificate = certificate_checks.read_certificate(Path(line.split()[0]).read_bytes())
        assert certificate_checks.presented(certificate).names[0] == "ocpp.example.com"


def test_revoke_needs_a_serial_number():
    with pytest.raises(CsmsError, match="hex"):
        invoke("revoke", "xyz")
