"""Events as MQTT messages: topic, bytes, properties, CloudEvents."""

import json
from datetime import UTC, datetime

import pytest
from msgspec.structs import replace

from csms.core.records import Event
from csms.mqtt.client import packets
from csms.mqtt.messages import EventFormat

BODY = b'{"timestamp":"2023-12-07T10:15:30Z","clientId":"CP/1","eventType":"started","payload":{"duration":90.0}}'
EVENT = Event(
    charger_id="CP/1",
    seq=7,
    event_id="started_1701940530123456789",
    event_type="started",
    topic="csms/transactions/CP%2F1/started",
    body=BODY,
    transaction_id=123456,
    recorded_at=datetime(2023, 12, 7, 10, 15, 30, tzinfo=UTC),
)
READING = replace(EVENT, event_type="meter_reading", topic="csms/transactions/CP%2F1/meter_reading")
OWN = {
    "eventId": "started_1701940530123456789",
    "eventType": "started",
    "clientId": "CP/1",
    "seq": "7",
    "schemaVersion": "1.0",
}
CLOUD = {
    "specversion": "1.0",
    "id": "started_1701940530123456789",
    "source": "/csms",
    "type": "csms.transaction.started.v1",
    "subject": "CP/1",
    "time": "2023-12-07T10:15:30Z",
    "sequence": "0000000000000000007",
    "partitionkey": "CP/1",
}


def test_binary_mode_has_the_stored_bytes_and_attributes_as_properties():
    message = EventFormat().message(EVENT)
    assert message.body is BODY
    assert message.topic == EVENT.topic
    assert (message.qos, message.retain) == (1, False)
    assert message.content_type == "application/json"
    assert dict(message.user) == OWN | CLOUD


def test_the_history_epoch_is_there_once_the_database_was_restored():
    assert dict(EventFormat().message(replace(EVENT, history_epoch=2)).user) == OWN | CLOUD | {
        "historyEpoch": "2"
    }


def test_off_leaves_the_attributes_out():
    assert dict(EventFormat(cloudevents="off").message(EVENT).user) == OWN


def test_structured_mode_contains_the_stored_bytes():
    message = EventFormat(cloudevents="structured").message(EVENT)
    document = json.loads(message.body)
    assert BODY in message.body
    assert document.pop("data") == json.loads(BODY)
    assert document == CLOUD | {"datacontenttype": "application/json"}
    assert message.content_type == "application/cloudevents+json"
    assert message.body == EventFormat(cloudevents="structured").message(EVENT).body


@pytest.mark.parametrize(
    ("topic", "kind"),
    [
        ("csms/transactions/A/completed", "csms.transaction.completed.v1"),
        ("csms/connectors/A/status_changed", "csms.connector.status_changed.v1"),
        ("csms/billing/A/session_cost", "csms.billing.session_cost.v1"),
    ],
)
def test_the_type_follows_the_topic(topic, kind):
    event = replace(EVENT, topic=topic, event_type=topic.rsplit("/", 1)[1])
    assert dict(EventFormat().message(event).user)["type"] == kind


def test_only_readings_expire_and_may_have_their_own_qos():
    form = EventFormat(meter_qos=0, meter_expiry_s=60)
    assert (form.message(READING).qos, form.message(READING).expiry_s) == (0, 60)
    assert (form.message(EVENT).qos, form.message(EVENT).expiry_s) == (1, None)
    assert EventFormat(meter_expiry_s=0).message(READING).expiry_s is None
    assert EventFormat().message(READING).expiry_s == 3600


def test_a_prefix_comes_before_the_topic():
    assert EventFormat(prefix="tenant/a").message(EVENT).topic == "tenant/a/csms/transactions/CP%2F1/started"


def test_properties_have_no_control_characters():
    message = EventFormat().message(replace(EVENT, charger_id="CP\x01\n"))
    assert all(value.isprintable() for _, value in message.user)
    assert dict(message.user)["subject"] == "CP%01%0A"


@pytest.mark.parametrize("expiry_s", [0, 60])
@pytest.mark.parametrize("charger_id", ["CP/1", "CP\x01\n", "Ladesäule 7"])
@pytest.mark.parametrize(
    "kind", [("transactions", "meter_reading"), ("connectors", "status_changed"), ("billing", "x")]
)
def test_the_encoded_properties_are_those_of_the_readable_message(kind, charger_id, expiry_s):
    category, event_type = kind
    for cloudevents in ("binary", "structured", "off"):
        form = EventFormat(
            prefix="t", meter_qos=0, meter_expiry_s=expiry_s, source="/a", cloudevents=cloudevents
        )
        for seq, epoch in ((7, 0), (10**9, 3)):
            event = replace(
                EVENT,
                charger_id=charger_id,
                seq=seq,
                history_epoch=epoch,
                event_type=event_type,
                topic=f"csms/{category}/x/{event_type}",
            )
            readable, encoded = form.message(event), form.encode(event)
            properties = packets.publish_properties(
                expiry_s=readable.expiry_s, content_type=readable.content_type, user=readable.user
            )
            assert (encoded.properties or properties) == properties
            assert (encoded.topic, encoded.body, encoded.qos) == (readable.topic, readable.body, readable.qos)
            assert (encoded.properties is not None) == (cloudevents == "binary")
