"""Plans on OCPP chargers, through a whole node with a real broker: by prices and by a HEMS."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

from csms.db import plans
from csms.scheduling.plan_profile import FIRST_PROFILE_ID
from tests.e2e.conftest import TOKEN, Node
from tests.harness.charge_points.answering import AnsweringChargePoint
from tests.plans.conftest import PlannedCharger, PlanTopics, configuration


def profiles(point: AnsweringChargePoint) -> list[dict[str, Any]]:
    return [payload["csChargingProfiles"] for payload in point.payloads("SetChargingProfile")]


def limits(profile: dict[str, Any]) -> list[tuple[datetime, float]]:
    """What holds from when."""
    schedule = profile["chargingSchedule"]
    start = datetime.fromisoformat(schedule["startSchedule"])
    return [
        (start + timedelta(seconds=one["startPeriod"]), one["limit"])
        for one in schedule["chargingSchedulePeriod"]
    ]


def state(wire: PlanTopics, planned: PlannedCharger) -> dict[str, Any]:
    return wire.last.get(f"csms/state/{planned.charger}/plan") or {}


def echo(point_profiles: list[dict[str, Any]]) -> Any:
    """A composite schedule that says what the last profile said."""

    def answer(asked: dict[str, Any]) -> dict[str, Any]:
        schedule = point_profiles[-1]["chargingSchedule"]
        return {
            "status": "Accepted",
            "connectorId": asked["connectorId"],
            "scheduleStart": schedule["startSchedule"],
            "chargingSchedule": schedule | {"duration": asked["duration"]},
        }

    return answer


# --- by prices -------------------------------------------------------------------------------------------


async def test_prices_become_a_charging_profile(
    node: Node, wire: PlanTopics, planned: PlannedCharger
) -> None:
    taken: list[dict[str, Any]] = []

    def take(asked: dict[str, Any]) -> dict[str, str]:
        taken.append(asked["csChargingProfiles"])
        return {"status": "Accepted"}

    async with planned.connected(SetChargingProfile=take, GetCompositeSchedule=echo(taken)) as point:
        start = await wire.prices(False, True, True, False, True)
        made = await planned.put()
        assert made["terms"] == {
            "mode": "standalone",
            "maxPrice": "0.25",
            "levels": 16,
            "limitA": 16.0,
            "phases": 3,
            "connectorId": 0,
            "otherwise": "charge",
            "stackLevel": None,
        }
        seen = await planned.delivered("in_place")
        (profile,) = profiles(point)
        quarter = timedelta(minutes=15)
        begin = datetime.fromisoformat(profile["chargingSchedule"]["startSchedule"])
        assert limits(profile) == [
            (begin, 0),
            (start + quarter, 16),
            (start + 3 * quarter, 0),
            (start + 4 * quarter, 16),
        ]
        assert begin + timedelta(seconds=profile["chargingSchedule"]["duration"]) == start + 5 * quarter
        assert (profile["chargingProfileId"], profile["stackLevel"]) == (FIRST_PROFILE_ID, 8)
        assert point.actions() == ["GetConfiguration", "SetChargingProfile", "GetCompositeSchedule"]
        # What is seen of it.
        assert (seen["state"], seen["message"]) == ("scheduled", "3 slots at 1 price levels")
        assert (seen["source"], seen["confirmed"], seen["slotsExcluded"]) == ("standalone", True, 5)
        assert seen["running"] == seen["periods"]
        assert [slot["chosen"] for slot in seen["slots"]] == [
            *(False, True, True, False, True),
            *[False] * 3,
        ]
        await node.until(lambda: state(wire, planned).get("delivery") == "in_place")
        assert state(wire, planned) | {"since": None} == {
            "mode": "standalone",
            "state": "scheduled",
            "delivery": "in_place",
            "scheduleSource": "standalone",
            "message": "3 slots at 1 price levels",
            "connectorId": 0,
            "priceThresholdActive": True,
            "slots": 3,
            "priceLevels": 1,
            "nextPeriodStart": (start + quarter).strftime("%Y-%m-%dT%H:%M:%SZ"),
            "nextPeriodEnd": (start + 3 * quarter).strftime("%Y-%m-%dT%H:%M:%SZ"),
            "since": None,
        }
        # The same prices again are no news; a longer list is.
        await wire.prices(False, True, True, False, True)
        await wire.prices(False, True, True, False, True, True)
        await node.until(lambda: len(profiles(point)) > 1)
        await planned.until(lambda seen: seen["slotsChosen"] == 4 and seen["delivery"] == "in_place")
        assert len(profiles(point)) == 2
        # It was all done by commands as an operator's are.
        kept = (await node.api.get(f"/api/v1/chargers/{planned.charger}/commands")).json()["items"]
        assert {one["requestedBy"] for one in kept} == {"plan"}
        # A plan that is removed is taken off the charger, and by its number alone.
        await planned.clear()
        await node.until(lambda: point.payloads("ClearChargingProfile"))
        assert point.payloads("ClearChargingProfile") == [{"id": FIRST_PROFILE_ID}]
        await planned.until(lambda seen: not seen)
        await node.until(lambda: wire.last[f"csms/state/{planned.charger}/plan"] is None)


async def test_nothing_cheap_enough_leaves_no_profile_unless_it_shall_wait(
    node: Node, wire: PlanTopics, planned: PlannedCharger
) -> None:
    async with planned.connected() as point:
        await wire.prices(True, False)
        await planned.put()
        await planned.delivered("in_place")
        await planned.put(maxPrice="0.05")
        seen = await planned.until(lambda seen: seen["source"] == "none")
        assert (seen["state"], seen["delivery"]) == ("no_eligible_slots", "none")
        assert point.payloads("ClearChargingProfile") == [{"id": FIRST_PROFILE_ID}]
        await planned.put(otherwise="wait")
        await planned.delivered("in_place")
        assert [limit for _, limit in limits(profiles(point)[-1])] == [0]


async def test_a_charger_that_is_away_gets_the_plan_of_now_when_it_is_back(
    node: Node, wire: PlanTopics, planned: PlannedCharger
) -> None:
    async with planned.connected() as point:
        await wire.prices(False, True, False, True)
        await planned.put()
        await planned.delivered("in_place")
    await planned.put(limitA=10)
    seen = await planned.delivered("away")
    # What it has is still what it got last.
    assert {one["currentA"] for one in seen["running"]} == {16.0}
    assert {one["currentA"] for one in seen["periods"]} == {10.0}
    await wire.prices(False, False, True)
    await planned.until(lambda seen: seen["slotsChosen"] == 1)
    async with planned.connected() as point:
        await planned.delivered("in_place")
        (profile,) = profiles(point)
        assert [limit for _, limit in limits(profile)] == [0, 10]
    # And after a restart it gets it once more, though nothing has changed.
    async with planned.connected() as point:
        await node.until(lambda: profiles(point))
        assert [limit for _, limit in limits(profiles(point)[0])] == [0, 10]


async def test_a_plan_made_while_the_charger_is_away_waits_for_it(
    wire: PlanTopics, planned: PlannedCharger
) -> None:
    await planned.node.api.put(f"/api/v1/chargers/{planned.charger}", json={})
    made = await planned.put()
    assert made["connectors"][0]["delivery"] == "away"
    await wire.prices(False, True)
    async with planned.connected():
        await planned.delivered("in_place")


@pytest.mark.parametrize(
    ("answer", "problem"),
    [
        ({"status": "Rejected"}, "The charger rejects the charging profile"),
        ({"status": "NotSupported"}, "The charger has no smart charging"),
        (["NotImplemented", "", {}], "The charger has no smart charging"),
        (["InternalError", "out of order", {}], "The charger answers InternalError: out of order"),
    ],
)
async def test_a_charger_that_refuses_says_so_and_is_not_pestered(
    node: Node, wire: PlanTopics, planned: PlannedCharger, answer: Any, problem: str
) -> None:
    await wire.prices(False, True, False, True)
    async with planned.connected(SetChargingProfile=lambda _: answer) as point:
        await planned.put()
        seen = await planned.delivered("refused")
        assert (seen["problem"], seen["source"], seen["running"]) == (problem, "none", [])
        await node.until(lambda: state(wire, planned).get("problem") == problem)
        assert state(wire, planned)["delivery"] == "refused"
        await wire.prices(False, True, False, True)  # a reason to look, none to ask again
        point.answers["SetChargingProfile"] = {"status": "Accepted"}
        assert (await planned.seen())["delivery"] == "refused"
        # Saying it again is a reason: the operator may know why it would work now.
        await planned.put()
        await planned.delivered("in_place")
        assert len(profiles(point)) == 2


async def test_a_lost_answer_is_not_taken_for_a_yes(
    node: Node, wire: PlanTopics, planned: PlannedCharger
) -> None:
    await wire.prices(False, True)
    async with planned.connected(SetChargingProfile=None) as point:
        await planned.put()
        seen = await planned.until(lambda seen: seen.get("problem") is not None)
        assert (seen["delivery"], seen["source"]) == ("pending", "none")
        point.answers["SetChargingProfile"] = {"status": "Accepted"}
        assert (await planned.delivered("in_place"))["problem"] is None
        assert len(profiles(point)) >= 2


async def test_profiles_of_others_stay(node: Node, wire: PlanTopics, planned: PlannedCharger) -> None:
    """Those we know of keep their stack level, and one that takes our place makes us move."""
    theirs = {
        "chargingProfileId": 5,
        "stackLevel": 8,
        "chargingProfilePurpose": "TxDefaultProfile",
        "chargingProfileKind": "Relative",
        "chargingSchedule": {
            "chargingRateUnit": "A",
            "chargingSchedulePeriod": [{"startPeriod": 0, "limit": 6.0}],
        },
    }

    async def command(action: str, payload: dict[str, Any]) -> None:
        body = {"action": action, "payload": payload}
        response = await node.api.post(f"/api/v1/chargers/{planned.charger}/commands", json=body)
        assert response.json() == {"response": {"status": "Accepted"}}

    async with planned.connected() as point:
        await command("SetChargingProfile", {"connectorId": 0, "csChargingProfiles": theirs})
        await wire.prices(False, True, False, True)
        await planned.put()
        await planned.delivered("in_place")
        assert profiles(point)[-1]["stackLevel"] == 7
        # An operator takes our level: that one is theirs now.
        await command(
            "SetChargingProfile",
            {"connectorId": 0, "csChargingProfiles": theirs | {"chargingProfileId": 6, "stackLevel": 7}},
        )
        await node.until(lambda: profiles(point)[-1]["stackLevel"] == 6)
        # And all are cleared: ours comes back.
        await command("ClearChargingProfile", {})
        await node.until(lambda: profiles(point)[-1]["stackLevel"] == 8)


@pytest.mark.parametrize("unit", ["Power", "W"])
async def test_a_chargers_own_limits_are_kept(
    node: Node, wire: PlanTopics, planned: PlannedCharger, unit: str
) -> None:
    keys = configuration(
        ChargingScheduleAllowedChargingRateUnit=unit,
        ChargeProfileMaxStackLevel="2",
        ChargingScheduleMaxPeriods="3",
    )
    await wire.prices(False, True, False, True, False, True)
    async with planned.connected(GetConfiguration=keys) as point:
        await planned.put(phases=1, connectorId=1)
        await planned.delivered("in_place")
        (sent,) = point.payloads("SetChargingProfile")
    profile = sent["csChargingProfiles"]
    assert (sent["connectorId"], profile["stackLevel"]) == (1, 2)
    assert profile["chargingSchedule"]["chargingRateUnit"] == "W"
    assert [limit for _, limit in limits(profile)] == [0, 3680, 0]


async def test_a_kind_that_knows_stack_level_zero_only(
    node: Node, wire: PlanTopics, planned: PlannedCharger
) -> None:
    await wire.prices(False, True)
    async with planned.connected(boot=False) as point:
        await point.tell("BootNotification", {"chargePointVendor": "Wallbox", "chargePointModel": "Pulsar"})
        await planned.put()
        await planned.delivered("in_place")
        assert profiles(point)[-1]["stackLevel"] == 0
        # And if that one is taken, no other profile is replaced.
        await planned.clear()
        await planned.until(lambda seen: not seen)
        body = {
            "connectorId": 0,
            "csChargingProfiles": profiles(point)[-1] | {"chargingProfileId": 3},
        }
        await node.api.post(
            f"/api/v1/chargers/{planned.charger}/commands",
            json={"action": "SetChargingProfile", "payload": body},
        )
        await planned.put()
        seen = await planned.delivered("refused")
        assert seen["problem"] == "Every stack level is taken by charging profiles that are not ours"


async def test_prices_in_another_currency_are_not_compared(
    node: Node, wire: PlanTopics, planned: PlannedCharger
) -> None:
    async with planned.connected() as point:
        await wire.prices(True, currency="SEK")
        await planned.put()
        seen = await planned.until(lambda seen: seen.get("state") == "error")
        assert seen["message"] == "Prices are in SEK, the threshold is in EUR"
        assert profiles(point) == []
        await wire.prices(True, False)
        await planned.delivered("in_place")


# --- by a HEMS -------------------------------------------------------------------------------------------


def asked(*periods: tuple[int, int], expires: int | None = None, **more: Any) -> dict[str, Any]:
    """Minutes from now."""
    now = datetime.now(UTC).replace(second=0, microsecond=0)

    def at(minutes: int) -> str:
        return (now + timedelta(minutes=minutes)).isoformat()

    content: dict[str, Any] = {
        "periods": [{"start": at(start), "end": at(end)} for start, end in periods],
        **more,
    }
    return content | ({} if expires is None else {"expires_at": at(expires)})


async def test_a_hems_is_obeyed(node: Node, wire: PlanTopics, planned: PlannedCharger) -> None:
    topic = f"hems/ocpp/{planned.charger}"

    def status() -> dict[str, Any]:
        return wire.last.get(f"{topic}/status") or {}

    async with planned.connected() as point:
        await point.tell(
            "StatusNotification", {"connectorId": 1, "errorCode": "NoError", "status": "Preparing"}
        )
        await planned.put(mode="hems", limitA=12)
        await node.until(lambda: status().get("ready_for_schedule") is True)
        assert (status()["state"], status()["schedule_source"]) == ("plugged_in", "none")

        wish = asked((30, 60), (-30, -10), source_id="battery", max_current=10)
        await wire.send(f"{topic}/schedule/set", wish)
        await node.until(lambda: status().get("last_command_result") == "success")
        assert [limit for _, limit in limits(profiles(point)[-1])] == [0, 10]
        told = status()
        assert (told["schedule_source"], told["schedule_active"]) == ("hems", True)
        assert (told["source_id"], told["current_schedule_id"]) == ("battery", str(FIRST_PROFILE_ID))
        assert told["next_period_start"] == wish["periods"][0]["start"]
        assert (await planned.seen())["mode"] == "hems"

        # The same again is followed already.
        await wire.send(f"{topic}/schedule/set", wish)
        # A bad period refuses the whole message, and what was before stays.
        bad = asked((90, 120))
        bad["periods"].append({"start": "tomorrow-or-so-in-words"})
        await wire.send(f"{topic}/schedule/set", bad)
        await node.until(lambda: status().get("last_command_result") == "error")
        assert (status()["error"], status()["schedule_source"]) == ("Invalid schedule payload", "hems")
        assert len(profiles(point)) == 1

        # What the broker has kept counts once; a kept clear never does.
        wish = asked((30, 60), (90, 120), expires=600)
        await wire.send(f"{topic}/schedule/set", wish, retain=True)
        await node.until(lambda: status().get("last_command_result") == "success")
        assert status()["error"] is None
        assert [limit for _, limit in limits(profiles(point)[-1])] == [0, 12, 0, 12]

        await wire.send(f"{topic}/schedule/clear", b"now")
        await node.until(lambda: status().get("last_command_result") == "cleared")
        assert (status()["schedule_source"], status()["next_period_start"]) == ("none", None)
        assert point.payloads("ClearChargingProfile") == [{"id": FIRST_PROFILE_ID}]
        assert (await planned.seen())["state"] == "idle"

        # Back to prices: what the HEMS was told is taken back.
        await planned.put(mode="standalone")
        await node.until(lambda: wire.last[f"{topic}/status"] is None)
        await wire.send(f"{topic}/schedule/set", b"", retain=True)


async def test_a_hems_schedule_for_a_charger_that_is_away_is_kept_for_it(
    node: Node, wire: PlanTopics, planned: PlannedCharger
) -> None:
    topic = f"hems/ocpp/{planned.charger}"
    async with planned.connected():
        await planned.put(mode="hems")
        await node.until(lambda: wire.last.get(f"{topic}/status"))
    await node.until(lambda: wire.last[f"{topic}/status"]["state"] == "offline")
    await wire.send(f"{topic}/schedule/set", asked((30, 60)))
    await node.until(lambda: wire.last[f"{topic}/status"]["last_command_result"] == "pending")
    assert wire.last[f"{topic}/status"]["ready_for_schedule"] is False
    async with planned.connected() as point:
        await node.until(lambda: wire.last[f"{topic}/status"]["last_command_result"] == "success")
        assert len(profiles(point)) == 1


async def test_a_hems_of_a_charger_planned_by_prices_is_not_heard(
    node: Node, wire: PlanTopics, planned: PlannedCharger
) -> None:
    async with planned.connected() as point:
        await wire.prices(False, True)
        await planned.put()
        await planned.delivered("in_place")
        await wire.send(f"hems/ocpp/{planned.charger}/schedule/set", asked((5, 10)))
        await wire.send(f"hems/ocpp/{planned.charger}/schedule/clear", b"")
        await wire.prices(False, True, True)
        await planned.until(lambda seen: seen["slotsChosen"] == 2 and seen["delivery"] == "in_place")
        assert point.actions().count("ClearChargingProfile") == 0
        assert (await planned.seen())["source"] == "standalone"


async def test_the_console_shows_the_plan(node: Node, wire: PlanTopics, planned: PlannedCharger) -> None:
    async with planned.connected():
        await wire.prices(True, True, False, True)
        await planned.put()
        await planned.delivered("in_place")
        async with httpx.AsyncClient(base_url=node.running.http, verify=False) as browser:
            assert (await browser.post("/sign-in", data={"token": TOKEN})).status_code == 303
            page = (await browser.get(f"/chargers/{planned.charger}/plan")).text
    assert page.count('<rect class="chosen"') == 3
    assert page.count('<rect class="running"') == 2
    assert "on the charger" in page
    assert "3 slots at 1 price levels" in page


async def test_a_row_read_before_the_charger_answered_is_not_acted_upon(
    node: Node, wire: PlanTopics, planned: PlannedCharger, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = plans.list_of_node

    async def slowly(*given: Any) -> Any:
        rows = await read(*given)
        await asyncio.sleep(0.25)
        return rows

    monkeypatch.setattr(plans, "list_of_node", slowly)
    await wire.prices(False, True, False, True)
    async with planned.connected() as point:
        await planned.put()
        for _ in range(20):
            await planned.put()  # a reason to look, each
        await planned.delivered("in_place")
        assert len(profiles(point)) == 1
