"""Start, meter, stop: the decisions that money depends on (OCPP 1.6, 4.7, 4.8, 4.10, 5.16)."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal

import msgspec
from msgspec.structs import replace

from csms.core import events, reports
from csms.core.authorization import authorize
from csms.core.presence import enrolled
from csms.core.pricing import duration_s, session_cost
from csms.core.readings import take_readings
from csms.core.records import Connector, QuarantineEntry, Transaction
from csms.core.work import Work

METER_STOP, LAST_READING, NO_READING = "meter_stop", "last_reading", "none"
_EARLIEST_PLAUSIBLE = datetime(2015, 1, 1, tzinfo=UTC)
_CLOCK_AHEAD = timedelta(hours=24)
_LONGEST_PLAUSIBLE_S = Decimal(30 * 86_400)


def start(work: Work, r: reports.Start) -> reports.Started:
    """A new transaction, or the one this start made before, with the answer it got then.

    A refused idTag is stored all the same: its energy may have flowed.
    """
    enrolled(work, r.charger_id)
    known = work.started_as(r.charger_id, r.key)
    if known is not None:
        return _started(known)
    authorization = authorize(work, r.id_tag, starting=True)
    forgotten = work.open_transaction(r.charger_id, r.connector_id)
    if forgotten is not None:
        close_inferred(work, forgotten, reason="Other")
    started_at = r.at or work.now
    meter_wh = r.meter_wh
    anomalies: tuple[str, ...] = ()
    if meter_wh is None:
        meter_wh = work.connector(r.charger_id, r.connector_id).energy_wh or 0
        anomalies = ("no_meter_start",)
    transaction = Transaction(
        id=next(work.transaction_ids),
        charger_id=r.charger_id,
        connector_id=r.connector_id,
        key=r.key,
        id_tag=r.id_tag,
        parent_id_tag=authorization.parent_id_tag,
        reservation_id=r.reservation_id,
        authorization_status=authorization.status,
        authorization_expiry_at=authorization.expiry_at,
        meter_start_wh=meter_wh,
        started_at=started_at,
        start_received_at=work.now,
        clock_suspect=suspect(started_at, work.now),
        tariff=work.tariff_for(r.charger_id),
        anomalies=anomalies,
    )
    work.put(transaction)
    connector = work.connector(r.charger_id, r.connector_id)
    if connector.free_since is not None:
        work.put(replace(connector, free_since=None))
    work.emit(r.charger_id, events.started(transaction))
    return _started(transaction)


def meter(work: Work, r: reports.Meter) -> None:
    """Readings, with the transaction they name or, where the name is wrong, the one that must be meant."""
    enrolled(work, r.charger_id)
    transaction: Transaction | None
    if r.transaction_id is None:
        clock_aligned = any(s.context == "Sample.Clock" for reading in r.readings for s in reading.samples)
        transaction = None if clock_aligned else work.open_transaction(r.charger_id, r.connector_id)
    else:
        transaction = _named(work, r.charger_id, r.transaction_id) or work.open_transaction(
            r.charger_id, r.connector_id
        )
    connector_id = (
        transaction.connector_id if transaction is not None and r.connector_id == 0 else r.connector_id
    )
    take_readings(work, r.charger_id, connector_id, transaction, r.readings)


def stop(work: Work, r: reports.Stop) -> reports.Stopped:
    """The end of a transaction: booked once, amended if we had only inferred it, else quarantined."""
    enrolled(work, r.charger_id)
    authorization = authorize(work, r.id_tag) if r.id_tag else None
    transaction = _named(work, r.charger_id, r.transaction_id) or _meant(work, r)
    stopped_at = r.at or work.now
    if transaction is None:
        _quarantine(work, r, "no transaction fits this stop", None)
        work.emit(
            r.charger_id,
            events.orphan_stop(
                transaction_id=r.transaction_id,
                meter_wh=r.meter_wh,
                at=stopped_at,
                reason=r.reason,
                id_tag=r.id_tag,
                digest=r.digest[:8],
            ),
        )
        return reports.Stopped(authorization=authorization)
    take_readings(work, r.charger_id, transaction.connector_id, transaction, r.readings)
    if transaction.open or transaction.inferred:
        anomalies = list(transaction.anomalies)
        if transaction.id != r.transaction_id:
            anomalies.append("transaction_id_inferred")
        _close(
            work,
            replace(transaction, anomalies=tuple(anomalies)),
            stopped_at=stopped_at,
            meter_wh=r.meter_wh,
            reason=r.reason,
            id_tag=r.id_tag,
            inferred=False,
        )
    elif _differs(r, transaction):
        _quarantine(work, r, "a second stop that differs from the first", transaction.id)
    return reports.Stopped(transaction_id=transaction.id, authorization=authorization)


def close_inferred(work: Work, transaction: Transaction, *, reason: str) -> None:
    """End a transaction whose stop never came; the real stop, should it come, amends it."""
    connector = work.connector(transaction.charger_id, transaction.connector_id)
    last = _last_reading(connector, transaction)
    ends = [
        moment
        for moment in (connector.free_since, connector.reading_at if last is not None else None)
        if moment is not None and moment >= transaction.started_at
    ]
    _close(
        work,
        transaction,
        stopped_at=min(ends, default=transaction.started_at),
        meter_wh=None,
        reason=reason,
        id_tag=None,
        inferred=True,
    )


def suspect(moment: datetime, now: datetime) -> bool:
    """A charger's time that cannot be true: before 2015, or more than a day ahead of ours."""
    return moment < _EARLIEST_PLAUSIBLE or moment > now + _CLOCK_AHEAD


def _close(
    work: Work,
    transaction: Transaction,
    *,
    stopped_at: datetime,
    meter_wh: int | None,
    reason: str,
    id_tag: str | None,
    inferred: bool,
) -> None:
    anomalies = list(transaction.anomalies)
    meter_stop_wh, source = meter_wh, METER_STOP
    if meter_stop_wh is None:
        connector = work.connector(transaction.charger_id, transaction.connector_id)
        meter_stop_wh, source = _last_reading(connector, transaction), LAST_READING
    if meter_stop_wh is None:
        meter_stop_wh, source = transaction.meter_start_wh, NO_READING
        anomalies.append("no_meter_stop")
    energy_wh = meter_stop_wh - transaction.meter_start_wh
    if energy_wh < 0:
        energy_wh = 0
        anomalies.insert(0, "meter_decreased")
    seconds = duration_s(transaction.started_at, stopped_at)
    if stopped_at < transaction.started_at or seconds > _LONGEST_PLAUSIBLE_S:
        # The charger's clock was set in mid-session: its two times do not belong to one clock, ours do.
        seconds = duration_s(transaction.start_received_at, work.now)
        anomalies.append("clock_changed")
    cost = session_cost(transaction.tariff, energy_wh, seconds)
    closed = replace(
        transaction,
        meter_stop_wh=meter_stop_wh,
        stopped_at=stopped_at,
        stop_received_at=work.now,
        stop_reason=reason,
        stop_id_tag=id_tag,
        energy_wh=energy_wh,
        energy_source=source,
        duration_s=seconds,
        inferred=inferred,
        revision=transaction.revision + 1,
        cost_minor=cost.amount_minor,
        cost=cost.amount,
        anomalies=tuple(dict.fromkeys(anomalies)),
    )
    work.put(closed)
    work.emit(closed.charger_id, events.completed(closed))
    work.emit(closed.charger_id, events.session_cost(closed, cost))


def _started(transaction: Transaction) -> reports.Started:
    return reports.Started(
        transaction_id=transaction.id,
        authorization=reports.Authorization(
            status=transaction.authorization_status,
            expiry_at=transaction.authorization_expiry_at,
            parent_id_tag=transaction.parent_id_tag,
        ),
    )


def _named(work: Work, charger_id: str, transaction_id: int | None) -> Transaction | None:
    transaction = work.transactions.get(transaction_id) if transaction_id is not None else None
    return transaction if transaction is not None and transaction.charger_id == charger_id else None


def _meant(work: Work, r: reports.Stop) -> Transaction | None:
    """The one open transaction that a stop with a lost or impossible id can only mean (0, -1, unknown)."""
    candidates = [
        t
        for t in work.open_transactions(r.charger_id)
        if (r.meter_wh is None or t.meter_start_wh <= r.meter_wh)
        and (r.at is None or t.clock_suspect or t.started_at <= r.at)
    ]
    return candidates[0] if len(candidates) == 1 else None


def _differs(r: reports.Stop, closed: Transaction) -> bool:
    return (r.meter_wh is not None and r.meter_wh != closed.meter_stop_wh) or (
        r.at is not None and r.at != closed.stopped_at
    )


def _last_reading(connector: Connector, transaction: Transaction) -> int | None:
    return connector.energy_wh if connector.reading_transaction_id == transaction.id else None


def _quarantine(work: Work, r: reports.Stop, error: str, transaction_id: int | None) -> None:
    work.add(
        QuarantineEntry(
            charger_id=r.charger_id,
            action="StopTransaction",
            message_id=r.message_id,
            digest=r.digest,
            payload=msgspec.json.encode(replace(r, readings=())),
            error=error,
            transaction_id=transaction_id,
            received_at=work.now,
        )
    )
