"""Schedules on the simulated cloud, by prices and by a HEMS, through a whole node with a real broker."""

import asyncio
import json
import secrets
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import aiomqtt
import pytest

from bridges.charge_amps.adapter import ChargeAmpsAdapter
from csms.mqtt.client.link import BrokerLink
from csms.simulate.charge_amps import FakeCloudServer, FakeConnector
from tests.bridges.charge_amps.conftest import POINT, ChargeAmpsSite, HandClock
from tests.e2e.conftest import Node
from tests.harness.waiting import until

MIDNIGHT = datetime(2026, 11, 20, 23, tzinfo=UTC)  # Saturday, 00:00 in Amsterdam


class Wire:
    """A client of the broker, as a HEMS or Home Assistant is one: what is retained and what has come, by topic."""

    def __init__(self, client: aiomqtt.Client, prefix: str) -> None:
        self.client = client
        self.prefix = prefix
        self.last: dict[str, Any] = {}
        self.came: list[tuple[str, Any]] = []

    async def read(self) -> None:
        async for message in self.client.messages:
            topic = str(message.topic).removeprefix(f"{self.prefix}/")
            body = bytes(message.payload) if isinstance(message.payload, bytes | bytearray) else b""
            if topic != "charge-amps/status" and not topic.endswith(("/set", "/clear")):
                self.last[topic] = json.loads(body) if body else None
                self.came.append((topic, self.last[topic]))

    async def send(self, topic: str, content: object, *, retain: bool = False) -> None:
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        await self.client.publish(f"{self.prefix}/{topic}", body, qos=1, retain=retain)

    async def caught_up(self) -> None:
        """Return when all that the broker received before has come."""
        marker = f"hems/marker-{secrets.token_hex(4)}"
        await self.send(marker, {})
        await until(lambda: marker in self.last, 10)

    def results(self, command_at: datetime) -> list[str]:
        """Return the results in all statuses that name this time as that of the last command."""
        return [
            content["last_command_result"]
            for topic, content in self.came
            if topic == "hems/charge-amps/1/status" and content["last_command_at"] == command_at.isoformat()
        ]

    @property
    def status(self) -> dict[str, Any]:
        return self.last.get("hems/charge-amps/1/status") or {}

    @property
    def state(self) -> dict[str, Any]:
        return self.last.get(f"charge-amps/{POINT}/1/state") or {}


@pytest.fixture
async def wire(broker: Any, topic_prefix: str) -> AsyncIterator[Wire]:
    async with wired(broker, topic_prefix) as connected:
        yield connected


@asynccontextmanager
async def wired(broker: Any, topic_prefix: str) -> AsyncIterator[Wire]:
    async with aiomqtt.Client(broker.host, broker.port_v5, protocol=aiomqtt.ProtocolVersion.V5) as client:
        connected = Wire(client, topic_prefix)
        await client.subscribe(f"{topic_prefix}/hems/#", qos=1)
        await client.subscribe(f"{topic_prefix}/charge-amps/#", qos=1)
        reading = asyncio.create_task(connected.read())
        yield connected
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)


def connector(site: ChargeAmpsSite) -> FakeConnector:
    return site.cloud.charge_points[POINT].connectors[0]


def periods(site: ChargeAmpsSite) -> list[tuple[int, int]] | None:
    schedule = connector(site).schedule
    if not schedule:
        return None
    return [(one["from"], one["to"]) for one in schedule["schedulePeriods"]]


def puts(server: FakeCloudServer) -> int:
    return len(server.sent("PUT", "smartChargingSchedules"))


def deletes(server: FakeCloudServer) -> int:
    return len(server.sent("DELETE", "smartChargingSchedules"))


def curve(*prices: float, start: datetime = MIDNIGHT, minutes: int = 15) -> dict[str, Any]:
    step = timedelta(minutes=minutes)
    return {
        "price_curve": [
            {
                "start": (start + n * step).isoformat(),
                "end": (start + (n + 1) * step).isoformat(),
                "price": price,
            }
            for n, price in enumerate(prices)
        ]
    }


# Saturday: four slots at .08 from 02:00, three at .10 from 13:15, the rest dear. (C4, S2)
S2 = [0.5] * 96
S2[8:12] = [0.08] * 4
S2[53:56] = [0.10] * 3
PRICES = "energy_prices/attributes"


async def shows(node: Node, condition: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    """What REST and console show of the plan, once it is so."""

    async def shown() -> dict[str, Any] | None:
        answer = await node.api.get(f"/api/v1/chargers/{POINT}/plan")
        connector: dict[str, Any] | None = answer.json()["connectors"][0] if answer.is_success else None
        return connector if connector is not None and condition(connector) else None

    found = await until(shown, 10)
    assert found is not None
    return found


async def scheduled(node: Node, wire: Wire, status: str = "scheduled") -> dict[str, Any]:
    await node.until(lambda: wire.state.get("schedule_status") == status)
    return wire.state


# --- standalone --------------------------------------------------------------------------------------


@pytest.fixture
def clock() -> HandClock:
    return HandClock(MIDNIGHT + timedelta(hours=1))


async def test_scenario_standalone_mode_startup(
    site: ChargeAmpsSite, wire: Wire, server: FakeCloudServer
) -> None:
    node, _ = await site.start()
    state = await scheduled(node, wire, "waiting_for_prices")
    assert (state["operation_mode"], state["schedule_source"]) == ("standalone", "none")
    await wire.send(PRICES, curve(*S2), retain=True)
    state = await scheduled(node, wire)
    assert periods(site) == [(439200, 442800), (479700, 482400)]
    assert state["schedule_source"] == "standalone"
    assert state["message"] == "7 slots at 2 price levels"
    assert (state["slots"], state["price_levels"], state["plan_date"]) == (7, 2, "2026-11-21")
    assert state["next_charge_start"] == "2026-11-21T01:00:00+00:00"
    (body,) = server.sent("PUT", "smartChargingSchedules")
    assert body == {
        "scheduleId": None,
        "chargePointId": POINT,
        "connectorId": 1,
        "validFrom": None,
        "validTo": None,
        "defaultCurrent": 0,
        "schedulePeriods": [
            {"from": 439200, "to": 442800, "maxCurrent": 16.0},
            {"from": 479700, "to": 482400, "maxCurrent": 16.0},
        ],
        "isActive": True,
        "isSynced": True,
        "timeZone": "Europe/Amsterdam",
        "startOfSchedule": "2026-11-15T23:00:00Z",
    }
    await shows(node, lambda one: one["delivery"] == "in_place" and len(one["slots"]) == 96)
    # H11: HEMS topics mean nothing in this mode, and nothing is said there.
    await wire.send("hems/charge-amps/1/schedule/clear", b"")
    await wire.send("hems/charge-amps/1/schedule/set", HEMS_SET)
    await wire.send(PRICES, curve(*S2), retain=True)
    await wire.send(PRICES, {**curve(*S2), "currency": "SEK"}, retain=True)
    await scheduled(node, wire, "error")  # by now the messages before have been received
    assert (puts(server), deletes(server)) == (1, 0), "the same again is no news"
    assert wire.status == {}


async def test_a_restart_finds_its_own_schedule_and_writes_nothing(
    site: ChargeAmpsSite, wire: Wire, server: FakeCloudServer
) -> None:
    await wire.send(PRICES, curve(*S2), retain=True)
    node, _ = await site.start()
    await scheduled(node, wire)
    await site.stop(node)
    # Time passes, a period is over: that alone is no reason to write.
    site.clock.advance(hours=4)
    wire.last.clear()
    node, _ = await site.start()
    state = await scheduled(node, wire)
    assert state["next_charge_start"] == "2026-11-21T12:15:00+00:00"
    assert (puts(server), deletes(server)) == (1, 0)


async def test_scenario_no_slots_below_threshold_deletes_the_schedule(
    site: ChargeAmpsSite, wire: Wire, server: FakeCloudServer
) -> None:
    await wire.send(PRICES, curve(*S2), retain=True)
    node, _ = await site.start()
    await scheduled(node, wire)
    await wire.send(PRICES, curve(*[0.30] * 48, *[0.40] * 48), retain=True)
    state = await scheduled(node, wire, "no_eligible_slots")
    assert (state["schedule_source"], state["price_threshold_active"]) == ("none", True)
    assert (connector(site).schedule, deletes(server)) == (None, 1)
    assert connector(site).mode == "On", "a connector in mode Schedule without a schedule might never charge"


async def test_scenario_a_plan_that_is_over_is_deleted_and_tomorrows_prices_make_a_new_one(
    site: ChargeAmpsSite, wire: Wire, server: FakeCloudServer
) -> None:
    await wire.send(PRICES, curve(*S2), retain=True)
    node, _ = await site.start()
    await scheduled(node, wire)
    site.clock.advance(hours=14)
    await node.until(lambda: connector(site).schedule is None)
    assert wire.state["schedule_source"] in {"standalone", "none"}
    await wire.send(PRICES, curve(*S2, *([0.5] * 94 + [0.01] * 2)), retain=True)
    await node.until(lambda: periods(site) == [(603000, 604800)])


async def test_a_plan_over_the_end_of_the_week_is_written_again_on_monday(
    site: ChargeAmpsSite, wire: Wire, server: FakeCloudServer
) -> None:
    sunday = datetime(2026, 11, 21, 23, tzinfo=UTC)
    site.clock.now = sunday + timedelta(hours=20)
    prices = [0.5] * 94 + [0.1] * 2 + [0.1] * 6 + [0.5] * 90
    await wire.send(PRICES, curve(*prices, start=sunday), retain=True)
    node, _ = await site.start()
    await node.until(lambda: periods(site) == [(0, 5400), (603000, 604800)])
    site.clock.now = datetime(2026, 11, 22, 23, 5, tzinfo=UTC)
    await node.until(lambda: periods(site) == [(0, 5400)])
    assert puts(server) == 2
    schedule = connector(site).schedule
    assert schedule is not None
    assert schedule["startOfSchedule"] == "2026-11-22T23:00:00Z"


async def test_a_users_schedule_is_replaced_only_with_take_over(
    site: ChargeAmpsSite, wire: Wire, server: FakeCloudServer
) -> None:
    own = {
        "scheduleId": 77,
        "chargePointId": POINT,
        "connectorId": 1,
        "schedulePeriods": [{"from": 0, "to": 3600, "maxCurrent": 10.0}],
        "isActive": True,
        "startOfSchedule": "2026-11-15T23:00:00Z",
    }
    connector(site).schedule = dict(own)
    connector(site).mode = "Schedule"
    await wire.send(PRICES, curve(*S2), retain=True)
    node, _ = await site.start()
    state = await scheduled(node, wire, "error")
    assert state["schedule_source"] == "none"
    assert (
        state["schedule_error"]
        == "The charger has a schedule of its user; CHARGE_AMPS_TAKE_OVER=true replaces it"
    )
    assert (connector(site).schedule or {})["scheduleId"] == 77
    await site.stop(node)
    assert puts(server) == 0
    node, _ = await site.start(take_over=True)
    await scheduled(node, wire)
    assert periods(site) == [(439200, 442800), (479700, 482400)]


async def test_no_schedule_is_reported_before_it_has_been_read_back(
    site: ChargeAmpsSite, wire: Wire, server: FakeCloudServer
) -> None:
    node, _ = await site.start()
    for number, kind in enumerate(["500", "timeout", "lost_answer", "truncated", "html", "429"]):
        before = connector(site).schedule
        fault = server.fail("PUT .*smartChargingSchedules", kind, retry_after_s=0)
        prices = [0.5] * 96
        prices[60 + 4 * number] = 0.1
        start_s = 432_000 + 900 * (60 + 4 * number)
        await wire.send(PRICES, curve(*prices), retain=True)
        if kind not in {"lost_answer", "truncated"}:
            await scheduled(node, wire, "error")
            assert connector(site).schedule is before
            site.clock.advance(seconds=301)
        await node.until(lambda start_s=start_s: periods(site) == [(start_s, start_s + 900)])
        state = await scheduled(node, wire)
        assert state["schedule_source"] == "standalone"
        assert fault.seen == 1


async def test_a_deleted_schedule_is_written_again_and_a_replaced_one_is_left(
    site: ChargeAmpsSite, wire: Wire, server: FakeCloudServer
) -> None:
    await wire.send(PRICES, curve(*S2), retain=True)
    node, adapter = await site.start()
    await scheduled(node, wire)
    connector(site).schedule = None
    site.clock.advance(minutes=16)
    await node.until(lambda: periods(site) == [(439200, 442800), (479700, 482400)])
    sync = adapter.connectors[POINT, 1].sync
    await node.until(
        lambda: (
            not sync.busy and sync.state.schedule_id == str((connector(site).schedule or {})["scheduleId"])
        )
    )
    foreign = {**(connector(site).schedule or {}), "scheduleId": 1, "schedulePeriods": []}
    foreign["schedulePeriods"] = [{"from": 0, "to": 60, "maxCurrent": 6.0}]
    connector(site).schedule = foreign
    site.clock.advance(minutes=16)
    await node.until(lambda: wire.state.get("schedule_source") == "none")
    await scheduled(node, wire, "error")
    assert connector(site).schedule is foreign


async def test_prices_in_another_currency_are_refused(
    site: ChargeAmpsSite, wire: Wire, server: FakeCloudServer
) -> None:
    await wire.send(PRICES, {**curve(*S2), "currency": "SEK"}, retain=True)
    node, _ = await site.start()
    state = await scheduled(node, wire, "error")
    assert state["message"] == "Prices are in SEK, the threshold is in EUR"
    assert puts(server) == 0
    await wire.send(PRICES, b"nonsense", retain=True)
    await wire.send(PRICES, {**curve(*S2), "currency": "EUR"}, retain=True)
    await scheduled(node, wire)


async def test_automation_off_deletes_the_schedule(
    site: ChargeAmpsSite, wire: Wire, server: FakeCloudServer
) -> None:
    await wire.send(PRICES, curve(*S2), retain=True)
    node, _ = await site.start()
    await scheduled(node, wire)
    await site.stop(node)
    node, _ = await site.start(automation=False)
    await scheduled(node, wire, "disabled")
    assert connector(site).schedule is None
    assert deletes(server) == 1


# --- HEMS --------------------------------------------------------------------------------------------

HEMS_SET = {
    "source": "hems",
    "periods": [
        {"start": "2026-11-21T22:00:00+01:00", "end": "2026-11-21T23:00:00+01:00"},
        {"start": "2026-11-22T02:00:00+01:00", "end": "2026-11-22T06:00:00+01:00"},
    ],
    "max_current": 10,
    "expires_at": "2026-11-22T08:00:00+01:00",
}
HEMS_WEEK = [(511200, 514800), (525600, 540000)]


@asynccontextmanager
async def hems(
    site: ChargeAmpsSite, wire: Wire, **changes: Any
) -> AsyncIterator[tuple[Node, ChargeAmpsAdapter]]:
    node, adapter = await site.start(mode="hems", **changes)
    await node.until(lambda: wire.status.get("ready_for_schedule"))
    yield node, adapter


async def obeyed(node: Node, wire: Wire, result: str) -> dict[str, Any]:
    await node.until(lambda: wire.status.get("last_command_result") == result)
    return wire.status


async def test_scenario_hems_mode_startup_and_valid_schedule_received(
    site: ChargeAmpsSite, wire: Wire, server: FakeCloudServer
) -> None:
    """H1, H7, H9, H13."""
    await wire.send(PRICES, curve(*S2), retain=True)
    async with hems(site, wire) as (node, _):
        status = wire.status
        assert (status["state"], status["schedule_source"], status["schedule_active"]) == (
            "idle",
            "none",
            False,
        )
        assert status["last_command_result"] is None
        await wire.send("hems/charge-amps/1/schedule/set", HEMS_SET)
        status = await obeyed(node, wire, "success")
        assert periods(site) == HEMS_WEEK
        assert status["schedule_source"] == "hems"
        assert status["current_schedule_id"] == str((connector(site).schedule or {})["scheduleId"])
        assert status["next_period_start"] == "2026-11-21T21:00:00+00:00"
        assert status["expires_at"] == "2026-11-22T07:00:00+00:00"
        assert status["last_hems_command_at"] == status["last_command_at"] == site.clock.now.isoformat()
        assert status["charger_state"] == status["state"]
        assert wire.state["hems_last_command"] == site.clock.now.isoformat()
        assert wire.state["price_threshold_active"] is False
        (body,) = server.sent("PUT", "smartChargingSchedules")
        assert {one["maxCurrent"] for one in body["schedulePeriods"]} == {10.0}

        site.clock.advance(minutes=1)
        await wire.send("hems/charge-amps/1/schedule/set", HEMS_SET)
        await node.until(lambda: wire.status["last_command_at"] == site.clock.now.isoformat())
        assert puts(server) == 1, "the same again is not written again"

        await wire.send("hems/charge-amps/1/schedule/clear", b"")
        status = await obeyed(node, wire, "cleared")
        assert (status["state"], status["schedule_source"], status["schedule_active"]) == (
            "idle",
            "none",
            False,
        )
        assert (connector(site).schedule, deletes(server)) == (None, 1)

        site.clock.advance(minutes=1)
        await wire.send("hems/charge-amps/1/schedule/clear", b"null")
        await node.until(lambda: wire.status["last_command_at"] == site.clock.now.isoformat())
        assert (wire.status["last_command_result"], deletes(server)) == ("cleared", 1)


async def test_scenario_threshold_ignored_in_hems_mode(
    site: ChargeAmpsSite, wire: Wire, server: FakeCloudServer
) -> None:
    """H13: no price is looked at, the schedule is applied exactly as received, the sensor stays off (S14)."""
    await wire.send(PRICES, curve(*[0.9] * 96), retain=True)
    async with hems(site, wire) as (node, adapter):
        await wire.send("hems/charge-amps/1/schedule/set", HEMS_SET)
        await obeyed(node, wire, "success")
        assert periods(site) == HEMS_WEEK
        assert adapter.connectors[POINT, 1].planner.plan is None
        assert wire.state["price_threshold_active"] is False


async def test_scenario_clear_schedule_command(
    site: ChargeAmpsSite, wire: Wire, server: FakeCloudServer
) -> None:
    async with hems(site, wire) as (node, _):
        await wire.send("hems/charge-amps/1/schedule/set", HEMS_SET)
        await obeyed(node, wire, "success")
        await wire.send("hems/charge-amps/1/schedule/clear", b"")
        status = await obeyed(node, wire, "cleared")
        assert (status["state"], status["schedule_source"], connector(site).schedule) == (
            "idle",
            "none",
            None,
        )


REFUSED = [
    b"{bad",
    b"[]",
    b"{}",
    b'{"periods":[]}',
    b"\xff\xfe",
    b'{"periods":[{"start":"2026-11-21T22:00:00+01:00"}]}',
    b'{"periods":[{"start":"2026-11-21T22:00:00","end":"2026-11-21T23:00:00"}],"max_current":3}',
    b'{"periods":[{"start":"2026-11-20T01:00:00","end":"2026-11-20T02:00:00"}]}',
    json.dumps({**HEMS_SET, "expires_at": "2026-11-20T00:00:00Z"}).encode(),
]


async def test_scenario_invalid_schedule_payload(
    site: ChargeAmpsSite, wire: Wire, server: FakeCloudServer
) -> None:
    """H2, H3, H5, H14: the message is refused as a whole, what was there stays."""
    async with hems(site, wire) as (node, _):
        await wire.send("hems/charge-amps/1/schedule/set", HEMS_SET)
        await obeyed(node, wire, "success")
        for body in REFUSED:
            await wire.send("hems/charge-amps/1/schedule/set", body)
            status = await obeyed(node, wire, "error")
            assert status["error"] in {
                "Invalid schedule payload",
                "No valid periods after conversion",
                "Schedule already expired",
            }
            assert (status["schedule_source"], periods(site), puts(server)) == ("hems", HEMS_WEEK, 1)
            await wire.send("hems/charge-amps/1/schedule/set", HEMS_SET)
            status = await obeyed(node, wire, "success")
            assert (status["error"], puts(server)) == (None, 1)


async def test_scenario_schedule_with_expiration(
    site: ChargeAmpsSite, wire: Wire, server: FakeCloudServer
) -> None:
    """H6: by timer; then, with a restart in between, at start."""
    async with hems(site, wire) as (node, _):
        await wire.send("hems/charge-amps/1/schedule/set", HEMS_SET)
        await obeyed(node, wire, "success")
        site.clock.now = datetime(2026, 11, 22, 7, tzinfo=UTC)
        await node.until(lambda: wire.status["schedule_source"] == "none")
        again = {**HEMS_SET, "expires_at": "2026-11-22T09:00:00+01:00"}
        again["periods"] = [{"start": "2026-11-22T08:30:00+01:00", "end": "2026-11-22T10:00:00+01:00"}]
        await wire.send("hems/charge-amps/1/schedule/set", again)
        await node.until(lambda: puts(server) == 2)
        site.clock.now = datetime(2026, 11, 22, 8, 0, 1, tzinfo=UTC)
        status = await obeyed(node, wire, "expired")
        assert (status["schedule_source"], connector(site).schedule) == ("none", None)
        before = deletes(server)
        await wire.send(
            "hems/charge-amps/1/schedule/set", {**again, "expires_at": "2026-11-22T09:30:00+01:00"}
        )
        await obeyed(node, wire, "success")
        await site.stop(node)
    site.clock.now = datetime(2026, 11, 22, 9, tzinfo=UTC)
    node, _ = await site.start(mode="hems")
    await obeyed(node, wire, "expired")
    assert deletes(server) == before + 1


async def test_h8_a_retained_clear_is_ignored_and_a_retained_set_applied_once(
    site: ChargeAmpsSite, wire: Wire, server: FakeCloudServer
) -> None:
    await wire.send("hems/charge-amps/1/schedule/clear", b"x", retain=True)
    await wire.send("hems/charge-amps/1/schedule/set", HEMS_SET, retain=True)
    async with hems(site, wire) as (node, _):
        await obeyed(node, wire, "success")
        await site.stop(node)
    await wire.caught_up()
    wire.last.clear()
    async with hems(site, wire) as (node, adapter):
        await obeyed(node, wire, "success")
        await wire.send("hems/charge-amps/1/schedule/set", b"{bad")
        await obeyed(node, wire, "error")  # by now the retained messages have been received
        assert (periods(site), puts(server), deletes(server)) == (HEMS_WEEK, 1, 0)
        at = site.clock.advance(seconds=1)
        await wire.send("hems/charge-amps/1/schedule/set", b"", retain=True)
        await wire.send("hems/charge-amps/1/schedule/set", HEMS_SET)
        await obeyed(node, wire, "success")
        await adapter.connectors[POINT, 1].publish()
        await wire.caught_up()
        assert wire.results(at) == ["success"], "H15"
    await wire.send("hems/charge-amps/1/schedule/clear", b"", retain=True)


async def test_h15_a_result_is_published_once_even_if_the_monitor_publishes_it_first(
    site: ChargeAmpsSite, wire: Wire, server: FakeCloudServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with hems(site, wire) as (node, adapter):
        one = adapter.connectors[POINT, 1]
        note_command = one.sync.note_command

        async def noted_and_polled(result: str, error: str | None = None) -> None:
            await note_command(result, error)
            await one.publish()  # as the monitor does after a poll

        monkeypatch.setattr(one.sync, "note_command", noted_and_polled)
        begun = site.clock.now
        # The bridge executes one command after the other: what it publishes for one has come before the next result.
        for number, body in enumerate((HEMS_SET, b"{bad", b"{bad", b"{bad"), 1):
            at = site.clock.advance(seconds=1)
            await wire.send("hems/charge-amps/1/schedule/set", body)
            await node.until(lambda at=at: wire.results(at))
            earlier = [wire.results(begun + timedelta(seconds=before)) for before in range(1, number)]
            assert earlier == [["success"], ["error"], ["error"]][: number - 1]


async def test_a_connector_is_ready_when_the_broker_has_made_the_subscription_to_its_commands(
    site: ChargeAmpsSite, wire: Wire, server: FakeCloudServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A command that is sent as soon as the status says ready is never lost."""
    asked, released, subscribe = asyncio.Event(), asyncio.Event(), BrokerLink.subscribe

    async def delayed(link: BrokerLink, topic: str, *args: Any, **options: Any) -> None:
        if topic.endswith("hems/charge-amps/1/schedule/+"):
            asked.set()
            await released.wait()
        await subscribe(link, topic, *args, **options)

    monkeypatch.setattr(BrokerLink, "subscribe", delayed)
    node, adapter = await site.start(mode="hems")
    await asyncio.wait_for(asked.wait(), 10)
    await node.until(lambda: wire.status.get("state") == "idle")
    await adapter.connectors[POINT, 1].publish()
    await wire.caught_up()
    assert wire.status["ready_for_schedule"] is False
    released.set()
    await node.until(lambda: wire.status["ready_for_schedule"])
    await wire.send("hems/charge-amps/1/schedule/set", HEMS_SET)
    await obeyed(node, wire, "success")


async def test_h10_a_failed_write_is_an_error_and_is_retried(
    site: ChargeAmpsSite, wire: Wire, server: FakeCloudServer
) -> None:
    async with hems(site, wire) as (node, _):
        fault = server.fail("PUT .*smartChargingSchedules", "500", times=2)
        await wire.send("hems/charge-amps/1/schedule/set", HEMS_SET)
        status = await obeyed(node, wire, "error")
        assert (status["schedule_source"], status["error"]) == ("none", "Failed to apply schedule to charger")
        assert status["schedule_active"] is False
        site.clock.advance(seconds=1)
        await node.until(lambda: site.clock.advance(seconds=1) and fault.seen == 2)
        await node.until(
            lambda: site.clock.advance(seconds=1) and wire.status["last_command_result"] == "success"
        )
        status = wire.status
        assert (status["schedule_source"], status["error"]) == ("hems", None)
        fault = server.fail("DELETE .*smartChargingSchedules", "500", times=1000)
        await wire.send("hems/charge-amps/1/schedule/clear", b"")
        status = await obeyed(node, wire, "error")
        assert (status["schedule_source"], status["error"]) == ("hems", "Failed to clear schedule")


async def test_h12_scenario_mode_switch_at_runtime(
    site: ChargeAmpsSite, wire: Wire, server: FakeCloudServer
) -> None:
    await wire.send(PRICES, curve(*S2), retain=True)
    node, _ = await site.start()
    await scheduled(node, wire)
    await site.stop(node)
    server.fail("DELETE .*smartChargingSchedules", "500", times=1)
    async with hems(site, wire) as (node, _):
        assert (connector(site).schedule, deletes(server), puts(server)) == (None, 2, 1)
        assert wire.state["schedule_source"] == "none"
        await wire.send("hems/charge-amps/1/schedule/set", HEMS_SET)
        await obeyed(node, wire, "success")
        one = await shows(node, lambda one: one["delivery"] == "in_place")
        assert (one["mode"], one["source"], one["slots"], len(one["running"])) == ("hems", "hems", [], 2)
        await site.stop(node)
    wire.last.clear()
    node, _ = await site.start()
    state = await scheduled(node, wire)
    assert (state["operation_mode"], state["schedule_source"]) == ("standalone", "standalone")
    assert deletes(server) == 3
    assert wire.last.get("hems/charge-amps/1/status") is None, "a HEMS is not told what is no longer so"


async def test_scenario_status_on_state_change_and_readiness(
    site: ChargeAmpsSite, wire: Wire, server: FakeCloudServer
) -> None:
    async with hems(site, wire) as (node, _):
        assert (wire.status["state"], wire.status["ready_for_schedule"]) == ("idle", True)
        connector(site).plugged = True
        await node.until(lambda: wire.status["state"] == "plugged_in")
        site.cloud.plug_in(POINT)
        await node.until(lambda: wire.status["state"] == "charging")
        assert wire.status["current_power_kw"] == 11.04
        assert wire.status["session_energy_kwh"] == 0

        def half_a_kwh_with_the_heartbeat() -> bool:
            site.let(minutes=1)
            return (wire.status["session_energy_kwh"] or 0) >= 0.5

        await node.until(half_a_kwh_with_the_heartbeat)
        site.cloud.unplug(POINT)
        await node.until(lambda: wire.status["state"] == "idle")
        assert wire.status["session_energy_kwh"] is None
        connector(site).fault = "GroundFailure"
        await node.until(lambda: wire.status["state"] == "error")
        assert wire.status["ready_for_schedule"] is False
        connector(site).fault = None
        site.cloud.charge_points[POINT].online = False
        await node.until(lambda: wire.status["state"] == "offline")
        assert wire.status["ready_for_schedule"] is False
        assert wire.status["current_power_kw"] is None, "missing is not 0"
        before = len(wire.came)
        site.clock.advance(seconds=61)
        await node.until(lambda: "hems/charge-amps/1/status" in [topic for topic, _ in wire.came[before:]])


async def test_an_operator_takes_the_connector_out_of_service(
    site: ChargeAmpsSite, wire: Wire, server: FakeCloudServer
) -> None:
    async with hems(site, wire) as (node, _):
        await wire.send("hems/charge-amps/1/schedule/set", HEMS_SET)
        await obeyed(node, wire, "success")
        for kind, mode in (("Inoperative", "Off"), ("Operative", "Schedule")):
            answer = await node.api.post(
                f"/api/v1/chargers/{POINT}/commands",
                json={"action": "ChangeAvailability", "payload": {"connectorId": 1, "type": kind}},
            )
            assert answer.json()["response"] == {"status": "Accepted"}
            assert connector(site).mode == mode
            await node.until(lambda mode=mode: wire.status["ready_for_schedule"] is (mode == "Schedule"))
