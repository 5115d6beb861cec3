"""A broker that is away, refuses us, is not trusted or refuses events: health says what to do, chargers are served.

Every broker here is a real Mosquitto.
"""

import asyncio
import unittest.mock
from datetime import UTC, datetime, timedelta

import aiomqtt
import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from msgspec.structs import replace
from typer.testing import CliRunner

from csms.cli import app as cli
from csms.mqtt.config import BrokerAddress
from csms.run.config import relay_config
from csms.security import pki
from tests.e2e.conftest import TOKEN
from tests.harness.charge_points.raw import RawChargePoint
from tests.harness.waiting import until
from tests.mqtt.conftest import POLITE

USERS = {"csms": "right", "consumer": "right"}
READ_ALL = "user consumer\ntopic read #\n"
CONSUMER = {"username": "consumer", "password": "right"}


def at(server, version="5"):
    return BrokerAddress(server.host, server.port, version, "mqtt://test")


async def health(node):
    answer = await node.api.get("/health/ready")
    assert answer.status_code == 200
    return {check["name"]: (check["state"], check["detail"]) for check in answer.json()["checks"]}


async def says(node, name, *words):
    """Wait for a part's sentence to have these words; then also its state."""
    detail = ""

    async def state_with_the_words():
        nonlocal detail
        state, detail = (await health(node)).get(name, ("", ""))
        return state if all(word in detail for word in words) else None

    return await until(state_with_the_words, 10, what=lambda: f"{name} never said {words}, but: {detail}")


async def charge(node, charger="CP1", meter_start=1000):
    """A whole session, as if nothing were the matter."""
    point = await RawChargePoint.dial(node.ocpp, charger)
    try:
        started = await point.ask(
            "StartTransaction",
            {"connectorId": 1, "idTag": "T", "meterStart": meter_start, "timestamp": "2026-11-01T10:00:00Z"},
        )
        await point.ask(
            "StopTransaction",
            {
                "transactionId": started["transactionId"],
                "meterStop": meter_start + 24_000,
                "timestamp": "2026-11-01T11:30:00Z",
            },
        )
    finally:
        await point.close()


async def waiting(node):
    rows = await node.fetch("SELECT charger_id, seq, attempts, dead, last_error FROM outbox ORDER BY 1, 2")
    return [(row["charger_id"], row["seq"]) for row in rows]


async def outbox_is_empty(node):
    return not await waiting(node)


SESSION = [("CP1", 1), ("CP1", 2), ("CP1", 3)]


async def test_without_its_broker_a_node_starts_serves_and_tells_later(start_node, mosquitto):
    server = mosquitto(POLITE)
    server.kill()
    node = await start_node(broker_address=at(server), collect=False, mqtt_reconnect_max_s=0.1)
    assert await says(node, "mqtt", "Nothing listens at 127.0.0.1", "MQTT_HOST") == "degraded"
    await charge(node)
    assert await waiting(node) == SESSION
    server.start()
    await until(lambda: outbox_is_empty(node), 10)
    assert await says(node, "mqtt", "Connected") == "ok"


@pytest.mark.parametrize("version", ["5", "3.1.1"])
async def test_a_wrong_login_is_said_and_nothing_is_lost(start_node, mosquitto, version):
    server = mosquitto(POLITE, users=USERS)
    node = await start_node(
        broker_address=at(server, version),
        collect=False,
        mqtt_protocol_version=version,
        mqtt_username="csms",
        mqtt_password="wrong",
    )
    assert await says(node, "mqtt", "MQTT_USERNAME", "MQTT_PASSWORD") == "degraded"
    await charge(node)
    assert await waiting(node) == SESSION


async def test_with_tls_and_client_certificates_events_arrive(start_node, mosquitto, tmp_path, tls_files):
    server = mosquitto(POLITE, *tls_files.server_lines(tmp_path))
    node = await start_node(
        broker_address=at(server),
        login={"tls_params": aiomqtt.TLSParameters(**tls_files.client(tmp_path))},
        mqtt_tls=True,
        mqtt_tls_ca_file=tmp_path / "ca.pem",
        mqtt_tls_cert_file=tmp_path / "client.pem",
        mqtt_tls_key_file=tmp_path / "client.key",
    )
    await charge(node)
    await node.until(lambda: node.of("session_cost"))
    assert await says(node, "mqtt", "Connected") == "ok"
    # A consumer may have an event before the broker's acknowledgement has taken it off the outbox.
    await until(lambda: outbox_is_empty(node), 10)


@pytest.mark.parametrize(
    ("without", "words"),
    [
        (("mqtt_tls_ca_file",), ("is not trusted", "MQTT_TLS_CA_FILE")),
        (("mqtt_tls_cert_file", "mqtt_tls_key_file"), ("client certificate", "MQTT_TLS_CERT_FILE")),
        (("mqtt_tls", "mqtt_tls_ca_file", "mqtt_tls_cert_file", "mqtt_tls_key_file"), ("MQTT_TLS",)),
    ],
)
async def test_what_is_wrong_with_tls_is_said(start_node, mosquitto, tmp_path, tls_files, without, words):
    server = mosquitto(POLITE, *tls_files.server_lines(tmp_path))
    right = {
        "mqtt_tls": True,
        "mqtt_tls_ca_file": tmp_path / "ca.pem",
        "mqtt_tls_cert_file": tmp_path / "client.pem",
        "mqtt_tls_key_file": tmp_path / "client.key",
    }
    node = await start_node(
        broker_address=at(server),
        collect=False,
        **{name: value for name, value in right.items() if name not in without},
    )
    assert await says(node, "mqtt", *words) == "degraded"
    await charge(node)
    assert await waiting(node) == SESSION


async def test_a_refused_topic_is_a_failure_until_the_operator_has_mended_it(
    start_node, mosquitto, monkeypatch
):
    """The access list forgets billing; `csms events` shows it, and brings the bill once it is allowed."""
    monkeypatch.setattr(
        "csms.run.node.relay_config", lambda settings: replace(relay_config(settings), count_every_s=0.1)
    )
    server = mosquitto(
        POLITE,
        users=USERS,
        acl=f"{READ_ALL}user csms\ntopic readwrite #\ntopic deny +/+/csms/billing/CP1/session_cost\n",
    )
    node = await start_node(
        broker_address=at(server), login=CONSUMER, mqtt_username="csms", mqtt_password="right"
    )
    await charge(node)
    await charge(node, "CP2")
    await node.until(lambda: node.of("session_cost", "CP2"))
    rows = await until(
        lambda: node.fetch("SELECT seq, attempts, last_error FROM outbox WHERE attempts > 0"), 10
    )
    assert rows[0]["seq"] == 3
    assert rows[0]["last_error"] == "Not authorized (0x87)"
    assert not node.of("session_cost", "CP1")
    await node.fetch("UPDATE outbox SET attempts = 9")  # the pauses between ten attempts take a minute
    assert await says(node, "outbox", "1 are parked", "csms events parked") == "degraded"

    status, out = await csms(node, "events", "parked")
    assert status == 0
    assert [line.split("\t")[:2] for line in out.splitlines()] == [["CP1", "3"]]
    assert "Not authorized (0x87)" in out
    server.allow(f"{READ_ALL}user csms\ntopic readwrite #\n")
    assert await csms(node, "events", "revive", "CP1") == (0, "1 events will be sent.\n")
    await node.until(lambda: node.of("session_cost", "CP1"))

    async def nothing_waits():
        return (await health(node))["outbox"] == ("ok", "0 events wait, the oldest for 0 s.")

    await until(nothing_waits, 5)
    assert await csms(node, "events", "parked") == (0, "")
    assert (await csms(node, "events", "discard"))[1].startswith("0 events will not be sent")


@pytest.mark.parametrize("lost", ["", "-events"])
async def test_a_lost_connection_does_not_disturb_commands(start_node, mosquitto, lost):
    server = mosquitto(POLITE)
    here = await start_node(broker_address=at(server), mqtt_reconnect_min_s=30, mqtt_reconnect_max_s=30)
    there = await start_node(broker_address=at(server), csms_node="node-b")
    point = await RawChargePoint.dial(here.ocpp, "CP1")
    try:
        await point.boot()
        # Another client takes the identifier of one of our connections: the broker closes that connection.
        taken = f"{here.prefix.replace('/', '-')}-node-a{lost}"
        thief = aiomqtt.Client(server.host, server.port, identifier=taken)
        async with thief:
            await says(here, "mqtt", "same identifier")
            asked = asyncio.create_task(
                there.api.post("/api/v1/chargers/CP1/commands", json={"action": "ClearCache", "payload": {}})
            )
            call = await point.receive()
            await point.send([3, call[1], {"status": "Accepted"}])
            answer = await asked
            assert (answer.status_code, answer.json()) == (200, {"response": {"status": "Accepted"}})
            assert await says(here, "mqtt", "same identifier") == "degraded"
    finally:
        await point.close()


async def test_connections_and_quarantine_are_told_when_switched_on(start_node):
    node = await start_node(mqtt_connection_events_enabled=True, mqtt_error_events_enabled=True)
    point = await RawChargePoint.dial(node.ocpp, "CP1")
    await point.boot()
    await point.ask(
        "StopTransaction", {"transactionId": 4711, "meterStop": 1, "timestamp": "2026-11-01T11:30:00Z"}
    )
    await point.close()
    await node.until(lambda: node.of("disconnected"))
    assert [(event["eventType"], event["seq"]) for event in node.events] == [
        ("connected", 1),
        ("booted", 2),
        ("quarantined", 3),
        ("orphan_stop", 4),
        ("disconnected", 5),
    ]
    assert node.of("disconnected")[0]["payload"]["reason"] == "1000"


@pytest.mark.parametrize(("always", "kept"), [(True, SESSION), (False, [])])
async def test_without_mqtt_the_outbox_stays_empty_unless_told_otherwise(start_node, always, kept):
    node = await start_node(mqtt=False, events_outbox_always=always)
    await charge(node)
    assert await waiting(node) == kept
    assert len((await node.api.get("/api/v1/events", params={"clientId": "CP1"})).json()) == 3


# --- tools -----------------------------------------------------------------------------------------------


async def csms(node, *arguments):
    """An operator's command, without an interpreter of its own."""
    env = {"CSMS_URL": node.running.http, "CSMS_TOKEN": TOKEN}
    made = []

    class Closed(httpx.Client):
        """The command leaves that to the end of its process."""

        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            made.append(self)

    with unittest.mock.patch("csms.cli.client.httpx.Client", Closed):
        done = await asyncio.to_thread(CliRunner().invoke, cli, arguments, env=env)
    for client in made:
        client.close()
    assert done.exception is None, done.output
    return done.exit_code, done.stdout


class TlsFiles:
    """A CA, the broker's certificate and ours, as files."""

    def server_lines(self, directory):
        now, days = datetime.now(UTC), timedelta(days=2)
        ca = pki.make_root("Test CPO", now=now, lifetime=days)
        server_key, client_key = pki.new_key("ecdsa"), pki.new_key("ecdsa")
        server = ca.issue_server(
            ["localhost", "127.0.0.1"], server_key, organization="Test CPO", now=now, lifetime=days
        )
        request = (
            x509.CertificateSigningRequestBuilder()
            .subject_name(x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "csms")]))
            .sign(client_key, hashes.SHA256())
        )
        client = ca.sign_request(request, "csms", organization="Test CPO", now=now, lifetime=days)
        for name, content in {
            "ca.pem": ca.pem,
            "server.pem": server.chain,
            "server.key": pki.key_pem(server_key).decode(),
            "client.pem": client.chain,
            "client.key": pki.key_pem(client_key).decode(),
        }.items():
            (directory / name).write_text(content)
            (directory / name).chmod(0o600)
        return (
            f"cafile {directory / 'ca.pem'}",
            f"certfile {directory / 'server.pem'}",
            f"keyfile {directory / 'server.key'}",
            "require_certificate true",
        )

    def client(self, directory):
        return {
            "ca_certs": str(directory / "ca.pem"),
            "certfile": str(directory / "client.pem"),
            "keyfile": str(directory / "client.key"),
        }


@pytest.fixture
def tls_files():
    return TlsFiles()
