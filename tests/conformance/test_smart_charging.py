"""Smart charging."""

import pytest

from tests.harness.conformance.bench import ACCEPTED, VALID, Bench, ahead
from tests.harness.conformance.charge_point import Payload


def _schedule(kind: str) -> Payload:
    periods = [
        {"startPeriod": 0, "limit": 16.1, "numberPhases": 3},
        {"startPeriod": 60, "limit": 8.0},
    ]
    schedule = {"duration": 300, "chargingRateUnit": "A", "chargingSchedulePeriod": periods}
    return schedule | ({"startSchedule": ahead(seconds=5)} if kind == "Absolute" else {})


def _profile(profile_id: int, purpose: str, kind: str = "Absolute", **more: object) -> Payload:
    validity = {"validFrom": ahead(), "validTo": ahead(days=1)} if kind == "Absolute" else {}
    return {
        "chargingProfileId": profile_id,
        "stackLevel": 0,
        "chargingProfilePurpose": purpose,
        "chargingProfileKind": kind,
        "chargingSchedule": _schedule(kind),
        **validity,
        **more,
    }


async def _set(bench: Bench, connector_id: int, profile: Payload) -> Payload:
    sent = await bench.command(
        "SetChargingProfile", {"connectorId": connector_id, "csChargingProfiles": profile}, ACCEPTED
    )
    return sent["csChargingProfiles"]


async def test_tc_056_central_smart_charging_tx_default_profile(bench: Bench) -> None:
    """SetChargingProfile carries an absolute TxDefaultProfile with its validity, start, duration, unit and
    periods, without transaction or recurrency; the operator receives Accepted; the profile is stored."""
    await bench.booted()
    sent = await _set(bench, 1, _profile(1, "TxDefaultProfile"))
    assert {"transactionId", "recurrencyKind"}.isdisjoint(sent)
    assert await bench.remembered("charging_profiles", "connector_id", "profile", "cleared_at") == [
        (1, sent, None)
    ]


async def _stored(bench: Bench) -> list[tuple[object, ...]]:
    """Number, purpose, transaction and whether it still counts."""
    rows = await bench.remembered("charging_profiles", "id", "purpose", "transaction_id", "cleared_at")
    return [(number, purpose, transaction, cleared is None) for number, purpose, transaction, cleared in rows]


@pytest.mark.parametrize("kind", ["Absolute", "Relative"])
async def test_tc_057_central_smart_charging_tx_profile(bench: Bench, kind: str) -> None:
    """In a session SetChargingProfile carries a TxProfile that names the transaction, absolute and relative;
    the operator receives Accepted and the session continues; the profile is stored for it."""
    await bench.booted()
    transaction_id = await bench.charging()
    sent = await _set(bench, 1, _profile(2, "TxProfile", kind, transactionId=transaction_id))
    assert sent["transactionId"] == transaction_id
    assert ("startSchedule" in sent["chargingSchedule"]) is (kind == "Absolute")
    assert (await bench.connector(1))["transactionId"] == transaction_id
    assert await _stored(bench) == [(2, "TxProfile", transaction_id, True)]


@pytest.mark.parametrize("kind", ["Absolute", "Relative"])
async def test_tc_059_remote_start_with_charging_profile(bench: Bench, kind: str) -> None:
    """RemoteStartTransaction carries connector and a TxProfile without a transaction; the operator receives
    Accepted; the session that follows is stored and published, and the profile stored as its own."""
    await bench.booted()
    sent = await bench.command(
        "RemoteStartTransaction",
        {"idTag": VALID, "connectorId": 1, "chargingProfile": _profile(3, "TxProfile", kind)},
        ACCEPTED,
    )
    assert "transactionId" not in sent["chargingProfile"]
    assert await _stored(bench) == [(3, "TxProfile", None, True)]
    transaction_id = await bench.charging()
    assert await _stored(bench) == [(3, "TxProfile", transaction_id, True)]


async def test_tc_066_get_composite_schedule(bench: Bench) -> None:
    """GetCompositeSchedule asks for connector, duration and unit; the operator receives the whole schedule."""
    await bench.booted()
    await _set(bench, 1, _profile(1, "TxDefaultProfile"))
    await bench.command(
        "GetCompositeSchedule",
        {"connectorId": 1, "duration": 300, "chargingRateUnit": "A"},
        {
            "status": "Accepted",
            "connectorId": 1,
            "scheduleStart": ahead(),
            "chargingSchedule": _schedule("Absolute"),
        },
    )


async def test_tc_067_clear_charging_profile(bench: Bench) -> None:
    """Three profiles of one level and different numbers are set, then cleared by number alone, by criteria
    without number, and all; the operator receives Accepted each time, and each is stored as cleared when it is."""
    await bench.booted()
    transaction_id = await bench.charging()
    await _set(bench, 0, _profile(1, "ChargePointMaxProfile"))
    await _set(bench, 1, _profile(2, "TxDefaultProfile"))
    await _set(bench, 1, _profile(3, "TxProfile", transactionId=transaction_id))

    async def counting() -> list[object]:
        return [number for number, _, _, counts in await _stored(bench) if counts]

    assert await counting() == [1, 2, 3]
    await bench.command("ClearChargingProfile", {"id": 3}, ACCEPTED)
    assert await counting() == [1, 2]
    await bench.command(
        "ClearChargingProfile",
        {"connectorId": 1, "chargingProfilePurpose": "TxDefaultProfile", "stackLevel": 0},
        ACCEPTED,
    )
    assert await counting() == [1]
    await bench.command("ClearChargingProfile", {}, ACCEPTED)
    assert await counting() == []
    assert (await bench.connector(1))["transactionId"] == transaction_id
