"""Dispatch of reports to the functions that decide them, and the answers of repeated messages."""

from collections.abc import Callable
from typing import Any, TypeVar, cast

import msgspec

from csms.core import (
    accounts,
    command_effects,
    corrections,
    deferral,
    enrollment,
    jobs,
    presence,
    quarantine,
    rebooking,
    reconciliation,
    reports,
    statuses,
    transactions,
)
from csms.core.authorization import authorize
from csms.core.device_state import BridgeNotes, StoredTransfer
from csms.core.masking import masked
from csms.core.operator_reports import Rebook, Revise, Revised
from csms.core.records import DeviationCount, QuarantineEntry, StoredSecurityEvent
from csms.core.text import storable_json
from csms.core.work import Work

R = TypeVar("R")


def decide(work: Work, report: reports.Report[R]) -> R:
    """Change the work as the report requires and return its answer.

    A repeated message with the same content gets the stored answer. Raises NotBookable for a repair that fits no
    transaction, and for a revision whose figures are impossible; NotAdmitted for a transaction message of a charger that
    is not accepted.
    """
    decision, answer_type = DECISIONS[type(report)]
    # Connected creates the rows with the charger's protocol, Reconcile concerns an existing transaction.
    if not isinstance(report, reports.Connected | reports.Reconcile):
        presence.ensure_charger(work, report.charger_id)
    if isinstance(report, reports.Resendable) and report.repair is not None:
        quarantine.claim_entry(work, report.repair)
        answer = decision(work, report)
        quarantine.resolve_entry(work, report.repair, answer)
        return cast("R", answer)
    if not isinstance(report, reports.Resendable) or report.message_id is None:
        deferral.check_admitted(work, report)
        return cast("R", decision(work, report))
    key = (report.charger_id, report.message_id, report.digest)
    stored = work.answers.get(key)
    if stored is not None:
        return cast("R", msgspec.json.decode(stored, type=answer_type))
    deferral.check_admitted(work, report)
    answer = decision(work, report)
    work.add_answer(key, msgspec.json.encode(answer))
    return cast("R", answer)


def _authorize(work: Work, r: reports.Authorize) -> reports.Authorization:
    return authorize(work, r.id_tag)


def _quarantined(work: Work, r: reports.Quarantined) -> reports.Kept:
    transaction_id = next(work.transaction_ids) if r.action == "StartTransaction" else None
    work.quarantine(
        QuarantineEntry(
            charger_id=r.charger_id,
            action=r.action,
            message_id=r.message_id,
            digest=r.digest,
            payload=r.payload,
            error=r.error,
            transaction_id=transaction_id,
            received_at=work.now,
        )
    )
    return reports.Kept(transaction_id=transaction_id)


def _security_event(work: Work, r: reports.SecurityEvent) -> None:
    work.add(
        StoredSecurityEvent(
            charger_id=r.charger_id,
            type=r.type,
            tech_info=r.tech_info,
            reported_at=r.at,
            recorded_at=work.now,
        )
    )


def _deviated(work: Work, r: reports.Deviated) -> None:
    for deviation in r.deviations:
        work.add(
            DeviationCount(
                charger_id=r.charger_id,
                action=r.action,
                field=deviation.field,
                kind=deviation.kind,
                detail=deviation.detail[:200],
                count=1,
                last_at=work.now,
            )
        )


def _noted(work: Work, r: reports.Noted) -> None:
    work.put(BridgeNotes(charger_id=r.charger_id, notes=storable_json(r.notes), noted_at=work.now))


def _enrolled(work: Work, r: enrollment.Enrolled) -> None:
    """Nothing: what the acceptance brings about was done when the charger's rows were loaded."""


def _transferred(work: Work, r: reports.DataTransferred) -> reports.Transferred:
    work.add(
        StoredTransfer(
            charger_id=r.charger_id,
            vendor_id=storable_json(r.vendor_id),
            message_id=storable_json(r.vendor_message_id),
            data=masked(storable_json(r.data)),
            status=r.answer.status,
            answer=masked(storable_json(r.answer.data)),
            received_at=work.now,
        )
    )
    return r.answer


DECISIONS: dict[type[reports.Report[Any]], tuple[Callable[[Work, Any], Any], Any]] = {
    reports.Connected: (presence.connected, reports.Held),
    reports.Disconnected: (presence.disconnected, None),
    reports.Seen: (presence.seen, None),
    reports.Boot: (presence.boot, reports.Booted),
    reports.Authorize: (_authorize, reports.Authorization),
    reports.Status: (statuses.status, None),
    reports.Start: (transactions.start, reports.Started),
    reports.Meter: (transactions.meter, reports.BalanceLeft | None),
    reports.Stop: (transactions.stop, reports.Stopped),
    reports.Rent: (accounts.rent, reports.Rented),
    reports.Unrented: (accounts.unrented, None),
    reports.SecurityEvent: (_security_event, None),
    reports.Reconcile: (reconciliation.reconcile, bool),
    Revise: (corrections.revise, Revised),
    Rebook: (rebooking.rebook, Revised),
    reports.Quarantined: (_quarantined, reports.Kept),
    enrollment.Deferred: (deferral.defer, reports.Kept),
    enrollment.Enrolled: (_enrolled, None),
    reports.Deviated: (_deviated, None),
    reports.Commanded: (command_effects.commanded, None),
    reports.Progress: (jobs.progress, None),
    reports.Noted: (_noted, None),
    reports.DataTransferred: (_transferred, reports.Transferred),
}
