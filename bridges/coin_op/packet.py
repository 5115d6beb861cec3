"""A station's wire format: status packets in JSON, commands as plain text. Pure."""

import math
import re
from typing import Any, Final

from msgspec import Struct

from csms.outside import UnusableDocument, read_json

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
_DECIMAL = re.compile(r"[+-]?\d+(\.\d+)?", re.ASCII)
# What C's printf writes for a measurement that failed.
_PRINTED_NAN = re.compile(rb"(?<=[:\[,\s])[+-]?(?:nan|inf(?:inity)?)(?=[\s,}\]])", re.IGNORECASE)


class MalformedStatus(Exception):
    """A packet that is not a status. `kind` is the label under which it is counted."""

    def __init__(self, kind: str) -> None:
        super().__init__(kind)
        self.kind = kind


class StatusPacket(Struct, frozen=True, kw_only=True):
    """A status as sent, before unit conversion. None: missing or malformed.

    `time_s` is in whole seconds since the door was opened, `energy_wh` a counter, `current` in mA, `power` in W or
    0.1 W, `pf` in per cent. `anomalies` names the fields that were repaired or ignored.
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
    anomalies: tuple[str, ...] = ()


def is_valid_station_id(station_id: str) -> bool:
    """Return whether a station's id can be used as a topic level."""
    return _ID.fullmatch(station_id) is not None


def is_valid_uid(uid: str) -> bool:
    """Return whether a uid may be sent in a command."""
    return _UID.fullmatch(uid) is not None


def encode_command(verb: str, uid: str) -> bytes:
    """Encode a command. Raises ValueError for an unknown verb, or a uid that would change the command."""
    if verb not in VERBS or not is_valid_uid(uid):
        raise ValueError(f"{verb}:{uid!r} is not a command: use {', '.join(sorted(VERBS))} and a valid uid")
    return f"{verb}:{uid}".encode()


def parse_command(body: bytes) -> tuple[str, str] | None:
    """Return verb and uid of a command, or None for what no station executes."""
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
    """Decode a status. Malformed fields are ignored and named in `anomalies`. Raises MalformedStatus."""
    fields = _object(body)
    anomalies: list[str] = []
    sent = fields.get("status")
    if not isinstance(sent, str) or not sent.strip():
        raise MalformedStatus("no_status")
    status = sent.strip().lower()
    if status != sent:
        anomalies.append("status_spelling")
    return StatusPacket(
        status=status[:64],
        uid=_uid(fields.get("uid"), anomalies),
        time_s=_time(fields, anomalies),
        energy_wh=_energy(fields, anomalies),
        voltage=_number(fields, "voltage", anomalies),
        current=_number(fields, "current", anomalies),
        power=_number(fields, "power", anomalies),
        frequency=_number(fields, "frequency", anomalies),
        pf=_number(fields, "pf", anomalies),
        doors_closed=_flag(fields.get("doors_closed")),
        out_active=_flag(fields.get("out_active")),
        anomalies=tuple(anomalies),
    )


def _object(body: bytes) -> dict[str, Any]:
    if len(body) > MAX_BYTES:
        raise MalformedStatus("too_large")
    try:
        body.decode()
    except UnicodeDecodeError:
        raise MalformedStatus("not_utf8") from None
    try:
        value = read_json(body)
    except UnusableDocument:
        try:
            value = read_json(_PRINTED_NAN.sub(b"null", body))
        except UnusableDocument:
            raise MalformedStatus("not_json") from None
    if not isinstance(value, dict):
        raise MalformedStatus("no_object")
    return value


def _uid(value: Any, anomalies: list[str]) -> str | None:
    if value is None or value == "":
        return None
    if not isinstance(value, str):
        anomalies.append("bad_uid")
        return None
    if len(value) > 128 or not value.isprintable():
        raise MalformedStatus("bad_uid")
    return value


def _number(fields: dict[str, Any], name: str, anomalies: list[str]) -> float | None:
    value = fields.get(name)
    if value is None:
        if name in fields:
            anomalies.append(f"no_{name}")
        return None
    if isinstance(value, str) and _DECIMAL.fullmatch(value.strip()):
        value = float(value)
        anomalies.append("number_as_text")
    if isinstance(value, bool) or not isinstance(value, int | float) or not -_LARGEST < value < _LARGEST:
        anomalies.append(f"bad_{name}")
        return None
    return value


def _time(fields: dict[str, Any], anomalies: list[str]) -> int | None:
    value = _number(fields, "time", anomalies)
    if value is None:
        return None
    if not 0 <= value <= MAX_TIME_S:
        anomalies.append("bad_time")
        return None
    return math.floor(value)


def _energy(fields: dict[str, Any], anomalies: list[str]) -> float | None:
    value = _number(fields, "energy", anomalies)
    if value is not None and not 0 <= value <= MAX_ENERGY_WH:
        anomalies.append("bad_energy")
        return None
    return value


def _flag(value: Any) -> bool | None:
    return value if isinstance(value, bool) else None
