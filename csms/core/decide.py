"""Which function decides which report, and what a repeated message gets."""

from collections.abc import Callable
from typing import Any, TypeVar, cast

import msgspec

from csms.core import (
    accounts,
    commanded,
    jobs,
    presence,
    quarantine,
    reconciliation,
    reports,
    statuses,
    transactions,
)
from csms.core.authorization import authorize
from csms.core.device_state import BridgeNotes, StoredTransfer
from csms.core.records import Answered, DeviationCount, QuarantineEntry, StoredSecurityEvent
from csms.core.text import storable_json
from csms.core.work import Work

R = TypeVar("R")


def decide(work: Work, report: reports.Report[R]) -> R:
    """Change the work as the report demands and give its answer. Same message, same content: same answer."""
    decision, answer_type = _DECISIONS[type(report)]
    if isinstance(report, reports.Resendable) and report.repair is not None:
        quarantine.claim(work, report.repair)
        answer = decision(work, report)
        quarantine.resolved(work, report.repair, answer)
        return cast("R", answer)
    if not isinstance(report, reports.Resendable) or report.message_id is None:
        return cast("R", decision(work, report))
    key = (report.charger_id, report.message_id, report.digest)
    stored = work.answers.get(key)
    if stored is not None:
        return cast("R", msgspec.json.decode(stored, type=answer_type))
    answer = decision(work, report)
    work.add(
        Answered(
            charger_id=report.charger_id,
            message_id=report.message_id,
            digest=report.digest,
            answer=msgspec.json.encode(answer),
            recorded_at=work.now,
        )
    )
    return cast("R", answer)


def _authorize(work: Work, r: reports.Authorize) -> reports.Authorization:
    presence.enrolled(work, r.charger_id)
    return authorize(work, r.id_tag)


def _quarantined(work: Work, r: reports.Quarantined) -> reports.Kept:
    presence.enrolled(work, r.charger_id)
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
    presence.enrolled(work, r.charger_id)
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
    presence.enrolled(work, r.charger_id)
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
    presence.enrolled(work, r.charger_id)
    work.put(BridgeNotes(charger_id=r.charger_id, notes=storable_json(r.notes), noted_at=work.now))


def _transferred(work: Work, r: reports.DataTransferred) -> reports.Transferred:
    presence.enrolled(work, r.charger_id)
    work.add(
        StoredTransfer(
            charger_id=r.charger_id,
            vendor_id=storable_json(r.vendor_id),
            message_id=storable_json(r.vendor_message_id),
            data=storable_json(r.data),
            status=r.answer.status,
            answer=storable_json(r.answer.data),
            received_at=work.now,
        )
    )
    return r.answer


_DECISIONS: dict[type[reports.Report[Any]], tuple[Callable[[Work, Any], Any], Any]] = {
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
    reports.Quarantined: (_quarantined, reports.Kept),
    reports.Deviated: (_deviated, None),
    reports.Commanded: (commanded.commanded, None),
    reports.Progress: (jobs.progress, None),
    reports.Noted: (_noted, None),
    reports.DataTransferred: (_transferred, reports.Transferred),
}
