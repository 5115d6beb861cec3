"""MQTT packets as bytes, for a client that only publishes: 3.1.1 and 5 (OASIS standards, chapters 2 and 3). Pure."""

from collections.abc import Iterable, Iterator
from typing import Any, Final

from msgspec import Struct

CONNACK, PUBACK, PUBREC, PUBREL, PUBCOMP, PINGRESP, DISCONNECT = 2, 4, 5, 6, 7, 13, 14
PINGREQ: Final = b"\xc0\x00"
GOODBYE: Final = b"\xe0\x00"
_LONGEST_HEAD: Final = 5
_TEXT_LIMIT: Final = 65_535
_PAYLOAD_FORMAT, _EXPIRY, _CONTENT_TYPE, _USER = b"\x01\x01", b"\x02", b"\x03", b"\x26"
RECEIVE_MAXIMUM, MAXIMUM_QOS, RETAIN_AVAILABLE, MAXIMUM_PACKET_SIZE, SERVER_KEEP_ALIVE = 33, 36, 37, 39, 19
# Sizes of the properties that brokers send; those named here are text (a length first), 38 is two texts.
_SIZES: Final = {1: 1, 2: 4, 17: 4, 19: 2, 23: 1, 24: 4, 25: 1, 33: 2, 34: 2, 35: 2, 36: 1, 37: 1, 39: 4, 40: 1,
                 41: 1, 42: 1}  # fmt: skip
_TEXTS: Final = {3: 1, 8: 1, 9: 1, 18: 1, 21: 1, 22: 1, 26: 1, 28: 1, 31: 1, 38: 2}


class MalformedPacket(Exception):
    """What came is no MQTT."""


class MqttPacket(Struct, frozen=True):
    """Type (1 to 15), flags, and what follows the fixed header."""

    kind: int
    flags: int
    body: bytes


class Acknowledgement(Struct, frozen=True):
    """PUBACK, PUBREC, PUBCOMP: for which packet, and how it ended (0 below MQTT 5)."""

    packet_id: int
    reason: int


def text(value: str | bytes) -> bytes:
    """A length and UTF-8. Raises ValueError for what brokers hang up at: too long, NUL, lone surrogates."""
    data = value if isinstance(value, bytes) else value.encode()
    if len(data) > _TEXT_LIMIT:
        raise ValueError(f"{len(data)} bytes of text are too many")
    return len(data).to_bytes(2, "big") + data


def variable_integer(number: int) -> bytes:
    """A variable byte integer."""
    if number < 128:
        return bytes((number,))
    if number < 16_384:
        return bytes((number & 0x7F | 0x80, number >> 7))
    out = bytearray()
    while number:
        number, low = number >> 7, number & 0x7F
        out.append(low | 0x80 if number else low)
    if len(out) >= _LONGEST_HEAD:
        raise ValueError("the packet is too large for MQTT")
    return bytes(out)


def connect(
    identifier: str, *, five: bool, keepalive_s: int, username: str | None, password: str | None
) -> bytes:
    """CONNECT with a clean start and without a will."""
    flags = 0x02 | (0x80 if username is not None else 0) | (0x40 if password is not None else 0)
    parts = [text("MQTT"), bytes((5 if five else 4, flags)), keepalive_s.to_bytes(2, "big")]
    if five:
        parts.append(b"\x00")
    parts.append(text(identifier))
    parts += [text(given) for given in (username, password) if given is not None]
    body = b"".join(parts)
    return b"\x10" + variable_integer(len(body)) + body


def publish(
    topic: bytes, body: bytes, *, qos: int, retain: bool, packet_id: int, properties: bytes | None
) -> bytes:
    """PUBLISH. `properties` without their length; None below MQTT 5. `topic` as `text` makes it."""
    parts = [topic]
    if qos:
        parts.append(packet_id.to_bytes(2, "big"))
    if properties is not None:
        parts += (variable_integer(len(properties)), properties)
    head = b"".join(parts)
    return b"%c%b%b%b" % (0x30 | qos << 1 | retain, variable_integer(len(head) + len(body)), head, body)


def publish_properties(
    *, expiry_s: int | None, content_type: str | None, user: Iterable[tuple[str, str]]
) -> bytes:
    """The properties of a PUBLISH."""
    parts = []
    if content_type is not None:
        if content_type.endswith("json"):
            parts.append(_PAYLOAD_FORMAT)
        parts += (_CONTENT_TYPE, text(content_type))
    if expiry_s is not None:
        parts += (_EXPIRY, expiry_s.to_bytes(4, "big"))
    for name, value in user:
        parts += (_USER, text(name), text(value))
    return b"".join(parts)


def release(packet_id: int) -> bytes:
    """PUBREL, the third of the four packets of QoS 2."""
    return b"\x62\x02" + packet_id.to_bytes(2, "big")


def split(data: bytes) -> tuple[list[MqttPacket], bytes]:
    """The whole packets at the beginning of `data`, and the rest. Raises Broken."""
    packets: list[MqttPacket] = []
    at, end = 0, len(data)
    while end - at >= 2:
        first, length = data[at], data[at + 1]
        head = 2
        if length > 127:
            length &= 0x7F
            for shift in (7, 14, 21):
                if at + head >= end:
                    return packets, data[at:]
                byte = data[at + head]
                head += 1
                length |= (byte & 0x7F) << shift
                if byte < 128:
                    break
            else:
                raise MalformedPacket("a packet without a length")
        if at + head + length > end:
            break
        packets.append(MqttPacket(first >> 4, first & 0x0F, data[at + head : at + head + length]))
        at += head + length
    return packets, data[at:]


def acknowledgement(packet: MqttPacket) -> Acknowledgement:
    """Read a PUBACK, PUBREC or PUBCOMP. Raises Broken."""
    body = packet.body
    if len(body) < 2:
        raise MalformedPacket("an acknowledgement of nothing")
    return Acknowledgement(body[0] << 8 | body[1], body[2] if len(body) > 2 else 0)


def connack(packet: MqttPacket, *, five: bool) -> tuple[int, dict[int, int]]:
    """Reason code and, with MQTT 5, the broker's limits by property. Raises Broken."""
    body = packet.body
    if len(body) < 2:
        raise MalformedPacket("a CONNACK without a reason")
    limits: dict[int, int] = {}
    if five and len(body) > 2:
        limits = {kind: value for kind, value in _properties(body[2:]) if isinstance(value, int)}
    return body[1], limits


def disconnect_reason(packet: MqttPacket) -> int:
    return packet.body[0] if packet.body else 0


def _properties(data: bytes) -> Iterator[tuple[int, Any]]:
    """Properties with their length before them."""
    length, at = 0, 0
    for shift in (0, 7, 14, 21):
        if at >= len(data):
            raise MalformedPacket("properties without a length")
        length |= (data[at] & 0x7F) << shift
        at += 1
        if data[at - 1] < 128:
            break
    end = at + length
    if end > len(data):
        raise MalformedPacket("properties that end too early")
    while at < end:
        kind = data[at]
        at += 1
        if kind in _SIZES:
            yield kind, int.from_bytes(data[at : at + _SIZES[kind]], "big")
            at += _SIZES[kind]
        elif kind in _TEXTS:
            for _ in range(_TEXTS[kind]):
                at += 2 + int.from_bytes(data[at : at + 2], "big")
            yield kind, None
        else:
            raise MalformedPacket(f"unknown property {kind}")
