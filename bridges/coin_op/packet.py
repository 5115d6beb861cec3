"""What a station sends and what it is told, on the wire: status packets in JSON, commands as plain text. Pure."""

import math
import re
from typing import Any, Final

import msgspec
from msgspec import Struct

INIT, READY, BUSY, CHARGING, COMPLETED, DONE = "init", "ready", "busy", "charging", "completed", "done"
STATION_STATES: Final = frozenset({INIT, READY, BUSY, CHARGING, COMPLETED, DONE})
RENTAL_STATES: Final = frozenset({BUSY, CHARGING, COMPLETED})
HELLO, CONNECT, STOP = "hello", "connect", "stop"
VERBS: Final = frozenset({HELLO, CONNECT, STOP})

MAX_BYTES: Final = 4096
MAX_TIME_S: Final = 30 * 86_400
MAX_ENERGY_WH: Final = 1e7
_LARGEST: Final = 1e15
_ID = re.compile(r"[A-Za-z0-9_.:-]{1,64}", re.ASCII)
_UID = re.compile(r"[A-Za-z0-9_-]{1,128}", re.ASCII)
_NUMBER = re.compile(r"[+-]?\d+(\.\d+)?", re.ASCII)
# What C's printf makes of a meter that could not be read.
_NO_NUMBER = re.compile(rb"(?<=[:\[,\s])[+-]?(?:nan|inf(?:inity)?)(?=[\s,}\]])", re.IGNORECASE)


class MalformedPacket(Exception):
    """Not a status. `kind` is what it is counted by."""

    def __init__(self, kind: str) -> None:
        super().__init__(kind)
        self.kind = kind


class StatusPacket(Struct, frozen=True, kw_only=True):
    """A status as sent, scales not yet applied; None is what was missing or unusable.

    `time_s` counts whole seconds since the door was opened. `energy_wh` is a counter, `current` mA, `power` W or
    0.1 W. `oddities` names what was repaired or left out.
    """

    status: str
    uid: str | None = None
    time_s: int | None = None
    voltage: float | None = None
    current: float | None = None
    power: float | None = None
    energy_wh: float | None = None
    frequency: float | None = None
    pf: float | None = None
    doors_closed: bool | None = None
    out_active: bool | None = None
    oddities: tuple[str, ...] = ()


def is_valid_station_id(station_id: str) -> bool:
    """Whether a station's id can stand in a topic."""
    return _ID.fullmatch(station_id) is not None


def is_valid_uid(uid: str) -> bool:
    """Whether a uid may be sent in a command."""
    return _UID.fullmatch(uid) is not None


def encode_command(verb: str, uid: str) -> bytes:
    """Raises ValueError for a uid that would make another command of it."""
    if verb not in VERBS or not is_valid_uid(uid):
        raise ValueError(f"no command: {verb}:{uid!r}")
    return f"{verb}:{uid}".encode()


def parse_command(body: bytes) -> tuple[str, str] | None:
    """Verb and uid, or None for what no station obeys."""
    try:
        text = body.decode()
    except UnicodeDecodeError:
        return None
    text = text.removesuffix("\n").removesuffix("\r")
    verb, colon, uid = text.partition(":")
    if verb not in VERBS or not colon or not is_valid_uid(uid):
        return None
    return verb, uid


def parse_status(body: bytes) -> StatusPacket:
    """Raises BadPacket for what cannot be a status; single fields that are no good are left out and named."""
    fields = _object(body)
    oddities: list[str] = []
    word = fields.get("status")
    if not isinstance(word, str) or not word.strip():
        raise MalformedPacket("no_status")
    status = word.strip().lower()
    if status != word:
        oddities.append("status_spelling")
    return StatusPacket(
        status=status[:64],
        uid=_uid(fields.get("uid"), oddities),
        time_s=_time(fields, oddities),
        energy_wh=_energy(fields, oddities),
        voltage=_number(fields, "voltage", oddities),
        current=_number(fields, "current", oddities),
        power=_number(fields, "power", oddities),
        frequency=_number(fields, "frequency", oddities),
        pf=_number(fields, "pf", oddities),
        doors_closed=_flag(fields.get("doors_closed")),
        out_active=_flag(fields.get("out_active")),
        oddities=tuple(oddities),
    )


def _object(body: bytes) -> dict[str, Any]:
    if len(body) > MAX_BYTES:
        raise MalformedPacket("too_large")
    try:
        body.decode()
    except UnicodeDecodeError:
        raise MalformedPacket("not_utf8") from None
    try:
        value = msgspec.json.decode(body)
    except (msgspec.DecodeError, RecursionError):
        try:
            value = msgspec.json.decode(_NO_NUMBER.sub(b"null", body))
        except (msgspec.DecodeError, RecursionError):
            raise MalformedPacket("not_json") from None
    if not isinstance(value, dict):
        raise MalformedPacket("no_object")
    return value


def _uid(value: Any, oddities: list[str]) -> str | None:
    if value is None or value == "":
        return None
    if not isinstance(value, str):
        oddities.append("bad_uid")
        return None
    if len(value) > 128 or not value.isprintable():
        raise MalformedPacket("bad_uid")
    return value


def _number(fields: dict[str, Any], name: str, oddities: list[str]) -> float | None:
    value = fields.get(name)
    if value is None:
        if name in fields:
            oddities.append(f"no_{name}")
        return None
    if isinstance(value, str) and _NUMBER.fullmatch(value.strip()):
        value = float(value)
        oddities.append("number_as_text")
    if isinstance(value, bool) or not isinstance(value, int | float) or not -_LARGEST < value < _LARGEST:
        oddities.append(f"bad_{name}")
        return None
    return value


def _time(fields: dict[str, Any], oddities: list[str]) -> int | None:
    value = _number(fields, "time", oddities)
    if value is None:
        return None
    if not 0 <= value <= MAX_TIME_S:
        oddities.append("bad_time")
        return None
    return math.floor(value)


def _energy(fields: dict[str, Any], oddities: list[str]) -> float | None:
    value = _number(fields, "energy", oddities)
    if value is not None and not 0 <= value <= MAX_ENERGY_WH:
        oddities.append("bad_energy")
        return None
    return value


def _flag(value: Any) -> bool | None:
    return value if isinstance(value, bool) else None
