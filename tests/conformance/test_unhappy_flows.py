"""Refusals, failures, offline behaviour, data transfer."""

from tests.harness.conformance.bench import ACCEPTED, BLOCKED, EXPIRED, UNKNOWN, VALID, Bench, ago, ahead


async def _refused(bench: Bench, id_tag: str, status: str) -> None:
    await bench.booted()
    await bench.status(1, "Preparing")
    assert (await bench.authorize(id_tag))["status"] == status
    await bench.status(1, "Available")
    await bench.no_transaction()


async def test_tc_023_1_start_session_authorize_invalid(bench: Bench) -> None:
    """An unknown tag is Invalid; no transaction is stored or published."""
    await _refused(bench, UNKNOWN, "Invalid")


async def test_tc_023_2_start_session_authorize_expired(bench: Bench) -> None:
    """A tag whose date has passed is Expired; no transaction is stored or published."""
    await bench.tag(EXPIRED, status="Accepted", expiryDate=ahead(days=-1))
    await _refused(bench, EXPIRED, "Expired")


async def test_tc_023_3_start_session_authorize_blocked(bench: Bench) -> None:
    """A blocked tag is Blocked; no transaction is stored or published."""
    await bench.tag(BLOCKED, status="Blocked")
    await _refused(bench, BLOCKED, "Blocked")


async def test_tc_024_start_session_lock_failure(bench: Bench) -> None:
    """Preparing, then Faulted with ConnectorLockFailure are answered; the error is stored and published."""
    await bench.booted()
    await bench.authorized()
    await bench.status(1, "Preparing")
    await bench.status(1, "Faulted", "ConnectorLockFailure")
    connector = await bench.connector(1)
    assert (connector["status"], connector["errorCode"]) == ("Faulted", "ConnectorLockFailure")
    await bench.no_transaction()


async def test_tc_026_remote_start_rejected(bench: Bench) -> None:
    """The operator receives the charge point's Rejected; no transaction is stored or published."""
    await bench.booted()
    await bench.command("RemoteStartTransaction", {"idTag": VALID, "connectorId": 1}, {"status": "Rejected"})
    await bench.no_transaction()


async def test_tc_028_remote_stop_rejected(bench: Bench) -> None:
    """A stop of a transaction the charge point does not know: the operator receives Rejected, the running one
    continues."""
    await bench.booted()
    transaction_id = await bench.charging()
    await bench.command(
        "RemoteStopTransaction", {"transactionId": transaction_id + 1}, {"status": "Rejected"}
    )
    assert (await bench.api("GET", f"/transactions/{transaction_id}"))["active"] is True
    assert await bench.events("completed") == []


async def test_tc_030_unlock_connector_unlock_failure(bench: Bench) -> None:
    """The operator receives the charge point's UnlockFailed."""
    await bench.booted()
    await bench.command("UnlockConnector", {"connectorId": 1}, {"status": "UnlockFailed"})
    await bench.no_transaction()


async def test_tc_031_unlock_connector_unknown_connector(bench: Bench) -> None:
    """A connector the charge point does not have may be named; the operator receives its NotSupported, and no
    such connector comes into being."""
    await bench.booted()
    await bench.command("UnlockConnector", {"connectorId": 9}, {"status": "NotSupported"})
    assert [c["connectorId"] for c in (await bench.charger())["connectors"]] == [0, 1]


async def test_tc_032_1_power_failure_boot_configured_to_stop_transactions(bench: Bench) -> None:
    """The connection ends during a session: the charger goes offline and the session stays open; after the boot the
    statuses and the stop for PowerLoss are answered, the stop booked, priced and published."""
    await bench.booted()
    transaction_id = await bench.charging()
    await bench.point.hang_up(abruptly=True)
    await bench.goes_offline()
    assert (await bench.api("GET", f"/transactions/{transaction_id}"))["active"] is True
    lost_at = ago(seconds=0)
    await bench.point.dial()
    await bench.boot()
    await bench.status(1, "Finishing")
    await bench.stop(transaction_id, reason="PowerLoss", at=lost_at)
    await bench.status(1, "Available")
    assert (await bench.charger())["online"] is True


async def test_tc_037_1_offline_start_valid_id_tag(bench: Bench) -> None:
    """A start made without a connection is accepted when it comes; it is stored and published with the time it
    was made."""
    await bench.booted()
    await bench.point.hang_up(abruptly=True)
    started_at = ago(minutes=5)
    await bench.point.dial()
    await bench.start(VALID, at=started_at)
    await bench.status(1, "Charging")
    assert (await bench.connector(1))["status"] == "Charging"


async def test_tc_037_3_offline_start_invalid_id_tag(bench: Bench) -> None:
    """A start made without a connection under an unknown tag is Invalid and stored all the same, as energy
    flowed; its stop for DeAuthorized is booked, priced and published."""
    await bench.booted()
    await bench.point.hang_up(abruptly=True)
    started_at = ago(minutes=5)
    await bench.point.dial()
    transaction_id = await bench.start(UNKNOWN, status="Invalid", at=started_at)
    await bench.status(1, "Charging")
    await bench.stop(transaction_id, reason="DeAuthorized")
    await bench.status(1, "Finishing")


async def test_tc_039_offline_transaction(bench: Bench) -> None:
    """A whole session made without a connection: start and stop are answered, booked with the times they were
    made, priced and published."""
    await bench.booted()
    await bench.point.hang_up()
    started_at, stopped_at = ago(minutes=30), ago(minutes=10)
    await bench.point.dial()
    transaction_id = await bench.start(VALID, at=started_at)
    answer = await bench.stop(transaction_id, reason="Local", id_tag=VALID, at=stopped_at)
    assert answer == {"idTagInfo": ACCEPTED}
    assert (await bench.api("GET", f"/transactions/{transaction_id}"))["durationS"] == 20 * 60


async def test_tc_040_1_configuration_keys_not_supported(bench: Bench) -> None:
    """An unknown key may be set; the operator receives NotSupported; it is stored as unknown to the charger."""
    await bench.booted()
    await bench.command("ChangeConfiguration", {"key": "NoSuchKey", "value": "1"}, {"status": "NotSupported"})
    assert await bench.remembered("configuration_keys", "name", "supported", "desired") == [
        ("NoSuchKey", False, None)
    ]


async def test_tc_040_2_configuration_keys_invalid_value(bench: Bench) -> None:
    """A value that is invalid reaches the charge point; the operator receives Rejected, and
    it is not stored as wanted."""
    await bench.booted()
    await bench.command(
        "ChangeConfiguration", {"key": "MeterValueSampleInterval", "value": "-1"}, {"status": "Rejected"}
    )
    assert await bench.remembered("configuration_keys", "name", "desired") == []


async def test_tc_064_data_transfer_to_a_central_system(bench: Bench) -> None:
    """A DataTransfer of a vendor that csms does not know is answered UnknownVendorId; it is stored, nothing is
    booked."""
    await bench.booted()
    answer = await bench.point.call("DataTransfer", vendorId="org.example", messageId="Hello", data="world")
    assert answer == {"status": "UnknownVendorId"}
    stored = await bench.remembered("data_transfers", "vendor_id", "message_id", "data", "status")
    assert stored == [("org.example", "Hello", "world", "UnknownVendorId")]
    await bench.no_transaction()
