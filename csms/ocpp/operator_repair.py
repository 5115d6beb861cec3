"""A quarantined message as an operator has repaired it, as a report. Strict: an operator can correct what a charger cannot."""

import json
from datetime import UTC, datetime
from typing import Any

from msgspec.structs import replace

from csms.core import reports
from csms.errors import NotBookable
from csms.ocpp import call_handlers, messages
from csms.ocpp.quirks import Behaviours

_AS_IN_OCPP = Behaviours()


def repaired_report(
    charger_id: str,
    action: str,
    payload: dict[str, Any],
    repair: reports.Repair,
    now: datetime,
    behaviours: Behaviours = _AS_IN_OCPP,
) -> reports.Report[Any]:
    """The report of a transaction message in OCPP's JSON. Raises NotBookable, naming what cannot be read.

    Times without a zone are UTC. A deviation that is repaired in a charger's message is refused here. `behaviours`: those
    of the charger, if the registers are as it sends them; which transaction and idTag are meant is the operator's word.
    """
    trusted = replace(behaviours, unreliable_id_tag=False, unreliable_transaction_id=False)
    call = call_handlers.CallContext(
        charger_id, f"quarantine/{repair.quarantine_id}", json.dumps(payload).encode(), now, trusted
    )
    decoded = messages.decode(action, call.payload, zone=UTC)
    if isinstance(decoded, messages.Unreadable):
        raise NotBookable(f"The payload is no {action}: {decoded.description}.")
    if decoded.deviations:
        found = "; ".join(f"{d.field}: {d.kind}" for d in decoded.deviations)
        raise NotBookable(f"The payload is no {action} by the OCPP schema: {found}.")
    report = call_handlers.CALL_HANDLERS[action].report
    assert report is not None
    translated: reports.Report[Any] = replace(
        report(call, decoded.message), message_id=None, digest=call.digest, repair=repair
    )
    return translated
