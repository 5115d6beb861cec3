import contextlib
import itertools

import pytest

from tests.harness.central_system import Central, charge_point, running
from tests.harness.waiting import until

PATH = "/ocpp/CP1"


@contextlib.asynccontextmanager
async def idle(**options):
    """A charge point that waits for orders, with its central system."""
    async with Central() as central:
        one = charge_point(
            central, **{"automatic": False, "charge_s": (36_000, 36_000), "speed": 1200, **options}
        )
        async with running(one):
            await until(
                lambda: one.in_service and len(central.actions("StatusNotification")) > len(one.connectors)
            )

            async def ask(action, **payload):
                return await central.ask(PATH, action, **payload)

            yield central, one, ask
    assert central.faults == []


async def started(central, one, ask, **payload):
    answer = await ask("RemoteStartTransaction", id_tag="R", **payload)
    assert answer.status == "Accepted"
    await until(lambda: one.transactions and one.transactions[-1].start_answered)
    return one.transactions[-1]


async def test_remote_start_and_remote_stop():
    async with idle(connectors=2) as (central, one, ask):
        transaction = await started(central, one, ask, connector_id=2)
        assert (transaction.connector_id, transaction.id_tag) == (2, "R")
        assert len(central.actions("Authorize")) == 1
        assert (await ask("RemoteStartTransaction", id_tag="R", connector_id=2)).status == "Rejected"
        assert (await ask("RemoteStopTransaction", transaction_id=1)).status == "Rejected"
        stop = await ask("RemoteStopTransaction", transaction_id=transaction.transaction_id)
        assert stop.status == "Accepted"
        await until(lambda: transaction.stop_acknowledged)
    assert central.actions("StopTransaction")[0]["reason"] == "Remote"


async def test_remote_start_without_authorization_when_configured():
    async with idle(configuration={"AuthorizeRemoteTxRequests": "false"}) as (central, one, ask):
        await started(central, one, ask)
        assert central.actions("Authorize") == []


async def test_unlocking_ends_the_transaction():
    async with idle() as (central, one, ask):
        transaction = await started(central, one, ask)
        assert (await ask("UnlockConnector", connector_id=1)).status == "Unlocked"
        assert (await ask("UnlockConnector", connector_id=9)).status == "NotSupported"
        await until(lambda: transaction.stop_acknowledged)
        assert transaction.stop_reason == "UnlockCommand"


async def test_availability_waits_for_the_transaction_to_end():
    async with idle() as (central, one, ask):
        assert (await ask("ChangeAvailability", connector_id=5, type="Inoperative")).status == "Rejected"
        assert (await ask("ChangeAvailability", connector_id=0, type="Inoperative")).status == "Accepted"
        await until(lambda: central.statuses(0)[-1] == central.statuses(1)[-1] == "Unavailable")
        assert (await ask("RemoteStartTransaction", id_tag="R")).status == "Rejected"
        assert (await ask("ChangeAvailability", connector_id=0, type="Operative")).status == "Accepted"
        await until(lambda: central.statuses(1)[-1] == "Available")
        transaction = await started(central, one, ask)
        assert (await ask("ChangeAvailability", connector_id=1, type="Inoperative")).status == "Scheduled"
        await ask("RemoteStopTransaction", transaction_id=transaction.transaction_id)
        await until(lambda: central.statuses(1)[-1] == "Unavailable")


async def test_configuration_is_read_and_changed_and_takes_effect():
    async with idle() as (central, one, ask):
        answer = await ask("GetConfiguration", key=["NumberOfConnectors", "Nonsense"])
        assert answer.configuration_key == [{"key": "NumberOfConnectors", "readonly": True, "value": "1"}]
        assert answer.unknown_key == ["Nonsense"]
        assert len((await ask("GetConfiguration")).configuration_key) > 20
        change = await ask("ChangeConfiguration", key="MeterValueSampleInterval", value="60")
        assert change.status == "Accepted"
        await started(central, one, ask)
        await until(lambda: len(central.actions("MeterValues")) >= 3)


async def test_a_new_authorization_key_is_used_at_once():
    async with idle(password="old") as (central, one, ask):
        answer = await ask("ChangeConfiguration", key="AuthorizationKey", value="41" * 16)
        assert answer.status == "Accepted"
        await until(lambda: len(central.headers) == 2)
        assert central.headers[0] != central.headers[1]
        assert one.password == b"A" * 16


@pytest.mark.parametrize(
    ("message", "action", "number"),
    [
        ("BootNotification", "BootNotification", 1),
        ("Heartbeat", "Heartbeat", 1),
        ("StatusNotification", "StatusNotification", 2),
        ("MeterValues", "MeterValues", 1),
        ("FirmwareStatusNotification", "FirmwareStatusNotification", 1),
        ("DiagnosticsStatusNotification", "DiagnosticsStatusNotification", 1),
    ],
)
async def test_a_trigger_sends_the_message_it_names(message, action, number):
    async with idle() as (central, one, ask):
        before = len(central.actions(action))
        assert (await ask("TriggerMessage", requested_message=message)).status == "Accepted"
        await until(lambda: len(central.actions(action)) == before + number)
        assert (await ask("TriggerMessage", requested_message=message, connector_id=7)).status == "Rejected"
        assert one.in_service


async def test_triggered_meter_values_of_a_transaction_carry_its_id():
    async with idle(configuration={"MeterValueSampleInterval": "0"}) as (central, one, ask):
        transaction = await started(central, one, ask)
        await ask("TriggerMessage", requested_message="MeterValues", connector_id=1)
        await until(lambda: central.actions("MeterValues"))
        (sent,) = central.actions("MeterValues")
        assert sent["transactionId"] == transaction.transaction_id
        assert sent["meterValue"][0]["sampledValue"][0]["context"] == "Trigger"


async def test_the_local_list_and_the_cache():
    async with idle() as (central, one, ask):
        assert (await ask("GetLocalListVersion")).list_version == 0
        entries = [{"idTag": "LOCAL", "idTagInfo": {"status": "Accepted"}}]
        answer = await ask(
            "SendLocalList", list_version=4, update_type="Full", local_authorization_list=entries
        )
        assert answer.status == "Accepted"
        assert (await ask("GetLocalListVersion")).list_version == 4
        assert (await ask("ClearCache")).status == "Accepted"
        await ask("ChangeConfiguration", key="LocalPreAuthorize", value="true")
        await ask("RemoteStartTransaction", id_tag="LOCAL")
        await until(lambda: one.transactions)
        assert central.actions("Authorize") == []


async def test_reservations_hold_a_connector_for_one_tag():
    far, past = "2099-01-01T00:00:00Z", "2001-01-01T00:00:00Z"
    async with idle() as (central, one, ask):

        async def reserve(number, tag, expiry=far, connector=1):
            answer = await ask(
                "ReserveNow", connector_id=connector, expiry_date=expiry, id_tag=tag, reservation_id=number
            )
            return answer.status

        assert await reserve(1, "A", connector=0) == "Rejected"
        assert await reserve(1, "A") == "Accepted"
        await until(lambda: central.statuses()[-1] == "Reserved")
        assert await reserve(2, "B") == "Occupied"
        assert (await ask("RemoteStartTransaction", id_tag="B")).status == "Rejected"
        assert (await ask("CancelReservation", reservation_id=9)).status == "Rejected"
        assert (await ask("CancelReservation", reservation_id=1)).status == "Accepted"
        await until(lambda: central.statuses()[-1] == "Available")
        assert await reserve(3, "C", expiry=past) == "Accepted"
        await until(lambda: one.connectors[1].reservation is None)
        assert await reserve(4, "R") == "Accepted"
        await started(central, one, ask)
        assert central.actions("StartTransaction")[0]["reservationId"] == 4


async def test_charging_profiles_are_kept_reported_and_cleared():
    periods = [{"startPeriod": 0, "limit": 10.0}]
    profile = {
        "chargingProfileId": 5,
        "stackLevel": 1,
        "chargingProfilePurpose": "TxDefaultProfile",
        "chargingProfileKind": "Relative",
        "chargingSchedule": {"chargingRateUnit": "A", "chargingSchedulePeriod": periods},
    }
    async with idle() as (central, one, ask):
        tx = profile | {"chargingProfilePurpose": "TxProfile"}
        refused = await ask("SetChargingProfile", connector_id=1, cs_charging_profiles=tx)
        assert refused.status == "Rejected"  # there is no transaction
        answer = await ask("SetChargingProfile", connector_id=1, cs_charging_profiles=profile)
        assert answer.status == "Accepted"
        composite = await ask("GetCompositeSchedule", connector_id=1, duration=60, charging_rate_unit="A")
        assert composite.status == "Accepted"
        assert composite.charging_schedule["charging_schedule_period"] == [{"start_period": 0, "limit": 10.0}]
        assert (await ask("GetCompositeSchedule", connector_id=8, duration=60)).status == "Rejected"
        assert (await ask("ClearChargingProfile", id=6)).status == "Unknown"
        assert (await ask("ClearChargingProfile", id=5)).status == "Accepted"


async def test_data_transfer_of_an_unknown_vendor_is_refused():
    async with idle() as (central, one, ask):
        assert (await ask("DataTransfer", vendor_id="unknown")).status == "UnknownVendorId"


async def test_a_pending_charge_point_starts_nothing():
    async with Central() as central:
        central.boot_statuses = itertools.repeat("Pending")
        one = charge_point(central)
        async with running(one):
            await until(lambda: one.registration == "Pending")
            assert (await central.ask(PATH, "RemoteStartTransaction", id_tag="R")).status == "Rejected"
