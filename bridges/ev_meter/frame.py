"""EV-Meter's wire format: the one request of this bridge, the reply in its three envelopes, its fields. Pure.

Little-endian; a string is its length (u16) and its bytes. A frame begins with the number of bytes that follow. A frame
that is too short, or has a field beyond its length, raises `MalformedFrame`: a missing field is never read as 0.
"""

import base64
import binascii
import contextlib
import re
from typing import Any, Final

from msgspec import Struct

from csms.outside import UnusableDocument, read_json

# The only command of this bridge: "send WorkingInfo".
WORKING_INFO_REQUEST: Final = 0x07
WORKING_INFO: Final = 3
TOKEN_BYTES: Final = 48
MAX_REPLY_BYTES: Final = 1024
_MAX_VERSION, _MAX_SSID = 32, 64
_NO_TIME: Final = 2**64 - 1
_NO_LIMIT: Final = 2**32 - 1
_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
_HEX = re.compile(r"(?:[0-9A-Fa-f]{2})+")


class MalformedFrame(ValueError):
    """A payload that is not a valid frame. The text names the defect and quotes no content."""


class UnsupportedFrame(MalformedFrame):
    """A valid frame of another type than WorkingInfo."""


class VendorAccount(Struct, frozen=True):
    """The vendor's account to which the chargers belong: its UUID and its token. Both are secret."""

    uuid: str
    token: bytes

    def __post_init__(self) -> None:
        if not _UUID.fullmatch(self.uuid):
            raise ValueError("an account's UUID: 8-4-4-4-12 hexadecimal digits, lower case")
        if len(self.token) != TOKEN_BYTES:
            raise ValueError(f"an account's token: {TOKEN_BYTES} bytes")

    def __repr__(self) -> str:
        return "VendorAccount(…)"

    @property
    def user_id(self) -> str:
        """The last level of the reply topic: the characters of the UUID in upper-case hexadecimal."""
        return self.uuid.encode().hex().upper()


class WorkingInfo(Struct, frozen=True, kw_only=True):
    """A WorkingInfo reply.

    `device_id`, `evse`, `ssid` and `peer_serial` are personal data and stay in the bridge. Undocumented codes stay
    numbers. `voltage_v`, `current_a` and `dlm_current_a` are for L1 to L3; `trailing_bytes` are undocumented.
    """

    flag: int
    evse: int
    version: str
    ev_status: int
    charging_state: int
    warnings: int
    errors: int
    voltage_v: tuple[float, float, float]
    current_a: tuple[float, float, float]
    session_wh: int
    total_wh: int
    phase_type: int
    set_current_a: int
    firmware_version: int
    limit: int | None
    ssid: str
    grid_type: int
    mqtt_state: int
    device_id: str
    start_time_ms: int | None
    scheduler_version: int
    circuit_breaker_a: int
    dlm_current_a: tuple[float, float, float]
    temperature: int
    peer_serial: int
    ping_latency_ms: int
    trailing_bytes: int

    def __repr__(self) -> str:
        return "WorkingInfo(…)"


# --- the request -----------------------------------------------------------------------------------------


def encode_request(account: VendorAccount) -> bytes:
    """Encode the request for a charger's WorkingInfo (99 bytes)."""
    uuid = account.uuid.encode()
    body = bytes(6) + bytes([WORKING_INFO_REQUEST]) + _string(uuid) + _string(account.token) + bytes(2)
    return len(body).to_bytes(2, "little") + body


def account_from_request(frame: bytes) -> VendorAccount:
    """Extract the account from a complete request, for operators who have recorded one. Raises ValueError."""
    account = VendorAccount(frame[11:47].decode("ascii", errors="replace"), frame[49:97])
    if encode_request(account) != frame:
        raise ValueError("a request that reads a charger's state, and nothing else")
    return account


def _string(text: bytes) -> bytes:
    return len(text).to_bytes(2, "little") + text


# --- the reply -------------------------------------------------------------------------------------------


def decode(payload: bytes) -> WorkingInfo:
    """Decode a reply: a bare frame, or a JSON object with one in `payload_base64`, in base64 or in hexadecimal.

    Raises MalformedFrame, UnsupportedFrame.
    """
    if len(payload) > MAX_REPLY_BYTES:
        raise MalformedFrame("the message is too large")
    document = _json_object(payload)
    if document is None:
        return decode_frame(payload)
    text = document.get("payload_base64")
    if not isinstance(text, str) or not text:
        raise MalformedFrame("the JSON has no payload_base64 with text in it")
    # Hexadecimal is also valid base64: the encoding that yields a frame is the right one.
    defect = MalformedFrame("payload_base64 is neither base64 nor hexadecimal")
    for candidate in _payload_candidates(text):
        try:
            return decode_frame(candidate)
        except UnsupportedFrame:
            raise
        except MalformedFrame as error:
            defect = error
    raise defect


def _json_object(payload: bytes) -> dict[str, Any] | None:
    # A bare frame may begin with "{" (123 bytes follow), but its second byte is then a zero, which JSON never has.
    if not payload.lstrip().startswith(b"{"):
        return None
    try:
        document = read_json(payload)
    except UnusableDocument:
        return None
    return document if isinstance(document, dict) else None


def _payload_candidates(text: str) -> list[bytes]:
    candidates = [bytes.fromhex(text)] if _HEX.fullmatch(text) else []
    with contextlib.suppress(binascii.Error, ValueError):
        candidates.append(base64.b64decode(text, validate=True))
    return candidates


class _Cursor:
    """Reads the fields of a frame one after the other, never beyond its length."""

    def __init__(self, frame: bytes) -> None:
        self._frame = frame
        self._at = 2

    def number(self, size: int) -> int:
        return int.from_bytes(self._take(size), "little")

    def three(self, scale: int) -> tuple[float, float, float]:
        return self.number(2) / scale, self.number(2) / scale, self.number(2) / scale

    def text(self, longest: int) -> str:
        size = self.number(2)
        if size > longest:
            raise MalformedFrame("a text is longer than any charger's")
        return self._take(size).decode(errors="replace")

    def identity(self) -> str:
        """Read eight bytes, of which the first six are a MAC address."""
        return self._take(8)[:6].hex().upper()

    @property
    def left(self) -> int:
        return len(self._frame) - self._at

    def _take(self, size: int) -> bytes:
        if size > self.left:
            raise MalformedFrame("a field crosses the end of its frame")
        taken = self._frame[self._at : self._at + size]
        self._at += size
        return taken


def decode_frame(frame: bytes) -> WorkingInfo:
    """Decode a bare frame. Bytes beyond its length and unknown fields at its end are ignored.

    Raises MalformedFrame, UnsupportedFrame.
    """
    if len(frame) < 4:
        raise MalformedFrame("the frame is too short")
    length = int.from_bytes(frame[:2], "little")
    if length + 2 > len(frame):
        raise MalformedFrame(f"the frame declares {length} bytes and has {len(frame) - 2}")
    read = _Cursor(frame[: length + 2])
    kind = read.number(1)
    if kind != WORKING_INFO:
        raise UnsupportedFrame(f"the frame is of type {kind}")
    return WorkingInfo(
        flag=read.number(1),
        evse=read.number(4),
        version=read.text(_MAX_VERSION),
        ev_status=read.number(1),
        charging_state=read.number(1),
        warnings=read.number(1),
        errors=read.number(1),
        voltage_v=read.three(4),
        current_a=read.three(10),
        session_wh=read.number(4),
        total_wh=read.number(4),
        phase_type=read.number(1),
        set_current_a=read.number(1),
        firmware_version=read.number(2),
        limit=_unless(read.number(4), _NO_LIMIT),
        ssid=read.text(_MAX_SSID),
        grid_type=read.number(1),
        mqtt_state=read.number(1),
        device_id=read.identity(),
        start_time_ms=_unless(read.number(8), _NO_TIME),
        scheduler_version=read.number(4),
        circuit_breaker_a=read.number(4),
        dlm_current_a=read.three(10),
        temperature=read.number(1),
        peer_serial=read.number(4),
        ping_latency_ms=read.number(4),
        trailing_bytes=read.left,  # none, two, or more
    )


def _unless(value: int, unset: int) -> int | None:
    return None if value == unset else value
