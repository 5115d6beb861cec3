"""Start, meter and stop: the decisions that determine what is billed (OCPP 1.6, 4.7, 4.8, 4.10, 5.16)."""

from datetime import datetime
from hashlib import sha256

import msgspec
from msgspec.structs import replace

from csms.core import (
    accounts,
    charging_profiles,
    corrections,
    events,
    reports,
    reservations,
    session_register,
)
from csms.core.attribution import (
    belong_to_running,
    current_register,
    differs,
    find_stopped,
    find_transaction,
    is_past,
    stopped_by_evidence,
)
from csms.core.authorization import authorize
from csms.core.clocks import accounting_time, is_suspect
from csms.core.closing import close, close_inferred, reopen
from csms.core.evidence import METER_STOP, SessionEnd
from csms.core.readings import store_readings, take_one_phase
from csms.core.records import DeviationCount, QuarantineEntry, Transaction
from csms.core.text import fold
from csms.core.units import measure
from csms.core.work import Work
from csms.errors import NotBookable

_CLOCK_ALIGNED = fold("Sample.Clock")


def start(work: Work, r: reports.Start) -> reports.Started:
    """Begin a transaction. A start that was reported before gets the answer it got then.

    The start of a refused idTag is stored too: energy may have flowed.
    """
    known = work.transaction_by_key(r.charger_id, r.key)
    if known is not None and not _begins_anew(known, r):
        return _started(known)
    if known is not None:
        # The clock stands still, so the next session has the same key; the key stays with the newest one.
        work.put(replace(known, key=f"{known.key}#{known.id}"))
    # The transaction left open here ends first: it must not count against the tag that starts again.
    running = work.open_transaction(r.charger_id, r.connector_id)
    past = running is not None and is_past(work, r, running)
    if running is not None and not past:
        close_inferred(work, running, reason="Other")
    authorization = accounts.authorization(work, r) or authorize(work, r.id_tag, starting=True)
    started_at = r.at or work.now
    answered_id = None if r.repair is None else r.repair.transaction_id
    transaction_id = next(work.transaction_ids) if answered_id is None else answered_id
    began_at = work.now if is_suspect(started_at, work.now) else started_at
    anomalies = r.anomalies
    if reservations.use_reservation(work, r, transaction_id, began_at, authorization.parent_id_tag):
        anomalies += ("reserved_for_another",)
    charging_profiles.bind_remote_start_profile(work, r, transaction_id)
    connector = work.connector(r.charger_id, r.connector_id)
    register = session_register.begin(
        r.meter_wh,
        started_at,
        work.now,
        max_power_w=work.max_power_w(r.charger_id),
        before_wh=None if past else connector.energy_wh,
        previous=connector.register,
        anomalies=anomalies,
    )
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
        meter_start_wh=register.last.wh if r.meter_wh is None else r.meter_wh,
        started_at=started_at,
        start_received_at=work.now,
        clock_suspect=is_suspect(started_at, work.now),
        accounting_at=accounting_time(started_at, work.now),
        tariff=work.tariff_for(r.charger_id, r.id_tag),
        anomalies=register.anomalies,
        register=register,
        account_id=accounts.paying_account(work, r),
    )
    if past:
        # Another has begun on this connector since, so this one is over; its stop will amend it.
        accounts.begin_rental(work, r, transaction, past=True)
        work.emit(r.charger_id, events.started(transaction))
        close_inferred(work, transaction, reason="Other")
        return _started(transaction)
    work.put(transaction)
    accounts.begin_rental(work, r, transaction)
    if connector.free_since is not None:
        work.put(replace(connector, free_since=None))
    work.emit(r.charger_id, events.started(transaction))
    return _started(transaction)


def meter(work: Work, r: reports.Meter) -> reports.BalanceLeft | None:
    """Store readings of the transaction they name or, where that cannot be right, of the running one.

    Readings of a transaction whose end was inferred show that it goes on, if its register rises: it is opened again. If
    another one runs on its connector, they count with its stop, or once no more of them come (reconciliation).
    """
    transaction, names_session = _measured_transaction(work, r)
    if (
        transaction is not None
        and transaction.inferred
        and work.open_transaction(r.charger_id, transaction.connector_id) is None
        and _rises(work, transaction, r)
    ):
        transaction = reopen(work, transaction)
    connector_id = r.connector_id
    if transaction is not None and (names_session or connector_id == 0):
        # A session of the connector that the readings name casts a doubt on the transaction that they name.
        running = work.open_transaction(r.charger_id, connector_id)
        names_session = names_session and (running is None or running.id == transaction.id)
        connector_id = transaction.connector_id
    store_readings(
        work,
        r.charger_id,
        connector_id,
        transaction,
        r.readings,
        published=r.published,
        names_session=names_session,
    )
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
    if stored is not None and r.repair is None:
        return msgspec.json.decode(stored, type=reports.Stopped)
    transaction = stopped_by_evidence(work, r)
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


def _begins_anew(known: Transaction, r: reports.Start) -> bool:
    """Return whether a start with the key of a known transaction is a new one: by a clock that stands still.

    A charger sends a start again until it is answered, and its stop only after that. So a start after the real stop of
    the transaction is another one. By a plausible clock it is a repetition: no two starts have the same time. A start
    that was kept until its charger was accepted has the id that was answered then.
    """
    if r.repair is not None:
        return r.repair.transaction_id not in {None, known.id}
    return known.clock_suspect and not known.open and not known.inferred


def _measured_transaction(work: Work, r: reports.Meter) -> tuple[Transaction | None, bool]:
    """Return the transaction of readings, and whether they name it or the charger means it for sure."""
    running = work.open_transaction(r.charger_id, r.connector_id)
    if r.transaction_id is None:
        clock_aligned = any(
            s.context is not None and fold(s.context) == _CLOCK_ALIGNED
            for reading in r.readings
            for s in reading.samples
        )
        return (None if clock_aligned else running), False
    named = find_transaction(work, r.charger_id, r.transaction_id)
    if named is None or (
        not named.open and running is not None and belong_to_running(work, running, named, r.readings)
    ):
        return running, False
    return named, True


def _rises(work: Work, transaction: Transaction, r: reports.Meter) -> bool:
    register = current_register(work, transaction)
    for reading in r.readings:
        measured = measure(reading.samples)
        take_one_phase(work, r.charger_id, transaction.connector_id, transaction, measured)
        if measured.energy_wh is not None:
            at = reading.at or work.now
            risen = session_register.advance(register, measured.energy_wh, at, work.now)
            if risen.energy_wh > register.energy_wh:
                return True
    return False


def _book(work: Work, r: reports.Stop, transaction: Transaction) -> None:
    store_readings(work, r.charger_id, transaction.connector_id, transaction, r.readings)
    transaction = work.transactions[transaction.id]
    if not (transaction.open or transaction.inferred):
        if r.repair is not None:
            corrections.book_second_stop(work, r, r.repair, transaction)
        elif differs(r, transaction):
            _quarantine(work, r, "a second stop that differs from the first", transaction.id)
        elif r.at is not None and r.at != transaction.stopped_at:
            work.add(_repeated(work, r, transaction))
        return
    if r.inferred and transaction.inferred:
        return  # the second inference knows no more than the first
    end = SessionEnd(
        meter_stop_wh=r.meter_wh,
        stopped_at=r.at or (transaction.stopped_at if r.repair is not None else None) or work.now,
        received_at=work.now,
        inferred=r.inferred,
        session_register=r.session_register,
        lost_power_at=lost_power_at(work, r, transaction),
    )
    named = transaction.id == r.transaction_id
    closed = close(
        work,
        transaction,
        end,
        reason=r.reason,
        id_tag=r.id_tag,
        anomalies=(*(() if named else ("transaction_id_inferred",)), *r.anomalies),
        note=None if r.repair is None else r.repair.note,
    )
    if r.repair is not None and r.meter_wh is not None and closed.energy_source != METER_STOP:
        raise NotBookable(
            f"meterStop {r.meter_wh} contradicts the readings of transaction {closed.id}. Stop the transaction by hand,"
            " correct it to the register that is right, and resolve this message with a note."
        )


def lost_power_at(work: Work, r: reports.Stop, transaction: Transaction) -> datetime | None:
    """Return when the last sign of the session was received, if its charger has booted or lost its power since."""
    charger = work.chargers.get(r.charger_id)
    booted_at = None if charger is None else charger.booted_at
    seen_at = current_register(work, transaction).last.received_at
    connector = work.connector(r.charger_id, transaction.connector_id)
    status_at = connector.status_recorded_at
    booted = booted_at is not None and booted_at > seen_at
    if (
        status_at is not None
        and status_at > seen_at
        and not (booted_at is not None and status_at > booted_at)
    ):
        seen_at = status_at
    return seen_at if booted or r.reason == "PowerLoss" else None


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


def _digest(r: reports.Stop) -> bytes:
    return sha256(msgspec.json.encode(replace(r, message_id=None))).digest()[:8]


def _repeated(work: Work, r: reports.Stop, transaction: Transaction) -> DeviationCount:
    assert r.at is not None
    return DeviationCount(
        charger_id=r.charger_id,
        action="StopTransaction",
        field="timestamp",
        kind="repeated_with_another_time",
        detail=f"transaction {transaction.id}: {events.timestamp(r.at)}",
        count=1,
        last_at=work.now,
    )


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
