"""What is not signed by a node of the same database, is old, repeated or retained, does nothing: over a real Mosquitto."""

import asyncio
import json
from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from msgspec import Raw
from prometheus_client import REGISTRY
from structlog.testing import capture_logs

from csms.adapter import Command
from csms.errors import ChargerTimeout
from csms.mqtt.client.link import BrokerLink
from csms.mqtt.client.message import MqttMessage
from csms.node import router_messages, signed_messages
from csms.node.signed_messages import (
    CLOCKS_APART,
    MAX_LIFETIME,
    MAX_MESSAGE_BYTES,
    MessageKey,
    SignedReader,
    Wrapped,
    stamp,
)
from tests.harness.waiting import until
from tests.mqtt.conftest import config, connected, watching
from tests.node.test_router import KEY, RESET, Charger, Nodes

COMMANDS, CONTROL, RESULTS = (f"csms/nodes/a/{end}" for end in ("commands", "control", "results"))
NOW = datetime(2026, 12, 1, 12, tzinfo=UTC)


def request(**changes: Any) -> router_messages.Request:
    fields = {
        **stamp(30),
        "sender": "b",
        "charger_id": "CP1",
        "action": "Reset",
        "payload": {},
        "timeout_s": 5.0,
        "requested_by": "mallory",
    }
    return router_messages.Request(**(fields | changes))


def aged(sent_s: float, expires_s: float) -> dict[str, Any]:
    now = datetime.now(UTC)
    return {"sent_at": now + timedelta(seconds=sent_s), "expires_at": now + timedelta(seconds=expires_s)}


OLD_RELEASE = json.dumps(
    {
        "id": "1",
        "replyTo": "csms/billing/CP1/session_cost",
        "expiresAt": "2099-01-01T00:00:00Z",
        "chargerId": "CP1",
        "action": "UnlockConnector",
        "payload": {"connectorId": 1},
        "timeoutS": 5.0,
        "requestedBy": "admin",
    }
).encode()


def refusals(topic: str = "commands") -> Counter[str]:
    """How many messages were refused so far, by cause."""
    (family,) = (each for each in REGISTRY.collect() if each.name == "csms_node_messages_refused")
    return Counter(
        {
            sample.labels["cause"]: int(sample.value)
            for sample in family.samples
            if sample.name.endswith("_total") and sample.labels["topic"] == topic
        }
    )


def tampered(body: bytes, **changes: Any) -> bytes:
    signed = json.loads(body)
    return json.dumps({**signed, "message": signed["message"] | changes}).encode()


REFUSED = {
    "an unsigned one, of the release before": (lambda: OLD_RELEASE, "unsigned"),
    "an empty signature": (lambda: b'{"signature":"","message":{}}', "unsigned"),
    "a signature of another key": (lambda: MessageKey(b"x").sign(COMMANDS, request()), "forged"),
    "a signature that is none": (lambda: b'{"signature":"\xc3\xa9","message":{}}', "forged"),
    "changed by whom it was asked": (lambda: tampered(KEY.sign(COMMANDS, request()), requestedBy="admin"), "forged"),
    "changed where the answer goes": (lambda: tampered(KEY.sign(COMMANDS, request()), sender="c"), "forged"),
    "changed until when": (lambda: tampered(KEY.sign(COMMANDS, request()), expiresAt="2099-01-01T00:00:00Z"), "forged"),
    "a changed id": (lambda: tampered(KEY.sign(COMMANDS, request()), id="2"), "forged"),
    "a command to another node": (lambda: KEY.sign("csms/nodes/b/commands", request()), "forged"),
    "a hang-up": (
        lambda: KEY.sign(CONTROL, router_messages.HangUp(**stamp(60), charger_id="CP1", generation=1)),
        "forged",
    ),
    "signed, but no command": (
        lambda: KEY.sign(COMMANDS, router_messages.HangUp(**stamp(60), charger_id="CP1", generation=1)),
        "malformed",
    ),
    "expired": (lambda: KEY.sign(COMMANDS, request(**aged(0, -5.1))), "stale"),
    "valid for too long": (lambda: KEY.sign(COMMANDS, request(**aged(0, 3600))), "stale"),
    "of before the node's start": (lambda: KEY.sign(COMMANDS, request(**aged(-300, 30))), "stale"),
    "of a clock that is ahead": (lambda: KEY.sign(COMMANDS, request(**aged(60, 90))), "early"),
    "bytes": (lambda: b"\xff", "malformed"),
    "a list": (lambda: b"[]", "malformed"),
    "nested deeply": (lambda: b'{"signature":"x","message":' + b"[" * 100_000, "malformed"),
    "empty": (lambda: b"", "malformed"),
    "oversize": (lambda: b" " * (MAX_MESSAGE_BYTES + 1), "oversize"),
}  # fmt: skip


@pytest.mark.parametrize("what", REFUSED)
async def test_a_command_that_is_not_a_nodes_own_does_nothing(mosquitto, what):
    make, cause = REFUSED[what]
    broker, charger, before = mosquitto(), Charger(), refusals()
    async with (
        Nodes(broker, "") as nodes,
        watching(broker, "#") as watcher,
        connected(BrokerLink(config(broker))) as stranger,
    ):
        nodes.a.hold("CP1", charger)
        nodes.holders["CP1"] = "a"
        body = make()
        with capture_logs() as logs:
            for _ in range(3):
                await stranger.publish(MqttMessage(topic=COMMANDS, body=body))
            await until(lambda: refusals() - before == Counter({cause: 3}))
        assert not charger.performed and not charger.hung_up
        assert await nodes.b.send("CP1", RESET) == {"status": "Accepted"}
        # Nothing but these has passed: three in vain, the true one and its answer.
        await watcher.got(5)
        assert watcher.topics() == [COMMANDS] * 4 + ["csms/nodes/b/results"]
    assert [(line["event"], line["topic"], line["cause"]) for line in logs] == [
        ("node_message_refused", "commands", cause)
    ]


async def test_a_command_that_is_sent_again_is_performed_once(mosquitto):
    broker, charger, before = mosquitto(), Charger(), refusals()
    async with (
        Nodes(broker, "") as nodes,
        watching(broker, "csms/nodes/#") as watcher,
        connected(BrokerLink(config(broker))) as stranger,
    ):
        nodes.a.hold("CP1", charger)
        nodes.b.hold("CP1", charger)
        nodes.holders["CP1"] = "a"
        nodes.b.release("CP1", charger)
        await nodes.b.send("CP1", RESET)
        overheard = (await watcher.got(2))[0].payload
        for topic in (COMMANDS, COMMANDS, "csms/nodes/b/commands", RESULTS, CONTROL):
            await stranger.publish(MqttMessage(topic=topic, body=overheard))
        await until(lambda: refusals() - before == Counter(replayed=2, forged=1))
        await until(lambda: refusals("results")["forged"] and refusals("control")["forged"])
    assert charger.performed == [("CP1", RESET)]


async def test_a_retained_command_does_nothing_when_a_node_subscribes(mosquitto):
    broker, charger, before = mosquitto(), Charger(), refusals()
    async with connected(BrokerLink(config(broker))) as stranger:
        await stranger.publish(MqttMessage(topic=COMMANDS, body=KEY.sign(COMMANDS, request()), retain=True))
        async with Nodes(broker, "") as nodes:
            nodes.a.hold("CP1", charger)
            await until(lambda: refusals() - before == Counter(retained=1))
            nodes.holders["CP1"] = "a"
            await nodes.b.send("CP1", RESET)
    assert charger.performed == [("CP1", RESET)]


async def test_a_command_of_before_a_restart_is_not_performed_again(mosquitto):
    broker, before = mosquitto(), refusals()
    async with watching(broker, "csms/nodes/#") as watcher:
        async with Nodes(broker, "") as nodes:
            nodes.a.hold("CP1", Charger())
            nodes.holders["CP1"] = "a"
            await nodes.b.send("CP1", RESET)
        overheard = (await watcher.got(2))[0].payload
        charger = Charger()
        async with Nodes(broker, "") as nodes, connected(BrokerLink(config(broker))) as stranger:
            nodes.a.hold("CP1", charger)
            await stranger.publish(MqttMessage(topic=COMMANDS, body=overheard))
            await until(lambda: refusals() - before == Counter(stale=1))
    assert not charger.performed


async def test_a_forged_answer_is_not_taken(mosquitto):
    broker, charger, before = mosquitto(), Charger(), refusals("results")
    charger.delay_s = 30
    async with (
        Nodes(broker, "", margin_s=0.5) as nodes,
        watching(broker, "csms/nodes/#") as watcher,
        connected(BrokerLink(config(broker))) as stranger,
    ):
        nodes.a.hold("CP1", charger)
        nodes.holders["CP1"] = "a"
        sending = asyncio.create_task(nodes.b.send("CP1", Command(action="Reset", payload={}, timeout_s=1)))
        (overheard,) = await watcher.got(1)
        number = json.loads(overheard.payload)["message"]["id"]
        answer = router_messages.Reply(**stamp(60), request_id=number, response={"status": "Accepted"})
        forged = MessageKey(b"x").sign("csms/nodes/b/results", answer)
        for body in (forged, json.dumps({"id": number, "response": {"status": "Accepted"}}).encode()):
            await stranger.publish(MqttMessage(topic="csms/nodes/b/results", body=body))
        await until(lambda: refusals("results") - before == Counter(forged=1, unsigned=1))
        with pytest.raises(ChargerTimeout, match="connected to a, did not answer .* node_message_refused"):
            await sending


async def test_a_strangers_hang_up_ends_no_connection(mosquitto):
    broker, charger, before = mosquitto(), Charger(), refusals("control")
    async with Nodes(broker, "") as nodes, connected(BrokerLink(config(broker))) as stranger:
        nodes.a.hold("CP1", charger)
        for body in (
            b'{"chargerId":"CP1","generation":9}',
            MessageKey(b"x").sign(CONTROL, router_messages.HangUp(**stamp(60), charger_id="CP1", generation=9)),
        ):  # fmt: skip
            await stranger.publish(MqttMessage(topic=CONTROL, body=body))
        await until(lambda: refusals("control") - before == Counter(forged=1, unsigned=1))
        await nodes.b.hang_up("a", "CP1", 7)
        await until(lambda: charger.hung_up)
    assert charger.hung_up == [("CP1", 7)]


# --- the reader by itself -------------------------------------------------------------------------------


class Reader:
    """A reader with a clock that a test sets."""

    def __init__(self) -> None:
        self.now = NOW
        self.reader = SignedReader(KEY, Wrapped, "test", clock=lambda: self.now)

    def takes(self, sent_s: float, lifetime_s: float, number: str = "1") -> bool:
        sent = NOW + timedelta(seconds=sent_s)
        expires = sent + timedelta(seconds=lifetime_s)
        message = Wrapped(id=number, sent_at=sent, expires_at=expires, body=Raw(b"{}"))
        return self.reader.read(MqttMessage(topic="t", body=KEY.sign("t", message))) is not None


def test_clocks_may_differ_by_the_documented_seconds():
    tolerance = CLOCKS_APART.total_seconds()
    assert tolerance == 5
    assert Reader().takes(tolerance, 30)
    assert not Reader().takes(tolerance + 0.001, 30)
    late = Reader()
    late.now = NOW + timedelta(seconds=30 + tolerance - 0.001)
    assert late.takes(0, 30)
    late.now += timedelta(milliseconds=1)
    assert not late.takes(0, 30, "2")
    longest = MAX_LIFETIME.total_seconds()
    assert Reader().takes(0, longest)
    assert not Reader().takes(0, longest + 0.001)


def test_an_id_is_remembered_for_as_long_as_its_message_is_valid(monkeypatch):
    monkeypatch.setattr(signed_messages, "_MAX_REMEMBERED", 2)
    reader = Reader()
    assert reader.takes(0, 30, "1") and reader.takes(0, 10, "2")
    assert not reader.takes(0, 60, "3")  # no room: refused, as forgetting would let a repetition pass
    reader.now += timedelta(seconds=14.9)
    assert not reader.takes(0, 30, "1") and not reader.takes(0, 10, "2")
    reader.now += timedelta(seconds=0.1)
    assert reader.takes(0, 60, "3")
    assert not reader.takes(0, 30, "1")
