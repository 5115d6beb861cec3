"""Connections: the newest one counts, the dead are closed, commands share them, and one never delays another."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx
import pytest

from csms.ocpp.connection import ServerTimings
from csms.run import app
from csms.settings import Settings
from tests.e2e.conftest import Node, NodeFactory
from tests.harness.charge_points.bare import BareChargePoint
from tests.harness.charge_points.raw import RawChargePoint
from tests.harness.charging_site import OcppSite, start
from tests.harness.waiting import until

STATUS = {"connectorId": 1, "errorCode": "NoError", "status": "Charging"}


@pytest.fixture
async def site(shared_node: Node) -> AsyncIterator[OcppSite]:
    site = OcppSite(shared_node)
    yield site
    await site.hang_up()


async def state(site: OcppSite) -> dict[str, Any]:
    (row,) = await site.node.fetch(
        "SELECT online, node, generation FROM charger_states WHERE charger_id = $1", site.charger
    )
    return row


async def held(site: OcppSite) -> None:
    """Wait until the node holds the charger: a command is for this connection then."""

    async def has_a_holder() -> bool:
        answer = await site.node.api.get(f"/api/v1/chargers/{site.charger}")
        return answer.is_success and bool(answer.json()["online"])

    await until(has_a_holder, 5)


def command(
    node: Node, charger: str, action: str = "Reset", **payload: Any
) -> "asyncio.Task[httpx.Response]":
    """Sent in the background; await it for the API's answer."""
    body = {"action": action, "payload": payload or {"type": "Soft"}}
    return asyncio.create_task(node.api.post(f"/api/v1/chargers/{charger}/commands", json=body))


# --- the newest connection --------------------------------------------------------------------------------


async def test_the_newest_socket_wins_on_one_node(site: OcppSite) -> None:
    old, new = await site.dial(chargePointModel="1"), await site.dial()
    assert (await old.ended())[0] == 1000
    await new.ask("Heartbeat", {})
    # The end of the old one does not mark the charger offline and takes no command away.
    asked = command(site.node, site.charger)
    await new.boot()
    _, message_id, action, _ = await new.receive()
    assert action == "Reset"
    await new.send([3, message_id, {"status": "Accepted"}])
    assert (await asked).status_code == 200
    assert await state(site) == {"online": True, "node": "node-a", "generation": 2}


async def test_the_newest_socket_wins_across_nodes(start_node: NodeFactory) -> None:
    here, there = await start_node(), await start_node(csms_node="node-b")
    site = OcppSite(here)
    for generation, (node, name) in enumerate(((here, "node-a"), (there, "node-b"), (here, "node-a")), 1):
        point = await site.dial(node)
        await point.boot()
        assert await state(site) == {"online": True, "node": name, "generation": generation}
        for replaced in site.dialled[:-1]:
            assert (await replaced.ended())[0] == 1000
        site.dialled = [point]
        # Commands find it wherever they are given.
        for asking in (here, there):
            asked = command(asking, site.charger)
            _, message_id, _, _ = await point.receive()
            await point.send([3, message_id, {"status": "Accepted"}])
            assert (await asked).json() == {"response": {"status": "Accepted"}}
    await site.hang_up()
    await site.offline()


async def test_a_charge_point_that_hops_between_nodes_is_held_where_it_came_last(
    start_node: NodeFactory,
) -> None:
    here, there = await start_node(), await start_node(csms_node="node-b")
    site = OcppSite(here)
    for turn in range(12):
        last = await site.dial((here, there)[turn % 2])
        # Which of two is the newer is known once a node has answered: a handshake alone claims nothing.
        await last.ask("Heartbeat", {})
    assert await state(site) == {"online": True, "node": "node-b", "generation": 12}
    for point in site.dialled[:-1]:
        assert (await point.ended())[0] == 1000
    assert (await last.boot())["status"] == "Accepted"
    await site.hang_up()


async def test_a_charge_point_that_leaves_is_offline(site: OcppSite) -> None:
    point = await site.dial(chargePointModel="1")
    await point.close()
    await site.offline()
    assert (await command(site.node, site.charger)).status_code == 409


# --- signs of life ----------------------------------------------------------------------------------


async def test_a_half_open_connection_is_closed(start_node: NodeFactory) -> None:
    node = await start_node(
        ocpp_timings=ServerTimings(sweep_s=0.1), csms_ocpp_ping_interval_s=0.2, csms_ocpp_silence_s=1.5
    )
    silent = OcppSite(node)
    bare = await BareChargePoint.dial(node.ocpp, silent.charger)
    async with asyncio.timeout(20):
        assert await bare.close_code() == 1001
    bare.vanish()
    await silent.offline()


async def test_any_frame_is_a_sign_of_life(start_node: NodeFactory) -> None:
    """One talks, one only pings, one only answers pings; none of the first two ever answers a ping."""
    node = await start_node(
        ocpp_timings=ServerTimings(sweep_s=0.1), csms_ocpp_ping_interval_s=0.2, csms_ocpp_silence_s=2
    )
    talks = await BareChargePoint.dial(node.ocpp, "CP-TALKS")
    pings = await BareChargePoint.dial(node.ocpp, "CP-PINGS")
    answers = await RawChargePoint.dial(node.ocpp, "CP-ANSWERS")
    silent = await BareChargePoint.dial(node.ocpp, "CP-SILENT")

    async def live() -> None:
        n = 0
        while True:
            n += 1
            talks.call(str(n), "Heartbeat", {})
            pings.put(b"", opcode=9)
            await asyncio.sleep(0.1)

    living = asyncio.create_task(live())
    async with asyncio.timeout(30):
        assert await silent.close_code() == 1001
    living.cancel()
    # By then each of the others had been as long without an answered ping.
    await answers.ask("Heartbeat", {})
    talks.call("last", "Heartbeat", {})
    pings.call("last", "Heartbeat", {})
    async with asyncio.timeout(10):
        while (await talks.answer())[1] != "last":
            pass
        opcode = 0
        while opcode != 1:
            opcode, _ = await pings.frame()
    for bare in (talks, pings, silent):
        bare.vanish()
    await answers.close()


async def test_the_heartbeat_interval_is_each_charge_points_own(site: OcppSite) -> None:
    await site.register(heartbeatIntervalS=77)
    assert (await (await site.dial()).boot())["interval"] == 77
    other = OcppSite(site.node)
    assert (await (await other.dial()).boot())["interval"] == 300
    await other.hang_up()


# --- boot gates nothing, and nothing of ours comes before it -----------------------------------------------


async def test_calls_before_a_boot_are_answered(site: OcppSite) -> None:
    point = await site.dial()
    await point.ask("StatusNotification", STATUS)
    assert (await point.ask("StartTransaction", start()))["idTagInfo"]["status"] == "Accepted"
    assert "currentTime" in await point.ask("Heartbeat", {})


async def test_our_calls_wait_for_the_boots_answer(site: OcppSite) -> None:
    point = await site.dial()
    await held(site)
    asked = command(site.node, site.charger)
    assert await point.silence(0.5)
    await point.send([2, "boot", "BootNotification", {"chargePointVendor": "V", "chargePointModel": "M"}])
    assert (await point.receive())[:2] == [3, "boot"]
    _, message_id, action, _ = await point.receive()
    assert action == "Reset"
    await point.send([3, message_id, {"status": "Accepted"}])
    assert (await asked).status_code == 200


async def test_without_a_call_ours_wait_for_a_timer(start_node: NodeFactory) -> None:
    node = await start_node(csms_ocpp_calls_after_s=1)
    site = OcppSite(node)
    point = await site.dial()
    await held(site)
    asked = command(node, site.charger)
    _, message_id, action, _ = await point.receive(timeout_s=15)
    assert action == "Reset"
    await point.send([3, message_id, {"status": "Rejected"}])
    assert (await asked).json() == {"response": {"status": "Rejected"}}
    await site.hang_up()


# --- commands ------------------------------------------------------------------------------------------


async def test_one_call_is_outstanding_and_the_charge_points_own_are_never_held_up(site: OcppSite) -> None:
    point = await site.dial(chargePointModel="1")
    first = command(site.node, site.charger, "Reset", type="Soft")
    _, first_id, _, payload = await point.receive()
    second = command(site.node, site.charger, "Reset", type="Hard")
    # It has not answered ours, and calls all the same.
    for n in range(20):
        await point.ask("StartTransaction", start(connectorId=n + 1))
    assert not second.done()
    await point.send([3, first_id, {"status": "Accepted"}])
    _, second_id, _, other = await point.receive()
    await point.send([3, second_id, {"status": "Rejected"}])
    assert {payload["type"], other["type"]} == {"Soft", "Hard"}
    assert [(await asked).json()["response"]["status"] for asked in (first, second)] == [
        "Accepted",
        "Rejected",
    ]


@pytest.mark.parametrize("how", ["closed", "vanished", "replaced"])
async def test_a_pending_call_fails_at_once_when_the_connection_ends(site: OcppSite, how: str) -> None:
    point = await site.dial(chargePointModel="1")
    sent, waiting = command(site.node, site.charger), command(site.node, site.charger)
    await point.receive()
    await until(lambda: pending(waiting))
    if how == "closed":
        await point.close()
    elif how == "vanished":
        point.socket.transport.abort()
    else:
        await site.dial()
    # Far below the thirty seconds a call may take.
    async with asyncio.timeout(10):
        # The one that was sent may have been obeyed (504), the other was not sent (409).
        assert sorted([(await asked).status_code for asked in (sent, waiting)]) == [409, 504]


async def pending(task: "asyncio.Task[Any]") -> bool:
    await asyncio.sleep(0.2)
    return not task.done()


@pytest.mark.parametrize("answer", ["[1]", "7", "[" * 5000 + "]" * 5000, '{"status":'])
async def test_an_answer_that_is_no_object_is_502_and_harms_nothing(site: OcppSite, answer: str) -> None:
    point = await site.dial(chargePointModel="1")
    asked = command(site.node, site.charger)
    _, message_id, _, _ = await point.receive()
    await point.send(f'[3,"{message_id}",{answer}]')
    if len(answer) > 3:
        # No JSON we can read at all: we are still waiting.
        await point.send([4, message_id, "GenericError", "never mind", {}])
    assert (await asked).status_code == 502
    await point.ask("Heartbeat", {})


@pytest.mark.parametrize(
    ("data", "kept", "kind"),
    [
        (b'"caf\xe9"', "caf\ufffd", "encoding_repaired"),
        (b'"\\ud800"', "\ufffd", "surrogate_replaced"),
        (b'"\\u0000a\tb"', "a\tb", "nul_removed"),
        (b"NaN", None, "null_dropped"),
    ],
)
async def test_an_invalid_answer_to_a_command_is_repaired_as_a_call_is(
    site: OcppSite, data: bytes, kept: str | None, kind: str
) -> None:
    point = await site.dial(chargePointModel="1")
    asked = site.command("DataTransfer", vendorId="v")
    _, message_id, _, _ = await point.receive()
    await point.send(b'[3,"%b",{"status":"accepted","data":%b}]' % (message_id.encode(), data))
    answer = {"status": "Accepted"} | ({} if kept is None else {"data": kept})
    assert (await asked).json() == {"response": answer}
    await point.ask("StatusNotification", STATUS)
    assert {kind, "enum_respelled"} <= await site.deviations()


async def test_no_password_is_kept_with_the_deviations_of_an_answer(site: OcppSite) -> None:
    point = await site.dial(chargePointModel="1")
    asked = site.command("GetConfiguration")
    _, message_id, _, _ = await point.receive()
    keys = [{"key": "AuthorizationKey", "readonly": False, "value": 31337}, {"key": "K", "readonly": 1}]
    await point.send([3, message_id, {"configurationKey": keys}])
    assert (await asked).json()["response"]["configurationKey"] == [
        {"key": "AuthorizationKey", "readonly": False, "value": "***"},
        {"key": "K", "readonly": True},
    ]
    await point.ask("StatusNotification", STATUS)
    response = await site.node.api.get(f"/api/v1/chargers/{site.charger}/deviations")
    found = {item["field"]: item for item in response.json()["items"]}
    assert found["configurationKey[0].value"]["kind"] == "wrong_type"
    assert "31337" not in response.text


# --- the slow and the hostile ----------------------------------------------------------------------------


async def test_one_that_never_reads_is_disconnected_and_delays_no_other(
    start_node: NodeFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(app, "bind", narrow)
    node = await start_node(ocpp_timings=ServerTimings(write_s=1.0, close_s=1.0))
    deaf = await BareChargePoint.dial(node.ocpp, "CP-DEAF", receive_buffer=4096)
    other = OcppSite(node)
    # It boots, so no CALL of ours comes in between, however long the closing takes.
    polite = await other.dial(chargePointModel="any")
    stop = asyncio.Event()

    async def shout() -> None:
        # Until the central system reads no more: it waits for room for its answers.
        with contextlib.suppress(ConnectionError):
            while not stop.is_set():
                for _ in range(200):
                    deaf.call("x" * 36, "Heartbeat", {})
                await deaf.writer.drain()

    shouting = asyncio.create_task(shout())
    try:
        for n in range(60):
            await polite.ask("StatusNotification", STATUS, f"s{n}")
        query = "SELECT online FROM charger_states WHERE charger_id = 'CP-DEAF'"
        await until(lambda: gone(node, query), timeout_s=40)
    finally:
        stop.set()
        deaf.vanish()
        await asyncio.gather(shouting, return_exceptions=True)
    await polite.ask("Heartbeat", {})
    await other.hang_up()


def narrow(settings: Settings, bind: Callable[..., app.Ports] = app.bind) -> app.Ports:
    """Ports with small send buffers; connections inherit them."""
    ports = bind(settings)
    ports.ocpp.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    return ports


async def gone(node: Node, query: str) -> bool:
    return not (await node.fetch(query))[0]["online"]


async def test_many_silent_connections_delay_no_other(site: OcppSite) -> None:
    silent = [await BareChargePoint.dial(site.node.ocpp, f"CP-{n}") for n in range(50)]
    point = await site.dial()
    assert (await point.ask("StartTransaction", start()))["transactionId"]
    for bare in silent:
        bare.vanish()


# --- ends of ours ----------------------------------------------------------------------------------------


async def test_a_restart_tells_the_charge_points_to_come_back(start_node: NodeFactory) -> None:
    node = await start_node()
    sites = [OcppSite(node) for _ in range(5)]
    points = [await site.dial() for site in sites]
    node.stop.set()
    for point in points:
        assert (await point.ended())[0] == 1012
    await asyncio.wait({node.task}, timeout=20)
    assert node.task.done()
    successor = await start_node()
    again = await sites[0].dial(successor)
    assert (await again.boot())["status"] == "Accepted"
    assert await state(sites[0]) == {"online": True, "node": "node-a", "generation": 2}
    for site in sites:
        await site.hang_up()


async def test_a_node_that_was_killed_marks_its_chargers_offline_when_it_returns(
    start_node: NodeFactory,
) -> None:
    node = await start_node()
    site = OcppSite(node)
    await (await site.dial()).boot()
    node.stop.set()
    await asyncio.wait({node.task}, timeout=20)
    await node.fetch("UPDATE charger_states SET online = true")
    successor = await start_node()
    assert not (await state(site))["online"]
    assert (await command(successor, site.charger)).status_code == 409
    await site.hang_up()
