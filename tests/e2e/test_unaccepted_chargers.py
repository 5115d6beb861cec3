"""A charger that no operator has accepted: its sessions are kept, and booked when it is accepted or never."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from csms.core import deferral
from csms.core.records import DeferredUsage
from csms.node import deferred_bookings
from tests.e2e.conftest import Node, NodeFactory
from tests.harness.charge_points.raw import RawChargePoint
from tests.harness.charging_site import OcppSite, moment, start, stop, values

SESSION = ["started", "meter_reading", "completed", "session_cost"]
BILLED = {"started", "completed", "session_cost", "updated", "meter_reading", "orphan_stop", "quarantined"}


@pytest.fixture
async def node(start_node: NodeFactory) -> Node:
    return await start_node(csms_enrollment="approve", mqtt_error_events_enabled=True)


@pytest.fixture
async def site(node: Node) -> AsyncIterator[OcppSite]:
    site = OcppSite(node)
    yield site
    await site.hang_up()


async def waiting(site: OcppSite, node: Node | None = None, expected: str = "Pending") -> RawChargePoint:
    """The charger, connected, with its boot answered."""
    point = await site.dial(node)
    assert (await point.boot())["status"] == expected
    return point


async def enroll(site: OcppSite, enrollment: str, node: Node | None = None) -> None:
    api = (node or site.node).api
    answer = await api.patch(f"/api/v1/chargers/{site.charger}", json={"enrollment": enrollment})
    assert answer.status_code == 200, answer.text


async def session(point: RawChargePoint, **given: Any) -> int:
    """A whole session on the wire; the transaction id that it was given."""
    answer = await point.ask("StartTransaction", start(**given))
    assert answer["idTagInfo"] == {"status": "Invalid"}
    transaction_id = answer["transactionId"]
    assert transaction_id > 0
    assert await point.ask("MeterValues", values(7000, transactionId=transaction_id)) == {}
    assert await point.ask("StopTransaction", stop(transaction_id, idTag="user123")) == {}
    return int(transaction_id)


async def nothing_is_booked(site: OcppSite) -> None:
    assert await site.transactions() == []
    assert await site.readings() == []
    assert not BILLED & set(await site.told())
    assert await site.node.fetch("SELECT 1 FROM connectors WHERE charger_id = $1", site.charger) == []


async def aged(site: OcppSite, by: timedelta) -> None:
    """As if what waits had been received so much earlier."""
    await site.node.fetch(
        "UPDATE quarantine SET received_at = received_at - $2::interval WHERE charger_id = $1 RETURNING 1",
        site.charger,
        by,
    )


async def test_a_stranger_produces_no_bill(site: OcppSite) -> None:
    point = await waiting(site)
    await session(point)
    await nothing_is_booked(site)
    assert [row["action"] for row in await site.quarantine()] == [
        "StartTransaction",
        "MeterValues",
        "StopTransaction",
    ]
    # It says nothing of tags.
    await site.tag()
    known = await site.tag(status="Blocked")
    for id_tag in ("nobody", known, await site.tag()):
        answer = await point.ask("StartTransaction", start(idTag=id_tag, connectorId=2))
        assert answer["idTagInfo"] == {"status": "Invalid"}
        ended = stop(answer["transactionId"], idTag=id_tag)
        assert await point.ask("StopTransaction", ended) == {}
        assert (await point.call("Authorize", {"idTag": id_tag}))[2] == "SecurityError"
    await nothing_is_booked(site)


async def test_acceptance_books_and_publishes_in_the_order_of_arrival(site: OcppSite) -> None:
    point = await waiting(site)
    first = await session(point)
    second = await session(point, timestamp=moment(200), meterStart=25000)
    await aged(site, timedelta(days=3))
    kept = await site.quarantine()
    await enroll(site, "Accepted")
    # The operator's answer means that it is done.
    rows = await site.transactions()
    assert [row["id"] for row in rows] == [first, second]
    assert (rows[0]["energy_wh"], rows[0]["meter_start_wh"]) == (24000, 1000)
    assert rows[0]["started_at"] == datetime(2023, 12, 7, 10, 15, 30, tzinfo=UTC)
    assert rows[0]["duration_s"] == 90 * 60
    assert rows[0]["start_received_at"] == kept[0]["received_at"]
    assert rows[0]["stop_received_at"] == kept[2]["received_at"]
    assert [row["received_at"] for row in await site.readings()] == [kept[1]["received_at"]]
    told = [kind for kind in await site.told() if kind in BILLED]
    assert told == [*SESSION, *[kind for kind in SESSION if kind != "meter_reading"]]
    assert (await site.payloads("session_cost"))[0]["revision"] == 1
    await site.node.until(lambda: len(site.node.of("session_cost", site.charger)) == 2)
    assert site.node.breaches == []
    for row in await site.quarantine():
        assert row["resolved_at"] is not None
        assert "accepted" in row["resolution"]


async def test_a_clock_without_time_is_judged_by_the_receipt(site: OcppSite) -> None:
    """It was days ahead when the start was received, not when the charger was accepted."""
    point = await waiting(site)
    ahead = (datetime.now(UTC) - timedelta(days=1)).replace(microsecond=0)
    first = await session(point, timestamp=ahead.isoformat())
    await aged(site, timedelta(days=5))
    await enroll(site, "Accepted")
    assert (await site.transaction(first))["clock_suspect"] is True


async def test_a_rejected_charger_is_never_booked(site: OcppSite) -> None:
    point = await waiting(site)
    await session(point)
    await enroll(site, "Rejected")
    await point.ended()
    again = await waiting(site, expected="Rejected")
    await session(again, connectorId=2)
    await nothing_is_booked(site)
    entries = (await site.node.api.get("/api/v1/quarantine", params={"charger": site.charger})).json()[
        "items"
    ]
    assert len(entries) == 6
    assert {entry["enrollment"] for entry in entries} == {"Rejected"}
    start_entry = entries[-1]
    refused = await site.node.api.post(f"/api/v1/quarantine/{start_entry['id']}/repair", json={})
    assert refused.status_code == 409
    await enroll(site, "Accepted")
    await waiting(site, expected="Accepted")
    await nothing_is_booked(site)
    # An operator may decide otherwise about one message.
    repaired = await site.node.api.post(f"/api/v1/quarantine/{start_entry['id']}/repair", json={})
    assert repaired.json()["transactionId"] == start_entry["transactionId"]


async def test_a_restart_and_resends_lose_and_double_nothing(start_node: NodeFactory) -> None:
    before = await start_node(csms_enrollment="approve")
    site = OcppSite(before)
    point = await waiting(site)
    first = (await point.ask("StartTransaction", start(), "m1"))["transactionId"]
    assert (await point.ask("StartTransaction", start(), "m1"))["transactionId"] == first
    assert (await point.ask("StartTransaction", start(), "m2"))["transactionId"] == first
    await point.close()
    before.stop.set()
    await before.task
    after = await start_node(csms_enrollment="approve", csms_node="node-b")
    site.node = after
    point = await waiting(site)
    assert (await point.ask("StartTransaction", start(), "m1"))["transactionId"] == first
    assert (await point.ask("StartTransaction", start(), "n1"))["transactionId"] == first
    for message_id in ("r1", "r1", "r2"):
        await point.ask("MeterValues", values(7000, transactionId=first), message_id)
    for message_id in ("s1", "s1", "s2"):
        await point.ask("StopTransaction", stop(first), message_id)
    await enroll(site, "Accepted")
    await point.receive()  # TriggerMessage
    for message_id in ("m1", "n1", "n2"):
        assert (await point.ask("StartTransaction", start(), message_id))["transactionId"] == first
    await point.ask("MeterValues", values(7000, transactionId=first), "r3")
    for message_id in ("s1", "s3"):
        await point.ask("StopTransaction", stop(first), message_id)
    assert [kind for kind in await site.told() if kind in BILLED] == SESSION
    assert len(await site.readings()) == 1
    assert [row["resolved_at"] is None for row in await site.quarantine()] == [False] * 3
    await site.hang_up()


async def test_a_clock_that_stands_still_makes_every_session_its_own(site: OcppSite) -> None:
    point = await waiting(site)
    stuck = "1970-01-01T00:00:00Z"
    ids = []
    for turn in range(3):
        answer = await point.ask("StartTransaction", start(timestamp=stuck, meterStart=1000), f"start-{turn}")
        again = await point.ask("StartTransaction", start(timestamp=stuck, meterStart=1000), f"again-{turn}")
        assert again == answer
        ids.append(answer["transactionId"])
        await point.ask("StopTransaction", stop(ids[-1], timestamp=stuck))
    assert len(set(ids)) == 3
    assert [row["action"] for row in await site.quarantine()] == ["StartTransaction", "StopTransaction"] * 3


async def test_a_session_that_goes_on_after_the_acceptance_is_one_session(site: OcppSite) -> None:
    point = await waiting(site)
    first = (await point.ask("StartTransaction", start()))["transactionId"]
    await point.ask("MeterValues", values(7000, transactionId=first))
    await enroll(site, "Accepted")
    assert (await point.receive())[2] == "TriggerMessage"
    await point.ask("MeterValues", values(9000, at=40, transactionId=first))
    assert "idTagInfo" in await point.ask("StopTransaction", stop(first, idTag="user123"))
    assert [kind for kind in await site.told() if kind in BILLED] == [
        "started",
        "meter_reading",
        "meter_reading",
        "completed",
        "session_cost",
    ]
    assert (await site.transaction(first))["energy_wh"] == 24000


async def test_acceptance_in_the_middle_of_a_stream_loses_and_reorders_nothing(
    site: OcppSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deferred_bookings, "MOST_AT_ONCE", 3)
    point = await waiting(site)
    first = (await point.ask("StartTransaction", start()))["transactionId"]

    async def send() -> None:
        for n in range(60):
            await point.send([2, f"r{n}", "MeterValues", values(2000 + n, at=n, transactionId=first)])
            await asyncio.sleep(0.01)
        await point.send([2, "end", "StopTransaction", stop(first)])

    sending = asyncio.create_task(send())
    await asyncio.sleep(0.2)
    await enroll(site, "Accepted")
    await sending
    frames = [await point.receive() for _ in range(62)]
    assert [frame[1] for frame in frames if frame[0] == 3] == [*(f"r{n}" for n in range(60)), "end"]
    told = [kind for kind in await site.told() if kind in BILLED]
    assert told == ["started", *["meter_reading"] * 60, "completed", "session_cost"]
    energies = [payload["totalEnergy"] for payload in await site.payloads("meter_reading")]
    assert energies == sorted(energies)
    assert len(set(energies)) == 60


async def test_what_an_acceptance_elsewhere_left_is_booked_by_any_message_and_by_itself(
    start_node: NodeFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The node that took the acceptance is killed before it books; or a release without this has taken it."""
    monkeypatch.setattr(deferred_bookings, "_SWEEP_S", 0.05)
    node = await start_node(csms_enrollment="approve")
    site = OcppSite(node)
    await session(await waiting(site))
    await node.fetch("UPDATE chargers SET enrollment = 'Accepted' WHERE id = $1 RETURNING 1", site.charger)

    async def booked() -> bool:
        return "session_cost" in await site.told()

    await node.until(booked)
    await site.hang_up()


async def test_what_cannot_be_read_waits_too_and_then_wants_an_operator(site: OcppSite) -> None:
    point = await waiting(site)
    answer = await point.ask("StartTransaction", ["no object"])
    assert answer["idTagInfo"] == {"status": "Invalid"}
    await session(point)
    await nothing_is_booked(site)
    assert "quarantined" not in await site.told()
    await enroll(site, "Accepted")
    (entry,) = (await site.node.api.get("/api/v1/quarantine", params={"charger": site.charger})).json()[
        "items"
    ]
    assert (entry["action"], entry["enrollment"]) == ("StartTransaction", None)
    assert entry["transactionId"] == answer["transactionId"]
    assert len(await site.transactions()) == 1
    assert (await site.told()).count("quarantined") == 1


async def test_waiting_messages_are_listed_and_not_counted_as_to_be_repaired(site: OcppSite) -> None:
    await session(await waiting(site))
    api = site.node.api

    async def listed(**params: Any) -> int:
        params |= {"charger": site.charger}
        return len((await api.get("/api/v1/quarantine", params=params)).json()["items"])

    assert [await listed(), await listed(deferred="true"), await listed(deferred="false")] == [3, 3, 0]
    assert "csms_quarantine_open 0.0" in (await api.get("/metrics")).text
    (entry, *_) = (await api.get("/api/v1/quarantine", params={"charger": site.charger})).json()["items"]
    assert (entry["enrollment"], entry["error"]) == (
        "Pending",
        "pending enrollment: booked when an operator accepts the charger",
    )
    refused = await api.post(f"/api/v1/quarantine/{entry['id']}/repair", json={})
    assert refused.status_code == 409
    # An operator can throw a single message away.
    done = await api.post(
        f"/api/v1/quarantine/{entry['id']}/resolve", json={"note": "a test of the installer"}
    )
    assert done.status_code == 200
    await enroll(site, "Accepted")
    assert [row["stopped_at"] for row in await site.transactions()] == [None]


async def test_a_stranger_cannot_fill_the_database(site: OcppSite, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deferral, "MOST", DeferredUsage(messages=8, size_bytes=10**6))
    monkeypatch.setattr(deferral, "MOST_WITH_READINGS", DeferredUsage(messages=5, size_bytes=10**6))
    point = await waiting(site)
    first = (await point.ask("StartTransaction", start()))["transactionId"]
    for n in range(20):
        assert await point.ask("MeterValues", values(2000 + n, at=n, transactionId=first)) == {}
    # Room is left for what is worth more.
    assert await point.ask("StopTransaction", stop(first)) == {}
    for n in range(20):
        answer = await point.ask("StartTransaction", start(timestamp=moment(200 + n)), f"start-{n}")
        assert answer["idTagInfo"] == {"status": "Invalid"}
    assert len(await site.quarantine()) == 8
    response = await site.node.api.get(f"/api/v1/chargers/{site.charger}/deviations")
    counts = {
        item["action"]: item["count"]
        for item in response.json()["items"]
        if item["kind"] == "dropped_before_acceptance"
    }
    assert counts == {"MeterValues": 16, "StartTransaction": 18}
    answers = await site.node.fetch("SELECT 1 FROM answers WHERE charger_id = $1", site.charger)
    assert answers == []
    await enroll(site, "Accepted")
    assert (await site.transaction(first))["energy_wh"] == 24000


async def test_a_charger_that_is_set_back_to_pending_waits_again(site: OcppSite) -> None:
    await site.register(enrollment="Accepted")
    point = await site.dial(chargePointVendor="V")
    first = (await point.ask("StartTransaction", start()))["transactionId"]
    await enroll(site, "Pending")
    await point.ended()
    point = await waiting(site)
    # The start that was booked is known, and its stop waits.
    again = await point.ask("StartTransaction", start(), "again")
    assert (again["transactionId"], again["idTagInfo"]) == (first, {"status": "Invalid"})
    assert await point.ask("StopTransaction", stop(first, idTag="user123")) == {}
    assert (await site.transaction(first))["stopped_at"] is None
    await enroll(site, "Accepted")
    assert (await site.transaction(first))["energy_wh"] == 24000


async def test_deferred_messages_of_a_deleted_charger_are_gone(site: OcppSite) -> None:
    point = await waiting(site)
    await session(point)
    await point.close()
    await site.offline()
    assert (await site.node.api.delete(f"/api/v1/chargers/{site.charger}")).status_code == 204
    assert await site.quarantine() == []
