"""An event as an MQTT message: topic, bytes and MQTT 5 properties. Pure; each attempt gives the same bytes."""

from datetime import datetime
from functools import lru_cache
from typing import Literal

import msgspec
from msgspec import Struct

from csms.core.events import SCHEMA_VERSION, timestamp, topic_level
from csms.core.records import Event
from csms.mqtt.client import packets
from csms.mqtt.client.message import MqttMessage

CloudEventsMode = Literal["off", "binary", "structured"]
METER_READING = "meter_reading"
_CATEGORIES = {"transactions": "transaction", "connectors": "connector"}


class EventFormat(Struct, frozen=True, kw_only=True):
    """How events are published. It has to be the same on all nodes: receivers compare id and source."""

    prefix: str = ""
    qos: int = 1
    meter_qos: int | None = None
    meter_expiry_s: int = 3600  # 0: none. Only readings expire, never a transaction or a bill
    cloudevents: CloudEventsMode = "binary"
    source: str = "/csms"

    def encode(self, event: Event) -> MqttMessage:
        """Return `message` with encoded properties, which is much faster: most of their bytes come from caches."""
        if self.cloudevents != "binary":
            return self.message(event)
        metered = event.event_type == METER_READING
        event_id = packets.text(event.event_id)
        seq = str(event.seq).encode()
        head = _first_properties(self.meter_expiry_s or None if metered else None)
        category = event.topic.split("/", 2)[1]
        first, second, third, fourth = _fixed_properties(
            event.charger_id, event.event_type, category, self.source, event.history_epoch
        )
        properties = b"%b%b%b%c%c%b%b%b%b%b%b%b" % (
            head,
            event_id,
            first,
            0,
            len(seq),
            seq,
            second,
            event_id,
            third,
            _time_value(event.recorded_at),
            _SEQUENCE % event.seq,
            fourth,
        )
        return MqttMessage(
            topic=f"{self.prefix}/{event.topic}" if self.prefix else event.topic,
            body=event.body,
            qos=self.meter_qos if metered and self.meter_qos is not None else self.qos,
            properties=properties,
        )

    def message(self, event: Event) -> MqttMessage:
        """Return the message of an event, its properties as text."""
        metered = event.event_type == METER_READING
        structured = self.cloudevents == "structured"
        return MqttMessage(
            topic=f"{self.prefix}/{event.topic}" if self.prefix else event.topic,
            body=self._structured(event) if structured else event.body,
            qos=self.meter_qos if metered and self.meter_qos is not None else self.qos,
            expiry_s=self.meter_expiry_s or None if metered else None,
            content_type="application/cloudevents+json" if structured else "application/json",
            user=self._user_properties(event),
        )

    def _user_properties(self, event: Event) -> list[tuple[str, str]]:
        # Brokers refuse control characters in properties; an identity may contain some.
        charger = event.charger_id if event.charger_id.isprintable() else topic_level(event.charger_id)
        own = [
            ("eventId", event.event_id),
            ("eventType", event.event_type),
            ("clientId", charger),
            ("seq", str(event.seq)),
            ("schemaVersion", SCHEMA_VERSION),
        ]
        if event.history_epoch:
            own.append(("historyEpoch", str(event.history_epoch)))
        if self.cloudevents != "binary":
            return own
        # CloudEvents 1.0, MQTT binding 3.1: attributes keep their names, datacontenttype is the Content Type.
        return [*own, *((name, charger if name in _IDENTITY else v) for name, v in self._attributes(event))]

    def _structured(self, event: Event) -> bytes:
        document = {
            **dict(self._attributes(event)),
            "datacontenttype": "application/json",
            "data": msgspec.Raw(event.body),
        }
        return msgspec.json.encode(document)

    def _attributes(self, event: Event) -> list[tuple[str, str]]:
        category = event.topic.split("/", 2)[1]
        return [
            ("specversion", "1.0"),
            ("id", event.event_id),
            ("source", self.source),
            ("type", f"csms.{_CATEGORIES.get(category, category)}.{event.event_type}.v1"),
            ("subject", event.charger_id),
            ("time", timestamp(event.recorded_at)),
            # Compared as text (CloudEvents sequence extension), hence the leading zeros.
            ("sequence", f"{event.seq:019d}"),
            ("partitionkey", event.charger_id),
        ]


_IDENTITY = frozenset({"subject", "partitionkey"})
_SEQUENCE = b"\x26\0\x08sequence\0\x13%019d"


def _user(name: str, value: str) -> bytes:
    return b"\x26" + packets.text(name) + packets.text(value)


def _name(name: str) -> bytes:
    """Encode a user property up to its value."""
    return b"\x26" + packets.text(name)


@lru_cache(maxsize=64)
def _first_properties(expiry_s: int | None) -> bytes:
    properties = packets.publish_properties(expiry_s=expiry_s, content_type="application/json", user=())
    return properties + _name("eventId")


@lru_cache(maxsize=50_000)
def _fixed_properties(
    charger_id: str, event_type: str, category: str, source: str, history_epoch: int
) -> tuple[bytes, bytes, bytes, bytes]:
    """Return the bytes between the values that differ with each event."""
    charger = charger_id if charger_id.isprintable() else topic_level(charger_id)
    kind = f"csms.{_CATEGORIES.get(category, category)}.{event_type}.v1"
    version = _user("schemaVersion", SCHEMA_VERSION)
    if history_epoch:
        version += _user("historyEpoch", str(history_epoch))
    return (
        _user("eventType", event_type) + _user("clientId", charger) + _name("seq"),
        version + _user("specversion", "1.0") + _name("id"),
        _user("source", source) + _user("type", kind) + _user("subject", charger) + _name("time"),
        _user("partitionkey", charger),
    )


@lru_cache(maxsize=256)
def _time_value(moment: datetime) -> bytes:
    return packets.text(timestamp(moment))
