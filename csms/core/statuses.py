"""Statuses of connectors: every report is stored, changes are published."""

from datetime import datetime
from typing import Final

from msgspec.structs import replace

from csms.core import events, reports
from csms.core.clocks import is_suspect
from csms.core.records import Connector, StoredStatus
from csms.core.work import Work

_FREE = "Available"
# No current can flow through the outlet in these statuses (OCPP 1.6, 4.9).
_WITHOUT_CURRENT: Final = frozenset(
    {
        _FREE,
        "Preparing",
        "SuspendedEV",
        "SuspendedEVSE",
        "Finishing",
        "Reserved",
        "Unavailable",
        "Faulted",
    }
)


def status(work: Work, r: reports.Status) -> None:
    """Store every report and publish a change. The order of arrival decides which status holds, never a time stamp.

    Chargers send statuses as they change and do not queue them (OCPP 1.6, 4.9), while their clocks are set in either
    direction at any time. The previous status is the last one the charger reported: starts and stops do not change it.
    """
    if r.charger_id in work.repeated:
        return
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
    free_since = before.free_since
    if r.status != _FREE:
        free_since = None
    elif free_since is None:
        free_since = _free_since(r.at, before, work.now)
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
        power_w=_power_w(before, r.status),
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


def _free_since(at: datetime | None, connector: Connector, now: datetime) -> datetime:
    """Return since when a connector is free, as a moment that may end a transaction.

    It is the charger's time if that is plausible, as are the times of a transaction, but it lies neither before the
    connector's last reading (the clock was set back in between) nor after the receipt.
    """
    if at is None or is_suspect(at, now):
        return now
    if connector.reading_at is not None:
        at = max(at, connector.reading_at)
    return min(at, now)


def _power_w(connector: Connector, status: str) -> int | None:
    """Return the connector's power in W once it has that status: 0 where no current can flow.

    Unknown power stays unknown, so that no figure appears for a charger that measures none. Connector 0 keeps its
    power: it is that of the whole charger, whose status says nothing of a single outlet.
    """
    if connector.power_w is None or connector.connector_id == 0 or status not in _WITHOUT_CURRENT:
        return connector.power_w
    return 0
