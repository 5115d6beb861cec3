"""Statuses of connectors: every report is stored, changes are published."""

from msgspec.structs import replace

from csms.core import events, reports
from csms.core.clocks import proves_older
from csms.core.records import StoredStatus
from csms.core.work import Work

_FREE = "Available"


def status(work: Work, r: reports.Status) -> None:
    """Store every report; publish only a change, and none that is older than the known status.

    The previous status is the last one the charger reported: starts and stops do not change it.
    """
    number = next(work.numbers)
    work.add(
        StoredStatus(
            id=number,
            charger_id=r.charger_id,
            connector_id=r.connector_id,
            status=r.status,
            error_code=r.error_code,
            info=r.info,
            vendor_id=r.vendor_id,
            vendor_error_code=r.vendor_error_code,
            reported_at=r.at,
            recorded_at=work.now,
        )
    )
    before = work.connector(r.charger_id, r.connector_id)
    known_at = before.status_at
    if r.at is not None and known_at is not None and proves_older(r.at, known_at, work.now):
        return
    free_since = before.free_since
    if r.status != _FREE:
        free_since = None
    elif free_since is None:
        free_since = r.at or work.now  # by the charger's clock, as the times of a transaction
    after = replace(
        before,
        status=r.status,
        error_code=r.error_code,
        info=r.info,
        vendor_id=r.vendor_id,
        vendor_error_code=r.vendor_error_code,
        status_at=r.at or work.now,
        status_recorded_at=work.now,
        free_since=free_since,
    )
    work.put(after)
    if (before.status, before.error_code) == (after.status, after.error_code):
        return
    running = work.open_transaction(r.charger_id, r.connector_id)
    work.emit(
        r.charger_id,
        events.status_changed(
            after, before.status, running.id if running is not None else None, number, reported_at=r.at
        ),
    )
