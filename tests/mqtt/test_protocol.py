"""The protocol stream: the OCPP payload unchanged, secrets masked, memory bounded."""

import json
from datetime import UTC, datetime

import pytest

from csms.core.records import Frame
from csms.mqtt.client.publishing_link import PublishingLink
from csms.mqtt.protocol import ProtocolStream, protocol_message
from tests.harness.waiting import until
from tests.mqtt.conftest import config, connected, running, watching

AT = datetime(2023, 12, 7, 10, 15, 30, 250_000, tzinfo=UTC)


def frame(text, *, kind="call", action="Heartbeat", outgoing=False, charger_id="CP1"):
    raw = text if isinstance(text, bytes) else text.encode()
    return Frame(
        charger_id=charger_id, at=AT, outgoing=outgoing, kind=kind, action=action, message_id="1", frame=raw
    )


def test_the_message_of_a_call():
    message = protocol_message(frame('[2,"19","Heartbeat",{"x" : 1.50}]', charger_id="CP/1"))
    assert message.topic == "ocpp/messages/CP%2F1/Heartbeat"
    assert message.body == (
        b'{"timestamp":"2023-12-07T10:15:30.250Z","clientId":"CP/1","messageType":"Heartbeat","requestId":"19",'
        b'"payload":{"x" : 1.50},"direction":"fromChargePoint"}'
    )
    assert (message.qos, message.retain) == (0, False)


def test_the_message_of_a_result():
    message = protocol_message(
        frame('[3,"19",{"currentTime":"x"}]', kind="result", outgoing=True), prefix="t", qos=1
    )
    assert message.topic == "t/ocpp/responses/CP1/Heartbeat"
    assert message.qos == 1
    body = json.loads(message.body)
    assert (body["messageType"], body["direction"]) == ("HeartbeatResponse", "toChargePoint")
    assert body["payload"] == {"currentTime": "x"}


@pytest.mark.parametrize(
    ("text", "details", "description"),
    [
        ('[4,"19","NotImplemented","no","{}"]', "{}", "no"),
        ('[4,"19","NotImplemented","",{"a":1}]', {"a": 1}, ""),
        ('[4,"19","NotImplemented"]', {}, ""),
    ],
)
def test_the_message_of_an_error(text, details, description):
    message = protocol_message(frame(text, kind="error", action=None))
    assert message.topic == "ocpp/responses/CP1/Unknown"
    body = json.loads(message.body)
    assert body["payload"] == {}
    assert body["errorCode"] == "NotImplemented"
    assert body["errorDescription"] == description
    assert body["errorDetails"] == details


def test_the_password_is_masked_where_it_is_set():
    for key in ("AuthorizationKey", "authorizationkey", "\\u0041uthorizationKey"):
        message = protocol_message(
            frame(
                f'[2,"1","ChangeConfiguration",{{"key":"{key}","value":"geheim"}}]',
                action="ChangeConfiguration",
            )
        )
        assert b"geheim" not in message.body
        assert json.loads(message.body)["payload"]["value"] == "***"
    plain = protocol_message(
        frame(
            '[2,"1","ChangeConfiguration",{"key":"HeartbeatInterval","value":"60"}]',
            action="ChangeConfiguration",
        )
    )
    assert json.loads(plain.body)["payload"]["value"] == "60"


def test_the_password_is_masked_where_it_is_read():
    entries = [
        {"key": "AuthorizationKey", "readonly": False, "value": "geheim"},
        {"key": "AuthorizationKey", "readonly": True},
        {"key": "HeartbeatInterval", "readonly": False, "value": "60"},
    ]
    text = json.dumps([3, "1", {"configurationKey": entries, "unknownKey": []}])
    message = protocol_message(frame(text, kind="result", action="GetConfiguration"))
    assert b"geheim" not in message.body
    masked = json.loads(message.body)["payload"]["configurationKey"]
    assert [entry.get("value") for entry in masked] == ["***", None, "60"]


@pytest.mark.parametrize("text", ["", "nonsense", "[2]", "{}", '[2,"1"]', b"\xff\xfe", '[2,1,"A",{}]'])
async def test_a_malformed_frame_is_skipped(text, broker, topic_prefix):
    async with (
        watching(broker, f"{topic_prefix}/#") as watcher,
        connected(PublishingLink(config(broker))) as link,
    ):
        stream = ProtocolStream(link, prefix=topic_prefix)
        async with running(stream.run()):
            stream.put(frame(text))
            stream.put(frame('[2,"1","Heartbeat",{}]'))
            await watcher.got(1)
    assert watcher.topics() == [f"{topic_prefix}/ocpp/messages/CP1/Heartbeat"]


async def test_the_newest_frames_are_kept_without_a_broker(mosquitto):
    server = mosquitto()
    link = PublishingLink(config(server))
    stream = ProtocolStream(link, max_waiting=5)
    for n in range(20):
        stream.put(frame(f'[2,"{n}","Heartbeat",{{}}]'))
    assert stream.waiting == 5
    async with watching(server, "ocpp/messages/+/Heartbeat") as watcher, connected(link, stream.run()):
        await watcher.got(5)
    assert [json.loads(b)["requestId"] for b in watcher.bodies] == ["15", "16", "17", "18", "19"]


async def test_frames_keep_their_order_under_load(broker, topic_prefix):
    async with (
        watching(broker, f"{topic_prefix}/ocpp/#") as watcher,
        connected(PublishingLink(config(broker))) as link,
    ):
        stream = ProtocolStream(link, prefix=topic_prefix)
        async with running(stream.run()):
            for n in range(500):
                stream.put(frame(f'[2,"{n}","Heartbeat",{{}}]'))
            await watcher.got(500)
            await until(lambda: stream.waiting == 0)
    assert [json.loads(b)["requestId"] for b in watcher.bodies] == [str(n) for n in range(500)]


@pytest.mark.parametrize(
    ("text", "payload"),
    [
        (
            '[2,"1","StartTransaction",{"idTag":"04E8","connectorId":1,"meterStart":0}]',
            {"idTag": "***", "connectorId": 1, "meterStart": 0},
        ),
        (
            '[2,"1","SendLocalList",{"localAuthorizationList":[{"idTag":"A","idTagInfo":{"parentIdTag":"B"}}]}]',
            {"localAuthorizationList": [{"idTag": "***", "idTagInfo": {"parentIdTag": "***"}}]},
        ),
        ('[2,"1","Authorize",{"\\u0069dTag":"04E8"}]', {"idTag": "***"}),
        ('[2,"1","Heartbeat",{}]', {}),
    ],
)
def test_id_tags_are_masked_if_configured(text, payload):
    body = json.loads(protocol_message(frame(text), mask_id_tags=True).body)
    assert body["payload"] == payload
    assert "04E8" in protocol_message(frame('[2,"1","Authorize",{"idTag":"04E8"}]')).body.decode()
