"""Transaction messages of chargers that no operator has accepted: kept, bounded, and booked at the acceptance.

A stranger must not produce bills, and a charger that waits for its acceptance must not lose sessions. So its messages
are acknowledged and kept in quarantine as they came. The node books them in the order of arrival once the charger is
accepted (csms/node/deferred_bookings.py); those of a rejected charger are never booked by themselves.
"""

from typing import Any, Final

from msgspec.structs import replace

from csms.core import enrollment, reports
from csms.core.clocks import is_suspect
from csms.core.records import DeferredUsage, DeviationCount, QuarantineEntry
from csms.core.work import Work
from csms.errors import NotAdmitted

OF_TRANSACTIONS: Final = (reports.Start, reports.Meter, reports.Stop, reports.Quarantined)
REASONS: Final = {
    "Pending": "pending enrollment: booked when an operator accepts the charger",
    "Rejected": "rejected enrollment: not booked",
}
# What one charger may have waiting. A quarter is reserved for starts and stops: readings alone cannot fill it.
MOST: Final = DeferredUsage(messages=2000, size_bytes=4 * 1024 * 1024)
MOST_WITH_READINGS: Final = DeferredUsage(messages=1500, size_bytes=3 * 1024 * 1024)


def check_admitted(work: Work, report: reports.Report[Any]) -> None:
    """Raise NotAdmitted for a transaction message of a charger that is not accepted.

    A repair is recorded all the same: an operator has decided about this one message.
    """
    if isinstance(report, OF_TRANSACTIONS) and report.repair is None and not work.admits(report.charger_id):
        raise NotAdmitted(f"{report.charger_id} is not accepted: its transactions are deferred.")


def defer(work: Work, r: enrollment.Deferred) -> reports.Kept:
    """Keep a message within the charger's limit. A start that was sent before gets its id again.

    A start of 1970 that was stopped and comes with another message id is a new one: that clock stands still.
    """
    if work.admits(r.charger_id):
        return reports.Kept()
    known_id = _known_start(work, r)
    if known_id is not None:
        return reports.Kept(deferred=True, transaction_id=known_id)
    usage = work.deferred_usage.get(r.charger_id, DeferredUsage())
    limit = MOST_WITH_READINGS if r.action == "MeterValues" else MOST
    if _reaches(usage, limit):
        _count_dropped(work, r)
        return reports.Kept(deferred=True, dropped=True)
    status = work.chargers[r.charger_id].enrollment
    transaction_id = r.transaction_id
    identity = b"deferred/" + r.identity
    if r.action == "StartTransaction":
        transaction_id = next(work.transaction_ids)
        identity += f"/{transaction_id}".encode()
    elif transaction_id is not None and not 0 < transaction_id < 2**31:
        transaction_id = None  # it fits no column, and no transaction
    error = REASONS[status]
    work.defer(
        QuarantineEntry(
            charger_id=r.charger_id,
            action=r.action,
            message_id=r.message_id,
            digest=identity,
            payload=r.payload,
            error=error if r.error is None else f"{error}; {r.error}",
            transaction_id=transaction_id,
            received_at=work.now,
            enrollment=status,
            start_key=r.start_key,
        )
    )
    if status == "Pending":
        work.put(replace(work.states[r.charger_id], deferred=True))
    full = _reaches(work.deferred_usage[r.charger_id], limit)
    answered_id = transaction_id if r.action == "StartTransaction" else None
    return reports.Kept(deferred=True, transaction_id=answered_id, full=full)


def _known_start(work: Work, r: enrollment.Deferred) -> int | None:
    """Return the transaction id that a start got when it was sent before."""
    if r.start_key is None:
        return None
    clock_stands = r.at is not None and is_suspect(r.at, work.now)
    deferred = work.deferred_starts.get((r.charger_id, r.start_key))
    if deferred is not None:
        again = deferred.message_id == r.message_id or not (deferred.stopped and clock_stands)
        return deferred.transaction_id if again else None
    booked = work.transaction_by_key(r.charger_id, r.start_key)
    if booked is None or not (booked.open or not clock_stands):
        return None
    return booked.id


def _reaches(usage: DeferredUsage, limit: DeferredUsage) -> bool:
    return usage.messages >= limit.messages or usage.size_bytes >= limit.size_bytes


def _count_dropped(work: Work, r: enrollment.Deferred) -> None:
    work.add(
        DeviationCount(
            charger_id=r.charger_id,
            action=r.action,
            field="",
            kind="dropped_before_acceptance",
            detail=f"more than {MOST.messages} messages or {MOST.size_bytes} bytes wait for an operator",
            count=1,
            last_at=work.now,
        )
    )
