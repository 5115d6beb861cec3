"""Certificates over OCPP: TC_074 and TC_077, requests that are refused, revocation, renewal, security events."""

from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509

from csms.db.engine import create_engine
from csms.errors import ChargerOffline
from csms.security import ca_files, certificate_checks
from csms.security.renewal import Renewal
from tests.harness.narrowing import NOT_USED
from tests.harness.security_clients import (
    KEY,
    Pki,
    basic,
    booted,
    command,
    csr,
    issue,
    refused,
    small_keys,
    station_key,
)
from tests.harness.waiting import until
from tests.security.test_keys import register
from tests.security.test_tls import tls_node

TRIGGER = {"requestedMessage": "SignChargePointCertificate"}


async def settled(node, identity, status):
    """The charger's newest certificate, once it has this status."""

    async def with_the_status():
        found = (await node.api.get(f"/api/v1/chargers/{identity}/certificates")).json()["items"]
        return found[0] if found and found[0]["status"] == status else None

    return await until(with_the_status, 10)


async def connected(node, certificates, identity="cp", **more):
    await register(node, identity, password=KEY, securityProfile=2, **more)
    return await booted(
        node.running.ocpp_tls, identity, ssl=certificates.client(), additional_headers=basic(identity, KEY)
    )


async def signed(station, request, answer):
    """The charge point asks, is told Accepted, gets its certificate and answers `answer`."""
    assert await station.ask("SignCertificate", {"csr": request}) == {"status": "Accepted"}
    call = await station.receive()
    assert call[2] == "CertificateSigned"
    await station.send([3, call[1], {"status": answer}])
    return call[3]["certificateChain"]


async def test_tc_074_a_certificate_by_request_of_the_central_system(start_node, certificates):
    node = await tls_node(start_node, certificates)
    # The white paper's CN is the serial number; "SN-1" is what this charge point says at its boot. Only an operator's word
    # makes that a name (certificateName).
    await register(node, "cp", password=KEY, securityProfile=2)
    station = await booted(
        node.running.ocpp_tls, "cp", ssl=certificates.client(), additional_headers=basic("cp", KEY)
    )
    await station.ask(
        "BootNotification",
        {"chargePointVendor": "V", "chargePointModel": "M", "chargePointSerialNumber": "SN-1"},
    )
    await command(node, station, "ExtendedTriggerMessage", TRIGGER, {"status": "Accepted"})
    key = station_key()
    chain = await signed(station, csr(key, cn="SN-1"), "Accepted")
    assert len(chain) <= 10_000
    leaf = x509.load_pem_x509_certificates(chain.encode())[0]
    assert leaf.public_key() == key.public_key()
    assert leaf.subject.rfc4514_string() == "CN=cp,O=csms"
    kept = await settled(node, "cp", "accepted")
    assert kept["serial"] == certificate_checks.serial_of(leaf)
    assert kept["pem"] == chain
    await station.close()
    # The reconnect with the new certificate, on profile 3.
    await register(node, "cp", securityProfile=3)
    await (await booted(node.running.ocpp_tls, "cp", ssl=certificates.client(chain, key))).close()
    await register(node, "SN-1", securityProfile=3)
    assert (await refused(node.running.ocpp_tls, "SN-1", ssl=certificates.client(chain, key)))[0] == 403


async def test_the_name_that_an_operator_has_set_is_the_one_that_is_signed(start_node, certificates):
    node = await tls_node(start_node, certificates, csms_cpo_name="Test CPO")
    station = await connected(node, certificates, certificateName="SN-0815")
    chain = await signed(station, csr(station_key(), cn="cp"), "Accepted")
    leaf = x509.load_pem_x509_certificates(chain.encode())[0]
    assert leaf.subject.rfc4514_string() == "CN=SN-0815,O=Test CPO"
    await station.close()


async def test_a_long_identity_needs_a_certificate_name(start_node, certificates, capsys):
    node = await tls_node(start_node, certificates)
    identity = "x" * 65
    station = await connected(node, certificates, identity)
    request = csr(station_key(), cn="cp", o=None)
    await node.api.patch(f"/api/v1/chargers/{identity}", json={"certificateName": "cp"})
    await signed(station, request, "Accepted")
    await node.api.patch(f"/api/v1/chargers/{identity}", json={"certificateName": None})
    await station.ask(
        "BootNotification",
        {"chargePointVendor": "V", "chargePointModel": "M", "chargePointSerialNumber": "SN-1"},
    )
    assert await station.ask("SignCertificate", {"csr": csr(station_key(), cn="SN-1")}) == {
        "status": "Rejected"
    }
    assert "certificateName" in capsys.readouterr().out
    for wrong in ("y" * 65, "a ", "a\u200b"):
        answer = await node.api.patch(f"/api/v1/chargers/{identity}", json={"certificateName": wrong})
        assert answer.status_code == 422
    await station.close()


@pytest.mark.parametrize("setting", ["CSMS_CERTIFICATES_PER_CHARGER_DAY", "CSMS_CERTIFICATES_PER_DAY"])
async def test_certificates_are_limited_by_the_day(start_node, certificates, setting, capsys):
    node = await tls_node(start_node, certificates, **{setting.lower(): 2})
    station = await connected(node, certificates)
    for _ in range(2):
        await signed(station, csr(station_key(), cn="cp"), "Accepted")
    assert await station.ask("SignCertificate", {"csr": csr(station_key(), cn="cp")}) == {
        "status": "Rejected"
    }
    assert f"as many as {setting} allows" in capsys.readouterr().out
    other = await connected(node, certificates, "other")
    answer = await other.ask("SignCertificate", {"csr": csr(station_key(), cn="other")})
    assert answer == {"status": "Accepted" if "CHARGER" in setting else "Rejected"}
    # A day later they count no more.
    await node.fetch("UPDATE station_certificates SET issued_at = issued_at - interval '25 hours'")
    assert await station.ask("SignCertificate", {"csr": csr(station_key(), cn="cp")}) == {
        "status": "Accepted"
    }
    await station.close()
    await other.close()


async def test_a_malformed_request_is_rejected_in_plain_words(start_node, certificates, capsys):
    node = await tls_node(start_node, certificates)
    station = await connected(node, certificates)
    for request in (
        "rubbish",
        "-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----\n",
    ):
        assert await station.ask("SignCertificate", {"csr": request}) == {"status": "Rejected"}
    lines = [line for line in capsys.readouterr().out.splitlines() if "certificate_request_rejected" in line]
    assert len(lines) == 2
    assert all("PKCS #10 request in PEM is expected" in line for line in lines)
    assert not any("asn1" in line.lower() or "fromhex" in line for line in lines)
    await station.close()


async def test_tc_077_a_certificate_that_the_charge_point_rejects(start_node, certificates):
    node = await tls_node(start_node, certificates)
    station = await connected(node, certificates)
    await signed(station, csr(station_key(), cn="cp"), "Rejected")
    assert (await settled(node, "cp", "rejected"))["answeredAt"]
    told = {
        "type": "InvalidChargePointCertificate",
        "timestamp": "2026-01-31T08:00:00Z",
        "techInfo": "not before",
    }
    assert await station.ask("SecurityEventNotification", told, "e1") == {}
    assert await station.ask("SecurityEventNotification", told, "e1") == {}  # a resend is no second event
    assert await station.ask("SecurityEventNotification", {"type": "StartupOfTheDevice"}) == {}
    page = (await node.api.get("/api/v1/chargers/cp/security-events?limit=1")).json()
    assert page["items"][0]["type"] == "StartupOfTheDevice"
    page = (await node.api.get(f"/api/v1/chargers/cp/security-events?cursor={page['nextCursor']}")).json()
    assert len(page["items"]) == 1
    assert page["items"][0] == {
        "id": page["items"][0]["id"],
        "type": "InvalidChargePointCertificate",
        "techInfo": "not before",
        "reportedAt": "2026-01-31T08:00:00Z",
        "recordedAt": page["items"][0]["recordedAt"],
    }
    assert page["nextCursor"] is None
    assert (await node.api.get("/api/v1/chargers/unknown/security-events")).status_code == 404
    await station.close()


async def test_requests_that_must_not_be_signed_are_rejected(start_node, certificates):
    node = await tls_node(start_node, certificates, csms_cpo_name="Test CPO")
    station = await connected(node, certificates)
    for request in (
        csr(station_key(), cn="another"),
        csr(station_key(), cn="cp", o="Another CPO"),
        csr(station_key(), cn="cp", o=None),
        *(csr(key, cn="cp") for key in small_keys()),
        "rubbish",
    ):
        assert await station.ask("SignCertificate", {"csr": request}) == {"status": "Rejected"}
    assert (await node.api.get("/api/v1/chargers/cp/certificates")).json()["items"] == []
    assert await station.silence()
    await station.close()


async def test_a_charge_point_on_profile_0_gets_no_certificate(node):
    station = await booted(node.ocpp, "cp")
    assert await station.ask("SignCertificate", {"csr": csr(station_key(), cn="cp")}) == {
        "status": "Rejected"
    }
    await station.close()


async def test_a_request_that_is_sent_again_is_answered_again_and_signed_once(start_node, certificates):
    node = await tls_node(start_node, certificates)
    station = await connected(node, certificates)
    request = csr(station_key(), cn="cp")
    await signed(station, request, "Accepted")
    assert await station.ask("SignCertificate", {"csr": request}) == {"status": "Accepted"}
    assert await station.silence()
    await settled(node, "cp", "accepted")
    assert len((await node.api.get("/api/v1/chargers/cp/certificates")).json()["items"]) == 1
    await station.close()


async def test_a_charge_point_that_waits_for_approval_may_renew_when_triggered(start_node, certificates):
    """A00.FR.806: credentials can be updated in the Pending state."""
    node = await tls_node(start_node, certificates)
    await register(node, "cp", password=KEY, securityProfile=2, enrollment="Pending")
    from tests.harness.charge_points.raw import RawChargePoint

    station = await RawChargePoint.dial(
        node.running.ocpp_tls, "cp", ssl=certificates.client(), additional_headers=basic("cp", KEY)
    )
    assert (await station.boot())["status"] == "Pending"
    request = {"csr": csr(station_key(), cn="cp")}
    assert (await station.call("SignCertificate", request))[2] == "SecurityError"
    await command(node, station, "ExtendedTriggerMessage", TRIGGER, {"status": "Accepted"})
    await signed(station, request["csr"], "Accepted")
    assert (
        await station.ask("SecurityEventNotification", {"type": "X", "timestamp": "2026-01-31T08:00:00Z"})
        == {}
    )
    await station.close()


async def test_a_revoked_certificate_is_refused(start_node, certificates):
    node = await tls_node(start_node, certificates)
    station = await connected(node, certificates)
    key = station_key()
    chain = await signed(station, csr(key, cn="cp"), "Accepted")
    kept = await settled(node, "cp", "accepted")
    await station.close()
    tls, url = certificates.client(chain, key), node.running.ocpp_tls
    await (await booted(url, "cp", ssl=tls)).close()
    answer = await node.api.post(f"/api/v1/certificates/{kept['serial']}/revoke", json={"reason": "stolen"})
    assert (answer.json()["status"], answer.json()["reason"]) == ("revoked", "stolen")
    for headers in ({}, basic("cp", KEY)):
        status, text = await refused(url, "cp", ssl=tls, additional_headers=headers)
        assert (status, "revoked" in text) == (403, True)
    await (await booted(url, "cp", ssl=certificates.client(), additional_headers=basic("cp", KEY))).close()
    crl = x509.load_pem_x509_crl((await node.api.get("/api/v1/ca/crl")).content)
    assert crl.get_revoked_certificate_by_serial_number(int(kept["serial"], 16)) is not None
    assert crl.is_signature_valid(certificates.ca.certificate.public_key())


async def test_a_certificate_of_another_ca_can_be_revoked_too(start_node, certificates, tmp_path):
    other = Pki(tmp_path / "other")
    node = await tls_node(start_node, certificates, csms_ocpp_tls_client_ca_file=other.root)
    await register(node, "cp", securityProfile=3)
    chain, key = issue(other.ca, "cp")
    tls = certificates.client(chain, key)
    await (await booted(node.running.ocpp_tls, "cp", ssl=tls)).close()
    serial = certificate_checks.serial_of(certificate_checks.read_certificate(chain.encode())).upper()
    assert (await node.api.post(f"/api/v1/certificates/{serial}/revoke", json={})).status_code == 200
    assert (await refused(node.running.ocpp_tls, "cp", ssl=tls))[0] == 403
    assert (await node.api.post("/api/v1/certificates/xyz/revoke", json={})).status_code == 422


async def test_deleting_a_charger_revokes_its_certificates(start_node, certificates):
    node = await tls_node(start_node, certificates, csms_enrollment="open")
    station = await connected(node, certificates)
    key = station_key()
    chain = await signed(station, csr(key, cn="cp"), "Accepted")
    await settled(node, "cp", "accepted")
    await station.close()

    async def is_deleted():
        return (await node.api.delete("/api/v1/chargers/cp")).status_code == 204

    await until(is_deleted, 10)
    await register(node, "cp")
    status, _ = await refused(node.running.ocpp_tls, "cp", ssl=certificates.client(chain, key))
    assert status == 403


@pytest.mark.parametrize(("days_before", "reminded"), [(30, 1), (15, 0)])
async def test_renewal_of_a_certificate_that_expires_is_requested_once_a_day(
    start_node, certificates, database_url, days_before, reminded
):
    node = await tls_node(start_node, certificates, csms_certificate_days=20)
    station = await connected(node, certificates)
    await signed(station, csr(station_key(), cn="cp"), "Accepted")
    await settled(node, "cp", "accepted")
    sent = []

    async def send(charger_id, asked):
        sent.append((charger_id, asked.action, asked.payload))
        raise ChargerOffline("just gone")

    engine = create_engine(database_url)
    try:
        renewal = Renewal(engine, "node-a", send, days_before=days_before)
        now = datetime.now(UTC)
        assert await renewal.once(now) == reminded
        assert await renewal.once(now + timedelta(hours=1)) == 0
        assert await renewal.once(now + timedelta(days=1, hours=1)) == reminded
        assert (
            await Renewal(engine, "another", send, days_before=days_before).once(now + timedelta(days=5)) == 0
        )
    finally:
        await engine.dispose()
    assert sent == [("cp", "ExtendedTriggerMessage", TRIGGER)] * 2 * reminded
    await station.close()


async def test_old_security_events_are_deleted(node, database_url):
    station = await booted(node.ocpp, "cp")
    await station.ask("SecurityEventNotification", {"type": "X", "timestamp": "2026-01-31T08:00:00Z"})
    engine = create_engine(database_url)
    try:
        renewal = Renewal(engine, "node-a", NOT_USED, kept_days=10)
        await renewal.once(datetime.now(UTC) + timedelta(days=9))
        assert len(await node.fetch("SELECT 1 FROM security_events")) == 1
        await renewal.once(datetime.now(UTC) + timedelta(days=11))
        assert await node.fetch("SELECT 1 FROM security_events") == []
    finally:
        await engine.dispose()
    await station.close()


def test_own_server_certificates_are_renewed_before_they_expire(tmp_path):
    root = ca_files.make(tmp_path, organization="Test CPO")
    ca_files.issue_server(
        root,
        tmp_path,
        ["ocpp.example.com", "localhost"],
        organization="Test CPO",
        lifetime=timedelta(days=40),
    )
    renewal = Renewal(
        NOT_USED, "n", NOT_USED, authority=lambda: root, organization="O", server_directory=tmp_path
    )
    now = datetime.now(UTC)
    assert not renewal.renew_server_certificates(now)
    assert renewal.renew_server_certificates(now + timedelta(days=11))
    renewed = certificate_checks.read_certificate(ca_files.server_pairs(tmp_path)[0][0].read_bytes())
    assert certificate_checks.presented(renewed).names == (
        "ocpp.example.com",
        "ocpp.example.com",
        "localhost",
    )
    assert renewed.not_valid_after_utc > now + timedelta(days=300)
