"""What MqttClient repairs of aiomqtt for the case that the broker goes away."""

import asyncio
import gc
from collections.abc import Callable
from typing import Any, Self

import aiomqtt
import pytest

from csms.mqtt.client.aiomqtt_fixes import MqttClient
from tests.harness.servers import Mosquitto


class SilentBroker:
    """A broker that accepts each connection and sends nothing more; `hang_up()` ends all connections."""

    def __init__(self) -> None:
        self.writers: list[asyncio.StreamWriter] = []
        self.asked = asyncio.Event()  # something was sent after the CONNECT
        self.host = "127.0.0.1"

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, self.host, 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        self.hang_up()

    def hang_up(self) -> None:
        for writer in self.writers:
            writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.writers.append(writer)
        await reader.read(1024)
        writer.write(b"\x20\x02\x00\x00")
        while await reader.read(1024):
            self.asked.set()


def client(server: SilentBroker | Mosquitto) -> MqttClient:
    return MqttClient(server.host, server.port, protocol=aiomqtt.ProtocolVersion.V311, timeout=30)


@pytest.mark.parametrize(
    "ask", [lambda c: c.publish("t", b"x", qos=1), lambda c: c.subscribe("t")], ids=["publish", "subscribe"]
)
async def test_a_call_that_waits_for_an_answer_fails_when_the_connection_ends(
    ask: Callable[[MqttClient], Any],
) -> None:
    async with SilentBroker() as broker, asyncio.timeout(5):
        with pytest.raises(aiomqtt.MqttError, match="Disconnected"):
            async with client(broker) as one:
                asking = asyncio.ensure_future(ask(one))
                await broker.asked.wait()
                assert not asking.done()
                broker.hang_up()
                await asking


async def test_a_silent_broker_is_waited_for_until_the_timeout() -> None:
    async with SilentBroker() as broker, asyncio.timeout(5):
        with pytest.raises(aiomqtt.MqttError, match="timed out"):
            async with client(broker) as one:
                try:
                    await one.publish("t", b"x", qos=1, timeout=0.1)
                finally:
                    broker.hang_up()


async def test_an_end_that_is_not_awaited_is_not_logged(
    mosquitto: Callable[..., Mosquitto],
) -> None:
    gc.collect()  # what other tests have left
    reported: list[dict[str, Any]] = []
    loop = asyncio.get_running_loop()
    before = loop.get_exception_handler()
    loop.set_exception_handler(lambda _, context: reported.append(context))
    try:
        server = mosquitto()
        async with client(server) as one:
            server.kill()
            await asyncio.wait({one._disconnected}, timeout=5)
            assert one._disconnected.done()
        del one
        gc.collect()
    finally:
        loop.set_exception_handler(before)
    assert reported == []
