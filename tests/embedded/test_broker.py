import asyncio
import contextlib
import importlib.util
import os
import signal
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import aiomqtt
import pytest
from structlog.testing import capture_logs

from csms import settings
from csms.embedded import EmbeddedBroker, EmbeddedError
from csms.embedded.ports import is_free
from csms.embedded.processes import is_alive
from csms.errors import SettingsError
from csms.run import servers
from tests.embedded.conftest import Program, until_gone
from tests.harness.servers import Broker, unused_port
from tests.harness.waiting import until_blocking

V311 = aiomqtt.ProtocolVersion.V311
V5 = aiomqtt.ProtocolVersion.V5


def client(server: Broker | EmbeddedBroker, version: aiomqtt.ProtocolVersion) -> aiomqtt.Client:
    port = server.port if version == V311 else server.port_v5
    return aiomqtt.Client(server.host, port, protocol=version, timeout=10)


async def received(listener: aiomqtt.Client, count: int = 1) -> list[aiomqtt.Message]:
    async with asyncio.timeout(10):
        return [await anext(aiter(listener.messages)) for _ in range(count)]


@pytest.mark.parametrize(("sender", "receiver"), [(V5, V311), (V311, V5)], ids=["5-to-3.1.1", "3.1.1-to-5"])
async def test_both_protocol_versions_see_the_same_messages(
    sender: aiomqtt.ProtocolVersion, receiver: aiomqtt.ProtocolVersion, broker: Broker, topic_prefix: str
) -> None:
    async with client(broker, receiver) as listener, client(broker, sender) as publisher:
        await listener.subscribe(f"{topic_prefix}/#", qos=1)
        for number in range(50):
            await publisher.publish(f"{topic_prefix}/n", str(number), qos=1)
        messages = await received(listener, 50)
    assert [message.payload for message in messages] == [str(number).encode() for number in range(50)]
    assert {str(message.topic) for message in messages} == {f"{topic_prefix}/n"}


async def test_retained_state_crosses_protocol_versions_and_can_be_cleared(
    broker: Broker, topic_prefix: str
) -> None:
    async with client(broker, V5) as publisher:
        await publisher.publish(f"{topic_prefix}/state", "on", qos=1, retain=True)
        async with client(broker, V311) as listener:
            await listener.subscribe(f"{topic_prefix}/state", qos=0)
            (message,) = await received(listener)
        assert (message.payload, message.retain) == (b"on", True)
        await publisher.publish(f"{topic_prefix}/state", None, qos=1, retain=True)
        await publisher.publish(f"{topic_prefix}/mark", "end", qos=1, retain=True)
        async with client(broker, V311) as listener:
            await listener.subscribe([(f"{topic_prefix}/state", 0), (f"{topic_prefix}/mark", 0)])
            (message,) = await received(listener)
        assert message.payload == b"end"
        await publisher.publish(f"{topic_prefix}/mark", None, qos=1, retain=True)


async def test_more_retained_messages_than_the_default_reach_a_qos_0_wildcard(
    broker: Broker, topic_prefix: str
) -> None:
    topics = [f"{topic_prefix}/{number}" for number in range(500)]
    async with client(broker, V311) as publisher, client(broker, V311) as listener:
        for topic in topics:
            await publisher.publish(topic, "on", qos=1, retain=True)
        await listener.subscribe(f"{topic_prefix}/#", qos=0)
        messages = await received(listener, len(topics))
        for topic in topics:
            await publisher.publish(topic, None, qos=1, retain=True)
    assert {str(message.topic) for message in messages} == set(topics)


async def test_a_last_will_is_published_when_a_client_disconnects_without_notice(
    broker: Broker, topic_prefix: str
) -> None:
    will = aiomqtt.Will(f"{topic_prefix}/alive", "0", qos=1)
    async with client(broker, V311) as listener:
        await listener.subscribe(f"{topic_prefix}/alive", qos=1)
        doomed = aiomqtt.Client(broker.host, broker.port, will=will, protocol=V311)
        await doomed.__aenter__()
        link = doomed._client.socket()
        assert isinstance(link, socket.socket)
        link.shutdown(socket.SHUT_RDWR)
        (message,) = await received(listener)
        assert message.payload == b"0"
        with contextlib.suppress(aiomqtt.MqttError):
            await doomed.__aexit__(None, None, None)


@pytest.fixture
def own_broker(tmp_path: Path) -> Iterator[EmbeddedBroker]:
    with EmbeddedBroker(tmp_path, port=0, port_v5=0) as started:
        yield started


def listeners_of(port: int) -> set[str]:
    """The local addresses a port is listened on, from the kernel's table."""
    addresses = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        for line in Path(table).read_text().splitlines()[1:]:
            _, local, _, state, *_ = line.split()
            if state == "0A" and int(local.split(":")[1], 16) == port:
                addresses.add(local.split(":")[0])
    return addresses


@pytest.mark.skipif(not Path("/proc/net/tcp").exists(), reason="no table of sockets to read here")
def test_the_broker_listens_on_loopback_only(own_broker: EmbeddedBroker) -> None:
    assert own_broker.host == "127.0.0.1"
    assert listeners_of(own_broker.port) == {"0100007F"}
    assert listeners_of(own_broker.port_v5) == {"0100007F"}


@pytest.mark.skipif(not Path("/proc/net/tcp").exists(), reason="no table of sockets to read here")
async def test_the_broker_listens_on_the_address_that_a_setting_names(tmp_path: Path) -> None:
    chosen = settings.load(
        _env_file=None,
        csms_data_dir=tmp_path,
        csms_embedded_broker_host="127.0.0.2",
        mqtt_port=unused_port(),
        mqtt_protocol_version="3.1.1",
    )
    with servers.broker(chosen) as address:
        assert address is not None and address.host == "127.0.0.2"
        assert listeners_of(address.port) == {"0200007F"}
        async with aiomqtt.Client(address.host, address.port, protocol=V311) as publisher:
            await publisher.publish("t", b"", qos=1)
    everywhere = EmbeddedBroker(tmp_path, listen="0.0.0.0")
    assert everywhere.host == "127.0.0.1"  # where this machine's own clients go


@pytest.mark.parametrize("host", ["localhost", "::1", "1883", "127.0.0.256"])
def test_what_is_no_address_stops_the_program(host: str) -> None:
    with pytest.raises(SettingsError, match="CSMS_EMBEDDED_BROKER_HOST=.* IPv4 address"):
        settings.load(_env_file=None, csms_embedded_broker_host=host)


def test_a_stop_frees_both_ports_and_leaves_only_the_log(tmp_path: Path) -> None:
    with EmbeddedBroker(tmp_path, port=0, port_v5=0) as started:
        pid = started.pid
        assert pid is not None
        assert os.getsid(pid) == pid  # Ctrl-C does not reach it
    assert started.pid is None
    assert not is_alive(pid)
    assert is_free(started.port)
    assert is_free(started.port_v5)
    assert [path.name for path in tmp_path.iterdir()] == ["broker.log"]


def test_taken_ports_are_replaced_and_logged(tmp_path: Path) -> None:
    port, port_v5 = unused_port(), unused_port()
    with (
        capture_logs() as lines,
        socket.create_server(("127.0.0.1", port)),
        socket.create_server(("127.0.0.1", port_v5)),
        EmbeddedBroker(tmp_path, port=port, port_v5=port_v5) as started,
    ):
        assert len({started.port, started.port_v5, port, port_v5}) == 4
        assert (started.asked_port, started.asked_port_v5) == (port, port_v5)
    replaced = [line for line in lines if line["event"] == "embedded_broker_port_taken"]
    assert [(line["asked"], line["used"]) for line in replaced] == [
        (port, started.port),
        (port_v5, started.port_v5),
    ]


def test_free_ports_are_taken_as_asked_without_a_warning(tmp_path: Path) -> None:
    port, port_v5 = unused_port(), unused_port()
    with capture_logs() as lines, EmbeddedBroker(tmp_path, port=port, port_v5=port_v5) as started:
        assert (started.port, started.port_v5) == (port, port_v5)
    assert [line["log_level"] for line in lines] == ["info"]


def test_a_port_that_is_taken_before_the_start_is_tried_again(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as rival:
        taken = rival.getsockname()[1]
        choices = iter([taken, unused_port(), unused_port(), unused_port()])
        broker = EmbeddedBroker(
            tmp_path, port=taken, port_v5=0, choose_port=lambda preferred, *, host, taken: next(choices)
        )
        with broker as started:
            assert started.port != taken
            assert started.pid is not None


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_killed_program_leaves_no_broker(
    number: int, tmp_path: Path, program: Callable[..., Program]
) -> None:
    killed = program("broker", tmp_path)
    assert not is_free(killed.info["port"])
    killed.process.send_signal(number)
    killed.end()
    until_gone(killed.info["pid"])
    until_blocking(lambda: is_free(killed.info["port"]))
    until_blocking(lambda: is_free(killed.info["port_v5"]))


def test_a_missing_wheel_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(EmbeddedError, match=r"set MQTT_HOST .* pip install 'csms\[embedded\]'"):
        EmbeddedBroker(tmp_path).__enter__()


def test_a_state_directory_that_cannot_be_made_says_what_to_do(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("")
    with pytest.raises(EmbeddedError, match="CSMS_DATA_DIR"):
        EmbeddedBroker(file, port=0, port_v5=0).__enter__()


def test_a_broker_that_ends_at_once_is_reported_with_its_last_output(tmp_path: Path) -> None:
    with pytest.raises(EmbeddedError, match="did not start"):
        EmbeddedBroker(
            tmp_path, port=0, port_v5=0, config="no configuration {host} {port} {port_v5}"
        ).__enter__()
    assert [path.name for path in tmp_path.iterdir()] == ["broker.log"]
