"""The whole bridge: simulated chargers, a real broker, a real node."""

import asyncio

import pytest

from csms.core import reports
from csms.errors import LedgerError
from csms.simulate.ev_meter import FakeChargerState, encode
from tests.e2e.conftest import TOKEN
from tests.harness.bridges.ev_meter_site import polled
from tests.harness.waiting import until


async def shows(node, name, status):
    await node.until(
        lambda: (events := node.of("status_changed", name)) and events[-1]["payload"]["status"] == status
    )


async def test_a_session_becomes_an_ordinary_transaction(start_site, start_node):
    site = await start_site()
    node = await start_node(bridges=[site.bridge()])
    charger, name = site.charger, site.name
    await shows(node, name, "Available")
    charger.state.plug()
    await shows(node, name, "Preparing")
    charger.state.charge(100, fresh=True)
    (started,) = await node.until(lambda: node.of("started", name))
    assert started["payload"]["meterStart"] == 1_000_000
    assert started["payload"]["idTag"] == "TAG"
    charger.state.charge(150)
    await node.until(lambda: node.of("meter_reading", name))
    charger.state.rest()
    await shows(node, name, "SuspendedEV")
    charger.state.unplug()
    (cost,) = await node.until(lambda: node.of("session_cost", name))
    assert cost["payload"]["energyConsumed"] == 0.25
    assert cost["payload"]["estimatedCost"] == 0.03
    (done,) = node.of("completed", name)
    assert done["payload"]["reason"] == "EVDisconnected"
    assert "anomaly" not in done["payload"]
    # A question may also have fallen between the first figures and these, and between these and the last.
    readings = [event["payload"] for event in node.of("meter_reading", name)]
    reading = next(reading for reading in readings if reading["totalEnergy"] == 1000.25)
    assert reading["currentPower"] == pytest.approx(16 * 690.75 / 1000, abs=0.001)
    assert reading["measurands"]["Power.Active.Import"]["context"] == "Other"
    assert reading["measurands"]["Voltage"]["phases"] == {"L1-N": 230.0, "L2-N": 230.25, "L3-N": 230.5}

    listed = (await node.api.get(f"/api/v1/chargers/{name}")).json()
    assert (listed["protocol"], listed["online"], listed["vendor"], listed["firmwareVersion"]) == (
        "ev-meter",
        True,
        "EV-Meter",
        "7.10.3",
    )
    await node.api.post("/sign-in", data={"token": TOKEN})
    assert "<dt>Protocol</dt><dd>ev-meter</dd>" in (await node.api.get(f"/chargers/{name}")).text
    assert site.backend.violations == []


async def test_frames_of_two_chargers_are_never_swapped(start_site, start_node):
    site = await start_site(2)
    one, two = site.chargers
    two.state.total_wh = 7_000_000
    node = await start_node(bridges=[site.bridge()])
    for name in site.names:
        await shows(node, name, "Available")
    for number in range(1, 4):
        # Each answers late, and ahead of its own frame with the other's.
        one.state.charge(100, fresh=number == 1)
        two.state.charge(200, fresh=number == 1)
        one.faults.late_s, two.faults.late_s = (0.05, 0.01) if number % 2 else (0.01, 0.05)
        one.faults.before, two.faults.before = [encode(two.state)], [encode(one.state)]
        await polled(site)
    for charger in site.chargers:
        charger.faults.before = []
        charger.state.unplug()
    for name, energy_kwh, first in zip(site.names, (0.3, 0.6), (1_000_000, 7_000_000), strict=True):
        (done,) = await node.until(lambda name=name: node.of("completed", name))
        assert (done["payload"]["energyUsed"], done["payload"]["meterStart"]) == (energy_kwh, first)
    assert all(charger.asked.most_waiting <= 1 for charger in site.chargers)


async def test_a_restart_in_mid_session_continues_the_same_transaction(start_site, start_node):
    site = await start_site()
    name, state = site.name, site.charger.state
    node = await start_node(bridges=[site.bridge()])
    await shows(node, name, "Available")
    state.charge(100, fresh=True)
    (started,) = await node.until(lambda: node.of("started", name))
    state.charge(100)
    await node.until(lambda: node.of("meter_reading", name))
    node.stop.set()
    await node.task

    state.charge(1000)
    again = await start_node(bridges=[site.bridge()])
    await again.until(
        lambda: any(e["payload"].get("totalEnergy") == 1001.2 for e in again.of("meter_reading", name))
    )
    state.unplug()
    (done,) = await again.until(lambda: again.of("completed", name))
    assert done["payload"]["transactionId"] == started["payload"]["transactionId"]
    assert done["payload"]["energyUsed"] == 1.2
    assert again.of("started", name) == []
    rows = await again.fetch("SELECT id, anomalies FROM transactions")
    assert [row["anomalies"] for row in rows] == [[]]


async def test_an_offline_charger_becomes_unavailable_and_comes_back(start_site, start_node):
    site = await start_site()
    bridge = site.bridge()
    node = await start_node(bridges=[bridge])
    name = site.name
    await shows(node, name, "Available")
    site.charger.faults.silent = True
    await shows(node, name, "Unavailable")
    await until(lambda: not bridge.pollers[name].reachable)
    listed = (await node.api.get(f"/api/v1/chargers/{name}")).json()
    assert listed["online"] is False
    assert node.of("status_changed", name)[-1]["payload"]["info"] == "offline"
    site.charger.faults.silent = False
    await shows(node, name, "Available")
    assert (await node.api.get(f"/api/v1/chargers/{name}")).json()["online"] is True


async def test_a_charger_that_was_never_reached_is_listed_as_offline(start_site, start_node):
    site = await start_site()
    site.charger.faults.silent = True
    node = await start_node(bridges=[site.bridge()])
    await shows(node, site.name, "Unavailable")
    await node.until(lambda: site.asked() >= 4)
    listed = (await node.api.get(f"/api/v1/chargers/{site.name}")).json()
    assert (listed["protocol"], listed["online"], listed["enrollment"]) == ("ev-meter", False, "Accepted")


async def test_a_missed_session_is_reported_once(start_site, start_node):
    site = await start_site()
    name, state = site.name, site.charger.state
    node = await start_node(bridges=[site.bridge()])
    await shows(node, name, "Available")
    site.charger.faults.silent = True
    await shows(node, name, "Unavailable")
    state.charge(1234, fresh=True)
    state.unplug()
    site.charger.faults.silent = False
    (done,) = await node.until(lambda: node.of("completed", name))
    assert (done["payload"]["energyUsed"], done["payload"]["anomaly"]) == (1.234, "missed_session")
    await polled(site)
    node.stop.set()
    await node.task
    again = await start_node(bridges=[site.bridge()])
    await polled(site, 3)
    assert len(await again.fetch("SELECT 1 FROM transactions")) == 1


async def test_a_session_missed_while_the_bridge_was_down_is_reported_once(start_site, start_node):
    site = await start_site()
    name, state = site.name, site.charger.state
    node = await start_node(bridges=[site.bridge()])
    await shows(node, name, "Available")
    await polled(site)
    node.stop.set()
    await node.task
    await site.clock.sleep(60)
    state.charge(777, fresh=True)
    state.unplug()
    again = await start_node(bridges=[site.bridge()])
    (done,) = await again.until(lambda: again.of("completed", name))
    assert (done["payload"]["energyUsed"], done["payload"]["anomaly"]) == (0.777, "missed_session")
    await polled(site, 3)
    assert len(await again.fetch("SELECT 1 FROM transactions")) == 1


async def test_an_unsolicited_frame_counts_and_a_retained_one_does_not(start_site, start_node):
    site = await start_site()
    mac = site.charger.state.mac
    await site.backend.say(encode(FakeChargerState(mac=mac, ev=5)), retain=True)
    node = await start_node(bridges=[site.bridge(pace={"idle_s": 30, "charging_s": 30})])
    name = site.name
    await shows(node, name, "Available")
    asked = site.asked()
    await site.backend.say(encode(FakeChargerState(mac="FFFFFFFFFFFF", ev=5)))
    await site.backend.say(encode(FakeChargerState(mac=mac, ev=2)))
    await shows(node, name, "Preparing")
    assert site.asked() == asked
    assert [e["payload"]["status"] for e in node.of("status_changed")] == ["Available", "Preparing"]
    await site.backend.say(b"", retain=True)


async def test_late_duplicate_and_truncated_replies_are_tolerated(start_site, start_node):
    site = await start_site()
    name, faults = site.name, site.charger.faults
    node = await start_node(bridges=[site.bridge()])
    await shows(node, name, "Available")
    faults.late_s, faults.twice = 0.35, True  # beyond the time-out
    site.charger.state.plug()
    await shows(node, name, "Preparing")
    faults.late_s, faults.cut_to = 0, 40
    await shows(node, name, "Unavailable")
    faults.cut_to = None
    await shows(node, name, "Preparing")
    assert await node.fetch("SELECT 1 FROM transactions") == []
    assert all(row["energy_wh"] == 1_000_000 for row in await node.fetch("SELECT energy_wh FROM readings"))


async def test_a_session_continues_through_restarts_of_the_broker(mosquitto, start_site, start_node):
    server = mosquitto()
    site = await start_site(on=server)
    name, state = site.name, site.charger.state
    node = await start_node(bridges=[site.bridge()])
    await shows(node, name, "Available")
    state.charge(100, fresh=True)
    (started,) = await node.until(lambda: node.of("started", name))
    server.restart()
    state.charge(100)
    await node.until(
        lambda: any(e["payload"].get("totalEnergy") == 1000.2 for e in node.of("meter_reading", name))
    )
    server.stop()
    await shows(node, name, "Unavailable")
    server.start()
    await shows(node, name, "Charging")
    state.unplug()
    (done,) = await node.until(lambda: node.of("completed", name))
    assert done["payload"]["transactionId"] == started["payload"]["transactionId"]


async def test_only_a_status_can_be_requested_of_a_charger(start_site, start_node):
    site = await start_site()
    node = await start_node(bridges=[site.bridge(pace={"idle_s": 30, "charging_s": 30})])
    await shows(node, site.name, "Available")
    url = f"/api/v1/chargers/{site.name}/commands"
    for action, payload in (
        ("RemoteStartTransaction", {"idTag": "TAG"}),
        ("RemoteStopTransaction", {"transactionId": 1}),
        ("Reset", {"type": "Soft"}),
        ("TriggerMessage", {"requestedMessage": "BootNotification"}),
    ):
        refused = await node.api.post(url, json={"action": action, "payload": payload})
        assert refused.status_code == 501, refused.text
    asked = site.asked()
    payload = {"requestedMessage": "MeterValues"}
    told = await node.api.post(url, json={"action": "TriggerMessage", "payload": payload})
    assert told.json()["response"] == {"status": "Accepted"}
    await until(lambda: site.asked() > asked)
    assert site.backend.violations == []


async def test_a_charger_that_another_node_holds_is_released(start_site, start_node):
    site = await start_site()
    bridge = site.bridge()
    node = await start_node(bridges=[bridge])
    await shows(node, site.name, "Available")
    newer = site.bridge()
    second = await start_node(bridges=[newer], csms_node="node-b")
    await until(lambda: newer.pollers and newer.pollers[site.name].reachable)
    await until(lambda: not bridge.pollers[site.name].reachable)
    rows = await second.fetch("SELECT node, online FROM charger_states")
    assert rows == [{"node": "node-b", "online": True}]
    site.charger.state.plug()
    await shows(second, site.name, "Preparing")


async def test_a_charger_that_an_operator_has_rejected_is_not_recorded(start_site, start_node):
    site = await start_site()
    bridge = site.bridge()
    node = await start_node(bridges=[bridge])
    await shows(node, site.name, "Available")
    done = await node.api.patch(f"/api/v1/chargers/{site.name}", json={"enrollment": "Rejected"})
    assert done.status_code == 200, done.text
    await until(lambda: not bridge.pollers[site.name].reachable)
    node.stop.set()
    await node.task
    again = site.bridge()
    await start_node(bridges=[again])
    asked = site.asked()
    await until(lambda: site.asked() > asked)
    await until(lambda: "ev-meter poller" not in {task.get_name() for task in asyncio.all_tasks()})
    assert not again.pollers[site.name].reachable
    statuses = [event["payload"]["status"] for event in node.of("status_changed", site.name)]
    assert statuses == ["Available"]


class Grudging:
    """A node whose ledger refuses one start."""

    def __init__(self, node):
        self._node = node
        self.refused = 0

    def __getattr__(self, name):
        return getattr(self._node, name)

    async def record(self, report):
        if isinstance(report, reports.Start) and not self.refused:
            self.refused += 1
            raise LedgerError("no")
        return await self._node.record(report)


async def test_after_a_refused_report_the_tracker_is_made_from_the_record(start_site, start_node):
    site = await start_site()
    bridge = site.bridge()
    given, run = [], bridge.run

    async def grudging(node):
        given.append(Grudging(node))
        await run(given[0])

    bridge.run = grudging
    node = await start_node(bridges=[bridge])
    await shows(node, site.name, "Available")
    site.charger.state.charge(100, fresh=True)
    (started,) = await node.until(lambda: node.of("started", site.name))
    assert given[0].refused == 1
    assert started["payload"]["meterStart"] == 1_000_000


async def test_an_unprintable_version_is_recorded_without_those_characters(start_site, start_node):
    site = await start_site()
    site.charger.state.version = "7\0.1"
    node = await start_node(bridges=[site.bridge()])
    await shows(node, site.name, "Available")
    listed = (await node.api.get(f"/api/v1/chargers/{site.name}")).json()
    assert listed["firmwareVersion"] == "7.1"
