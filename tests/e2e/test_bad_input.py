"""Bad input on the socket: it is answered or dropped with a log line, the connection and all others go on."""

import asyncio
import json
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import asyncpg
import pytest
from websockets.exceptions import ConnectionClosed
from websockets.frames import Opcode

from tests.e2e.conftest import Node
from tests.harness.charge_points.raw import RawChargePoint
from tests.harness.waiting import until

Dial = Callable[..., Awaitable[RawChargePoint]]
START = {"connectorId": 1, "idTag": "user123", "meterStart": 1000, "timestamp": "2023-12-07T10:15:30Z"}
DEEP = "[" * 50_000


@pytest.fixture
def node(shared_node: Node) -> Node:
    return shared_node


@pytest.fixture
def charger() -> str:
    """This test's own charge point."""
    return f"CP-{secrets.token_hex(6)}"


@pytest.fixture
async def dial(node: Node, charger: str) -> AsyncIterator[Dial]:
    """Charge points connected to the test's node, booted; hung up at its end."""
    dialled: list[RawChargePoint] = []

    async def dial(identity: str = charger, **options: Any) -> RawChargePoint:
        charge_point = await RawChargePoint.dial(node.ocpp, identity, **options)
        dialled.append(charge_point)
        assert (await charge_point.boot())["status"] == "Accepted"
        return charge_point

    yield dial
    for charge_point in dialled:
        await charge_point.close()


async def alive(charge_point: RawChargePoint) -> None:
    """The connection works, and nothing but the answer to this very call was waiting in it."""
    assert "currentTime" in await charge_point.ask("Heartbeat", {}, "still-there")


async def deviations(node: Node, charger: str) -> list[dict[str, Any]]:
    response = await node.api.get(f"/api/v1/chargers/{charger}/deviations")
    assert response.status_code == 200
    items: list[dict[str, Any]] = response.json()["items"]
    return items


async def quarantine(node: Node, charger: str) -> list[dict[str, Any]]:
    response = await node.api.get("/api/v1/quarantine", params={"charger": charger})
    assert response.status_code == 200
    items: list[dict[str, Any]] = response.json()["items"]
    return [item for item in items if item["chargerId"] == charger]


@pytest.mark.parametrize(
    "frame",
    [
        "",
        " ",
        "not JSON at all",
        "{}",
        "null",
        "[]",
        "[2]",
        '"[2,\\"1\\",\\"Heartbeat\\",{}]"',
        '{"2":"Heartbeat"}',
        '[2,null,"Heartbeat",{}]',
        '[2,{},"Heartbeat",{}]',
        '[2,["1"],"Heartbeat",{}]',
        '[5,"1","Heartbeat",{}]',
        '[true,"1","Heartbeat",{}]',
        '[null,"1","Heartbeat",{}]',
        '[3,"never-asked",{}]',
        '[4,"never-asked","GenericError","",{}]',
        '[3,"broken',
        "[2," + '"' + "x" * 10_001 + '","Heartbeat",{}]',
        DEEP,
        "\x00\x01\x02",
        b"",
        b"\xff\xfe\xfd",
        b"[2,\xff,\xfe,{}]",
        bytes(range(256)),
    ],
    ids=lambda frame: repr(frame[:24]),
)
async def test_what_nobody_can_answer_is_dropped_and_logged(
    node: Node, dial: Dial, charger: str, frame: str | bytes
) -> None:
    charge_point = await dial()
    await charge_point.send(frame)
    await alive(charge_point)
    raw = frame.encode() if isinstance(frame, str) else frame
    await until_logged(node, "SELECT 1 FROM messages WHERE frame = $1 AND NOT outgoing", raw)
    assert [d["kind"] for d in await deviations(node, charger)] in (["malformed_frame"], ["unsolicited"])


@pytest.mark.parametrize(
    ("frame", "code"),
    [
        ('[2,"1"]', "FormationViolation"),
        ('[2,"1"', "FormationViolation"),
        ('[2,"1",null,{}]', "FormationViolation"),
        ('[2,"1",{},{}]', "FormationViolation"),
        ('[2,"1","",{}]', "FormationViolation"),
        ('[2,"1","Heartbeat",{"a":}]', "FormationViolation"),
        ('[2,"1","Heartbeat",{"a":1]', "FormationViolation"),
        ('[2,"1","Heartbeat",' + DEEP, "FormationViolation"),
        ('[2,"1","FlyToTheMoon",{}]', "NotImplemented"),
        ('[2,"1","heart beat",{}]', "NotImplemented"),
        ('[2,"1","' + "A" * 90 + '",{}]', "NotImplemented"),
        ('[2,"1","Reset",{"type":"Soft"}]', "NotSupported"),
        ('[2,"1","Authorize",{}]', "OccurenceConstraintViolation"),
        ('[2,"1","Authorize",{"idTag":null}]', "OccurenceConstraintViolation"),
        ('[2,"1","Authorize",{"idTag":{"a":1}}]', "TypeConstraintViolation"),
        ('[2,"1","Authorize",[1]]', "FormationViolation"),
        ('[2,"1","Authorize",7]', "FormationViolation"),
        (
            '[2,"1","StatusNotification",{"connectorId":1,"errorCode":"NoError"}]',
            "OccurenceConstraintViolation",
        ),
        (
            '[2,"1","StatusNotification",{"connectorId":1,"errorCode":"NoError","status":"Dancing"}]',
            "PropertyConstraintViolation",
        ),
        (
            '[2,"1","StatusNotification",{"connectorId":"one","errorCode":"NoError","status":"Available"}]',
            "TypeConstraintViolation",
        ),
        (b'[2,"1","Fly\xff",{}]', "NotImplemented"),
    ],
    ids=lambda value: repr(value[:60]),
)
async def test_a_call_that_cannot_be_served_gets_the_right_error(
    node: Node, dial: Dial, frame: str | bytes, code: str
) -> None:
    charge_point = await dial()
    await charge_point.send(frame)
    answer = await charge_point.receive()
    assert answer[:3] == [4, "1", code]
    assert len(answer) == 5
    assert isinstance(answer[3], str)
    assert len(answer[3]) <= 255
    assert answer[4] == {}
    await alive(charge_point)


@pytest.mark.parametrize(
    "frame",
    [
        '[2,"1","Heartbeat"]',
        '[2,"1","Heartbeat",null]',
        '[2,"1","Heartbeat",[]]',
        '[2,"1","Heartbeat",{"surplus":1}]',
        '[2,"1","Heartbeat",{},"surplus"]',
        '[2,"1","Heartbeat",{}]garbage',
        '\ufeff [ 2 , "1" , "Heartbeat" , { } ] ',
        '["2","1","Heartbeat",{}]',
        '[2.0,"1","Heartbeat",{}]',
        b'[2,"1","Heartbeat",{}]',
        b'[2,"1","Heartbeat",{"a":"\xff"}]',
        '[2,1,"Heartbeat",{}]',
    ],
    ids=repr,
)
async def test_small_faults_are_forgiven(dial: Dial, frame: str | bytes) -> None:
    charge_point = await dial()
    await charge_point.send(frame)
    kind, message_id, payload = await charge_point.receive()
    assert (kind, message_id) == (3, "1")
    assert payload["currentTime"].endswith("Z")
    await alive(charge_point)


async def test_a_text_frame_that_is_not_utf8_is_read_all_the_same(
    node: Node, dial: Dial, charger: str
) -> None:
    charge_point = await dial()
    payload = b'{"connectorId":1,"errorCode":"NoError","status":"Available","info":"gr\xfcn"}'
    protocol = charge_point.socket.protocol
    protocol.send_text(b'[2,"1","StatusNotification",' + payload + b"]")
    charge_point.socket.transport.writelines(protocol.data_to_send())
    assert await charge_point.receive() == [3, "1", {}]
    await alive(charge_point)
    assert await node.fetch("SELECT info FROM status_history WHERE charger_id = $1", charger) == [
        {"info": "gr\ufffdn"}
    ]
    # Consumers of the protocol stream get JSON.
    await node.until(lambda: any("gr\ufffdn" in str(body["payload"]) for _, body in node.protocol))


async def test_a_message_in_many_fragments_is_one_message(dial: Dial) -> None:
    charge_point = await dial()
    frame = json.dumps([2, "1", "Heartbeat", {}])
    await charge_point.socket.send(iter(frame))
    assert (await charge_point.receive())[:2] == [3, "1"]
    await alive(charge_point)


async def test_a_command_in_the_middle_neither_refuses_a_transaction_message_nor_is_lost_by_it(
    node: Node, dial: Dial, charger: str
) -> None:
    """While Postgres takes its time to keep a broken report, something else is sent to the same charge point."""
    charge_point = await dial()
    held = await asyncpg.connect(node.database_url)
    try:
        async with held.transaction():
            await held.execute("LOCK TABLE quarantine, deviations IN EXCLUSIVE MODE")
            await charge_point.send('[2,"1","StopTransaction",{"transactionId":}]')
            clear = {"action": "ClearCache", "payload": {}}
            commanding = asyncio.create_task(
                node.api.post(f"/api/v1/chargers/{charger}/commands", json=clear)
            )
            kind, message_id, action, _ = await charge_point.receive()
            assert (kind, action) == (2, "ClearCache")
        assert await charge_point.receive() == [3, "1", {}]
        await charge_point.send([3, message_id, {"status": "Accepted"}])
        assert (await commanding).status_code == 200
    finally:
        await held.close()
    assert [item["action"] for item in await quarantine(node, charger)] == ["StopTransaction"]
    await alive(charge_point)


@pytest.mark.parametrize("action", ["StartTransaction", "StopTransaction", "MeterValues"])
@pytest.mark.parametrize(
    "payload",
    ['"text"', "7", "[1,2]", "true", "{}", '{"a":1}', '{"transactionId":', "{]", '{"meterValue":[]}', DEEP],
    ids=lambda payload: payload[:20],
)
async def test_a_transaction_message_is_never_refused(
    node: Node, dial: Dial, charger: str, action: str, payload: str
) -> None:
    charge_point = await dial()
    await charge_point.send(f'[2,"1","{action}",{payload}]')
    kind, message_id, answer = await charge_point.receive()
    assert (kind, message_id) == (3, "1")
    (held,) = await quarantine(node, charger)
    assert held["action"] == action
    assert held["error"]
    assert payload.encode() in await one(
        node, "SELECT payload FROM quarantine WHERE charger_id = $1", charger
    )
    if action == "StartTransaction":
        assert answer == {"idTagInfo": {"status": "Invalid"}, "transactionId": held["transactionId"]}
        assert 0 < answer["transactionId"] < 2**31
    else:
        assert answer == {}
    # The same again: the same answer, nothing kept twice.
    await charge_point.send(f'[2,"1","{action}",{payload}]')
    assert await charge_point.receive() == [3, "1", answer]
    assert len(await quarantine(node, charger)) == 1
    await alive(charge_point)


async def test_a_transaction_message_without_an_id_is_kept_though_it_cannot_be_answered(
    node: Node, dial: Dial, charger: str
) -> None:
    charge_point = await dial()
    await charge_point.send([2, None, "StartTransaction", START])
    await alive(charge_point)
    (held,) = await quarantine(node, charger)
    assert (held["action"], held["messageId"]) == ("StartTransaction", None)
    assert await node.fetch("SELECT id FROM transactions WHERE charger_id = $1", charger) == []


@pytest.mark.parametrize(
    "spoilt",
    [
        {"connectorId": "1"},
        {"connectorId": None},
        {"idTag": 12345},
        {"idTag": "x" * 60},
        {"idTag": None},
        {"idTag": "nul\x00inside"},
        {"idTag": "half\ud800pair"},
        {"meterStart": "1000"},
        {"meterStart": 1000.4},
        {"meterStart": 10**30},
        {"meterStart": "lots"},
        {"timestamp": "yesterday"},
        {"timestamp": 1701944130},
        {"timestamp": None},
        {"reservationId": "none"},
        {"surplus": {"deep": [1]}},
    ],
    ids=lambda spoilt: ascii(spoilt)[:40],
)
async def test_a_start_with_one_bad_field_is_booked(
    node: Node, dial: Dial, charger: str, spoilt: dict[str, Any]
) -> None:
    charge_point = await dial()
    answer = await charge_point.ask("StartTransaction", START | spoilt)
    assert answer["transactionId"] == await one(
        node, "SELECT id FROM transactions WHERE charger_id = $1", charger
    )
    assert await quarantine(node, charger) == []
    assert await deviations(node, charger) != []
    await alive(charge_point)


async def test_pipelined_calls_are_all_answered_in_order(node: Node, dial: Dial, charger: str) -> None:
    charge_point = await dial()
    ids = [f"p{n}" for n in range(200)]
    for n, message_id in enumerate(ids):
        await charge_point.send(
            [2, message_id, "StartTransaction" if n % 2 else "Heartbeat", START | {"connectorId": n}]
        )
    assert [(await charge_point.receive())[:2] for _ in ids] == [[3, message_id] for message_id in ids]
    assert len(await node.fetch("SELECT id FROM transactions WHERE charger_id = $1", charger)) == 100
    await alive(charge_point)


async def test_a_flood_of_nonsense_delays_nobody(node: Node, dial: Dial) -> None:
    """Measured in answers, not in seconds: the other one has all of its own before the flood is digested."""
    hostile, polite = await dial("CP-FLOOD"), await dial("CP-POLITE")
    for _ in range(250):
        for frame in ("nonsense", "[]", '[3,"no",{}]', "[[[[[["):
            await hostile.send(frame)
    status = {"connectorId": 1, "errorCode": "NoError", "status": "Charging"}
    for n in range(20):
        await polite.ask("StatusNotification", status, f"s{n}")
    digested = sum(d["count"] for d in await deviations(node, "CP-FLOOD"))
    assert digested < 1000
    await hostile.send([2, "after", "Heartbeat", {}])
    assert (await hostile.receive(timeout_s=30))[:2] == [3, "after"]
    assert sum(d["count"] for d in await deviations(node, "CP-FLOOD")) == 1000
    assert await deviations(node, "CP-POLITE") == []


async def test_control_frames_of_any_content_are_no_trouble(dial: Dial) -> None:
    charge_point = await dial()
    for payload in (b"", b"\xff" * 125):
        await (await charge_point.socket.ping(payload))
        await charge_point.socket.pong(payload)
    await alive(charge_point)


async def test_a_broken_websocket_frame_ends_that_connection_only(node: Node, dial: Dial) -> None:
    broken, other = await dial("CP-BROKEN"), await dial("CP-OTHER")
    # A reserved opcode, unmasked: no WebSocket server may go on after that.
    broken.socket.transport.write(bytes([0x80 | (Opcode.PONG + 1), 0]))
    with pytest.raises(ConnectionClosed) as closed:
        await broken.receive()
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 1002
    await alive(other)
    assert node.task.done() is False


async def one(node: Node, query: str, *args: Any) -> Any:
    (row,) = await node.fetch(query, *args)
    (value,) = row.values()
    return value


async def until_logged(node: Node, query: str, *args: Any) -> None:
    """Until the log of frames, which is written behind, has it."""
    await until(lambda: node.fetch(query, *args), 10)
