"""The bridge with simulated stations on a virtual clock: who is let in, what is sent, what comes of it.

What needs a real broker, the REST interface or Postgres is in test_node.py.
"""

import asyncio
from decimal import Decimal
from typing import Any

import pytest

from csms.errors import ChargerTimeout, NotSupported
from csms.simulate.coin_op import FakeStation, StationBehaviour
from tests.harness import virtual_clock
from tests.harness.bridges.virtual_fleet import VirtualFleet
from tests.harness.command_answers import answered

PLAIN = StationBehaviour(plug_s=40, charge_s=100_000, unplug_s=20)


def plain(station_id: str = "s1") -> FakeStation:
    return FakeStation(id=station_id, behaviour=PLAIN)


def test_a_connect_without_effect_is_followed_by_a_hello_not_by_another_connect():
    async def story():
        async with VirtualFleet() as fleet:
            fleet.says("s1", "ready")
            await fleet.until(fleet.is_free)
            assert (await fleet.rent())["statusInfo"] == {"reasonCode": "NoReaction"}
            assert [(text, round(at - fleet.commands[0][0])) for at, _, text in fleet.commands] == [
                ("connect:A", 0),
                ("hello:A", 15),
            ]
            fleet.says("s1", "busy", uid="A", time=1, energy=0)  # late, and still a rental
            await fleet.until(lambda: fleet.handler().transaction_id)

    virtual_clock.run(story())


def test_a_stop_without_effect_is_a_timeout_and_followed_by_a_hello():
    async def story():
        async with VirtualFleet(plain()) as fleet:
            await fleet.rent()
            fleet.behave("s1", silent=True)
            with pytest.raises(ChargerTimeout):
                await fleet.stop()
            await asyncio.sleep(2)
            assert fleet.sent("stop") == ["A"]
            assert fleet.sent("hello") == ["csms"]

    virtual_clock.run(story())


def test_unregistered_stations_make_no_rows():
    async def story():
        async with VirtualFleet(open_enrollment=False) as fleet:
            fleet.says("s9", "ready")
            fleet.says("a b", "ready")
            await asyncio.sleep(1)
            assert (fleet.desk.chargers, fleet.bridge.stations) == ({}, {})
            fleet.enrollment["coinop-s9"] = "Accepted"
            await fleet.until(lambda: fleet.sent("hello", "s9") == ["csms"], within_s=120)
            fleet.says("s9", "ready")
            await fleet.until(lambda: fleet.is_free("s9"))

    virtual_clock.run(story())


def test_a_blocked_station_starts_nothing():
    async def story():
        async with VirtualFleet(plain()) as fleet:
            fleet.enrollment["coinop-s1"] = "Rejected"
            await fleet.bridge.hang_up("coinop-s1", 0)
            assert (await fleet.rent())["statusInfo"] == {"reasonCode": "Blocked"}
            fleet.deliver("charger/s1/commands", b"connect:A")
            await fleet.until(lambda: fleet.handler().tracker.status == "charging")
            assert fleet.desk.transactions == {}
            fleet.enrollment["coinop-s1"] = "Accepted"
            await fleet.ask("TriggerMessage", requestedMessage="BootNotification")
            assert not fleet.handler().tracker.blocked

    virtual_clock.run(story())


def test_a_retained_command_is_deleted():
    async def story():
        async with VirtualFleet() as fleet:
            fleet.deliver("charger/s1/commands", b"connect:A", retained=True)
            await fleet.until(lambda: fleet.commands[-1][2] == "")

    virtual_clock.run(story())


def test_commands_are_not_retained_and_expire():
    async def story():
        async with VirtualFleet(plain()) as fleet:
            await fleet.rent()
            await fleet.stop()
            assert fleet.options == [{"retain": False, "expiry_s": 10}] * 2

    virtual_clock.run(story())


def test_unsupported_commands_are_refused():
    async def story():
        async with VirtualFleet(plain()) as fleet:
            for action, payload in (("UnlockConnector", {"connectorId": 1}), ("Reset", {"type": "Soft"})):
                with pytest.raises(NotSupported):
                    await fleet.ask(action, **payload)
            answer = await fleet.ask("TriggerMessage", requestedMessage="StatusNotification")
            assert answer == {"status": "Accepted"}
            assert fleet.sent("hello") == ["csms"]

    virtual_clock.run(story())


def test_a_station_out_of_service_is_not_opened():
    async def story():
        async with VirtualFleet(plain()) as fleet:
            out: dict[str, Any] = {"connectorId": 0, "type": "Inoperative"}
            answer = await fleet.ask("ChangeAvailability", **out)
            fleet.desk.tell(answered("ChangeAvailability", out, answer, charger_id="coinop-s1"))
            assert (await fleet.rent())["statusInfo"] == {"reasonCode": "Inoperative"}

    virtual_clock.run(story())


@pytest.mark.parametrize("uid", ["csms", "a:b", "", "x" * 129])
def test_an_invalid_uid_cannot_rent(uid):
    async def story():
        async with VirtualFleet(plain()) as fleet:
            assert (await fleet.rent(uid))["statusInfo"] == {"reasonCode": "InvalidUser"}
            assert fleet.sent("connect") == []

    virtual_clock.run(story())


def test_a_station_gets_at_most_five_connects_a_minute():
    async def story():
        async with VirtualFleet() as fleet:
            fleet.says("s1", "ready")
            await fleet.until(fleet.is_free)
            reasons = []
            for number in range(6):
                renting = asyncio.create_task(fleet.rent(f"user-{number}"))
                await asyncio.sleep(0.1)
                fleet.says("s1", "busy", uid=f"user-{number}", time=0, energy=0)
                fleet.says("s1", "done", uid=f"user-{number}", time=1, energy=0)
                fleet.says("s1", "ready")
                answer = await renting
                reasons.append(answer.get("statusInfo", {}).get("reasonCode", answer["status"]))
            assert reasons == ["Accepted"] * 5 + ["TooOften"]

    virtual_clock.run(story())


@pytest.mark.parametrize(
    "given",
    [
        {"nan_rate": 0.3, "double": 0.3, "second_topic": True},
        {"energy": "cumulative", "power_scale": 0.1},
        {"reboot_at_s": 300},
        {"loss": 0.2},
    ],
    ids=["odd lines", "odd meters", "a reboot", "a bad link"],
)
def test_stations_with_faults_are_billed_correctly(given):
    async def story():
        odd = FakeStation(id="s1", behaviour=StationBehaviour(plug_s=20, charge_s=600, unplug_s=5, **given))
        async with VirtualFleet(odd, meter_interval_s=10) as fleet:
            fleet.deliver("charger/s1/commands", b"connect:A")
            await asyncio.sleep(700)
            fleet.behave("s1", loss=0.0)
            await fleet.stop()
            await fleet.until(fleet.is_free)
            t = fleet.transaction
            assert (t.energy_wh, 695 <= t.duration_s <= 705) == (pytest.approx(368, abs=5), True)
            powers = {p.get("currentPower") for p in fleet.desk.payloads("meter_reading")}
            assert powers <= {2.21, 0.0, None}

    virtual_clock.run(story())


def test_an_idle_station_that_does_not_answer_is_released():
    async def story():
        async with VirtualFleet(plain()) as fleet:
            fleet.behave("s1", silent=True)
            await fleet.until(lambda: not fleet.held, within_s=1200)
            assert not fleet.desk.states["coinop-s1"].online
            fleet.behave("s1", silent=False)
            await fleet.handler().hello()
            await fleet.until(fleet.is_free)

    virtual_clock.run(story())


@pytest.mark.parametrize("autostop", ["never", "at_max_debt"])
def test_a_debt_ends_a_rental_only_with_autostop(autostop):
    async def story():
        async with VirtualFleet(
            plain(), require_account=True, autostop=autostop, max_debt=Decimal("1.00"), min_balance=Decimal(0)
        ) as fleet:
            fleet.with_money("A", 100)
            await fleet.rent()
            await asyncio.sleep(7200)
            debt = -fleet.desk.accounts["A"].balance_minor
            if autostop == "never":
                assert (fleet.sent("stop"), fleet.transaction.open) == ([], True)
            else:
                assert fleet.sent("stop") == ["A"]
                assert fleet.transaction.stop_reason == "Remote"
                assert 100 <= debt <= 100 + 50  # looked at once a minute

    virtual_clock.run(story())


def test_no_door_is_opened_while_the_database_is_unreachable():
    async def story():
        async with VirtualFleet(plain()) as fleet:
            fleet.database_away = True
            with pytest.raises(Exception, match="database does not answer"):
                await fleet.rent()
            fleet.database_away = False
            await asyncio.sleep(30)
            assert fleet.sent("connect") == []

    virtual_clock.run(story())
