"""The publisher: reason codes, limits, properties, lost connections, and failures explained."""

import asyncio
from typing import Any

import pytest

from csms.mqtt.client import packets
from csms.mqtt.client.errors import BrokerDisconnected, PublishRefused
from csms.mqtt.client.message import MqttMessage
from csms.mqtt.client.publishing_link import PublishingLink
from tests.harness.narrowing import present
from tests.harness.waiting import until
from tests.mqtt.client.test_link import ACL, USERS, certificates
from tests.mqtt.conftest import POLITE, config, connected, pause, resume, running, watching


def message(topic, body=b"{}", **more):
    return MqttMessage(topic=topic, body=body, **more)


@pytest.mark.parametrize("version", ["5", "3.1.1"])
async def test_a_message_of_each_qos_arrives_once(broker, mosquitto, topic_prefix, version):
    for server in (broker, mosquitto()):
        async with (
            watching(server, f"{topic_prefix}/#", qos=2) as watcher,
            connected(PublishingLink(config(server, version))) as link,
        ):
            # rumqttd does not speak QoS 2 in full.
            for qos in (0, 1) if server is broker else (0, 1, 2):
                assert await link.publish(message(f"{topic_prefix}/{qos}", b"%d" % qos, qos=qos)) == 0
            await watcher.got(2 if server is broker else 3)
        assert sorted(watcher.bodies) == ([b"0", b"1"] if server is broker else [b"0", b"1", b"2"])


async def test_many_at_once_keep_their_order_in_a_small_window(mosquitto):
    server = mosquitto("max_inflight_messages 5")
    outcomes: list[object] = []
    async with (
        watching(server, "a/#") as watcher,
        connected(PublishingLink(config(server, max_inflight=100))) as link,
    ):
        assert present(link._connection)._window == 5  # the broker's limit, smaller than ours
        for n in range(500):
            link.begin(message("a/b", b"%d" % n), outcomes.append)
        await watcher.got(500)
        await until(lambda: len(outcomes) == 500)
    assert watcher.bodies == [b"%d" % n for n in range(500)]
    assert set(outcomes) == {0}


async def test_a_refusal_says_why_and_leaves_the_link_usable(mosquitto):
    server = mosquitto(POLITE, users=USERS, acl=ACL)
    async with connected(PublishingLink(config(server, username="csms", password="secret"))) as link:
        assert await link.publish(message("allowed/a")) == 0x10  # no subscriber
        for qos in (1, 2):
            with pytest.raises(PublishRefused) as refused:
                await link.publish(message("forbidden/a", qos=qos))
            assert refused.value.code == 0x87
            assert refused.value.permanent
        for topic in ("", "a/+", "a/#", "a\0b", "\ud800", "x" * 70_000):
            with pytest.raises(PublishRefused) as refused:
                await link.publish(message(topic))
            assert refused.value.permanent
        assert link.connected
        assert await link.publish(message("allowed/a", qos=2)) in {0, 0x10}


async def test_a_packet_over_the_brokers_limit_is_refused_without_sending(mosquitto):
    server = mosquitto("max_packet_size 2000")
    async with connected(PublishingLink(config(server))) as link:
        with pytest.raises(PublishRefused) as refused:
            await link.publish(message("a", b"x" * 3000))
        assert refused.value.code == 0x95
        assert await link.publish(message("a", b"x" * 1000)) in {0, 0x10}


async def test_properties_and_retain_arrive(broker, mosquitto, topic_prefix):
    for server in (broker, mosquitto()):
        async with (
            watching(server, f"{topic_prefix}/#") as watcher,
            connected(PublishingLink(config(server))) as link,
        ):
            given: dict[str, Any] = {
                "expiry_s": 60,
                "content_type": "application/json",
                "user": [("eventId", "é"), ("seq", "1")],
            }
            await link.publish(message(f"{topic_prefix}/a", **given))
            await link.publish(
                message(f"{topic_prefix}/a", properties=packets.publish_properties(**given), retain=True)
            )
            await watcher.got(2)
        for received in watcher.messages:
            assert received.properties.ContentType == "application/json"
            assert received.properties.PayloadFormatIndicator == 1
            assert received.properties.UserProperty == [("eventId", "é"), ("seq", "1")]
            assert 0 < received.properties.MessageExpiryInterval <= 60


async def test_a_killed_broker_fails_what_is_in_flight_and_what_waits_at_once(mosquitto):
    server = mosquitto()
    link = PublishingLink(config(server, publish_timeout_s=30, max_inflight=3))
    async with connected(link):
        pause(server)
        outcomes: list[object] = []
        for n in range(30):
            link.begin(message(f"a/{n}"), outcomes.append)
        assert outcomes == []
        server.kill()
        await until(lambda: len(outcomes) == 30)
        assert all(isinstance(outcome, BrokerDisconnected) for outcome in outcomes)
        assert not link.connected
        with pytest.raises(BrokerDisconnected):
            await link.publish(message("a/b"))


async def test_a_broker_that_acknowledges_nothing_is_disconnected(mosquitto):
    server = mosquitto()
    link = PublishingLink(config(server, publish_timeout_s=0.3))
    async with connected(link):
        pause(server)
        with pytest.raises(BrokerDisconnected):
            await link.publish(message("a"))
        assert not link.connected
        resume(server)
        await until(lambda: link.connected)
        assert await link.publish(message("a")) in {0, 0x10}


async def test_a_silent_broker_is_disconnected_without_a_publish(mosquitto):
    server = mosquitto()
    link = PublishingLink(config(server, keepalive_s=1))
    async with connected(link):
        pings = link._connection
        await asyncio.sleep(1.2)
        assert link._connection is pings  # answered pings keep it up
        pause(server)
        await until(lambda: not link.connected)
        resume(server)
        await until(lambda: link.connected)


async def test_no_message_is_sent_later_after_a_reconnect(mosquitto):
    server = mosquitto()
    link = PublishingLink(config(server))
    async with connected(link):
        pause(server)
        outcomes: list[object] = []
        link.begin(message("a", b"stale"), outcomes.append)
        server.kill()
        await until(lambda: outcomes)
        server.start()
        async with watching(server, "a") as watcher:
            await until(lambda: link.connected)
            await link.publish(message("a", b"fresh"))
            await watcher.got(1)
            assert watcher.bodies == [b"fresh"]


async def test_a_slow_broker_makes_the_link_congested(mosquitto):
    server = mosquitto()
    link = PublishingLink(config(server, publish_timeout_s=30))
    async with connected(link):
        assert not link.congested
        pause(server)
        for _ in range(400):
            link.begin(message("a", b"x" * 20_000, qos=0), lambda _: None)
        await until(lambda: link.congested)
        resume(server)
        await until(lambda: not link.congested)


@pytest.mark.parametrize("version", ["5", "3.1.1"])
async def test_a_wrong_login_is_explained(mosquitto, version):
    server = mosquitto(users=USERS)
    for login in ({"username": "csms", "password": "wrong"}, {}):
        link = PublishingLink(config(server, version, **login))
        async with running(link.run()):
            await until(lambda link=link: "MQTT_PASSWORD" in (link.last_error or ""))
            assert not link.connected


async def test_tls_is_verified_and_a_failure_is_explained(mosquitto, tmp_path):
    ca, cert, key = certificates(tmp_path)
    server = mosquitto(f"certfile {cert}", f"keyfile {key}")
    trusting = config(server, tls=True, tls_ca_file=str(ca), host="localhost")
    async with connected(PublishingLink(trusting)) as link:
        assert await link.publish(message("a")) in {0, 0x10}
    async with connected(PublishingLink(config(server, tls=True, tls_insecure=True))) as link:
        assert await link.publish(message("a")) in {0, 0x10}
    for wrong, words in (
        (config(server, tls=True, host="localhost"), "MQTT_TLS_CA_FILE"),
        (config(server, tls=True, tls_ca_file=str(tmp_path / "none.pem")), "does not exist"),
        (config(server), "closed the connection at once"),
    ):
        link = PublishingLink(wrong)
        async with running(link.run()):
            await until(lambda link=link, words=words: words in (link.last_error or ""), what=words)


async def test_an_unreachable_host_is_explained(unused_port):
    class Nowhere:
        host, port, port_v5 = "127.0.0.1", unused_port, unused_port

    link = PublishingLink(config(Nowhere()))
    async with running(link.run()):
        await until(lambda: "Nothing listens" in (link.last_error or ""))


async def test_a_second_client_of_the_same_identifier_is_explained(mosquitto):
    server = mosquitto()
    one, other = (PublishingLink(config(server, node="same", reconnect_max_s=5)) for _ in range(2))
    async with connected(one), connected(other):
        await until(
            lambda: (
                "same identifier" in (one.last_error or "") or "same identifier" in (other.last_error or "")
            )
        )


@pytest.mark.parametrize(
    "words", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"\x20\x01\x00", b"\x30\xff\xff\xff\xff\xff", b""]
)
async def test_a_server_that_is_no_broker_is_disconnected(unused_port, words):
    async def answer(reader, writer):
        await reader.read(10)
        writer.write(words)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", unused_port)

    class NoBroker:
        host, port, port_v5 = "127.0.0.1", unused_port, unused_port

    link = PublishingLink(config(NoBroker()))
    async with server, running(link.run()):
        await until(lambda: (link.last_error or "Not connected yet.") != "Not connected yet.")
        assert not link.connected
