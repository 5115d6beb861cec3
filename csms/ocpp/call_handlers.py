"""OCPP messages to reports, the ledger's answers to OCPP responses: a pair of pure functions for each action."""

from collections.abc import Callable, Sequence
from datetime import datetime
from hashlib import sha256
from typing import Any, Final

from msgspec import Struct
from msgspec.structs import replace

from csms.core import enrollment, reports
from csms.core.masking import masked_frame, without_credentials
from csms.core.units import ENERGY_REGISTER
from csms.ocpp import data_transfer
from csms.ocpp.messages import charge_point_calls as calls
from csms.ocpp.messages import encode
from csms.ocpp.messages.fields import Sent
from csms.ocpp.quirks import Behaviours, quirks_for

_INT31 = 2**31
_LONGEST_STORED_ID: Final = 255


class CallContext(Struct, frozen=True):
    """What the translation of a CALL may need beside its message.

    `message_id` and `payload`: as they came, `message_id` for the answer. `now`: when it came.
    """

    charger_id: str
    message_id: str
    payload: bytes
    now: datetime
    behaviours: Behaviours = Behaviours()

    @property
    def stored_id(self) -> str:
        """The message id that is stored: a digest of one that is too long for an index."""
        if len(self.message_id) <= _LONGEST_STORED_ID:
            return self.message_id
        return f"sha256:{sha256(self.message_id.encode()).hexdigest()}"

    @property
    def digest(self) -> bytes:
        """The identity of a payload: the first 16 bytes of its SHA-256."""
        return sha256(self.payload).digest()[:16]


class CallHandler(Struct, frozen=True):
    """How one action is translated. `report` None: nothing is recorded, `response` gets None as the answer."""

    report: Callable[[CallContext, Any], reports.Report[Any]] | None
    response: Callable[[CallContext, Any], Sent]


def natural_key(message: calls.StartTransactionRequest, call: CallContext) -> str:
    """What identifies a start that is sent again, also under another message id.

    Without a timestamp only the message itself tells two starts apart.
    """
    if message.timestamp is None:
        return f"message/{call.stored_id}/{call.digest.hex()}"
    return f"{message.connector_id}/{message.id_tag}/{message.timestamp.isoformat()}/{message.meter_start}"


def readings(values: Sequence[calls.OcppMeterValue], behaviours: Behaviours) -> list[reports.Reading]:
    relabel = behaviours.energy_kwh_labelled_wh
    return [
        reports.Reading(
            at=value.timestamp,
            samples=[_in_kwh(s) for s in value.sampled_value] if relabel else value.sampled_value,
        )
        for value in values
    ]


def _in_kwh(sample: calls.OcppSampledValue) -> calls.OcppSampledValue:
    if sample.measurand in {None, ENERGY_REGISTER} and sample.unit in {None, "Wh"}:
        return replace(sample, unit="kWh")
    return sample


def _register_scale(behaviours: Behaviours) -> int:
    return 1000 if behaviours.energy_kwh_labelled_wh else 1


def _register_wh(register: int | None, behaviours: Behaviours) -> int | None:
    return None if register is None else register * _register_scale(behaviours)


def _boot(call: CallContext, m: calls.BootNotificationRequest) -> reports.Boot:
    now = quirks_for(m.charge_point_vendor, m.charge_point_model, m.firmware_version)
    return reports.Boot(
        charger_id=call.charger_id,
        vendor=m.charge_point_vendor or None,
        model=m.charge_point_model or None,
        serial_number=m.charge_point_serial_number or m.charge_box_serial_number,
        firmware_version=m.firmware_version,
        iccid=m.iccid,
        imsi=m.imsi,
        meter_type=m.meter_type,
        meter_serial_number=m.meter_serial_number,
        register_scale=max(_register_scale(now) // _register_scale(call.behaviours), 1),
    )


def _booted(call: CallContext, answer: reports.Booted) -> Sent:
    return calls.BootNotificationResponse(
        status=_word(answer.status), current_time=call.now, interval=answer.interval_s
    )


def _heartbeat(call: CallContext, _answer: None) -> Sent:
    return calls.HeartbeatResponse(current_time=call.now)


def _authorize(call: CallContext, m: calls.AuthorizeRequest) -> reports.Authorize:
    return reports.Authorize(charger_id=call.charger_id, id_tag=_id_tag(m.id_tag))


def _authorized(_call: CallContext, answer: reports.Authorization) -> Sent:
    return calls.AuthorizeResponse(id_tag_info=_id_tag_info(answer))


def _status(call: CallContext, m: calls.StatusNotificationRequest) -> reports.Status:
    return reports.Status(
        charger_id=call.charger_id,
        connector_id=_connector(m.connector_id),
        status=m.status,
        error_code=m.error_code,
        info=m.info or None,
        vendor_id=m.vendor_id or None,
        vendor_error_code=m.vendor_error_code or None,
        at=m.timestamp,
    )


def _start(call: CallContext, m: calls.StartTransactionRequest) -> reports.Start:
    meter_start = m.meter_start
    if meter_start is None and call.behaviours.session_register:
        meter_start = 0
    return reports.Start(
        charger_id=call.charger_id,
        message_id=call.stored_id,
        digest=call.digest,
        connector_id=_connector(m.connector_id),
        id_tag=_id_tag(m.id_tag),
        key=natural_key(m, call),
        meter_wh=_register_wh(meter_start, call.behaviours),
        at=m.timestamp,
        reservation_id=_int32(m.reservation_id),
    )


def _started(_call: CallContext, answer: reports.Started) -> Sent:
    return calls.StartTransactionResponse(
        id_tag_info=_id_tag_info(answer.authorization), transaction_id=answer.transaction_id
    )


def _meter(call: CallContext, m: calls.MeterValuesRequest) -> reports.Meter:
    # A reading that is sent again is recognised by its own time; without one by the message's identity.
    timeless = any(value.timestamp is None for value in m.meter_value)
    return reports.Meter(
        charger_id=call.charger_id,
        message_id=call.stored_id if timeless else None,
        digest=call.digest if timeless else b"",
        connector_id=_connector(m.connector_id),
        transaction_id=m.transaction_id,
        readings=readings(m.meter_value, call.behaviours),
    )


def _stop(call: CallContext, m: calls.StopTransactionRequest) -> reports.Stop:
    return reports.Stop(
        charger_id=call.charger_id,
        message_id=call.stored_id,
        digest=call.digest,
        transaction_id=m.transaction_id,
        meter_wh=_register_wh(m.meter_stop, call.behaviours),
        at=m.timestamp,
        reason=m.reason or "Local",
        id_tag=None if call.behaviours.unreliable_id_tag else _id_tag(m.id_tag or "") or None,
        readings=readings(m.transaction_data or (), call.behaviours),
        session_register=call.behaviours.session_register,
        trusted_id=not call.behaviours.unreliable_transaction_id,
    )


def _stopped(_call: CallContext, answer: reports.Stopped) -> Sent:
    info = answer.authorization
    return calls.StopTransactionResponse(id_tag_info=None if info is None else _id_tag_info(info))


def _data_transfer(call: CallContext, m: calls.DataTransferRequest) -> reports.DataTransferred:
    answer = data_transfer.REGISTRY.answer(
        data_transfer.Transfer(
            charger_id=call.charger_id, vendor_id=m.vendor_id, message_id=m.message_id, data=m.data
        )
    )
    return reports.DataTransferred(
        charger_id=call.charger_id,
        message_id=call.stored_id,
        digest=call.digest,
        vendor_id=m.vendor_id,
        vendor_message_id=m.message_id,
        data=m.data,
        answer=answer,
    )


def _transferred(_call: CallContext, answer: reports.Transferred) -> Sent:
    return calls.DataTransferResponse(status=_word(answer.status), data=answer.data)


def _progress(kind: str) -> Callable[[CallContext, Any], reports.Progress]:
    return lambda call, m: reports.Progress(
        charger_id=call.charger_id,
        kind=kind,
        status=m.status,
        request_id=_int32(getattr(m, "request_id", None)),
    )


def _security_event(call: CallContext, m: calls.SecurityEventNotificationRequest) -> reports.SecurityEvent:
    return reports.SecurityEvent(
        charger_id=call.charger_id,
        message_id=call.stored_id,
        digest=call.digest,
        type=m.type,
        tech_info=m.tech_info or None,
        at=m.timestamp,
    )


def _sign_certificate(_call: CallContext, signed: bool | None) -> Sent:
    return calls.SignCertificateResponse(status="Accepted" if signed else "Rejected")


_EMPTY: Final = calls.EmptyResponse()


def _empty(_call: CallContext, _answer: Any) -> Sent:
    return _EMPTY


CALL_HANDLERS: dict[str, CallHandler] = {
    "Authorize": CallHandler(_authorize, _authorized),
    "BootNotification": CallHandler(_boot, _booted),
    "DataTransfer": CallHandler(_data_transfer, _transferred),
    "DiagnosticsStatusNotification": CallHandler(_progress("diagnostics"), _empty),
    "FirmwareStatusNotification": CallHandler(_progress("firmware"), _empty),
    "Heartbeat": CallHandler(None, _heartbeat),
    "LogStatusNotification": CallHandler(_progress("log"), _empty),
    "MeterValues": CallHandler(_meter, _empty),
    "SecurityEventNotification": CallHandler(_security_event, _empty),
    "SignCertificate": CallHandler(None, _sign_certificate),
    "SignedFirmwareStatusNotification": CallHandler(_progress("signed_firmware"), _empty),
    "StartTransaction": CallHandler(_start, _started),
    "StatusNotification": CallHandler(_status, _empty),
    "StopTransaction": CallHandler(_stop, _stopped),
}


def quarantined(call: CallContext, action: str, error: str) -> reports.Quarantined:
    """A transaction message that cannot be booked, as it came but for its secrets."""
    return reports.Quarantined(
        charger_id=call.charger_id,
        message_id=call.stored_id or None,
        digest=call.digest,
        action=action,
        payload=masked_frame(call.payload),
        error=without_credentials(error),
    )


def deferred(
    call: CallContext, action: str, report: reports.Report[Any] | None, error: str | None = None
) -> enrollment.Deferred:
    """A transaction message of a charge point that is not accepted, as it came but for its secrets. `report` None: it is unreadable.

    Readings that have a time, and stops, are the same message under any id: one that is sent again is kept once.
    """
    identity = call.digest
    if isinstance(report, reports.Meter) and report.message_id is not None:
        identity += report.message_id.encode()
    begins = report if isinstance(report, reports.Start) else None
    return enrollment.Deferred(
        charger_id=call.charger_id,
        message_id=call.stored_id or None,
        action=action,
        payload=masked_frame(call.payload),
        identity=identity,
        start_key=None if begins is None else begins.key,
        at=None if begins is None else begins.at,
        transaction_id=report.transaction_id if isinstance(report, reports.Meter | reports.Stop) else None,
        error=None if error is None else without_credentials(error),
    )


def acknowledged(action: str, kept: reports.Kept) -> bytes:
    """The answer to a message that is kept, not booked: valid by the schema, so that it is not sent again.

    It says nothing of the idTag.
    """
    if action == "StartTransaction":
        response: Sent = calls.StartTransactionResponse(
            id_tag_info=calls.IdTagInfo(status="Invalid"), transaction_id=kept.transaction_id or 0
        )
        return encode(response)
    return b"{}"


def _id_tag_info(answer: reports.Authorization) -> calls.IdTagInfo:
    return calls.IdTagInfo(
        status=_word(answer.status), expiry_date=answer.expiry_at, parent_id_tag=answer.parent_id_tag
    )


def _word(text: str) -> Any:
    """A status that the core has chosen: tests hold the core's statuses against the response's type."""
    return text


def _id_tag(sent: str) -> str:
    """An idTag without the blanks around it, with which some readers fill it up."""
    return sent.strip()


def _connector(connector_id: int | None) -> int:
    """A connector number that fits its column; 0, the charge point as a whole, if there is none."""
    return connector_id if connector_id is not None and 0 <= connector_id < _INT31 else 0


def _int32(number: int | None) -> int | None:
    return number if number is not None and -_INT31 <= number < _INT31 else None
