"""The fast path of the WebSocket: the same messages in the same order as by the library, however they arrive."""

import asyncio
import contextlib
import secrets

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from websockets.asyncio.client import connect
from websockets.asyncio.server import serve
from websockets.exceptions import ConnectionClosed
from websockets.frames import Frame, Opcode

from csms.ocpp.websocket import ChargePointSocket


@pytest.fixture
async def line():
    """Raw sockets to a server that keeps what it receives and answers with it."""
    kept: asyncio.Queue[bytes] = asyncio.Queue()

    async def handle(socket):
        assert isinstance(socket, ChargePointSocket)
        with contextlib.suppress(ConnectionClosed):
            while True:
                message = await socket.receive()
                kept.put_nowait(message)
                if not socket.send_now(message):
                    await socket.send(message, text=True)

    async with serve(
        handle,
        "127.0.0.1",
        0,
        create_connection=ChargePointSocket,
        compression=None,
        max_size=100_000,
        max_queue=8,
    ) as server:
        port = server.sockets[0].getsockname()[1]

        @contextlib.asynccontextmanager
        async def dial():
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(
                b"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
            )
            await reader.readuntil(b"\r\n\r\n")
            yield reader, writer
            writer.close()

        yield port, dial, kept


def masked(opcode, data, *, fin=True):
    return Frame(opcode, data, fin).serialize(mask=True)


def zero_masked(data):
    size = len(data)
    head = bytes([0x80 | size]) if size < 126 else b"\xfe" + size.to_bytes(2, "big")
    return b"\x81" + head + b"\0\0\0\0" + data


async def test_whole_frames_arrive_masked_or_not_whatever_their_size(line):
    _, dial, kept = line
    async with dial() as (_, writer):
        for size in (0, 1, 125, 126, 127, 1000, 65_535, 65_536, 99_999):
            data = secrets.token_hex(size)[:size].encode()
            for frame in (masked(Opcode.TEXT, data), masked(Opcode.BINARY, data)):
                writer.write(frame)
                assert await kept.get() == data
        writer.write(zero_masked(b'[2,"1","Heartbeat",{}]'))
        assert await kept.get() == b'[2,"1","Heartbeat",{}]'


async def test_answers_are_frames_any_client_reads(line):
    port, _, _ = line
    async with connect(f"ws://127.0.0.1:{port}", compression=None, max_size=None) as client:
        for size in (0, 125, 126, 65_535, 65_536):
            await client.send("x" * size)
            assert await client.recv() == "x" * size


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.tuples(st.sampled_from(["whole", "zero", "fragments", "ping", "pieces"]), st.binary(max_size=300)),
        min_size=1,
        max_size=12,
    ),
    st.lists(st.booleans(), min_size=12, max_size=12),
)
async def test_frames_keep_their_order_on_both_paths(line, sent, pauses):
    _, dial, kept = line
    expected = []
    async with dial() as (_, writer):
        for (how, data), pause in zip(sent, pauses, strict=False):
            if how == "ping":
                writer.write(masked(Opcode.PING, data[:100]))
            elif how == "fragments":
                half = len(data) // 2
                writer.write(masked(Opcode.TEXT, data[:half], fin=False))
                if pause:
                    await asyncio.sleep(0.001)
                writer.write(masked(Opcode.PING, b"") + masked(Opcode.CONT, data[half:]))
                expected.append(data)
            elif how == "pieces":
                frame = masked(Opcode.TEXT, data)
                for first in range(0, len(frame), 50):
                    writer.write(frame[first : first + 50])
                    if pause:
                        await asyncio.sleep(0)
                expected.append(data)
            else:
                writer.write(zero_masked(data) if how == "zero" else masked(Opcode.TEXT, data))
                expected.append(data)
            if pause:
                await asyncio.sleep(0.001)
        async with asyncio.timeout(5):
            assert [await kept.get() for _ in expected] == expected


@pytest.mark.parametrize(
    ("frame", "code"),
    [
        (b"\x81\x02hi", 1002),
        (b"\xc1\x82\0\0\0\0hi", 1002),
        (masked(Opcode.TEXT, b"x" * 100_001), 1009),
        (masked(Opcode.CONT, b"x"), 1002),
    ],
    ids=["not masked", "a reserved bit", "too big", "goes on with nothing"],
)
async def test_what_breaks_the_protocol_ends_the_connection(line, frame, code):
    _, dial, kept = line
    async with dial() as (reader, writer):
        writer.write(frame)
        async with asyncio.timeout(5):
            head = await reader.readexactly(2)
            assert head[0] == 0x88
            assert int.from_bytes(await reader.readexactly(2), "big") == code
    assert kept.empty()


async def test_a_flood_is_answered_whole(line):
    _, dial, kept = line
    async with dial() as (reader, writer):
        frame = zero_masked(b"x" * 1000)
        for _ in range(300):
            writer.write(frame)
        answered = 0
        async with asyncio.timeout(10):
            while answered < 300 * 1004:
                answered += len(await reader.read(65_536))
    assert kept.qsize() == 300


@pytest.mark.parametrize("ends", ["server", "client", "neither"])
async def test_the_end_is_the_closing_frame_that_came_first(ends):
    ended: asyncio.Future[tuple[int, str]] = asyncio.get_running_loop().create_future()

    async def handle(socket):
        assert isinstance(socket, ChargePointSocket)
        if ends == "server":
            await socket.close(1009, "too large")
        await socket.wait_closed()
        ended.set_result(socket.end)

    async with serve(handle, "127.0.0.1", 0, create_connection=ChargePointSocket) as server:
        async with connect(f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}") as client:
            if ends == "client":
                await client.close(4001, "bye")
            if ends == "neither":
                client.transport.abort()
            await client.wait_closed()
        async with asyncio.timeout(10):
            found = await ended
    assert found == {"server": (1009, "too large"), "client": (4001, "bye"), "neither": (1006, "")}[ends]
