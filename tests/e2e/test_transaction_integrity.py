"""What money depends on, over a real socket: the answer, the rows, the events."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from tests.e2e.conftest import Node, NodeFactory
from tests.harness.charging_site import OcppSite, moment, start, stop, values

SESSION = ["started", "completed", "session_cost"]


@pytest.fixture
async def site(shared_node: Node) -> AsyncIterator[OcppSite]:
    site = OcppSite(shared_node)
    yield site
    await site.hang_up()


# --- the same message again ----------------------------------------------------------------------------


async def test_a_start_resent_under_its_id_gets_its_answer_again(site: OcppSite) -> None:
    point = await site.dial()
    first = await point.ask("StartTransaction", start(), "m1")
    assert first["idTagInfo"]["status"] == "Accepted"
    assert await point.ask("StartTransaction", start(), "m1") == first
    elsewhere = await site.dial()
    assert await elsewhere.ask("StartTransaction", start(), "m1") == first
    (row,) = await site.transactions()
    assert (row["id"], row["meter_start_wh"], row["stopped_at"]) == (first["transactionId"], 1000, None)
    assert await site.told() == ["started"]


async def test_a_start_resent_under_a_new_id_is_the_same_start_with_its_first_status(site: OcppSite) -> None:
    id_tag = await site.tag(maxActiveTransactions=1)
    point = await site.dial()
    first = await point.ask("StartTransaction", start(idTag=id_tag))
    assert first["idTagInfo"]["status"] == "Accepted"
    # A tag of one session at a time: the retry must not be taken for a second one.
    assert await point.ask("StartTransaction", start(idTag=id_tag)) == first
    assert len(await site.transactions()) == 1
    assert await site.told() == ["started"]
    await point.ask("StopTransaction", stop(first["transactionId"]))
    # It comes once more after the end: still that transaction.
    assert await point.ask("StartTransaction", start(idTag=id_tag)) == first
    assert await site.told() == SESSION


async def test_an_old_id_with_new_content_is_a_new_start(site: OcppSite) -> None:
    """Many charge points count their messages from 1 again after each boot."""
    point = await site.dial()
    first = await point.ask("StartTransaction", start(), "1")
    await point.ask("StopTransaction", stop(first["transactionId"]), "2")
    second = await point.ask("StartTransaction", start(timestamp=moment(200), meterStart=25000), "1")
    assert second["transactionId"] != first["transactionId"]
    assert [row["stopped_at"] is None for row in await site.transactions()] == [False, True]


async def test_starts_at_the_same_moment_on_two_connectors_are_two(site: OcppSite) -> None:
    point = await site.dial()
    ids = [(await point.ask("StartTransaction", start(connectorId=n)))["transactionId"] for n in (1, 2)]
    assert len(set(ids)) == 2
    assert [row["connector_id"] for row in await site.transactions()] == [1, 2]
    assert await site.told() == ["started", "started"]


async def test_resends_on_two_nodes_at_once_are_one_transaction(start_node: NodeFactory) -> None:
    here, there = await start_node(), await start_node(csms_node="node-b")
    for turn in range(8):
        site = OcppSite(here, f"CP-{turn}")
        old, new = await asyncio.gather(site.dial(here), site.dial(there))
        same_id = turn % 2 == 0
        await asyncio.gather(
            old.send([2, "m1", "StartTransaction", start()]),
            new.send([2, "m1" if same_id else "m2", "StartTransaction", start()]),
        )
        # One of the two is hung up on: the newer connection wins. Who is left gets the answer, at the latest
        # when it asks again.
        answers = []
        for point in (old, new):
            try:
                answers.append((await point.receive())[2])
            except Exception:  # noqa: BLE001, S112 - closed, however
                continue
        last = await site.dial(there if turn % 3 else here)
        answers.append(await last.ask("StartTransaction", start(), "m3"))
        (row,) = await site.transactions()
        assert {answer["transactionId"] for answer in answers} == {row["id"]}
        assert {answer["idTagInfo"]["status"] for answer in answers} == {"Accepted"}
        # The end likewise, from both sides.
        end = stop(row["id"])
        assert await last.ask("StopTransaction", end, "m4") == {}
        once_more = await site.dial(here)
        assert await once_more.ask("StopTransaction", end, "m5") == {}
        assert await site.told() == SESSION
        assert (await site.transaction(row["id"]))["revision"] == 1
        await site.hang_up()


async def test_a_stop_comes_twice(site: OcppSite) -> None:
    point = await site.dial()
    transaction_id = (await point.ask("StartTransaction", start()))["transactionId"]
    assert await point.ask("StopTransaction", stop(transaction_id), "s1") == {}
    before = await site.transaction(transaction_id)
    assert await point.ask("StopTransaction", stop(transaction_id), "s1") == {}
    assert await point.ask("StopTransaction", stop(transaction_id), "s2") == {}
    assert await site.transaction(transaction_id) == before
    assert await site.told() == SESSION
    assert await site.quarantine() == []


async def test_a_second_stop_that_says_something_else_is_kept_and_changes_nothing(site: OcppSite) -> None:
    point = await site.dial()
    transaction_id = (await point.ask("StartTransaction", start()))["transactionId"]
    await point.ask("StopTransaction", stop(transaction_id))
    before = await site.transaction(transaction_id)
    assert await point.ask("StopTransaction", stop(transaction_id, meterStop=99000)) == {}
    assert await site.transaction(transaction_id) == before
    (held,) = await site.quarantine()
    assert (held["action"], held["transaction_id"]) == ("StopTransaction", transaction_id)
    assert await site.told() == SESSION


# --- stops that lead nowhere ---------------------------------------------------------------------------


@pytest.mark.parametrize("lost", [0, -1, 987654, 2**31, 2**63 - 1, 2**70, None, "12x"])
async def test_a_stop_of_nothing_is_acknowledged_and_kept_as_evidence(site: OcppSite, lost: Any) -> None:
    point = await site.dial()
    assert await point.ask("StopTransaction", stop(lost)) == {}
    assert await point.ask("StopTransaction", stop(lost)) == {}
    assert await site.transactions() == []
    (held,) = await site.quarantine()
    assert held["action"] == "StopTransaction"
    assert await site.told() == ["orphan_stop"]
    (orphan,) = await site.payloads("orphan_stop")
    assert (orphan["meterStop"], orphan["stopTime"]) == (25000, moment(90))


@pytest.mark.parametrize("lost", [0, -1, 2**63 - 1, None])
async def test_a_stop_without_a_usable_id_ends_the_one_it_can_only_mean(site: OcppSite, lost: Any) -> None:
    point = await site.dial()
    transaction_id = (await point.ask("StartTransaction", start()))["transactionId"]
    assert await point.ask("StopTransaction", stop(lost)) == {}
    row = await site.transaction(transaction_id)
    assert (row["energy_wh"], row["inferred"], row["anomalies"]) == (
        24000,
        False,
        ["transaction_id_inferred"],
    )
    # Resent after the next car has started: that one goes on.
    following = await point.ask("StartTransaction", start(timestamp=moment(91), meterStart=25000))
    assert await point.ask("StopTransaction", stop(lost)) == {}
    assert (await site.transaction(following["transactionId"]))["stopped_at"] is None
    assert await site.told() == [*SESSION, "started"]
    assert await site.quarantine() == []


async def test_a_stop_without_a_usable_id_on_two_running_connectors_is_not_guessed(site: OcppSite) -> None:
    point = await site.dial()
    for n in (1, 2):
        await point.ask("StartTransaction", start(connectorId=n))
    assert await point.ask("StopTransaction", stop(-1)) == {}
    assert [row["stopped_at"] for row in await site.transactions()] == [None, None]
    assert len(await site.quarantine()) == 1


async def test_the_register_tells_which_of_two_was_meant(site: OcppSite) -> None:
    point = await site.dial()
    low = await point.ask("StartTransaction", start(connectorId=1, meterStart=1000))
    await point.ask("StartTransaction", start(connectorId=2, meterStart=900_000))
    assert await point.ask("StopTransaction", stop(-1, meterStop=25000)) == {}
    assert (await site.transaction(low["transactionId"]))["energy_wh"] == 24000


async def test_nobody_ends_the_transaction_of_another_charge_point(site: OcppSite) -> None:
    point = await site.dial()
    transaction_id = (await point.ask("StartTransaction", start()))["transactionId"]
    stranger = OcppSite(site.node)
    assert await (await stranger.dial()).ask("StopTransaction", stop(transaction_id)) == {}
    assert (await site.transaction(transaction_id))["stopped_at"] is None
    assert len(await stranger.quarantine()) == 1
    await stranger.hang_up()


# --- ends that are missing -----------------------------------------------------------------------------


async def test_a_start_on_a_busy_connector_ends_what_was_forgotten_there(site: OcppSite) -> None:
    id_tag = await site.tag(maxActiveTransactions=1)
    point = await site.dial()
    first = (await point.ask("StartTransaction", start(idTag=id_tag)))["transactionId"]
    await point.ask("MeterValues", values(7000, at=40, transactionId=first))
    second = await point.ask("StartTransaction", start(idTag=id_tag, timestamp=moment(100), meterStart=9000))
    assert second["idTagInfo"]["status"] == "Accepted"
    row = await site.transaction(first)
    assert (row["inferred"], row["energy_wh"], row["energy_source"]) == (True, 6000, "last_reading")
    assert row["stopped_at"] == datetime(2023, 12, 7, 10, 55, 30, tzinfo=UTC)
    assert await site.told() == ["started", "meter_reading", "completed", "session_cost", "started"]
    # The real end, late: an amendment, not a second end.
    assert await point.ask("StopTransaction", stop(first, meterStop=9000, timestamp=moment(60))) == {}
    row = await site.transaction(first)
    assert (row["inferred"], row["energy_wh"], row["revision"]) == (False, 8000, 2)
    (updated,) = await site.payloads("updated")
    assert (updated["energyUsed"], updated["revision"]) == (8.0, 2)
    assert [cost["revision"] for cost in await site.payloads("session_cost")] == [1, 2]
    assert (await site.transaction(second["transactionId"]))["stopped_at"] is None


async def test_an_offline_queue_is_booked_by_the_charge_points_own_times(site: OcppSite) -> None:
    point = await site.dial()
    ids = []
    for n in range(3):
        begin, end = n * 120, n * 120 + 60
        answer = await point.ask("StartTransaction", start(timestamp=moment(begin), meterStart=n * 10_000))
        ids.append(answer["transactionId"])
        await point.ask("MeterValues", values(n * 10_000 + 500, at=begin + 30, transactionId=ids[-1]))
        await point.ask(
            "StopTransaction", stop(ids[-1], timestamp=moment(end), meterStop=n * 10_000 + 10_000)
        )
    rows = await site.transactions()
    assert [row["energy_wh"] for row in rows] == [10_000] * 3
    assert {row["duration_s"] for row in rows} == {Decimal(3600)}
    assert not any(row["clock_suspect"] or row["inferred"] or row["anomalies"] for row in rows)
    assert [c["duration"] for c in await site.payloads("completed")] == [60.0] * 3
    assert all(abs(datetime.now(UTC) - row["start_received_at"]) < timedelta(minutes=5) for row in rows)


# --- clocks --------------------------------------------------------------------------------------------


async def test_a_clock_in_1970_is_kept_and_marked_and_ours_stands_beside_it(site: OcppSite) -> None:
    point = await site.dial()
    answer = await point.ask("StartTransaction", start(timestamp="1970-01-01T00:00:12Z"))
    assert answer["idTagInfo"]["status"] == "Accepted"
    row = await site.transaction(answer["transactionId"])
    assert row["clock_suspect"] is True
    assert row["started_at"] == datetime(1970, 1, 1, 0, 0, 12, tzinfo=UTC)
    (started,) = await site.payloads("started")
    assert started["clockSuspect"] is True
    assert started["receivedTime"].startswith(str(row["start_received_at"].year))
    # Set in mid-session: fifty-odd years are not billed.
    await point.ask("StopTransaction", stop(answer["transactionId"], timestamp=now()))
    row = await site.transaction(answer["transactionId"])
    assert row["duration_s"] < 600
    assert row["energy_wh"] == 24_000
    assert "clock_changed" in row["anomalies"]


async def test_a_time_without_a_zone_is_utc_unless_known_better(site: OcppSite) -> None:
    point = await site.dial()
    answer = await point.ask("StartTransaction", start(timestamp="2023-12-07T10:15:30"))
    row = await site.transaction(answer["transactionId"])
    assert row["started_at"] == datetime(2023, 12, 7, 10, 15, 30, tzinfo=UTC)
    assert "naive_timestamp" in await site.deviations()


async def test_an_offset_is_honoured(site: OcppSite) -> None:
    point = await site.dial()
    answer = await point.ask("StartTransaction", start(timestamp="2023-12-07T12:15:30.250+02:00"))
    row = await site.transaction(answer["transactionId"])
    assert row["started_at"] == datetime(2023, 12, 7, 10, 15, 30, 250_000, tzinfo=UTC)


async def test_a_stop_before_its_start_has_no_negative_duration(site: OcppSite) -> None:
    point = await site.dial()
    transaction_id = (await point.ask("StartTransaction", start()))["transactionId"]
    await point.ask("StopTransaction", stop(transaction_id, timestamp=moment(-60)))
    row = await site.transaction(transaction_id)
    assert row["duration_s"] >= 0
    assert "clock_changed" in row["anomalies"]


# --- who charges ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", ["Blocked", "Expired", "Invalid"])
async def test_a_refused_tag_gets_an_id_and_its_energy_is_booked(site: OcppSite, status: str) -> None:
    id_tag = await site.tag(status=status)
    point = await site.dial()
    answer = await point.ask("StartTransaction", start(idTag=id_tag))
    assert answer["idTagInfo"]["status"] == status
    assert 0 < answer["transactionId"] < 2**31
    await point.ask("StopTransaction", stop(answer["transactionId"]))
    row = await site.transaction(answer["transactionId"])
    assert (row["authorization_status"], row["energy_wh"]) == (status, 24_000)
    (started,) = await site.payloads("started")
    assert started["authorizationStatus"] == status
    assert await site.told() == SESSION


async def test_concurrent_transactions_count_only_others(site: OcppSite) -> None:
    id_tag = await site.tag(maxActiveTransactions=1)
    point = await site.dial()
    first = await point.ask("StartTransaction", start(idTag=id_tag))
    second = await point.ask("StartTransaction", start(idTag=id_tag.upper(), connectorId=2))
    assert [a["idTagInfo"]["status"] for a in (first, second)] == ["Accepted", "ConcurrentTx"]
    again = await point.ask("StartTransaction", start(idTag=id_tag.upper(), connectorId=2))
    assert again == second
    # Refused, so it blocks no other start once the first has ended.
    await point.ask("StopTransaction", stop(first["transactionId"]))
    third = await point.ask("StartTransaction", start(idTag=id_tag, timestamp=moment(100)))
    assert third["idTagInfo"]["status"] == "Accepted"


async def test_two_charge_points_that_start_a_limited_tag_at_once_are_not_both_accepted(
    start_node: NodeFactory,
) -> None:
    here, there = await start_node(), await start_node(csms_node="node-b")
    sites = [OcppSite(here, "CP-A"), OcppSite(there, "CP-B")]
    points = [await site.dial() for site in sites]
    for turn in range(10):
        id_tag = await sites[0].tag(maxActiveTransactions=1)
        begin = start(idTag=id_tag, timestamp=moment(turn), connectorId=turn + 1)
        answers = await asyncio.gather(*(point.ask("StartTransaction", begin) for point in points))
        assert sorted(a["idTagInfo"]["status"] for a in answers) == ["Accepted", "ConcurrentTx"]
    for site in sites:
        await site.hang_up()


async def test_transaction_ids_are_never_used_twice_and_fit_31_bits(start_node: NodeFactory) -> None:
    here, there = await start_node(), await start_node(csms_node="node-b")
    sites = [OcppSite(here, "CP-A"), OcppSite(there, "CP-B")]
    points = [await site.dial() for site in sites]
    ids = []
    for turn in range(10):
        answers = await asyncio.gather(
            *(point.ask("StartTransaction", start(connectorId=turn + 1)) for point in points)
        )
        ids += [answer["transactionId"] for answer in answers]
    assert len(set(ids)) == 20
    assert all(0 < transaction_id < 2**31 for transaction_id in ids)
    for site in sites:
        await site.hang_up()


def now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


# --- out of quarantine ---------------------------------------------------------------------------------


async def test_a_start_nobody_understood_is_repaired_and_its_session_billed(site: OcppSite) -> None:
    point = await site.dial()
    _, _, answer = await point.call("StartTransaction", ["no object"])
    promised = answer["transactionId"]
    await point.ask("StopTransaction", stop(promised))
    first, second = await site.quarantine()
    api = site.node.api
    booked = await api.post(f"/api/v1/quarantine/{first['id']}/repair", json={"payload": start()})
    assert booked.json()["transactionId"] == promised, booked.text
    ended = await api.post(f"/api/v1/quarantine/{second['id']}/repair", json={})
    assert ended.json()["transactionId"] == promised, ended.text
    row = await site.transaction(promised)
    assert (row["energy_wh"], row["cost"]) == (24_000, Decimal("2.88"))
    assert await site.told() == ["orphan_stop", *SESSION]
