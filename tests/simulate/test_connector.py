import random
from datetime import datetime

import pytest

from csms.simulate.battery_and_meter import AC_22, DC_150, VEHICLES, Charge
from csms.simulate.connector import sampled_values
from tests.harness.central_system import Central, charge_point, play, running
from tests.harness.waiting import until

ALL = ("Energy.Active.Import.Register", "Power.Active.Import", "Current.Import", "Voltage", "SoC")


def values(payload, measurand):
    return [
        float(sample["value"])
        for entry in payload["meterValue"]
        for sample in entry["sampledValue"]
        if sample["measurand"] == measurand
    ]


def reading(vehicle, outlet):
    charge = Charge(vehicle, outlet, 40.0, 1000.0)
    charge.advance(60)
    return charge.reading(random.Random(0))


def test_a_three_phase_outlet_shows_each_phase_and_no_state_of_charge():
    shown = sampled_values(reading(VEHICLES[2], AC_22), AC_22, ALL, "Sample.Periodic")
    assert [(one["measurand"], one.get("phase")) for one in shown] == [
        ("Energy.Active.Import.Register", None),
        ("Power.Active.Import", None),
        *[("Current.Import", f"L{n}") for n in (1, 2, 3)],
        *[("Voltage", f"L{n}-N") for n in (1, 2, 3)],
    ]


def test_a_direct_current_outlet_shows_the_state_of_charge():
    shown = {one["measurand"]: one for one in sampled_values(reading(VEHICLES[2], DC_150), DC_150, ALL, "x")}
    assert float(shown["SoC"]["value"]) > 40
    assert shown["SoC"]["unit"] == "Percent"
    assert "phase" not in shown["Voltage"]


async def test_a_session_reports_every_step_and_its_energy_is_power_times_time():
    async with Central() as central:
        one = charge_point(central, charge_s=(3600, 3600))
        await play(one, 1)
    assert central.faults == []
    # Statuses and transaction messages share the line, so their mutual order is not fixed.
    assert central.statuses() == ["Available", "Preparing", "Charging", "Finishing", "Available"]
    flow = central.order(
        "BootNotification", "Authorize", "StartTransaction", "MeterValues", "StopTransaction"
    )
    samples = central.actions("MeterValues")
    assert flow == [
        "BootNotification",
        "Authorize",
        "StartTransaction",
        *["MeterValues"] * len(samples),
        "StopTransaction",
    ]
    (start,), (stop,) = central.actions("StartTransaction"), central.actions("StopTransaction")
    stamps = [start["timestamp"], *[one["meterValue"][0]["timestamp"] for one in samples], stop["timestamp"]]
    registers = [start["meterStart"], *[values(one, ALL[0])[0] for one in samples], stop["meterStop"]]
    assert registers == sorted(registers)
    powers = [values(sample, ALL[1])[0] for sample in samples]
    for k, power in enumerate(powers):
        took_s = (datetime.fromisoformat(stamps[k + 1]) - datetime.fromisoformat(stamps[k])).total_seconds()
        assert took_s == pytest.approx(300, abs=0.01)
        assert registers[k + 1] - registers[k] == pytest.approx(power * took_s / 3600, rel=0.1, abs=2)
    assert stop["transactionId"] == 7001
    contexts = [entry["sampledValue"][0]["context"] for entry in stop["transactionData"]]
    assert contexts == ["Transaction.Begin", "Transaction.End"]
    (believed,) = one.transactions
    assert (believed.meter_start_wh, believed.meter_stop_wh) == (start["meterStart"], stop["meterStop"])
    assert believed.energy_wh == one.energy_wh > 0
    assert believed.start_answered
    assert believed.stop_acknowledged
    assert believed.meter_values == believed.meter_values_acknowledged == len(samples)


async def test_the_seed_decides_drivers_and_energy():
    async def story(seed):
        async with Central() as central:
            one = charge_point(central, seed=seed, tags=["A", "B", "C"])
            await play(one, 3)
        return [
            (each.id_tag, each.meter_start_wh, each.meter_stop_wh, each.stop_reason)
            for each in one.transactions
        ]

    first = await story(5)
    assert first == await story(5)
    assert first != await story(6)
    for before, after in zip(first, first[1:], strict=False):
        assert after[1] == before[2]  # the register goes on where it stood


async def test_a_refused_driver_leaves_without_a_transaction():
    async with Central() as central:
        central.tag_statuses = {"SIMTAG": "Blocked"}
        one = charge_point(central)
        await play(one, 1)
    assert one.transactions == []
    assert one.counters.refused == 1
    assert central.statuses()[-1] == "Available"


async def test_a_tag_refused_at_the_start_is_stopped_as_deauthorized():
    async with Central() as central:
        central.start_statuses = {"SIMTAG": "Invalid"}
        one = charge_point(central, speed=1200, charge_s=(36_000, 36_000))
        await play(one, 1)
    (stop,) = central.actions("StopTransaction")
    assert stop["reason"] == "DeAuthorized"
    assert one.transactions[0].id_tag_status == "Invalid"


async def test_a_tag_refused_at_the_start_gets_no_energy_when_the_transaction_may_go_on():
    async with Central() as central:
        central.start_statuses = {"SIMTAG": "Expired"}
        keys = {"StopTransactionOnInvalidId": "false", "MeterValueSampleInterval": "60"}
        one = charge_point(central, speed=1200, charge_s=(1200, 1200), configuration=keys)
        await play(one, 1)
    assert central.actions("StopTransaction")[0]["reason"] != "DeAuthorized"
    assert "SuspendedEVSE" in central.statuses()
    assert one.energy_wh < 1500  # what flowed before the answer came


async def test_a_charging_profile_limits_the_power():
    limit = {
        "chargingProfileId": 1,
        "stackLevel": 0,
        "chargingProfilePurpose": "TxDefaultProfile",
        "chargingProfileKind": "Relative",
        "chargingSchedule": {
            "chargingRateUnit": "W",
            "chargingSchedulePeriod": [{"startPeriod": 0, "limit": 1500.0}],
        },
    }
    async with Central() as central:
        one = charge_point(central, outlet=DC_150, automatic=False, charge_s=(3600, 3600))
        async with running(one, 1) as task:
            await until(lambda: one.in_service)
            answer = await central.ask(
                "/ocpp/CP1", "SetChargingProfile", connector_id=1, cs_charging_profiles=limit
            )
            assert answer.status == "Accepted"
            await central.ask("/ocpp/CP1", "RemoteStartTransaction", id_tag="R")
            await asyncio_wait(task)
    powers = [values(sample, "Power.Active.Import")[0] for sample in central.actions("MeterValues")]
    assert powers
    assert set(powers) == {1500.0}
    assert one.energy_wh == pytest.approx(1500, abs=20)


async def asyncio_wait(task):
    await until(task.done)
    task.result()
