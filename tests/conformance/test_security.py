"""The security extension: certificates, logs, signed firmware, credentials, sub-protocol."""

import base64

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from websockets.exceptions import InvalidStatus

from tests.harness.conformance.bench import ACCEPTED, Bench, ahead
from tests.harness.conformance.certificates import Authority, hash_data, is_genuine, pem, sign
from tests.harness.conformance.charge_point import Payload

FIRMWARE = b"firmware 2.0"


# --- certificates --------------------------------------------------------------------------------------------


async def _install(bench: Bench, kind: str, algorithm: str = "SHA256") -> dict[str, str]:
    """Install a root and list it; the hash data of the list."""
    await bench.booted()
    sent = await bench.command(
        "InstallCertificate", {"certificateType": kind, "certificate": Authority("Root").pem}, ACCEPTED
    )
    installed = hash_data(sent["certificate"], algorithm)
    await bench.command(
        "GetInstalledCertificateIds",
        {"certificateType": kind},
        {"status": "Accepted", "certificateHashData": [installed]},
    )
    return installed


async def test_tc_075_1_install_certificate_manufacturer_root(bench: Bench) -> None:
    """InstallCertificate carries a root as ManufacturerRootCertificate; the list of that type is asked for and
    the operator receives its hash data."""
    await _install(bench, "ManufacturerRootCertificate")


async def test_tc_075_2_install_certificate_central_system_root(bench: Bench) -> None:
    """InstallCertificate carries a root as CentralSystemRootCertificate; the list of that type is asked for and
    the operator receives its hash data."""
    await _install(bench, "CentralSystemRootCertificate")


@pytest.mark.parametrize("algorithm", ["SHA256", "SHA384", "SHA512"])
async def test_tc_076_delete_a_specific_certificate(bench: Bench, algorithm: str) -> None:
    """A root is installed and listed; DeleteCertificate carries the hash data of the list, for each of the
    three algorithms; the operator receives Accepted."""
    installed = await _install(bench, "CentralSystemRootCertificate", algorithm)
    await bench.command("DeleteCertificate", {"certificateHashData": installed}, ACCEPTED)


async def test_tc_078_invalid_central_system_certificate_security_event(bench: Bench) -> None:
    """Of an InstallCertificate the operator receives Rejected; the event InvalidCentralSystemCertificate is
    answered and stored."""
    await bench.booted()
    stranger = Authority("Other CA").issue("leaf", ec.generate_private_key(ec.SECP256R1()).public_key())
    await bench.command(
        "InstallCertificate",
        {"certificateType": "CentralSystemRootCertificate", "certificate": pem(stranger)},
        {"status": "Rejected"},
    )
    await bench.security_event("InvalidCentralSystemCertificate")


# --- logs and firmware ---------------------------------------------------------------------------------------


async def test_tc_079_get_security_log(bench: Bench) -> None:
    """GetLog asks for the SecurityLog and says where to; the operator receives the file's name; Uploading and
    Uploaded are answered; the job is stored with its steps."""
    await bench.booted()
    await bench.command(
        "GetLog",
        {"logType": "SecurityLog", "requestId": 7, "log": {"remoteLocation": "https://files.example/logs"}},
        {"status": "Accepted", "filename": "security.log"},
    )
    for status in ("Uploading", "Uploaded"):
        assert await bench.point.call("LogStatusNotification", status=status, requestId=7) == {}
    job = await bench.job("log")
    assert (job["steps"], job["request_id"], job["file_name"]) == (
        ["Uploading", "Uploaded"], 7, "security.log"
    )  # fmt: skip


async def _signed_update(bench: Bench, *, genuine: bool) -> Payload:
    authority, key = Authority("Maker"), ec.generate_private_key(ec.SECP256R1())
    await bench.booted()
    return await bench.command(
        "SignedUpdateFirmware",
        {
            "requestId": 8,
            "firmware": {
                "location": "https://files.example/firmware-2.0.bin",
                "retrieveDateTime": ahead(seconds=-1),
                "signingCertificate": pem(authority.issue("Maker signs", key.public_key())),
                "signature": sign(FIRMWARE if genuine else b"something else", key),
            },
        },
        ACCEPTED,
    )


async def _signed_firmware(bench: Bench, *statuses: str) -> None:
    for status in statuses:
        answer = await bench.point.call("SignedFirmwareStatusNotification", status=status, requestId=8)
        assert answer == {}


async def test_tc_080_secure_firmware_update(bench: Bench) -> None:
    """SignedUpdateFirmware carries location, certificate and a signature that is valid at the charge point;
    every status up to Installed, the accepted boot and the event FirmwareUpdated are answered; the job with
    all its steps, the event and the new version are stored."""
    firmware = (await _signed_update(bench, genuine=True))["firmware"]
    await _signed_firmware(bench, "Downloading", "Downloaded")
    assert is_genuine(FIRMWARE, firmware["signature"], firmware["signingCertificate"])
    await _signed_firmware(bench, "SignatureVerified")
    await bench.status(1, "Unavailable")
    await _signed_firmware(bench, "Installing", "InstallRebooting")
    await bench.point.hang_up()
    await bench.point.dial()
    await bench.boot(firmwareVersion="2.0")
    await bench.security_event("FirmwareUpdated")
    await bench.status(1, "Available")
    await _signed_firmware(bench, "Installed")
    assert (await bench.charger())["firmwareVersion"] == "2.0"
    assert (await bench.job("signed_firmware"))["steps"] == [
        "Downloading",
        "Downloaded",
        "SignatureVerified",
        "Installing",
        "InstallRebooting",
        "Installed",
    ]


async def test_tc_081_secure_firmware_update_invalid_signature(bench: Bench) -> None:
    """As 080 with a signature that is invalid; Downloading, Downloaded and InvalidSignature are answered; the
    job is stored as failed, the old version stays."""
    firmware = (await _signed_update(bench, genuine=False))["firmware"]
    await _signed_firmware(bench, "Downloading", "Downloaded")
    assert not is_genuine(FIRMWARE, firmware["signature"], firmware["signingCertificate"])
    await _signed_firmware(bench, "InvalidSignature")
    assert (await bench.charger())["firmwareVersion"] == "1.0"
    job = await bench.job("signed_firmware")
    assert (job["status"], job["ended_at"] is not None) == ("InvalidSignature", True)


# --- which charge points may connect -----------------------------------------------------------------------------------------


def _basic(user: str, password: bytes) -> dict[str, str]:
    return {"Authorization": f"Basic {base64.b64encode(user.encode() + b':' + password).decode()}"}


@pytest.mark.parametrize(
    ("registered", "sent"),
    [
        ("0123456789abcdef" * 2, bytes.fromhex("0123456789abcdef" * 2)),
        ("FF00AA" * 6 + "beef", bytes.fromhex("FF00AA" * 6 + "beef")),
        ("sixteen-letters!", b"sixteen-letters!"),
        ("twenty-letters-long!", b"twenty-letters-long!"),
    ],
    ids=["32 hex digits", "40 hex digits", "16 characters", "20 characters"],
)
async def test_tc_085_basic_authentication_valid_credentials(
    bench: Bench, registered: str, sent: bytes
) -> None:
    """Without credentials, with a wrong password or another's name the upgrade is refused with 401 and the
    charger stays offline; with the right ones, registered in hex or as text, it is admitted and accepted."""
    await bench.api("PATCH", f"/chargers/{bench.id}", json={"password": registered})
    for headers in ({}, _basic(bench.id, b"wrong" + sent[5:]), _basic("CP-2", sent)):
        with pytest.raises(InvalidStatus) as refused:
            await bench.point.dial(additional_headers=headers)
        assert refused.value.response.status_code == 401
        assert refused.value.response.headers["WWW-Authenticate"].startswith("Basic ")
    assert (await bench.charger())["online"] is False
    bench.point.options["additional_headers"] = _basic(bench.id, sent)
    await bench.booted()
    charger = await bench.charger()
    assert (charger["online"], charger["hasPassword"]) == (True, True)


async def test_tc_088_web_socket_sub_protocol_negotiation(bench: Bench) -> None:
    """An upgrade that offers ocpp0.1 alone is refused and the charger stays offline; of ocpp0.1 and ocpp1.6 the
    second is chosen, and the charge point accepted."""
    with pytest.raises(InvalidStatus) as refused:
        await bench.point.dial(subprotocols=["ocpp0.1"])
    assert refused.value.response.status_code == 400
    assert (await bench.charger())["online"] is False
    bench.point.options["subprotocols"] = ["ocpp0.1", "ocpp1.6"]
    await bench.booted()
    assert bench.point.subprotocol == "ocpp1.6"
