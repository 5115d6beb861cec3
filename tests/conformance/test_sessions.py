"""Boot, charging sessions, authorization cache."""

import asyncio

from tests.harness.conformance.bench import ACCEPTED, VALID, Bench


async def test_tc_001_cold_boot_charge_point(bench: Bench) -> None:
    """The boot is accepted with time and interval, each connector's status and two heartbeats an interval
    apart are answered; the charger's identity and statuses are stored."""
    await bench.point.dial()
    interval_s = (await bench.boot())["interval"]
    for connector_id in (0, 1, 2):
        await bench.status(connector_id, "Available")
    for _ in range(2):
        await asyncio.sleep(interval_s)
        assert set(await bench.point.call("Heartbeat")) == {"currentTime"}
    charger = await bench.charger()
    assert (charger["online"], charger["enrollment"]) == (True, "Accepted")
    assert (charger["vendor"], charger["model"], charger["serialNumber"]) == ("Bench", "One", "SN-1")
    assert charger["bootedAt"] is not None
    assert [(c["connectorId"], c["status"]) for c in charger["connectors"]] == [
        (0, "Available"),
        (1, "Available"),
        (2, "Available"),
    ]


async def test_tc_003_regular_charging_session_plugin_first(bench: Bench) -> None:
    """Preparing, an accepted tag, an accepted start and Charging; the running transaction is stored and published,
    the change to Charging names it."""
    await bench.booted()
    await bench.status(1, "Preparing")
    await bench.authorized()
    transaction_id = await bench.start()
    await bench.status(1, "Charging")
    assert (await bench.connector(1))["status"] == "Charging"
    await bench.verify()
    assert bench.node.of("status_changed", bench.id)[-1]["payload"]["transactionId"] == transaction_id


async def test_tc_004_1_identification_first(bench: Bench) -> None:
    """The tag is accepted before the cable is in, then the start; the running transaction is stored and
    published."""
    await bench.booted()
    await bench.charging()
    connector = await bench.connector(1)
    assert connector["status"] == "Charging"


async def test_tc_004_2_identification_first_connection_timeout(bench: Bench) -> None:
    """After the tag Preparing and, too late, Available are answered; no transaction is stored or published."""
    await bench.booted()
    await bench.authorized()
    await bench.status(1, "Preparing")
    await bench.status(1, "Available")
    assert (await bench.connector(1))["status"] == "Available"
    await bench.no_transaction()


async def test_tc_005_1_ev_side_disconnected(bench: Bench) -> None:
    """SuspendedEV, the stop for EVDisconnected, Finishing and Available are answered; the session is closed
    with that reason, its energy and its price, and published."""
    await bench.booted()
    transaction_id = await bench.charging()
    await bench.status(1, "SuspendedEV")
    assert await bench.stop(transaction_id, reason="EVDisconnected") == {}
    await bench.status(1, "Finishing")
    await bench.status(1, "Available")
    assert (await bench.connector(1))["transactionId"] is None


async def test_tc_007_regular_start_charging_session_cached_id(bench: Bench) -> None:
    """A start without an Authorize before it is accepted; the running transaction is stored and published."""
    await bench.booted()
    await bench.status(1, "Preparing")
    await bench.start(VALID)
    await bench.status(1, "Charging")


async def test_tc_061_clear_authorization_data_in_authorization_cache(bench: Bench) -> None:
    """ClearCache reaches the charge point; its Accepted reaches the operator."""
    await bench.booted()
    await bench.command("ClearCache", {}, ACCEPTED)
    await bench.no_transaction()
