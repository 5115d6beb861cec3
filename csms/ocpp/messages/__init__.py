"""OCPP 1.6 payloads: bytes to typed messages and back.

`decode` (the CALLs of charge points) and `decode_response` (their CALLRESULTs) try one precompiled strict decoder; only
what it refuses goes through `message_repair`. `encode` is strict: no nulls, and times as `YYYY-MM-DDTHH:MM:SSZ`.
"""

from collections.abc import Callable
from datetime import UTC, tzinfo
from typing import Any, Final, Generic, Literal, TypeVar

import msgspec
from msgspec import Raw, Struct

from csms.core.reports import Deviation
from csms.ocpp.lenient_values import DeviationNotes, plain, read_json
from csms.ocpp.message_repair import compile_repair
from csms.ocpp.messages import charge_point_answers as answers
from csms.ocpp.messages import charge_point_calls as calls
from csms.ocpp.messages.fields import Sent, TimeCheck, plausible
from csms.outside import MAX_DEPTH, is_deep

M = TypeVar("M")

# Error codes as 1.6 spells them on the wire, both misspellings included (OCPP-J errata 5.1, 5.2).
ErrorCode = Literal[
    "NotImplemented", "NotSupported", "InternalError", "ProtocolError", "SecurityError", "FormationViolation",
    "PropertyConstraintViolation", "OccurenceConstraintViolation", "TypeConstraintViolation", "GenericError",
]  # fmt: skip


class Decoded(Struct, Generic[M], frozen=True, gc=False):
    """A message, and what had to be tolerated to read it (usually nothing)."""

    message: M
    deviations: tuple[Deviation, ...] = ()


class Unreadable(Struct, frozen=True, gc=False):
    """No message can be made of a payload. `code` and `description` are those of a CALLERROR."""

    code: ErrorCode
    description: str
    deviations: tuple[Deviation, ...] = ()


class _Reader:
    """Decodes the payloads of one action.

    `check`: whether the times of a decoded message are plausible. `identified`: a message of which no field is left is
    Unreadable.
    """

    __slots__ = ("check", "identified", "message", "read", "repair")

    def __init__(
        self, message: type[Struct], check: TimeCheck | None = None, *, identified: bool = False
    ) -> None:
        self.message = message
        self.read: Callable[[bytes], Any] = msgspec.json.Decoder(message).decode
        self.check = check
        self.identified = identified
        self.repair = compile_repair(message)

    def decode(self, payload: Raw | bytes, zone: tzinfo) -> Decoded[Any] | Unreadable:
        data = payload if type(payload) is bytes else bytes(payload)
        if is_deep(data):
            return Unreadable("FormationViolation", f"nested deeper than {MAX_DEPTH} levels")
        # U+0000 has one legal spelling; most payloads have no backslash at all.
        if b"\\" not in data or b"\\u0000" not in data:
            try:
                message = self.read(data)
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
                pass
            else:
                if self.check is None or self.check(message):
                    return Decoded(message)
        return self._decode_leniently(data, zone)

    def _decode_leniently(self, data: bytes, zone: tzinfo) -> Decoded[Any] | Unreadable:
        notes = DeviationNotes(zone)
        try:
            value = read_json(data, notes)
        except ValueError as error:
            return Unreadable("FormationViolation", f"not JSON: {error}"[:255], tuple(notes.deviations))
        message = self.repair(value, notes)
        deviations = tuple(notes.deviations)
        if message is None:
            return _unreadable(deviations)
        if self.identified and all(getattr(message, f) in (None, "", ()) for f in message.__struct_fields__):
            return Unreadable(
                "OccurenceConstraintViolation", "nothing in the payload can be used", deviations
            )
        return Decoded(message, deviations)


_CODES: Final[dict[str, ErrorCode]] = {
    "missing": "OccurenceConstraintViolation",
    "null_dropped": "OccurenceConstraintViolation",
    "unknown_value": "PropertyConstraintViolation",
    "out_of_range": "PropertyConstraintViolation",
    "unreadable_timestamp": "PropertyConstraintViolation",
    "wrong_type": "TypeConstraintViolation",
}


def _unreadable(deviations: tuple[Deviation, ...]) -> Unreadable:
    # The last deviation is the one that made the repair give up.
    for deviation in reversed(deviations):
        if deviation.kind in _CODES:
            if not deviation.field:
                return Unreadable("FormationViolation", "the payload is not an object", deviations)
            shown = f"{deviation.field}: {deviation.kind.replace('_', ' ')} {deviation.detail}".strip()
            return Unreadable(_CODES[deviation.kind], shown[:255], deviations)
    return Unreadable("FormationViolation", "the payload cannot be read", deviations)


# Written out rather than composed: MeterValues is most of the traffic.
def _at(message: Any) -> bool:
    return plausible(message.timestamp)


def _meter_values_at(message: calls.MeterValuesRequest) -> bool:
    for m in message.meter_value:  # noqa: SIM110
        if not plausible(m.timestamp):
            return False
    return True


def _stop_at(message: calls.StopTransactionRequest) -> bool:
    return plausible(message.timestamp) and all(
        plausible(m.timestamp) for m in message.transaction_data or ()
    )


def _schedule_at(message: answers.GetCompositeScheduleResponse) -> bool:
    schedule = message.charging_schedule
    return plausible(message.schedule_start) and (schedule is None or plausible(schedule.start_schedule))


_REQUESTS: Final = {
    "BootNotification": _Reader(calls.BootNotificationRequest),
    "Heartbeat": _Reader(calls.HeartbeatRequest),
    "Authorize": _Reader(calls.AuthorizeRequest),
    "StatusNotification": _Reader(calls.StatusNotificationRequest, _at),
    "StartTransaction": _Reader(calls.StartTransactionRequest, _at, identified=True),
    "MeterValues": _Reader(calls.MeterValuesRequest, _meter_values_at, identified=True),
    "StopTransaction": _Reader(calls.StopTransactionRequest, _stop_at, identified=True),
    "DataTransfer": _Reader(calls.DataTransferRequest),
    "DiagnosticsStatusNotification": _Reader(calls.DiagnosticsStatusNotificationRequest),
    "FirmwareStatusNotification": _Reader(calls.FirmwareStatusNotificationRequest),
    "SecurityEventNotification": _Reader(calls.SecurityEventNotificationRequest, _at),
    "SignCertificate": _Reader(calls.SignCertificateRequest),
    "LogStatusNotification": _Reader(calls.LogStatusNotificationRequest),
    "SignedFirmwareStatusNotification": _Reader(calls.SignedFirmwareStatusNotificationRequest),
}
_RESPONSES: Final = {
    action: _Reader(answer, _schedule_at if action == "GetCompositeSchedule" else None)
    for action, answer in answers.ANSWERS.items()
}

INBOUND: Final = frozenset(_REQUESTS)
OUTBOUND: Final = frozenset(_RESPONSES)
TRANSACTION_ACTIONS: Final = frozenset({"StartTransaction", "StopTransaction", "MeterValues"})

_encoder: Final = msgspec.json.Encoder()


def decode(action: str, payload: Raw | bytes, *, zone: tzinfo = UTC) -> Decoded[Any] | Unreadable:
    """Read the payload of a charge point's CALL. Never raises.

    `zone`: of timestamps without one. A transaction message (TRANSACTION_ACTIONS) is Unreadable only
    if it is no object or nothing in it can be used; elsewhere also if a field is lost without which it means nothing.
    """
    reader = _REQUESTS.get(action)
    if reader is None:
        return _no_such_action(action)
    return reader.decode(payload, zone)


def decode_response(action: str, payload: Raw | bytes, *, zone: tzinfo = UTC) -> Decoded[Any] | Unreadable:
    """Read the payload of a charge point's CALLRESULT to our CALL of `action`. Never raises."""
    reader = _RESPONSES.get(action)
    if reader is None:
        return _no_such_action(action)
    return reader.decode(payload, zone)


def read_answer(
    action: str, payload: Raw | bytes, *, zone: tzinfo = UTC
) -> Decoded[dict[str, Any]] | Unreadable:
    """The payload of a charge point's CALLRESULT in OCPP's JSON: unchanged if valid, otherwise repaired. Never raises.

    An object of which no message can be made (its status is unknown or missing) is given as it came, with its
    deviations: a charge point that answers "OK" did answer. Unreadable: it is no object.
    """
    data = bytes(payload)
    decoded = decode_response(action, data, zone=zone)
    if isinstance(decoded, Decoded) and decoded.deviations:
        return Decoded(msgspec.json.decode(_encoder.encode(decoded.message)), decoded.deviations)
    value = read_plain(data)
    if isinstance(value, dict) or value in ([], ""):
        return Decoded(value or {}, decoded.deviations)
    return Unreadable("FormationViolation", "the answer is not an object", decoded.deviations)


def read_plain(payload: Raw | bytes) -> Any:
    """A charge point's JSON as plain values, read as tolerantly as by `read_json`; None if it cannot be read."""
    data = bytes(payload)
    if is_deep(data):
        return None
    try:
        return msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        pass
    try:
        return plain(read_json(data, DeviationNotes()))
    except (ValueError, RecursionError):
        return None


def _no_such_action(action: str) -> Unreadable:
    if action in OUTBOUND:
        return Unreadable("NotSupported", f"{action} goes from the central system to the charge point")
    return Unreadable("NotImplemented", f"unknown action {action[:50]}")


def encode(message: Sent) -> bytes:
    """The payload as compact JSON."""
    return _encoder.encode(message)
