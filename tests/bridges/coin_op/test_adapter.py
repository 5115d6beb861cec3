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
from tests.harness.bridges.virtual_fleet import Town
from tests.harness.command_answers import answered

PLAIN = StationBehaviour(plug_s=40, charge_s=100_000, unplug_s=20)


def plain(station_id: str = "s1") -> FakeStation:
    return FakeStation(id=station_id, behaviour=PLAIN)


def test_a_connect_without_effect_is_followed_by_a_hello_not_by_another_connect():
    async def story():
        async with Town() as town:
            town.says("s1", "ready")
            await town.until(town.is_free)
            assert (await town.rent())["statusInfo"] == {"reasonCode": "NoReaction"}
            assert [(text, round(at - town.commands[0][0])) for at, _, text in town.commands] == [
                ("connect:A", 0),
                ("hello:A", 15),
            ]
            town.says("s1", "busy", uid="A", time=1, energy=0)  # late, and still a rental
            await town.until(lambda: town.handler().transaction_id)

    virtual_clock.run(story())


def test_a_stop_without_effect_is_a_timeout_and_followed_by_a_hello():
    async def story():
        async with Town(plain()) as town:
            await town.rent()
            town.behave("s1", silent=True)
            with pytest.raises(ChargerTimeout):
                await town.stop()
            await asyncio.sleep(2)
            assert town.sent("stop") == ["A"]
            assert town.sent("hello") == ["csms"]

    virtual_clock.run(story())


def test_unregistered_stations_make_no_rows():
    async def story():
        async with Town(open_enrollment=False) as town:
            town.says("s9", "ready")
            town.says("a b", "ready")
            await asyncio.sleep(1)
            assert (town.desk.chargers, town.bridge.stations) == ({}, {})
            town.enrollment["coinop-s9"] = "Accepted"
            await town.until(lambda: town.sent("hello", "s9") == ["csms"], within_s=120)
            town.says("s9", "ready")
            await town.until(lambda: town.is_free("s9"))

    virtual_clock.run(story())


def test_a_blocked_station_starts_nothing():
    async def story():
        async with Town(plain()) as town:
            town.enrollment["coinop-s1"] = "Rejected"
            await town.bridge.hang_up("coinop-s1", 0)
            assert (await town.rent())["statusInfo"] == {"reasonCode": "Blocked"}
            town.deliver("charger/s1/commands", b"connect:A")
            await town.until(lambda: town.handler().tracker.status == "charging")
            assert town.desk.transactions == {}
            town.enrollment["coinop-s1"] = "Accepted"
            await town.ask("TriggerMessage", requestedMessage="BootNotification")
            assert not town.handler().tracker.blocked

    virtual_clock.run(story())


def test_a_retained_command_is_deleted():
    async def story():
        async with Town() as town:
            town.deliver("charger/s1/commands", b"connect:A", retained=True)
            await town.until(lambda: town.commands[-1][2] == "")

    virtual_clock.run(story())


def test_commands_are_not_retained_and_expire():
    async def story():
        async with Town(plain()) as town:
            await town.rent()
            await town.stop()
            assert town.options == [{"retain": False, "expiry_s": 10}] * 2

    virtual_clock.run(story())


def test_unsupported_commands_are_refused():
    async def story():
        async with Town(plain()) as town:
            for action, payload in (("UnlockConnector", {"connectorId": 1}), ("Reset", {"type": "Soft"})):
                with pytest.raises(NotSupported):
                    await town.ask(action, **payload)
            answer = await town.ask("TriggerMessage", requestedMessage="StatusNotification")
            assert answer == {"status": "Accepted"}
            assert town.sent("hello") == ["csms"]

    virtual_clock.run(story())


def test_a_station_out_of_service_is_not_opened():
    async def story():
        async with Town(plain()) as town:
            out: dict[str, Any] = {"connectorId": 0, "type": "Inoperative"}
            answer = await town.ask("ChangeAvailability", **out)
            town.desk.tell(answered("ChangeAvailability", out, answer, charger_id="coinop-s1"))
            assert (await town.rent())["statusInfo"] == {"reasonCode": "Inoperative"}

    virtual_clock.run(story())


@pytest.mark.parametrize("uid", ["csms", "a:b", "", "x" * 129])
def test_an_invalid_uid_cannot_rent(uid):
    async def story():
        async with Town(plain()) as town:
            assert (await town.rent(uid))["statusInfo"] == {"reasonCode": "InvalidUser"}
            assert town.sent("connect") == []

    virtual_clock.run(story())


def test_a_station_gets_at_most_five_connects_a_minute():
    async def story():
        async with Town() as town:
            town.says("s1", "ready")
            await town.until(town.is_free)
            reasons = []
            for number in range(6):
                renting = asyncio.create_task(town.rent(f"user-{number}"))
                await asyncio.sleep(0.1)
                town.says("s1", "busy", uid=f"user-{number}", time=0, energy=0)
                town.says("s1", "done", uid=f"user-{number}", time=1, energy=0)
                town.says("s1", "ready")
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
        async with Town(odd, meter_interval_s=10) as town:
            town.deliver("charger/s1/commands", b"connect:A")
            await asyncio.sleep(700)
            town.behave("s1", loss=0.0)
            await town.stop()
            await town.until(town.is_free)
            t = town.transaction
            assert (t.energy_wh, 695 <= t.duration_s <= 705) == (pytest.approx(368, abs=5), True)
            powers = {p.get("currentPower") for p in town.desk.payloads("meter_reading")}
            assert powers <= {2.21, 0.0, None}

    virtual_clock.run(story())


def test_an_idle_station_that_does_not_answer_is_released():
    async def story():
        async with Town(plain()) as town:
            town.behave("s1", silent=True)
            await town.until(lambda: not town.held, within_s=1200)
            assert not town.desk.states["coinop-s1"].online
            town.behave("s1", silent=False)
            await town.handler().hello()
            await town.until(town.is_free)

    virtual_clock.run(story())


@pytest.mark.parametrize("autostop", ["never", "at_max_debt"])
def test_a_debt_ends_a_rental_only_with_autostop(autostop):
    async def story():
        async with Town(
            plain(), require_account=True, autostop=autostop, max_debt=Decimal("1.00"), min_balance=Decimal(0)
        ) as town:
            town.with_money("A", 100)
            await town.rent()
            await asyncio.sleep(7200)
            debt = -town.desk.accounts["A"].balance_minor
            if autostop == "never":
                assert (town.sent("stop"), town.transaction.open) == ([], True)
            else:
                assert town.sent("stop") == ["A"]
                assert town.transaction.stop_reason == "Remote"
                assert 100 <= debt <= 100 + 50  # looked at once a minute

    virtual_clock.run(story())


def test_no_door_is_opened_while_the_database_is_unreachable():
    async def story():
        async with Town(plain()) as town:
            town.database_away = True
            with pytest.raises(Exception, match="database does not answer"):
                await town.rent()
            town.database_away = False
            await asyncio.sleep(30)
            assert town.sent("connect") == []

    virtual_clock.run(story())
