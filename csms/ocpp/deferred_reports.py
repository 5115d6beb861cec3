"""A deferred message as the report that it would have been on arrival, had its charger been accepted."""

from typing import Any

from msgspec.structs import replace

from csms.core import reports
from csms.core.records import Charger, DeferredMessage
from csms.ocpp import call_handlers, messages
from csms.ocpp.quirks import quirks_for
from csms.ocpp.time_zones import time_zone


def deferred_report(charger: Charger, deferred: DeferredMessage, note: str) -> reports.Resendable[Any] | str:
    """The report of a deferred message, or why it is unreadable. `note`: how the entry of a start is resolved.

    The quirks and the time zone are those that are known of the charger now: it may have sent the message before its
    first boot. A start keeps the transaction id that it was answered.
    """
    call = call_handlers.CallContext(
        charger.id,
        deferred.message_id or "",
        deferred.payload,
        deferred.received_at,
        quirks_for(charger.vendor, charger.model, charger.firmware_version),
    )
    decoded = messages.decode(deferred.action, call.payload, zone=time_zone(charger.time_zone))
    if isinstance(decoded, messages.Unreadable):
        return decoded.description
    translate = call_handlers.CALL_HANDLERS[deferred.action].report
    assert translate is not None
    report = translate(call, decoded.message)
    assert isinstance(report, reports.Resendable)
    if isinstance(report, reports.Start):
        repair = reports.Repair(quarantine_id=deferred.id, note=note, transaction_id=deferred.transaction_id)
        return replace(report, repair=repair)
    return report
