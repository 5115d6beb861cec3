"""The seventeen sequences that a bridge for these stations must get right; the vectors of its prices are in
test_station.py.

Each is named by its number. Where commands or minutes matter, the bridge, the simulated stations and the books stand in
one process on a virtual clock (fleet.py); elsewhere a station's packets are enough (story.py).
"""

import asyncio
from collections import defaultdict
from decimal import Decimal
from typing import Any

import pytest

from csms.core.pricing import session_cost
from csms.errors import ChargerOffline
from csms.simulate.coin_op import FakeStation, StationBehaviour
from tests.harness import virtual_clock
from tests.harness.bridges.coin_op_station import TARIFF, StationHarness, whole_rental
from tests.harness.bridges.virtual_fleet import VirtualFleet

UID = "lDpl3b3d21Ma0vUBoMYdJuoOsVI3"
HOURS = StationBehaviour(plug_s=40, charge_s=3560, unplug_s=20)


def station(station_id: str = "s1", **behaviour: Any) -> FakeStation:
    return FakeStation(
        id=station_id,
        behaviour=StationBehaviour(**({"plug_s": 40, "charge_s": 3560, "unplug_s": 20} | behaviour)),
    )


def test_01_a_whole_rental_is_one_transaction_and_one_bill():
    story = StationHarness()
    whole_rental(story)
    t = story.transaction
    assert (t.energy_wh, t.duration_s, t.stop_reason, t.inferred) == (1840, 5400, "Remote", False)
    assert t.anomalies == ()
    assert (t.cost, t.cost_minor) == (Decimal("24.78"), 2478)
    assert story.statuses == [
        "Available",
        "Preparing",
        "Charging",
        "SuspendedEV",
        "Finishing",
        "Available",
    ]
    bill = story.bill
    assert {
        name: bill[name]
        for name in ("energyConsumed", "duration", "estimatedCost", "currency", "pricingModel")
    } == {
        "energyConsumed": 1.84,
        "duration": 90.0,
        "estimatedCost": 24.78,
        "currency": "UAH",
        "pricingModel": "energy_and_time",
    }
    assert (bill["energyRate"], bill["timeRate"]) == (12.0, 0.03)


def test_02_a_counter_that_goes_on_is_billed_by_its_difference():
    story = StationHarness()
    whole_rental(story, first_wh=51234)
    assert story.transaction.energy_wh == 1840
    assert story.transaction.meter_start_wh == 51234
    assert story.bill["estimatedCost"] == 24.78


def test_03_a_counter_that_is_reset_in_mid_session_loses_nothing():
    story = StationHarness()
    for time, energy in ((0, 0), (100, 500), (200, 900), (300, 3), (400, 40)):
        story.until(time)
        story.says("busy" if time == 0 else "charging", time, energy)
    story.says("done", 400, 40)
    assert story.transaction.energy_wh == 940
    assert "meter_reset" in story.transaction.anomalies


def test_04_a_lost_done_is_inferred_from_the_next_ready():
    story = StationHarness()
    story.says("busy", 0, 0)
    story.until(1000)
    story.says("charging", 1000, 300)
    story.wait(20)
    story.says("ready")
    t = story.transaction
    assert (t.duration_s, t.energy_wh, t.stop_reason, t.inferred) == (1020, 300, "Other", True)
    assert t.energy_source == "last_reading"


def test_10_a_station_that_reboots_in_mid_session_goes_on():
    story = StationHarness()
    story.says("busy", 0, 0)
    story.until(500)
    story.says("charging", 500, 100)
    story.says("init")
    story.wait(60)
    story.says("charging", 560, 110)
    story.says("done", 560, 110)
    assert (story.transaction.duration_s, story.transaction.energy_wh) == (560, 110)
    assert story.transaction.stop_reason == "Local"


@pytest.mark.parametrize("comes_back", [True, False])
def test_10_one_that_forgets_its_session_ends_it_at_the_last_packet(comes_back):
    story = StationHarness()
    story.says("busy", 0, 0)
    story.until(500)
    story.says("charging", 500, 100)
    story.says("init")
    if comes_back:
        story.wait(10)
        story.says("ready")
    else:
        story.wait(119)
        assert story.transaction.open
        story.wait(1)
    t = story.transaction
    assert (t.stop_reason, t.duration_s, t.energy_wh, t.inferred) == ("Reboot", 500, 100, True)


def test_11_a_retained_packet_starts_and_stops_nothing_and_leads_to_a_hello():
    story = StationHarness()
    story.says("charging", 999, 5, retained=True)
    assert story.hellos == 1
    story.says("ready")
    assert story.desk.transactions == {}
    story.says("busy", 0, 0)
    story.says("ready", retained=True)
    assert story.transaction.open


def test_12_late_and_double_packets_are_dropped():
    story = StationHarness(meter_interval_s=1)
    story.says("busy", 0, 0)
    for time in (10, 12, 11, 12):
        story.until(max(time, story.at))
        story.says("charging", time, time)
    assert story.anomalies == ["late", "double"]
    assert [r.sampled_at.second for r in story.desk.readings] == [40, 42]
    story.says("done", 13, 13)
    story.says("done", 13, 13)
    assert story.anomalies[-1] == "double"
    assert story.transaction.energy_wh == 13


def test_13_charging_again_after_completed_is_the_same_transaction():
    story = StationHarness()
    story.says("busy", 0, 0)
    for time, status in ((10, "charging"), (20, "completed"), (30, "charging")):
        story.until(time)
        story.says(status, time, time)
    assert story.statuses[-2:] == ["SuspendedEV", "Charging"]
    assert story.transaction.open
    assert "unexpected_transition" not in story.anomalies


def test_16_a_uid_of_28_characters_comes_through_whole():
    uid = "lDpl3b3d21Ma0vUBoMYdJuoOsVI3"
    story = StationHarness()
    story.says("busy", 0, 0, uid=uid)
    story.until(60)
    story.says("done", 60, 5, uid=uid)
    assert len(uid) == 28
    assert story.transaction.id_tag == uid
    assert story.desk.payloads("started")[0]["idTag"] == uid
    assert story.bill["idTag"] == uid


# --- with the station, on a virtual clock --------------------------------------------------------------------


def test_01_a_whole_rental_by_commands():
    async def story():
        async with VirtualFleet(station()) as fleet:
            assert await fleet.rent() == {"status": "Accepted"}
            await asyncio.sleep(5400)
            assert await fleet.stop() == {"status": "Accepted"}
            await fleet.until(fleet.is_free)
            t = fleet.transaction
            assert (t.stop_reason, t.inferred, t.anomalies) == ("Remote", False, ())
            # Power for 3,560 s; the rental for as long as the station says.
            assert (t.energy_wh, 5398 <= t.duration_s <= 5401) == (2185, True)
            (bill,) = fleet.desk.payloads("session_cost")
            assert bill["amountMinor"] == session_cost(TARIFF, 2185, Decimal(t.duration_s)).amount_minor
            assert fleet.statuses[-6:] == [
                "Available",
                "Preparing",
                "Charging",
                "SuspendedEV",
                "Finishing",
                "Available",
            ]
            assert (fleet.sent("connect"), fleet.sent("stop")) == (["A"], ["A"])

    virtual_clock.run(story())


def test_05_a_station_in_use_gets_no_command_and_its_renter_is_not_named():
    async def story():
        async with VirtualFleet(station()) as fleet:
            await fleet.rent("B")
            await asyncio.sleep(700)  # longer ago than fifteen seconds: it is asked
            before = len(fleet.commands)
            answer = await fleet.rent("A")
            assert answer == {"status": "Rejected", "statusInfo": {"reasonCode": "Occupied"}}
            assert [text for _, _, text in fleet.commands[before:] if not text.startswith("hello:")] == []
            assert fleet.stations["s1"].uid == "B"

    virtual_clock.run(story())


@pytest.mark.parametrize(("says_at", "offline"), [(None, True), (14.9, False)])
def test_06_silence_after_hello_is_an_error_after_fifteen_seconds(says_at, offline):
    async def story():
        async with VirtualFleet(station()) as fleet:
            await asyncio.sleep(60)  # what it said is too old
            fleet.behave("s1", silent=True)
            asked = asyncio.create_task(fleet.rent())
            await fleet.until(lambda: fleet.sent("hello") == ["A"])
            hello_at = fleet.commands[-1][0]
            await asyncio.sleep(hello_at + 14.9 - fleet.at)
            assert not asked.done()
            if says_at is not None:
                fleet.behave("s1", silent=False)
                fleet.says("s1", "ready")
            await asyncio.sleep(0.2)
            if offline:
                assert asked.done()
                with pytest.raises(ChargerOffline):
                    await asked
                assert fleet.sent("connect") == []
                await asyncio.sleep(hello_at + 20 - fleet.at)
                fleet.behave("s1", silent=False)
                fleet.says("s1", "ready")
                await asyncio.sleep(0.1)
                assert fleet.handler().tracker.online
            else:
                assert await asked == {"status": "Accepted"}

    virtual_clock.run(story())


def test_06_a_station_is_offline_after_three_hellos_until_its_next_packet():
    async def story():
        async with VirtualFleet(station()) as fleet:
            fleet.behave("s1", silent=True)
            await fleet.until(lambda: "coinop-s1" not in fleet.held, within_s=3 * 315 + 10)
            assert fleet.statuses[-1] == "Unavailable"
            fleet.says("s1", "ready")
            await fleet.until(fleet.is_free)
            assert fleet.statuses[-1] == "Available"

    virtual_clock.run(story())


def test_07_two_taps_are_one_connect_and_one_transaction():
    async def story():
        async with VirtualFleet(station()) as fleet:
            answers = await asyncio.gather(fleet.rent(), fleet.rent(), fleet.rent())
            assert answers == [{"status": "Accepted"}] * 3
            await asyncio.sleep(5)
            assert fleet.sent("connect") == ["A"]
            assert fleet.stations["s1"].doors_opened == 1
            assert await fleet.rent() == {"status": "Accepted"}  # it is open already
            assert fleet.sent("connect") == ["A"]
            assert fleet.transaction.open

    virtual_clock.run(story())


def test_08_a_foreign_stop_changes_nothing_and_is_never_sent():
    async def story():
        async with VirtualFleet(station()) as fleet:
            await fleet.rent("A")
            await asyncio.sleep(100)
            number = fleet.handler().transaction_id
            answer = await fleet.ask("RemoteStopTransaction", transactionId=number + 1)
            assert answer["statusInfo"] == {"reasonCode": "NoSuchTransaction"}
            assert fleet.sent("stop") == []
            fleet.deliver("charger/s1/commands", b"stop:B")  # past us, straight to the broker
            await asyncio.sleep(5)
            assert fleet.stations["s1"].state == "charging"
            assert fleet.transaction.open
            assert fleet.handler().tracker.rental.stop_asked_at is None

    virtual_clock.run(story())


def test_09_a_bridge_that_starts_in_mid_session_goes_on_with_the_same_transaction():
    async def story():
        async with VirtualFleet(station()) as fleet:
            fleet.enrollment["coinop-s1"] = "Accepted"  # registered: it is asked at once
            await fleet.rent()
            await asyncio.sleep(2000)
            before = fleet.transaction
            await fleet.kill_bridge()
            await fleet.until(lambda: "csms" in fleet.sent("hello"), within_s=30)
            await fleet.until(lambda: fleet.handler().tracker.last_packet_at)
            await asyncio.sleep(100)
            assert fleet.transaction.id == before.id
            await fleet.stop()
            t = fleet.transaction
            assert (t.stop_reason, t.energy_wh) == ("Remote", int(fleet.stations["s1"].counter_wh))
            assert abs(t.duration_s - fleet.stations["s1"].time) <= 1
            assert len(fleet.desk.payloads("session_cost")) == 1

    virtual_clock.run(story())


def test_14_packets_come_every_second_for_ten_minutes_after_an_own_command():
    async def story():
        async with VirtualFleet(station(charge_s=100_000)) as fleet:
            await fleet.rent()
            connected_at = fleet.at
            heard = fleet.heard

            def gaps(first: float, last: float) -> set[float]:
                times = [at for at, _, _ in heard if first <= at - connected_at <= last]
                return {round(b - a) for a, b in zip(times, times[1:], strict=False)}

            await asyncio.sleep(650)
            assert gaps(1, 599) == {1}
            fleet.deliver("charger/s1/commands", b"hello:stranger")  # answered once, and nothing more
            await asyncio.sleep(49)
            assert 1 not in gaps(655, 699)
            fleet.deliver("charger/s1/commands", f"hello:{fleet.stations['s1'].uid}".encode())
            await asyncio.sleep(700)
            assert gaps(702, 1298) == {1}
            await asyncio.sleep(300)
            assert gaps(1310, 1690) == {30}

    virtual_clock.run(story())


def test_15_debits_during_a_rental_add_up_to_its_price():
    async def story():
        async with VirtualFleet(debit="dynamic", meter_interval_s=1, require_account=True) as fleet:
            fleet.with_money(UID, 10_000)
            fleet.says("s1", "ready")
            await fleet.until(fleet.is_free)
            renting = asyncio.create_task(fleet.rent(UID))
            await fleet.until(lambda: fleet.sent("connect"))
            began = fleet.at
            # 0.0225, 0.4995 and 1.8000
            for time_s, energy_wh in ((0, 0), (45, 0), (999, 0), (1200, 100)):
                await asyncio.sleep(began + time_s - fleet.at)
                fleet.says(
                    "s1", "done" if time_s == 1200 else "charging", uid=UID, time=time_s, energy=energy_wh
                )
                await asyncio.sleep(0.1)
                await fleet.until(lambda: not fleet.handler().pending_reports)
            assert await renting == {"status": "Accepted"}
            debits = [-entry.amount_minor for entry in fleet.desk.entries if entry.kind == "debit"]
            assert debits == [2, 48, 130]
            assert fleet.desk.accounts[UID].balance_minor == 10_000 - 180
            assert fleet.transaction.cost == Decimal("1.80")

    virtual_clock.run(story())


def test_16_a_uid_of_28_characters_is_sent_and_billed_whole():
    async def story():
        async with VirtualFleet(station(), require_account=True) as fleet:
            fleet.with_money(UID, 10_000)
            assert await fleet.rent(UID) == {"status": "Accepted"}
            await asyncio.sleep(60)
            await fleet.stop()
            assert (fleet.sent("connect"), fleet.sent("stop")) == ([UID], [UID])
            assert fleet.transaction.account_id == UID

    virtual_clock.run(story())


def test_17_ten_thousand_packets_of_two_stations_keep_the_order_of_each():
    async def story():
        async with VirtualFleet() as fleet:
            taken = defaultdict(list)
            for station_id in ("s1", "s2"):
                fleet.says(station_id, "busy", uid="A", time=0, energy=0)
                await fleet.until(lambda station_id=station_id: fleet.bridge.stations.get(station_id))
                handler = fleet.handler(station_id)
                handler.tracker.receive = _noting(handler.tracker.receive, taken[station_id])
            for second in range(1, 5001):
                for station_id in ("s1", "s2"):
                    fleet.says(station_id, "charging", uid="A", time=second, energy=second // 10)
            await fleet.until(lambda: all(order and order[-1] == 5000 for order in taken.values()))
            assert taken["s1"] == taken["s2"] == list(range(1, 5001))

    virtual_clock.run(story())


def _noting(receive: Any, order: list[int]) -> Any:
    def noted(packet: Any, *args: Any, **more: Any) -> Any:
        order.append(packet.time_s)
        return receive(packet, *args, **more)

    return noted
