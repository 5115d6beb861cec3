import asyncio
import time

import pytest

from csms.simulate import ChargePointOptions, SimulatedFleet
from tests.harness.central_system import FAST, Central
from tests.harness.waiting import until

QUICK = ChargePointOptions(speed=1200)


async def test_a_fleet_plays_its_sessions_and_sums_them_up():
    events = []
    async with Central() as central:
        summary = await SimulatedFleet(
            central.url,
            ChargePointOptions(connectors=2, speed=FAST, on_event=events.append),
            chargers=6,
            prefix="T",
            sessions=1,
            ramp_s=0.1,
        ).run()
    assert central.faults == []
    assert sorted(central.sessions) == [f"/ocpp/T-00{n}" for n in range(1, 7)]
    assert summary.sessions == summary.delivered == len(central.actions("StopTransaction")) == 12
    assert summary.ever_connected == 6
    assert summary.connected == summary.charging == summary.undelivered == 0
    stops, starts = central.actions("StopTransaction"), central.actions("StartTransaction")
    assert summary.energy_wh == sum(s["meterStop"] for s in stops) - sum(s["meterStart"] for s in starts)
    assert summary.counters.calls == summary.counters.answers == len(central.seen)
    assert summary.faultless
    assert len(summary.believed["T-003"]) == 2
    assert {event.kind for event in events} >= {"connected", "booted", "started", "stopped"}


async def test_at_the_end_of_the_duration_sessions_end_and_are_delivered():
    async with Central() as central:
        summary = await SimulatedFleet(central.url, QUICK, chargers=3, duration_s=0.6, ramp_s=0).run()
    assert summary.sessions == summary.delivered == len(central.actions("StartTransaction"))
    assert summary.connected == 0
    assert summary.undelivered == 0


async def test_cancelled_it_ends_cleanly_with_a_summary():
    before = asyncio.all_tasks()
    async with Central() as central:
        task = asyncio.create_task(SimulatedFleet(central.url, QUICK, chargers=3, ramp_s=0).run())
        await until(lambda: len(central.actions("StartTransaction")) == 3)
        task.cancel()
        summary = await task
    assert summary.sessions == summary.delivered == 3
    await until(lambda: asyncio.all_tasks() <= before)


async def test_cancelled_twice_it_ends_at_once():
    async with Central() as central:
        central.verdict = lambda action, payload: "silent" if action == "StopTransaction" else None
        before = asyncio.all_tasks()
        task = asyncio.create_task(SimulatedFleet(central.url, QUICK, chargers=1, ramp_s=0, grace_s=60).run())
        await until(lambda: central.actions("StartTransaction"))
        task.cancel()
        await until(lambda: central.actions("StopTransaction"))
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await until(lambda: asyncio.all_tasks() <= before)


async def test_without_a_central_system_it_says_why():
    async with Central() as central:
        url = central.url
    summary = await SimulatedFleet(url, chargers=2, duration_s=0.2, ramp_s=0).run()
    assert summary.ever_connected == 0
    assert summary.last_failure


async def test_callerrors_to_transaction_messages_are_a_fault():
    async with Central() as central:
        central.verdict = lambda action, payload: "error" if action == "MeterValues" else None
        fleet = SimulatedFleet(
            central.url, ChargePointOptions(speed=FAST), chargers=1, sessions=1, grace_s=0.1
        )
        task = asyncio.create_task(fleet.run())
        await until(lambda: fleet.summary().counters.transaction_callerrors)
        task.cancel()
        summary = await task
    assert not summary.faultless
    assert summary.counters.transaction_callerrors == 1  # the retry would come after ten seconds
    assert summary.undelivered


async def test_connecting_is_spread_over_the_ramp():
    async with Central() as central:
        begun = time.monotonic()
        fleet = SimulatedFleet(central.url, chargers=4, ramp_s=0.8, duration_s=10)
        task = asyncio.create_task(fleet.run())
        await until(lambda: fleet.summary().connected == 4)
        assert time.monotonic() - begun >= 0.55
        task.cancel()
        await task


def test_an_empty_fleet_is_refused():
    with pytest.raises(ValueError, match="at least one"):
        SimulatedFleet("ws://127.0.0.1:1", chargers=0)
