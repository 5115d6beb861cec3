"""An MQTT message."""

from collections.abc import Sequence

from msgspec import Struct


class MqttMessage(Struct, frozen=True, kw_only=True):
    """A message to or from the broker. The last four fields need MQTT 5 and are ignored with 3.1.1.

    `properties`: expiry, content type and user properties, encoded; only a Publisher uses them.
    """

    topic: str
    body: bytes
    qos: int = 1
    retain: bool = False
    expiry_s: int | None = None
    content_type: str | None = None
    user: Sequence[tuple[str, str]] = ()
    properties: bytes | None = None
