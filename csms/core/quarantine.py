"""Repaired quarantine entries: a message that an operator has corrected is booked, and corrects what is booked."""

from datetime import datetime
from typing import Any

import msgspec
from msgspec import Struct

from csms.core import reports
from csms.core.events import timestamp
from csms.core.records import QuarantineResolution
from csms.core.work import Work
from csms.errors import NotBookable
from csms.outside import UnusableDocument, read_json

REPAIRABLE_ACTIONS = frozenset({"StartTransaction", "MeterValues", "StopTransaction"})


class _StoredStop(Struct, frozen=True, kw_only=True):
    """The fields of a quarantined `reports.Stop` that OCPP's message has too."""

    transaction_id: int | None = None
    meter_wh: int | None = None
    at: datetime | None = None
    reason: str = "Local"
    id_tag: str | None = None


def claim_entry(work: Work, repair: reports.Repair) -> None:
    """Check that the entry is still open. Raises NotBookable if it has been resolved."""
    if repair.quarantine_id not in work.quarantined:
        raise NotBookable(f"Message {repair.quarantine_id} has been dealt with already.")


def resolve_entry(work: Work, repair: reports.Repair, answer: Any) -> None:
    """Store the resolution of the entry, in the same database transaction as its effect."""
    transaction_id = getattr(answer, "transaction_id", None)
    booked = "booked" if transaction_id is None else f"booked as transaction {transaction_id}"
    work.add(
        QuarantineResolution(
            id=repair.quarantine_id, resolution=f"{repair.note} ({booked})", resolved_at=work.now
        )
    )
    work.quarantined.discard(repair.quarantine_id)


def repairable_message(action: str, payload: bytes) -> dict[str, Any] | None:
    """Return the quarantined message in OCPP's JSON, for an operator to correct. None: it is not a JSON object.

    A stop that fitted no transaction is quarantined as a report, independent of the charger's protocol.
    """
    found = _decoded(payload)
    if not isinstance(found, dict):
        return None
    if not _is_report(action, found):
        return found
    try:
        stop = msgspec.convert(found, _StoredStop)
    except msgspec.ValidationError:
        return found
    fields = {
        "transactionId": stop.transaction_id,
        "meterStop": stop.meter_wh,
        "timestamp": None if stop.at is None else timestamp(stop.at),
        "reason": stop.reason,
        "idTag": stop.id_tag,
    }
    return {key: value for key, value in fields.items() if value is not None}


def is_as_sent(action: str, payload: bytes) -> bool:
    """Return whether a quarantined message is as the charger sent it, with registers as it counts them, and no report."""
    return not _is_report(action, _decoded(payload))


def _decoded(payload: bytes) -> Any:
    try:
        return read_json(payload)
    except UnusableDocument:
        return None


def _is_report(action: str, found: Any) -> bool:
    return action == "StopTransaction" and isinstance(found, dict) and "charger_id" in found
