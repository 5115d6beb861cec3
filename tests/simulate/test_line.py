import asyncio
import base64

from tests.harness.central_system import Central, charge_point, running
from tests.harness.waiting import until


async def test_it_connects_with_identity_subprotocol_and_basic_auth():
    async with Central() as central:
        one = charge_point(central, "Hof 7/ä", password="geheim")
        async with running(one):
            await until(lambda: one.connected)
    assert list(central.sessions) == ["/ocpp/Hof%207%2F%C3%A4"]
    assert central.subprotocols == ["ocpp1.6"]
    scheme, code = central.headers[0]["Authorization"].split()
    assert scheme == "Basic"
    assert base64.b64decode(code).decode() == "Hof 7/ä:geheim"


async def test_without_a_password_no_authorization_is_sent():
    async with Central() as central:
        one = charge_point(central)
        async with running(one):
            await until(lambda: one.connected)
    assert "Authorization" not in central.headers[0]


async def test_it_connects_again_until_a_server_answers():
    async with Central() as central:
        await central.stop()
        failures = []
        one = charge_point(central, on_event=lambda event: failures.append(event.kind))
        async with running(one):
            await until(lambda: failures.count("connect_failed") >= 2)
            assert not one.connected
            assert one.line.last_failure
            await central.start()
            await until(lambda: one.registration == "Accepted")


async def test_an_answer_against_the_schema_is_counted_apart_from_a_callerror():
    async with Central() as central:
        one = charge_point(central, automatic=False, charge_s=(900, 900))
        spoilt = []
        async with running(one, 1) as task:
            await until(lambda: one.in_service)
            session = central.sessions["/ocpp/CP1"]
            send = session._send

            async def spoil(message):
                if '"transactionId"' in message and not spoilt:
                    spoilt.append(message)
                    message = message.replace("transactionId", "transaction")
                await send(message)

            session._send = spoil
            one.connectors[1].start_remotely("R", None)
            await until(task.done)
    assert one.counters.invalid_answers == 1
    assert one.counters.callerrors == 0
    assert one.counters.resends == 1
    assert one.transactions[0].transaction_id == 7002


async def test_malformed_frames_do_not_end_the_connection():
    async with Central() as central:
        one = charge_point(central, automatic=False)
        async with running(one):
            await until(lambda: one.in_service)
            socket = central.sessions["/ocpp/CP1"].connection
            for frame in (
                "",
                "nonsense",
                "[]",
                "[2]",
                '[2,"1",{"a":1},{}]',
                '[2,"2","Reset",null]',
                '[9,"3"]',
                "{}",
            ):
                await socket.send(frame)
            answer = await central.ask("/ocpp/CP1", "GetLocalListVersion")
            assert answer.list_version == 0
            assert one.counters.connections == 1


async def test_no_task_is_left_afterwards():
    before = asyncio.all_tasks()
    async with Central() as central:
        one = charge_point(central, connectors=3)
        async with running(one):
            await until(lambda: len(one.transactions) >= 3)
    await until(lambda: asyncio.all_tasks() <= before)
