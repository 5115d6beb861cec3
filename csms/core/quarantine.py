"""Out of quarantine: what an operator has repaired is booked as if it had come like that, and corrects what is booked."""

import json
from typing import Any

import msgspec

from csms.core import reports
from csms.core.events import timestamp
from csms.core.records import QuarantineResolution
from csms.core.work import Work
from csms.errors import NotBookable

REPAIRABLE_ACTIONS = frozenset({"StartTransaction", "MeterValues", "StopTransaction"})


def claim_entry(work: Work, repair: reports.Repair) -> None:
    """Whoever books an entry first has booked it. Raises NotBookable."""
    if repair.quarantine_id not in work.quarantined:
        raise NotBookable(f"Message {repair.quarantine_id} has been dealt with already.")


def resolve_entry(work: Work, repair: reports.Repair, answer: Any) -> None:
    """Note what became of it, in the same transaction as its effect."""
    transaction_id = getattr(answer, "transaction_id", None)
    booked = "booked" if transaction_id is None else f"booked as transaction {transaction_id}"
    work.add(
        QuarantineResolution(
            id=repair.quarantine_id, resolution=f"{repair.note} ({booked})", resolved_at=work.now
        )
    )
    work.quarantined.discard(repair.quarantine_id)


def repairable_message(action: str, payload: bytes) -> dict[str, Any] | None:
    """The message as OCPP's JSON for an operator to mend; None: what came is no JSON object.

    A stop that fitted no transaction lies there as a report, whatever its charger speaks.
    """
    try:
        found = json.loads(payload)
    except (ValueError, RecursionError):
        return None
    if not isinstance(found, dict):
        return None
    if action != "StopTransaction" or "charger_id" not in found:
        return found
    try:
        stop = msgspec.convert(found, reports.StoredStop)
    except msgspec.ValidationError:
        return found
    words = {
        "transactionId": stop.transaction_id,
        "meterStop": stop.meter_wh,
        "timestamp": None if stop.at is None else timestamp(stop.at),
        "reason": stop.reason,
        "idTag": stop.id_tag,
    }
    return {key: value for key, value in words.items() if value is not None}
