"""Sessions, faults and commands through a whole node: simulated cloud, real HTTP, real Postgres, real broker."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from csms.simulate.charge_amps import FakeCloudServer
from tests.bridges.charge_amps.conftest import POINT, ChargeAmpsSite, HandClock
from tests.e2e.conftest import Node
from tests.harness.waiting import until


@pytest.fixture
def clock() -> HandClock:
    """A day ago: what the ledger takes for plausible."""
    return HandClock(datetime.now(UTC).replace(microsecond=0) - timedelta(days=1))


async def running(node: Node) -> dict[str, Any]:
    """The event of the start."""
    (started,) = await node.until(lambda: node.of("started", POINT))
    return dict(started["payload"])


def status(node: Node) -> str | None:
    """The last one told of connector 1."""
    told = [e["payload"] for e in node.of("status_changed", POINT) if e["payload"]["connectorId"] == 1]
    return told[-1]["status"] if told else None


async def polled(site: ChargeAmpsSite, node: Node, times: int = 2) -> None:
    """Wait until the bridge has looked again, from the beginning of a poll to its end."""
    seen = len(site.server.sent("GET", "/status$"))
    await node.until(lambda: len(site.server.sent("GET", "/status$")) >= seen + times)


async def completed(node: Node, count: int = 1) -> list[dict[str, Any]]:
    found = await node.until(
        lambda: node.of("completed", POINT) if len(node.of("completed", POINT)) >= count else None
    )
    return [event["payload"] for event in found]


async def test_a_session_becomes_an_ordinary_transaction(site: ChargeAmpsSite) -> None:
    node, _ = await site.start()
    await polled(site, node)
    site.cloud.plug_in(POINT, rfid="04a1b2c3")
    started = await running(node)
    assert (started["idTag"], started["meterStart"], started["connectorId"]) == ("04A1B2C3", 0, 1)
    began = site.clock.now
    site.let(minutes=30)
    await node.until(
        lambda: [e for e in node.of("meter_reading", POINT) if e["payload"].get("sessionEnergy") == 5.52]
    )
    reading = node.of("meter_reading", POINT)[-1]["payload"]
    assert (reading["currentPower"], reading["totalEnergy"]) == (11.04, 5.52)
    site.cloud.unplug(POINT)
    (done,) = await completed(node)
    assert (done["meterStop"], done["energyUsed"], done["duration"]) == (5520, 5.52, 30)
    assert done["reason"] == "EVDisconnected"
    assert done["startTime"].startswith(began.strftime("%Y-%m-%dT%H:%M:%S"))
    await node.until(lambda: node.of("session_cost", POINT))
    await polled(site, node)
    words = [
        e["payload"]["status"] for e in node.of("status_changed", POINT) if e["payload"]["connectorId"] == 1
    ]
    assert words == ["Available", "Charging", "Available"]
    charger = (await node.api.get(f"/api/v1/chargers/{POINT}")).json()
    assert (charger["protocol"], charger["online"], charger["vendor"], charger["model"]) == (
        "charge-amps",
        True,
        "Charge Amps AB",
        "HALO",
    )
    assert charger["firmwareVersion"] == "184"


async def test_t2_a_pause_by_schedule_stays_one_transaction(site: ChargeAmpsSite) -> None:
    node, _ = await site.start()
    site.cloud.plug_in(POINT)
    await running(node)
    site.let(minutes=10)
    connector = site.cloud.charge_points[POINT].connectors[0]
    connector.mode = "Schedule"
    await node.until(lambda: status(node) == "SuspendedEVSE")
    site.let(hours=1)
    await polled(site, node)
    connector.mode = "On"
    site.let(minutes=10)
    await polled(site, node)
    site.cloud.unplug(POINT)
    (done,) = await completed(node)
    assert done["energyUsed"] == pytest.approx(11.04 / 3, abs=0.002)
    assert len(node.of("started", POINT)) == 1


async def test_t3_a_second_session_between_two_polls_is_recorded(site: ChargeAmpsSite) -> None:
    node, _ = await site.start()
    site.cloud.plug_in(POINT)
    await running(node)
    site.let(minutes=30)
    site.cloud.unplug(POINT)
    site.cloud.plug_in(POINT)
    site.let(minutes=15)
    (first,) = await completed(node)
    assert first["meterStop"] == 5520
    _, second = await node.until(lambda: len(found := node.of("started", POINT)) == 2 and found)
    assert second["payload"]["meterStart"] == 5520
    await polled(site, node)
    site.cloud.unplug(POINT)
    done = await completed(node, 2)
    assert [one["meterStop"] for one in done] == [5520, 8280]


async def test_t4_sessions_while_the_bridge_was_down_are_recorded_from_the_history(
    site: ChargeAmpsSite,
) -> None:
    node, _ = await site.start()
    site.cloud.plug_in(POINT, rfid="04a1b2c3")
    await running(node)
    site.let(minutes=30)
    await polled(site, node)
    await site.stop(node)
    site.let(minutes=30)
    site.cloud.unplug(POINT)
    ends = [site.clock.now]
    for minutes in (30, 60):
        site.let(minutes=30)
        site.cloud.plug_in(POINT, rfid="05a1b2c3")
        site.let(minutes=minutes)
        site.cloud.unplug(POINT)
        ends.append(site.clock.now)
    site.let(minutes=30)
    node, _ = await site.start(which="both")
    await node.until(lambda: len(node.of("completed", POINT)) >= 3)
    done = [event["payload"] for event in node.of("completed", POINT)]
    assert [one["meterStop"] for one in done] == [11040, 16560, 27600]
    assert [one["stopTime"][:19] for one in done] == [end.isoformat()[:19] for end in ends]
    assert [one["idTag"] for one in done] == ["04A1B2C3", "05A1B2C3", "05A1B2C3"]
    assert "backfilled" in done[1]["anomaly"]
    await site.stop(node)
    node, _ = await site.start()
    await polled(site, node, 3)
    rows = await node.fetch("SELECT key, energy_wh FROM transactions ORDER BY id")
    assert [row["energy_wh"] for row in rows] == [11040, 5520, 11040], "booked once, however often it starts"
    assert await node.fetch("SELECT 1 FROM quarantine") == []


async def test_t5_a_finished_session_that_is_still_in_the_status_starts_nothing(site: ChargeAmpsSite) -> None:
    site.cloud.shows_finished_s = 600
    node, _ = await site.start()
    site.cloud.plug_in(POINT)
    await running(node)
    site.let(minutes=30)
    site.cloud.unplug(POINT)
    await completed(node)
    await polled(site, node, 3)
    assert len(node.of("started", POINT)) == 1
    assert len(node.of("completed", POINT)) == 1


async def test_a_stop_waits_for_a_history_that_lags(site: ChargeAmpsSite) -> None:
    site.cloud.history_lag_s = 60
    node, _ = await site.start()
    site.cloud.plug_in(POINT)
    await running(node)
    site.let(minutes=30)
    ended_at = site.clock.now
    site.cloud.unplug(POINT)
    await polled(site, node, 3)
    assert node.of("completed", POINT) == []
    site.let(seconds=90)
    (done,) = await completed(node)
    assert done["stopTime"][:19] == ended_at.isoformat()[:19]


async def test_t8_a_charger_offline_in_mid_session_keeps_its_transaction(site: ChargeAmpsSite) -> None:
    node, _ = await site.start()
    site.cloud.plug_in(POINT)
    await running(node)
    site.cloud.charge_points[POINT].online = False
    await node.until(lambda: status(node) == "Unavailable")

    async def is_offline() -> bool:
        return not (await node.api.get(f"/api/v1/chargers/{POINT}")).json()["online"]

    await until(is_offline, 10)
    assert node.of("completed", POINT) == []
    site.let(minutes=5)
    site.cloud.charge_points[POINT].online = True
    await node.until(lambda: status(node) == "Charging")
    site.let(minutes=25)
    site.cloud.unplug(POINT)
    (done,) = await completed(node)
    assert (done["energyUsed"], len(node.of("started", POINT))) == (5.52, 1)


async def test_t9_faults_in_mid_session_change_no_transaction(
    site: ChargeAmpsSite, server: FakeCloudServer
) -> None:
    node, _ = await site.start()
    kinds = ["401", "403", "429", "500", "timeout", "truncated", "html", "strings", "nulls"]
    for count, kind in enumerate(kinds, 1):
        site.cloud.plug_in(POINT)
        await node.until(lambda count=count: len(node.of("started", POINT)) == count)
        site.let(minutes=15)
        await polled(site, node)
        times = 1 if kind == "timeout" else 2  # twice: the read that is repeated fails too
        status_fault = server.fail("/status$", kind, times=times, retry_after_s=0)
        await node.until(lambda fault=status_fault: fault.seen == fault.times)
        site.let(minutes=15)
        await polled(site, node)
        fault = server.fail("/chargingsessions", kind, times=times, retry_after_s=0)
        site.cloud.unplug(POINT)
        done = await completed(node, count)
        assert (done[-1]["meterStop"], done[-1]["energyUsed"]) == (5520 * count, 5.52)
        assert fault.seen > 0
        fault.times = 0
    assert len(node.of("started", POINT)) == len(node.of("completed", POINT)) == len(kinds)
    assert "Faulted" not in [e["payload"]["status"] for e in node.of("status_changed", POINT)]
    assert await node.fetch("SELECT 1 FROM quarantine") == []


async def test_chargers_are_offline_while_the_cloud_is_unreachable(
    site: ChargeAmpsSite, server: FakeCloudServer
) -> None:
    node, adapter = await site.start()
    site.cloud.plug_in(POINT)
    await running(node)
    fault = server.fail("chargepoints", "500", times=1000)
    await node.until(lambda: not adapter.monitors[POINT].online)
    await node.until(lambda: status(node) == "Unavailable")
    answer = await node.api.post(
        f"/api/v1/chargers/{POINT}/commands",
        json={"action": "RemoteStopTransaction", "payload": {"transactionId": 1}},
    )
    assert answer.status_code == 409, answer.text
    fault.times = 0
    await node.until(lambda: adapter.monitors[POINT].online)
    site.let(minutes=30)
    site.cloud.unplug(POINT)
    (done,) = await completed(node)
    assert (done["energyUsed"], len(node.of("started", POINT))) == (5.52, 1)


async def test_wrong_credentials_are_retried_slowly_and_end_no_transaction(
    site: ChargeAmpsSite, server: FakeCloudServer
) -> None:
    server.fail("auth/login", "403", times=2)
    node, adapter = await site.start()
    await node.until(lambda: server.logins >= 1 or server.sent("POST", "auth/login"))
    assert not node.task.done()
    assert adapter.monitors == {}


async def test_remote_start_stop_and_availability_are_performed(site: ChargeAmpsSite) -> None:
    site.cloud.auto_start = False
    node, adapter = await site.start(rfid="00AABBCC")

    async def ask(action: str, **payload: Any) -> tuple[int, Any]:
        answer = await node.api.post(
            f"/api/v1/chargers/{POINT}/commands", json={"action": action, "payload": payload}
        )
        return answer.status_code, answer.json().get("response", answer.json())

    await node.until(lambda: POINT in adapter.monitors and adapter.monitors[POINT].online)
    accepted, rejected = (200, {"status": "Accepted"}), (200, {"status": "Rejected"})
    assert await ask("RemoteStartTransaction", idTag="ALICE", connectorId=1) == rejected, "no car"
    site.cloud.plug_in(POINT)
    assert await ask("RemoteStartTransaction", idTag="ALICE", connectorId=1) == accepted
    started = await running(node)
    connector = site.cloud.charge_points[POINT].connectors[0]
    assert connector.session is not None
    assert (connector.session.rfid, started["idTag"]) == ("00AABBCC", "00AABBCC")
    assert await ask("RemoteStopTransaction", transactionId=started["transactionId"] + 1) == rejected
    site.let(minutes=15)
    assert await ask("RemoteStopTransaction", transactionId=started["transactionId"]) == accepted
    (done,) = await completed(node)
    assert (done["reason"], done["energyUsed"]) == ("Remote", 2.76)

    assert await ask("ChangeAvailability", connectorId=0, type="Inoperative") == accepted
    assert connector.mode == "Off"
    assert await ask("ChangeAvailability", connectorId=1, type="Operative") == accepted
    assert connector.mode == "On"
    assert await ask("ChangeAvailability", connectorId=2, type="Inoperative") != accepted, (
        "the Schuko refuses"
    )
    assert await ask("TriggerMessage", requestedMessage="StatusNotification") == accepted
    assert await ask("Reset", type="Soft") == accepted
    assert site.cloud.charge_points[POINT].boots == 1
    assert await ask("UnlockConnector", connectorId=1) == (200, {"status": "NotSupported"})
    status, problem = await ask("ClearCache")
    assert status == 501, problem


async def test_a_lost_answer_to_a_remote_start_is_a_timeout_and_the_session_is_recorded(
    site: ChargeAmpsSite, server: FakeCloudServer
) -> None:
    site.cloud.auto_start = False
    node, adapter = await site.start(rfid="00AABBCC")
    await node.until(lambda: POINT in adapter.monitors and adapter.monitors[POINT].online)
    site.cloud.plug_in(POINT)
    server.fail("remotestart", "lost_answer")
    answer = await node.api.post(
        f"/api/v1/chargers/{POINT}/commands",
        json={"action": "RemoteStartTransaction", "payload": {"idTag": "04A1B2C3", "connectorId": 1}},
    )
    assert answer.status_code == 504, answer.text
    assert (await running(node))["idTag"] == "04A1B2C3"


async def test_the_web_api_alone_counts_sessions_by_their_energy(site: ChargeAmpsSite) -> None:
    node, _ = await site.start("web")
    await node.until(lambda: node.of("status_changed", POINT))
    site.cloud.plug_in(POINT)
    await running(node)
    site.let(minutes=30)
    await node.until(
        lambda: [e for e in node.of("meter_reading", POINT) if e["payload"].get("sessionEnergy") == 5.52]
    )
    await site.stop(node)
    site.let(minutes=30)
    node, adapter = await site.start("web")
    await node.until(lambda: POINT in adapter.monitors and adapter.monitors[POINT].online)
    await node.until(lambda: adapter.monitors[POINT].accounting[1].register_wh == 11040)
    site.cloud.unplug(POINT)
    (done,) = await completed(node)
    assert (done["energyUsed"], done["idTag"]) == (11.04, "CA-UNKNOWN")


async def test_logs_and_records_have_no_secrets(
    site: ChargeAmpsSite, capfd: pytest.CaptureFixture[str], server: FakeCloudServer
) -> None:
    server.fail("/status$", "500", times=3)
    server.fail("auth", "html", times=1)
    node, _ = await site.start()
    site.cloud.plug_in(POINT)
    await running(node)
    output = "".join(capfd.readouterr())
    for secret in ("correct horse", "driver@example.org", "key-from-support", "the-charger's-own-secret"):
        assert secret not in output
    dumped = str(await node.fetch("SELECT * FROM chargers")) + str(node.events)
    assert "the-charger's-own-secret" not in dumped


async def test_a_charger_that_another_node_holds_is_released(
    site: ChargeAmpsSite, server: FakeCloudServer
) -> None:
    node, adapter = await site.start()
    await node.until(lambda: POINT in adapter.monitors and adapter.monitors[POINT].online)
    generation = adapter.monitors[POINT].generation
    assert generation is not None
    await adapter.hang_up(POINT, generation)
    assert not adapter.monitors[POINT].given_up, "that is our own"
    await adapter.hang_up(POINT, generation + 1)
    await node.until(lambda: adapter.monitors[POINT].generation is None)
    await node.until(lambda: "charge-amps monitor" not in {task.get_name() for task in asyncio.all_tasks()})
