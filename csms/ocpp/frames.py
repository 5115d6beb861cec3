"""OCPP-J frames, `[2|3|4, id, …]`, read and written (OCPP-J 1.6, 4.2)."""

from collections.abc import Mapping
from decimal import Decimal
from typing import Any, Final

import msgspec
from msgspec import Raw, Struct

from csms.core.reports import Deviation
from csms.core.text import storable
from csms.ocpp.lenient_values import JSON, DeviationNotes

CALL: Final = 2
CALLRESULT: Final = 3
CALLERROR: Final = 4

_ID_RULE: Final = 36  # OCPP-J table 3
_ID_LIMIT: Final = 10_000
_ACTION_LIMIT: Final = 100
_DESCRIPTION_LIMIT: Final = 255
_EMPTY: Final = Raw(b"{}")
_NULL: Final = Raw(b"null")


class CallFrame(Struct, frozen=True, gc=False):
    """`[2, id, action, payload]`. `payload` is the sender's own text, which `messages.decode` reads."""

    message_id: str
    action: str
    payload: Raw = _EMPTY
    deviations: tuple[Deviation, ...] = ()


class CallResultFrame(Struct, frozen=True, gc=False):
    """`[3, id, payload]`"""

    message_id: str
    payload: Raw = _EMPTY
    deviations: tuple[Deviation, ...] = ()


class CallErrorFrame(Struct, frozen=True, gc=False):
    """`[4, id, code, description, details]`; details as JSON."""

    message_id: str
    code: str
    description: str = ""
    details: Raw = _EMPTY
    deviations: tuple[Deviation, ...] = ()


class UnusableFrame(Struct, frozen=True, gc=False):
    """A frame that cannot be used.

    `answerable`: it is a CALL with an id, so a CALLERROR can be sent. Everything else is dropped and logged: text that is
    no JSON array, frames without an id, unknown message type numbers (ignored by OCPP-J 4.1.3), broken answers. `action`
    is given if it could be read, even without an id: a transaction message is kept, however broken.
    """

    code: str
    description: str
    message_id: str | None = None
    action: str | None = None
    answerable: bool = False


_read_call = msgspec.json.Decoder(tuple[int, str, str, Raw]).decode
_read_result = msgspec.json.Decoder(tuple[int, str, Raw]).decode
_read_error = msgspec.json.Decoder(tuple[int, str, str, str, Raw]).decode


def parse(frame: str | bytes) -> CallFrame | CallResultFrame | CallErrorFrame | UnusableFrame:
    """Read one WebSocket message. Never raises.

    A payload that is missing or null equals `{}`; surplus elements, numeric and over-long ids (up to 10,000 characters),
    bytes that are not UTF-8 and text after the end are tolerated and noted.
    """
    data = frame.encode(errors="replace") if isinstance(frame, str) else frame
    try:
        match data[:3]:
            case b"[2,":
                _, message_id, action, payload = _read_call(data)
                if (
                    len(message_id) <= _ID_RULE
                    and message_id.isprintable()
                    and action.isalpha()
                    and len(action) <= 50
                ):
                    return CallFrame(message_id, action, _EMPTY if payload == _NULL else payload)
            case b"[3,":
                _, message_id, payload = _read_result(data)
                if len(message_id) <= _ID_RULE and message_id.isprintable():
                    return CallResultFrame(message_id, _EMPTY if payload == _NULL else payload)
            case b"[4,":
                _, message_id, code, description, details = _read_error(data)
                if len(message_id) <= _ID_RULE and message_id.isprintable():
                    return CallErrorFrame(
                        message_id,
                        storable(code),
                        storable(description),
                        _EMPTY if details == _NULL else details,
                    )
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        pass
    return _parse_leniently(data)


# --- frames that deviate from the specification -----------------------------------------------------------------


def _parse_leniently(data: bytes) -> CallFrame | CallResultFrame | CallErrorFrame | UnusableFrame:
    notes = DeviationNotes()
    try:
        text = data.decode()
    except UnicodeDecodeError:
        text = data.decode(errors="replace")
        notes.add("", "encoding_repaired", "not UTF-8")
    elements, problem = _split(text, notes)
    if not elements:
        return UnusableFrame("FormationViolation", problem or "an empty array")
    kind = elements[0][0]
    if isinstance(kind, (str, Decimal)) and str(kind) in {"2", "3", "4", "2.0", "3.0", "4.0"}:
        notes.add("messageTypeId", "wrong_type", kind)
        kind = int(str(kind)[0])
    if isinstance(kind, bool) or kind not in (CALL, CALLRESULT, CALLERROR):
        return UnusableFrame("ProtocolError", f"unknown message type {str(kind)[:20]!r}")
    message_id = _id(elements[1][0], notes) if len(elements) > 1 else None
    if message_id is None:
        action = elements[2][0] if kind == CALL and len(elements) > 2 else None
        known = action if isinstance(action, str) and storable(action) == action else None
        return UnusableFrame("FormationViolation", problem or "no usable message id", action=known)
    if kind == CALL:
        return _call(message_id, elements, problem, notes)
    if problem:
        return UnusableFrame("FormationViolation", problem, message_id)
    return _answer(kind, message_id, elements, notes)


def _call(
    message_id: str, elements: list[tuple[Any, str]], problem: str, notes: DeviationNotes
) -> CallFrame | UnusableFrame:
    action = elements[2][0] if len(elements) > 2 else None
    if not isinstance(action, str) or not action or len(action) > _ACTION_LIMIT or storable(action) != action:
        return UnusableFrame("FormationViolation", problem or "no action", message_id, answerable=True)
    if problem:
        return UnusableFrame("FormationViolation", problem, message_id, action, answerable=True)
    _count(elements, 4, notes)
    return CallFrame(message_id, action, _payload(elements, 3), tuple(notes.deviations))


def _answer(
    kind: int, message_id: str, elements: list[tuple[Any, str]], notes: DeviationNotes
) -> CallResultFrame | CallErrorFrame:
    if kind == CALLRESULT:
        _count(elements, 3, notes)
        return CallResultFrame(message_id, _payload(elements, 2), tuple(notes.deviations))
    _count(elements, 5, notes)
    texts = [e[0] if isinstance(e[0], str) else e[1] for e in elements[2:4]]
    code, description = (storable(t) for t in [*texts, "", ""][:2])
    return CallErrorFrame(
        message_id, code or "GenericError", description, _payload(elements, 4), tuple(notes.deviations)
    )


def _id(value: Any, notes: DeviationNotes) -> str | None:
    if isinstance(value, (int, Decimal)) and not isinstance(value, bool):
        notes.add("messageId", "message_id_type", value)
        value = str(value)
    if not isinstance(value, str) or len(value) > _ID_LIMIT or storable(value) != value:
        return None
    if len(value) > _ID_RULE:
        notes.add("messageId", "message_id_long", len(value))
    return value


def _payload(elements: list[tuple[Any, str]], position: int) -> Raw:
    if len(elements) <= position or elements[position][0] is None:
        return _EMPTY
    return Raw(elements[position][1].encode(errors="replace"))


def _count(elements: list[tuple[Any, str]], expected: int, notes: DeviationNotes) -> None:
    if len(elements) != expected:
        notes.add("", "frame_elements", f"{len(elements)} instead of {expected}")


_SPACE: Final = " \t\r\n"


def _split(text: str, notes: DeviationNotes) -> tuple[list[tuple[Any, str]], str]:
    """The elements of a JSON array, each with its own text, and what stopped the reading (empty: nothing)."""
    elements: list[tuple[Any, str]] = []
    at = len(text) - len(text.lstrip("\ufeff" + _SPACE))
    if text[at : at + 1] != "[":
        return elements, "not a JSON array"
    at = _skip(text, at + 1)
    if text[at : at + 1] == "]":
        return elements, "an empty array"
    while True:
        try:
            value, end = JSON.raw_decode(text, at)
        except (ValueError, RecursionError) as error:
            return elements, f"not JSON: {error}"[:_DESCRIPTION_LIMIT]
        elements.append((value, text[at:end]))
        at = _skip(text, end)
        mark = text[at : at + 1]
        if mark == "]":
            break
        if mark != "," or len(elements) > 20:
            return elements, f"not JSON: no comma or bracket at {at}"
        at = _skip(text, at + 1)
    if rest := text[at + 1 :].strip(_SPACE):
        notes.add("", "trailing_dropped", rest)
    return elements, ""


def _skip(text: str, at: int) -> int:
    while text[at : at + 1] and text[at] in _SPACE:
        at += 1
    return at


# --- what we send -------------------------------------------------------------------------------------------------

_encode = msgspec.json.Encoder().encode


def _text(value: str) -> bytes:
    try:
        return _encode(value)
    except UnicodeEncodeError:
        return _encode(storable(value))


def render_call(message_id: str, action: str, payload: bytes) -> bytes:
    """A CALL as compact JSON; `payload` is JSON already."""
    return b"[2,%b,%b,%b]" % (_text(message_id), _text(action), payload)


def render_result(message_id: str, payload: bytes = b"{}") -> bytes:
    """A CALLRESULT as compact JSON; `payload` is JSON already."""
    return b"[3,%b,%b]" % (_text(message_id), payload)


def render_error(
    message_id: str, code: str, description: str = "", details: Mapping[str, Any] | None = None
) -> bytes:
    """A CALLERROR as compact JSON; the description is cut at 255 characters."""
    return b"[4,%b,%b,%b,%b]" % (
        _text(message_id),
        _text(code),
        _text(description[:_DESCRIPTION_LIMIT]),
        _encode(details or {}),
    )
