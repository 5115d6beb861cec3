"""Remote start and stop, reset, unlock, configuration."""

import pytest

from tests.harness.conformance.bench import ACCEPTED, VALID, Bench

CONFIGURATION = [
    {"key": "HeartbeatInterval", "readonly": False, "value": "300"},
    {"key": "MeterValueSampleInterval", "readonly": False, "value": "60"},
    {"key": "NumberOfConnectors", "readonly": True, "value": "1"},
    {"key": "SupportedFeatureProfiles", "readonly": True, "value": "Core,RemoteTrigger,SmartCharging"},
    {"key": "AuthorizationKey", "readonly": False},
]


async def test_tc_010_remote_start_cable_plugged_in_first(bench: Bench) -> None:
    """With the cable in, RemoteStartTransaction carries the tag; the tag, the start and Charging are answered;
    the running transaction is stored and published."""
    await bench.booted()
    await bench.status(1, "Preparing")
    await bench.command("RemoteStartTransaction", {"idTag": VALID, "connectorId": 1}, ACCEPTED)
    await bench.authorized()
    await bench.start()
    await bench.status(1, "Charging")


async def test_tc_011_1_remote_start_remote_start_first(bench: Bench) -> None:
    """RemoteStartTransaction comes before the cable; the tag, the start and Charging are answered; the running
    transaction is stored and published."""
    await bench.booted()
    await bench.command("RemoteStartTransaction", {"idTag": VALID, "connectorId": 1}, ACCEPTED)
    await bench.charging()


async def test_tc_011_2_remote_start_time_out(bench: Bench) -> None:
    """No cable is plugged in after a RemoteStartTransaction: the statuses are answered, no transaction is stored or
    published."""
    await bench.booted()
    await bench.command("RemoteStartTransaction", {"idTag": VALID}, ACCEPTED)
    await bench.authorized()
    await bench.status(1, "Preparing")
    await bench.status(1, "Available")
    await bench.no_transaction()


async def test_tc_012_remote_stop_charging_session(bench: Bench) -> None:
    """RemoteStopTransaction names the running transaction; its stop for Remote is booked, priced and published."""
    await bench.booted()
    transaction_id = await bench.charging()
    await bench.command("RemoteStopTransaction", {"transactionId": transaction_id}, ACCEPTED)
    await bench.stop(transaction_id, reason="Remote")
    await bench.status(1, "Finishing")
    await bench.status(1, "Available")
    assert (await bench.connector(1))["transactionId"] is None


async def _reset(bench: Bench, kind: str) -> None:
    await bench.booted()
    before = (await bench.charger())["bootedAt"]
    await bench.command("Reset", {"type": kind}, ACCEPTED)
    await bench.point.hang_up()
    await bench.booted()
    charger = await bench.charger()
    assert charger["online"] is True
    assert charger["bootedAt"] > before


async def test_tc_013_hard_reset(bench: Bench) -> None:
    """Reset Hard reaches the charge point, its Accepted reaches the operator; after the restart it is accepted again
    and its new boot stored."""
    await _reset(bench, "Hard")


async def test_tc_014_soft_reset(bench: Bench) -> None:
    """Reset Soft reaches the charge point, its Accepted reaches the operator; after the restart it is accepted again
    and its new boot stored."""
    await _reset(bench, "Soft")


async def test_tc_017_1_unlock_connector_no_session_not_fixed_cable(bench: Bench) -> None:
    """UnlockConnector names the connector; the operator receives Unlocked."""
    await bench.booted()
    await bench.command("UnlockConnector", {"connectorId": 1}, {"status": "Unlocked"})
    await bench.no_transaction()


async def test_tc_017_2_unlock_connector_no_session_fixed_cable(bench: Bench) -> None:
    """UnlockConnector names the connector; the operator receives NotSupported."""
    await bench.booted()
    await bench.command("UnlockConnector", {"connectorId": 1}, {"status": "NotSupported"})
    await bench.no_transaction()


async def test_tc_018_1_unlock_connector_with_charging_session(bench: Bench) -> None:
    """UnlockConnector in a session: the operator receives Unlocked, the stop for UnlockCommand is booked, priced
    and published."""
    await bench.booted()
    transaction_id = await bench.charging()
    await bench.command("UnlockConnector", {"connectorId": 1}, {"status": "Unlocked"})
    await bench.status(1, "Finishing")
    await bench.stop(transaction_id, reason="UnlockCommand")
    await bench.status(1, "Available")


@pytest.mark.parametrize("payload", [{}, {"key": []}], ids=["no list", "empty list"])
async def test_tc_019_1_retrieve_all_configuration_keys(bench: Bench, payload: dict) -> None:
    """GetConfiguration goes out without keys (or with none in its list); the operator receives every entry, one
    without a value too; all but the password's are stored."""
    await bench.booted()
    await bench.command("GetConfiguration", payload, {"configurationKey": CONFIGURATION})
    assert await bench.remembered("configuration_keys", "name", "value", "readonly", "supported") == [
        (entry["key"], entry["value"], entry["readonly"], True) for entry in CONFIGURATION[:4]
    ]


async def test_tc_019_2_retrieve_specific_configuration_key(bench: Bench) -> None:
    """GetConfiguration asks for SupportedFeatureProfiles alone; the operator receives its value and that nothing
    is unknown; the value is stored."""
    await bench.booted()
    await bench.command(
        "GetConfiguration",
        {"key": ["SupportedFeatureProfiles"]},
        {"configurationKey": CONFIGURATION[3:4], "unknownKey": []},
    )
    stored = await bench.remembered("configuration_keys", "name", "value")
    assert stored == [("SupportedFeatureProfiles", CONFIGURATION[3]["value"])]


async def test_tc_021_change_set_configuration(bench: Bench) -> None:
    """ChangeConfiguration sets MeterValueSampleInterval to 60; the operator receives Accepted; the
    value is stored as the one wanted."""
    await bench.booted()
    await bench.command("ChangeConfiguration", {"key": "MeterValueSampleInterval", "value": "60"}, ACCEPTED)
    stored = await bench.remembered("configuration_keys", "name", "desired", "supported")
    assert stored == [("MeterValueSampleInterval", "60", True)]
