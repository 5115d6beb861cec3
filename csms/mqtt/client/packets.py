"""MQTT packets as bytes, for a client that only publishes: 3.1.1 and 5 (OASIS standards, chapters 2 and 3). Pure."""

from collections.abc import Iterable, Iterator
from typing import Any, Final

from msgspec import Struct

CONNACK, PUBACK, PUBREC, PUBCOMP, PINGRESP, DISCONNECT = 2, 4, 5, 7, 13, 14
PINGREQ: Final = b"\xc0\x00"
DISCONNECT_PACKET: Final = b"\xe0\x00"
_LONGEST_HEAD: Final = 5
_TEXT_LIMIT: Final = 65_535
_PAYLOAD_FORMAT, _EXPIRY, _CONTENT_TYPE, _USER = b"\x01\x01", b"\x02", b"\x03", b"\x26"
RECEIVE_MAXIMUM, MAXIMUM_QOS, MAXIMUM_PACKET_SIZE, SERVER_KEEP_ALIVE = 33, 36, 39, 19
# Sizes (bytes) of the properties that brokers send. Those in _TEXTS are strings with their length; 38 is two of them.
_SIZES: Final = {1: 1, 2: 4, 17: 4, 19: 2, 23: 1, 24: 4, 25: 1, 33: 2, 34: 2, 35: 2, 36: 1, 37: 1, 39: 4, 40: 1,
                 41: 1, 42: 1}  # fmt: skip
_TEXTS: Final = {3: 1, 8: 1, 9: 1, 18: 1, 21: 1, 22: 1, 26: 1, 28: 1, 31: 1, 38: 2}


class MqttDecodeError(Exception):
    """What was received is not MQTT."""


class MqttPacket(Struct, frozen=True):
    """Type (1 to 15), flags, and what follows the fixed header."""

    kind: int
    flags: int
    body: bytes


class Acknowledgement(Struct, frozen=True):
    """PUBACK, PUBREC or PUBCOMP: of which packet, with which reason code (0 with MQTT 3.1.1)."""

    packet_id: int
    reason: int


def text(value: str | bytes) -> bytes:
    """Encode a UTF-8 string with its length. Raises ValueError when it is too long or has lone surrogates."""
    data = value if isinstance(value, bytes) else value.encode()
    if len(data) > _TEXT_LIMIT:
        raise ValueError(f"a string of {len(data)} bytes is too long for MQTT")
    return len(data).to_bytes(2, "big") + data


def variable_integer(number: int) -> bytes:
    """Encode a variable byte integer (MQTT 5, 1.5.5)."""
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
    identifier: str, *, v5: bool, keepalive_s: int, username: str | None, password: str | None
) -> bytes:
    """Encode CONNECT, with a clean start and without a will."""
    flags = 0x02 | (0x80 if username is not None else 0) | (0x40 if password is not None else 0)
    parts = [text("MQTT"), bytes((5 if v5 else 4, flags)), keepalive_s.to_bytes(2, "big")]
    if v5:
        parts.append(b"\x00")
    parts.append(text(identifier))
    parts += [text(given) for given in (username, password) if given is not None]
    body = b"".join(parts)
    return b"\x10" + variable_integer(len(body)) + body


def publish(
    topic: bytes, body: bytes, *, qos: int, retain: bool, packet_id: int, properties: bytes | None
) -> bytes:
    """Encode PUBLISH. `topic` as `text` returns it; `properties` without their length, None with MQTT 3.1.1."""
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
    """Encode the properties of a PUBLISH, without their length."""
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
    """Encode PUBREL, the third of the four packets of QoS 2."""
    return b"\x62\x02" + packet_id.to_bytes(2, "big")


def split(data: bytes) -> tuple[list[MqttPacket], bytes]:
    """Return the complete packets at the beginning of `data`, and the rest. Raises MqttDecodeError."""
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
                raise MqttDecodeError("a packet with a length of more than four bytes")
        if at + head + length > end:
            break
        packets.append(MqttPacket(first >> 4, first & 0x0F, data[at + head : at + head + length]))
        at += head + length
    return packets, data[at:]


def acknowledgement(packet: MqttPacket) -> Acknowledgement:
    """Read a PUBACK, PUBREC or PUBCOMP. Raises MqttDecodeError."""
    body = packet.body
    if len(body) < 2:
        raise MqttDecodeError("an acknowledgement without a packet identifier")
    return Acknowledgement(body[0] << 8 | body[1], body[2] if len(body) > 2 else 0)


def connack(packet: MqttPacket, *, v5: bool) -> tuple[int, dict[int, int]]:
    """Read a CONNACK: reason code and, with MQTT 5, the broker's limits by property. Raises MqttDecodeError."""
    body = packet.body
    if len(body) < 2:
        raise MqttDecodeError("a CONNACK without a reason code")
    limits: dict[int, int] = {}
    if v5 and len(body) > 2:
        limits = {kind: value for kind, value in _properties(body[2:]) if isinstance(value, int)}
    return body[1], limits


def disconnect_reason(packet: MqttPacket) -> int:
    return packet.body[0] if packet.body else 0


def _properties(data: bytes) -> Iterator[tuple[int, Any]]:
    """Read properties, which their length precedes. Yields number and value (None: a string)."""
    length, at = 0, 0
    for shift in (0, 7, 14, 21):
        if at >= len(data):
            raise MqttDecodeError("properties without a length")
        length |= (data[at] & 0x7F) << shift
        at += 1
        if data[at - 1] < 128:
            break
    end = at + length
    if end > len(data):
        raise MqttDecodeError("properties that are longer than their packet")
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
            raise MqttDecodeError(f"unknown property {kind}")
