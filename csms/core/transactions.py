"""Start, meter and stop: the decisions that determine what is billed (OCPP 1.6, 4.7, 4.8, 4.10, 5.16)."""

from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal
from hashlib import sha256

import msgspec
from msgspec.structs import replace

from csms.core import accounts, charging_profiles, events, reports, reservations, session_timeline
from csms.core.authorization import authorize
from csms.core.clocks import is_suspect
from csms.core.pricing import duration_s, session_cost
from csms.core.readings import store_readings
from csms.core.records import Connector, QuarantineEntry, Transaction
from csms.core.units import measure
from csms.core.work import Work
from csms.errors import NotBookable

METER_STOP, LAST_READING, NO_READING = "meter_stop", "last_reading", "none"
_LONGEST_PLAUSIBLE_S = Decimal(int(session_timeline.LONGEST_SESSION.total_seconds()))


def start(work: Work, r: reports.Start) -> reports.Started:
    """Begin a transaction. A start that was reported before gets the answer it got then.

    The start of a refused idTag is stored too: energy may have flowed.
    """
    known = work.transaction_by_key(r.charger_id, r.key)
    if known is not None:
        return _started(known)
    # The transaction left open here ends first: it must not count against the tag that starts again.
    running = work.open_transaction(r.charger_id, r.connector_id)
    superseded = (
        r.repair is not None and running is not None and r.at is not None and r.at < running.started_at
    )
    if running is not None and not superseded:
        close_inferred(work, running, reason="Other")
    authorization = accounts.authorization(work, r) or authorize(work, r.id_tag, starting=True)
    started_at = r.at or work.now
    meter_wh = r.meter_wh
    anomalies: tuple[str, ...] = ()
    if meter_wh is None:
        meter_wh = work.connector(r.charger_id, r.connector_id).energy_wh or 0
        anomalies = ("no_meter_start",)
    anomalies += r.anomalies
    answered_id = None if r.repair is None else r.repair.transaction_id
    transaction_id = next(work.transaction_ids) if answered_id is None else answered_id
    began_at = work.now if is_suspect(started_at, work.now) else started_at
    if reservations.use_reservation(work, r, transaction_id, began_at, authorization.parent_id_tag):
        anomalies += ("reserved_for_another",)
    charging_profiles.bind_remote_start_profile(work, r, transaction_id)
    transaction = Transaction(
        id=transaction_id,
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
        clock_suspect=is_suspect(started_at, work.now),
        tariff=work.tariff_for(r.charger_id, r.id_tag),
        anomalies=anomalies,
        account_id=accounts.paying_account(work, r),
    )
    if superseded:
        # Another has begun on this connector since, so this one is over; its stop will amend it.
        work.emit(r.charger_id, events.started(transaction))
        close_inferred(work, transaction, reason="Other")
        return _started(transaction)
    work.put(transaction)
    accounts.begin_rental(work, r, transaction)
    connector = work.connector(r.charger_id, r.connector_id)
    if connector.free_since is not None:
        work.put(replace(connector, free_since=None))
    work.emit(r.charger_id, events.started(transaction))
    return _started(transaction)


def meter(work: Work, r: reports.Meter) -> reports.BalanceLeft | None:
    """Store readings of the transaction they name or, where that cannot be right, of the running one."""
    transaction: Transaction | None
    if r.transaction_id is None:
        clock_aligned = any(s.context == "Sample.Clock" for reading in r.readings for s in reading.samples)
        transaction = None if clock_aligned else work.open_transaction(r.charger_id, r.connector_id)
    else:
        transaction = find_transaction(work, r.charger_id, r.transaction_id)
        if transaction is None or not transaction.open:
            running = work.open_transaction(r.charger_id, r.connector_id)
            if transaction is None or (
                running is not None and _belong_to_running(running, transaction, r.readings)
            ):
                transaction = running
    connector_id = (
        transaction.connector_id if transaction is not None and r.connector_id == 0 else r.connector_id
    )
    store_readings(work, r.charger_id, connector_id, transaction, r.readings, published=r.published)
    if transaction is None or transaction.account_id is None:
        return None
    return accounts.debit_so_far(work, transaction, r.readings)


def stop(work: Work, r: reports.Stop) -> reports.Stopped:
    """End a transaction: booked once, amended if its end was inferred, quarantined if no transaction fits."""
    authorization = authorize(work, r.id_tag) if r.id_tag else None
    transaction = find_stopped(work, r)
    if transaction is not None:
        _book(work, r, transaction)
        return reports.Stopped(transaction_id=transaction.id, authorization=authorization)
    # Without a transaction a repetition is recognized by content alone: it must not end another transaction.
    key = stop_content_key(r)
    stored = work.answers.get(key)
    if stored is not None:
        return msgspec.json.decode(stored, type=reports.Stopped)
    transaction = _only_candidate(work, r)
    if transaction is not None:
        _book(work, r, transaction)
    elif r.repair is not None:
        raise NotBookable(
            f"No transaction of {r.charger_id} fits this stop: name the one that it ended (transactionId)."
        )
    else:
        _quarantine(work, r, "no transaction fits this stop", None)
        work.emit(r.charger_id, events.orphan_stop(r, r.at or work.now, key[2][:8]))
    answer = reports.Stopped(
        transaction_id=None if transaction is None else transaction.id, authorization=authorization
    )
    work.add_answer(key, msgspec.json.encode(answer))
    return answer


def stop_content_key(r: reports.Stop) -> tuple[str, str, bytes]:
    """Return the key of the stored answer to a stop that named no transaction: its content, without its message id."""
    return r.charger_id, "", r.digest or _digest(r)


def find_transaction(work: Work, charger_id: str, transaction_id: int | None) -> Transaction | None:
    """Return the transaction of that id if it is the charger's."""
    transaction = work.transactions.get(transaction_id) if transaction_id is not None else None
    return transaction if transaction is not None and transaction.charger_id == charger_id else None


def find_stopped(work: Work, r: reports.Stop) -> Transaction | None:
    """Return the transaction that a stop names. With `trusted_id` False not one that ended in another way."""
    transaction = find_transaction(work, r.charger_id, r.transaction_id)
    if transaction is None or r.trusted_id or transaction.open or transaction.inferred:
        return transaction
    return None if _differs(r, transaction) else transaction


def close_inferred(work: Work, transaction: Transaction, *, reason: str) -> None:
    """End a transaction whose stop never came. A real stop that comes later amends it."""
    connector = work.connector(transaction.charger_id, transaction.connector_id)
    last = _last_register_wh(connector, transaction)
    ends = [
        at
        for at in (connector.free_since, connector.reading_at if last is not None else None)
        if at is not None and at >= transaction.started_at
    ]
    _close(
        work,
        transaction,
        stopped_at=min(ends, default=transaction.started_at),
        meter_wh=None,
        reason=reason,
        id_tag=None,
        inferred=True,
        anomalies=[],
    )


def _book(work: Work, r: reports.Stop, transaction: Transaction) -> None:
    store_readings(work, r.charger_id, transaction.connector_id, transaction, r.readings)
    if not (transaction.open or transaction.inferred or r.repair is not None):
        if _differs(r, transaction):
            _quarantine(work, r, "a second stop that differs from the first", transaction.id)
        return
    if r.inferred and transaction.inferred:
        return  # the second inference knows no more than the first
    _close(
        work,
        transaction,
        # What a repaired stop leaves out stays as booked.
        stopped_at=r.at or (transaction.stopped_at if r.repair is not None else None) or work.now,
        meter_wh=transaction.meter_stop_wh if r.meter_wh is None and r.repair is not None else r.meter_wh,
        reason=r.reason,
        id_tag=r.id_tag,
        inferred=r.inferred,
        readings=r.readings,
        session_register=r.session_register,
        anomalies=[
            *([] if transaction.id == r.transaction_id else ["transaction_id_inferred"]),
            *r.anomalies,
        ],
    )


def _close(
    work: Work,
    transaction: Transaction,
    *,
    stopped_at: datetime,
    meter_wh: int | None,
    reason: str,
    id_tag: str | None,
    inferred: bool,
    anomalies: list[str],
    readings: Sequence[reports.Reading] = (),
    session_register: bool = False,
) -> None:
    meter_stop_wh, source = meter_wh, LAST_READING if inferred else METER_STOP
    if meter_stop_wh is None:
        source = LAST_READING
        if transaction.inferred:
            meter_stop_wh = _late_register_wh(transaction, readings)
        else:
            connector = work.connector(transaction.charger_id, transaction.connector_id)
            meter_stop_wh = _last_register_wh(connector, transaction)
    if meter_stop_wh is None:
        meter_stop_wh, source = transaction.meter_start_wh, NO_READING
        anomalies.append("no_meter_stop")
    began_wh, began_at, ended_at = transaction.meter_start_wh, transaction.started_at, stopped_at
    energy_wh = meter_stop_wh - began_wh
    if energy_wh < 0 and session_register and meter_stop_wh >= 0:
        energy_wh, began_wh = meter_stop_wh, 0
        anomalies.append("session_register")
    elif energy_wh < 0:
        energy_wh = 0
        anomalies.insert(0, "meter_decreased")
    seconds = duration_s(transaction.started_at, stopped_at)
    if stopped_at < transaction.started_at or seconds > _LONGEST_PLAUSIBLE_S:
        # The charger's clock was set during the session: its two times are by different clocks, those of receipt are
        # not. An inferred stop may be recorded days later, at the next start: then `stopped_at` is the better end.
        began_at, ended_at = (
            transaction.start_received_at,
            min(stopped_at, work.now) if inferred else work.now,
        )
        seconds = duration_s(began_at, ended_at)
        anomalies.append("clock_changed")
    timeline = session_timeline.closed_timeline(
        work,
        transaction,
        started_at=began_at,
        ended_at=ended_at,
        energy_wh=energy_wh,
        meter_start_wh=began_wh,
    )
    cost = session_cost(transaction.tariff, energy_wh, seconds, timeline)
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
        bill=None if timeline is None else cost.bill,
        anomalies=tuple(dict.fromkeys(anomalies)),
    )
    work.put(closed)
    accounts.settle(work, closed)
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
        meter_start_wh=transaction.meter_start_wh,
    )


def _only_candidate(work: Work, r: reports.Stop) -> Transaction | None:
    """Return the open transaction that a stop with an unusable id (0, -1, unknown) ends, if only one fits."""
    candidates = [
        t
        for t in work.open_transactions(r.charger_id)
        if (r.meter_wh is None or t.meter_start_wh <= r.meter_wh)
        and (r.at is None or t.clock_suspect or is_suspect(r.at, work.now) or t.started_at <= r.at)
    ]
    return candidates[0] if len(candidates) == 1 else None


def _belong_to_running(running: Transaction, ended: Transaction, readings: Sequence[reports.Reading]) -> bool:
    """Return whether readings that name an ended transaction were taken in the running one (a stale id)."""
    ended_at = ended.stopped_at
    return ended_at is not None and any(
        reading.at is not None and reading.at > ended_at and reading.at >= running.started_at
        for reading in readings
    )


def _differs(r: reports.Stop, closed: Transaction) -> bool:
    return (r.meter_wh is not None and r.meter_wh != closed.meter_stop_wh) or (
        r.at is not None and r.at != closed.stopped_at
    )


def _last_register_wh(connector: Connector, transaction: Transaction) -> int | None:
    return connector.energy_wh if connector.reading_transaction_id == transaction.id else None


def _late_register_wh(transaction: Transaction, readings: Sequence[reports.Reading]) -> int | None:
    """Return the highest register known of a session with an inferred end: the one booked, or one of the late stop."""
    registers = [measure(reading.samples).energy_wh for reading in readings]
    if transaction.energy_source == LAST_READING:
        registers.append(transaction.meter_stop_wh)
    return max((energy_wh for energy_wh in registers if energy_wh is not None), default=None)


def _digest(r: reports.Stop) -> bytes:
    return sha256(msgspec.json.encode(replace(r, message_id=None))).digest()[:8]


def _quarantine(work: Work, r: reports.Stop, error: str, transaction_id: int | None) -> None:
    work.quarantine(
        QuarantineEntry(
            charger_id=r.charger_id,
            action="StopTransaction",
            message_id=r.message_id,
            digest=r.digest or _digest(r),
            payload=msgspec.json.encode(r),
            error=error,
            transaction_id=transaction_id,
            received_at=work.now,
        )
    )
