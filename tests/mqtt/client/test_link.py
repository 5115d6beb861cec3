"""The link: reason codes, lost connections, reconnects, subscriptions, and failures explained."""

import asyncio
import ssl
from datetime import UTC, datetime, timedelta
from typing import Any

import aiomqtt
import pytest
from aiomqtt.exceptions import MqttConnectError
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.reasoncodes import ReasonCode

from csms.mqtt.client.config import LinkConfig
from csms.mqtt.client.errors import BrokerDisconnected, PublishRefused
from csms.mqtt.client.faults import connection_failure
from csms.mqtt.client.link import BrokerLink, prefixed
from csms.mqtt.client.message import MqttMessage
from tests.harness.narrowing import present
from tests.harness.waiting import until
from tests.mqtt.conftest import POLITE, config, connected, pause, resume, running, watching

ACL = "user csms\ntopic readwrite allowed/#\n"
USERS = {"csms": "secret"}


def message(topic: str, body: bytes = b"{}", **more: object) -> MqttMessage:
    return MqttMessage(topic=topic, body=body, **more)  # type: ignore[arg-type]


@pytest.mark.parametrize("version", ["5", "3.1.1"])
async def test_publish_returns_when_the_broker_has_acknowledged(broker, topic_prefix, version):
    async with watching(broker, f"{topic_prefix}/#") as watcher:
        async with connected(BrokerLink(config(broker, version))) as link:
            assert await link.publish(message(f"{topic_prefix}/a", b"one")) == 0
            assert await link.publish(message(f"{topic_prefix}/a", b"zero", qos=0)) == 0
        await watcher.got(2)
    assert sorted(watcher.bodies) == [b"one", b"zero"]


async def test_a_refusal_by_an_access_list_is_raised(mosquitto):
    server = mosquitto(POLITE, users=USERS, acl=ACL)
    async with connected(BrokerLink(config(server, username="csms", password="secret"))) as link:
        assert await link.publish(message("allowed/a")) == 0x10  # no subscriber
        with pytest.raises(PublishRefused) as refused:
            await link.publish(message("forbidden/a"))
        assert refused.value.code == 0x87
        assert refused.value.permanent
        assert link.connected
        with pytest.raises(PublishRefused):
            await link.publish(message("forbidden/a", qos=2))
        assert await link.publish(message("allowed/a", qos=2)) in {0, 0x10}


async def test_mqtt_3_1_1_does_not_report_a_refusal(mosquitto):
    server = mosquitto(POLITE, users=USERS, acl=ACL)
    async with connected(BrokerLink(config(server, "3.1.1", username="csms", password="secret"))) as link:
        assert await link.publish(message("forbidden/a")) == 0


async def test_an_invalid_topic_is_refused_and_leaves_the_link_usable(broker, topic_prefix):
    async with connected(BrokerLink(config(broker))) as link:
        with pytest.raises(PublishRefused):
            await link.publish(message(f"{topic_prefix}/+"))
        with pytest.raises(PublishRefused):
            await link.publish(message(""))
        assert await link.publish(message(f"{topic_prefix}/fine")) in {0, 0x10}


async def test_a_killed_broker_fails_publishes_in_flight_at_once(mosquitto):
    server = mosquitto()
    link = BrokerLink(config(server, publish_timeout_s=30))
    async with connected(link):
        pause(server)
        in_flight = [asyncio.create_task(link.publish(message(f"a/{n}"))) for n in range(30)]
        await until(lambda: len(present(link._connection)._acks) == 30)
        assert not any(task.done() for task in in_flight)
        server.kill()
        async with asyncio.timeout(5):
            results = await asyncio.gather(*in_flight, return_exceptions=True)
        assert all(isinstance(result, BrokerDisconnected) for result in results)
        assert not link.connected
        with pytest.raises(BrokerDisconnected):
            await link.publish(message("a/b"))
        await until(lambda: link.last_error and "Nothing listens" in link.last_error)


async def test_a_broker_that_acknowledges_nothing_is_disconnected(mosquitto):
    server = mosquitto()
    link = BrokerLink(config(server, publish_timeout_s=0.3))
    async with connected(link):
        pause(server)
        with pytest.raises(BrokerDisconnected):
            await link.publish(message("a"))
        assert not link.connected
        resume(server)
        await until(lambda: link.connected)
        await link.publish(message("a"))


async def test_no_message_is_sent_later_after_a_reconnect(mosquitto):
    server = mosquitto()
    link = BrokerLink(config(server))
    async with connected(link):
        server.kill()
        await until(lambda: not link.connected)
        for _ in range(3):
            with pytest.raises(BrokerDisconnected):
                await link.publish(message("a", b"stale"))
        server.start()
        async with watching(server, "a") as watcher:
            await until(lambda: link.connected)
            await link.publish(message("a", b"fresh"))
            await watcher.got(1)
            assert watcher.bodies == [b"fresh"]


@pytest.mark.parametrize("version", ["5", "3.1.1"])
async def test_subscriptions_are_made_again_after_a_reconnect(mosquitto, version):
    server = mosquitto()
    got: list[MqttMessage] = []
    link = BrokerLink(config(server, version))
    await link.subscribe("early/+", got.append)
    async with connected(link):
        await link.subscribe("late/#", got.append)
        before = link.connected_at
        server.restart()
        await until(lambda: link.connected_at != before)
        await link.publish(message("early/a", b"1"))
        await link.publish(message("late/a/b", b"2"))
        await until(lambda: len(got) == 2)
        await link.unsubscribe("late/#", got.append)
        await link.publish(message("late/a", b"3"))
        await link.publish(message("early/a", b"4"))
        await until(lambda: len(got) == 3)
        assert [m.body for m in got] == [b"1", b"2", b"4"]


async def test_a_user_with_an_access_list_may_subscribe_to_what_it_allows(mosquitto):
    server = mosquitto("allow_zero_length_clientid true", users=USERS, acl=ACL)
    async with connected(BrokerLink(config(server, username="csms", password="secret"))) as link:
        await link.subscribe("allowed/x", lambda _: None)
        assert link.connected


async def test_hidden_topics_are_not_logged(mosquitto, log_output):
    server = mosquitto(POLITE, users=USERS, acl=ACL)
    link = BrokerLink(config(server, "3.1.1", username="csms", password="secret", topics_hidden=True))

    def failing(_: MqttMessage) -> None:
        raise ZeroDivisionError

    await link.subscribe("allowed/alice", failing)
    async with connected(link):
        await link.publish(message("allowed/alice"))
        await until(lambda: "mqtt_message_handler_failed" in log_output.getvalue())
    assert "(hidden)" in log_output.getvalue()
    assert "alice" not in log_output.getvalue()
    assert "secret" not in repr(link.config)


async def test_bad_messages_and_failing_handlers_do_not_end_the_link(broker, topic_prefix):
    got: list[MqttMessage] = []

    def handler(m: MqttMessage) -> None:
        got.append(m)
        raise ValueError(m.body.decode())

    link = BrokerLink(config(broker))
    await link.subscribe(f"{topic_prefix}/#", handler)
    async with connected(link):
        await link.publish(message(f"{topic_prefix}/a", b"\xff\x00"))
        await link.publish(message(f"{topic_prefix}/b", b"fine"))
        await until(lambda: len(got) == 2)
        assert link.connected


async def test_a_slow_listener_loses_the_oldest_messages(broker, topic_prefix):
    async with connected(BrokerLink(config(broker))) as link:
        heard: Any = link.listen(f"{topic_prefix}/a", max_waiting=3)
        first = asyncio.ensure_future(anext(heard))
        await until(lambda: link._handlers)
        await link.publish(message(f"{topic_prefix}/a", b"0"))
        assert (await first).body == b"0"
        last = asyncio.Event()
        await link.subscribe(f"{topic_prefix}/a", lambda m: last.set() if m.body == b"9" else None)
        for n in range(1, 10):
            await link.publish(message(f"{topic_prefix}/a", str(n).encode()))
        async with asyncio.timeout(5):
            await last.wait()
        assert [(await anext(heard)).body for _ in range(3)] == [b"7", b"8", b"9"]
        await heard.aclose()


async def test_mqtt5_properties_arrive(broker, topic_prefix):
    async with (
        watching(broker, f"{topic_prefix}/#") as watcher,
        connected(BrokerLink(config(broker))) as link,
    ):
        await link.publish(
            message(
                f"{topic_prefix}/a",
                expiry_s=60,
                content_type="application/json",
                user=[("eventId", "started_1"), ("seq", "1")],
            )
        )
        (received,) = await watcher.got(1)
    assert received.properties.ContentType == "application/json"
    assert received.properties.PayloadFormatIndicator == 1
    assert received.properties.UserProperty == [("eventId", "started_1"), ("seq", "1")]
    assert 0 < received.properties.MessageExpiryInterval <= 60


async def test_presence_is_online_then_offline_on_a_clean_end_and_by_will_on_a_death(mosquitto):
    server = mosquitto()

    def presence(session: str, online: bool) -> MqttMessage:
        return message("status", f"{'on' if online else 'off'} {session}".encode(), retain=True)

    link = BrokerLink(config(server), presence=presence)
    async with watching(server, "status") as watcher:
        async with connected(link):
            await watcher.got(1)
        await watcher.got(2)
        first_session = watcher.bodies[0].split()[1]
        assert watcher.bodies == [b"on " + first_session, b"off " + first_session]
        async with connected(link):
            await watcher.got(3)
            second_session = watcher.bodies[2].split()[1]
            assert second_session != first_session
            # As in a crash, the socket ends without a DISCONNECT. The link then reconnects.
            broken: Any = present(link._connection)._client
            broken._sock.shutdown(2)
            await watcher.got(5)
            assert set(watcher.bodies[3:5]) >= {b"off " + second_session}


async def test_a_cancellation_while_connecting_releases_everything(mosquitto):
    server = mosquitto()
    pause(server)
    link = BrokerLink(config(server, connect_timeout_s=1))
    async with running(link.run()):
        await asyncio.sleep(0.2)
        assert not link.connected


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"username": "csms", "password": "wrong"}, "MQTT_PASSWORD"),
        ({}, "MQTT_PASSWORD"),
    ],
)
@pytest.mark.parametrize("version", ["5", "3.1.1"])
async def test_a_wrong_login_is_explained(mosquitto, settings, words, version):
    server = mosquitto(users=USERS)
    link = BrokerLink(config(server, version, **settings))
    async with running(link.run()):
        await until(lambda: link.last_error and words in link.last_error)
        assert not link.connected


async def test_an_unreachable_host_is_explained(unused_port):
    for host, words in (("127.0.0.1", "Nothing listens at 127.0.0.1"), ("no-such-host.invalid", "MQTT_HOST")):
        link = BrokerLink(LinkConfig(host=host, port=unused_port, reconnect_min_s=0.05))
        async with running(link.run()):
            await until(lambda link=link, words=words: words in (link.last_error or ""))


async def test_tls_is_verified_and_a_failure_is_explained(mosquitto, tmp_path):
    ca, cert, key = certificates(tmp_path)
    server = mosquitto(f"certfile {cert}", f"keyfile {key}")
    trusting = config(server, tls=True, tls_ca_file=str(ca), host="localhost")
    async with connected(BrokerLink(trusting)) as link:
        assert await link.publish(message("a")) in {0, 0x10}
    async with connected(BrokerLink(config(server, tls=True, tls_insecure=True))) as link:
        assert await link.publish(message("a")) in {0, 0x10}
    for wrong, words in (
        (config(server, tls=True, host="localhost"), "MQTT_TLS_CA_FILE"),
        (config(server, tls=True, tls_ca_file=str(tmp_path / "none.pem")), "does not exist"),
        (config(server), "closed the connection at once"),
    ):
        link = BrokerLink(wrong)
        async with running(link.run()):
            await until(lambda link=link, words=words: words in (link.last_error or ""), what=words)


async def test_tls_to_a_port_without_tls_is_explained(mosquitto):
    server = mosquitto()
    link = BrokerLink(config(server, tls=True, tls_insecure=True, connect_timeout_s=2))
    async with running(link.run()):
        await until(lambda: "TLS" in (link.last_error or "") or "in time" in (link.last_error or ""))


async def test_a_second_client_of_the_same_identifier_is_explained(mosquitto):
    server = mosquitto()
    one = BrokerLink(config(server, node="same", reconnect_max_s=5))
    other = BrokerLink(config(server, node="same", reconnect_max_s=5))
    async with connected(one), connected(other):
        await until(
            lambda: (
                "same identifier" in (one.last_error or "") or "same identifier" in (other.last_error or "")
            )
        )


def test_identifiers_differ_by_node_and_link():
    assert LinkConfig(client_id="csms", node="a").identifier == "csms-a"
    assert LinkConfig(client_id="x-{node}-y", node="a").identifier == "x-a-y"
    assert LinkConfig(client_id="{instance}", node="a", name="commands").identifier == "a-commands"


def test_a_prefix_comes_before_the_topic():
    assert prefixed("", "csms/a") == "csms/a"
    assert prefixed("tenant/1", "csms/a") == "tenant/1/csms/a"


def test_reason_codes_are_explained():
    refused = MqttConnectError(ReasonCode(PacketTypes.CONNACK, identifier=0x97))
    assert "quota" in connection_failure(refused, "h", 1)
    assert "at h:1" in connection_failure(aiomqtt.MqttError("odd"), "h", 1)
    assert "is not trusted" in connection_failure(ssl.SSLCertVerificationError("x"), "h", 1)


def certificates(directory):
    """A CA and a certificate for localhost."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    def name(text):
        return x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, text)])

    now = datetime.now(UTC)

    def signed(subject, issuer, public, signer, *, is_ca):
        return (
            x509.CertificateBuilder()
            .subject_name(name(subject))
            .issuer_name(name(issuer))
            .public_key(public)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(days=1))
            .not_valid_after(now + timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca=is_ca, path_length=None), critical=True)
            .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False
            )
            .sign(signer, hashes.SHA256())
        )

    ca_key, own_key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    files = directory / "ca.pem", directory / "cert.pem", directory / "key.pem"
    files[0].write_bytes(
        signed("test ca", "test ca", ca_key.public_key(), ca_key, is_ca=True).public_bytes(
            serialization.Encoding.PEM
        )
    )
    files[1].write_bytes(
        signed("localhost", "test ca", own_key.public_key(), ca_key, is_ca=False).public_bytes(
            serialization.Encoding.PEM
        )
    )
    files[2].write_bytes(
        own_key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    return files
