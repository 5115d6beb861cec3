"""The end of a transaction: what its evidence shows, its price, its events, and its accounts."""

from datetime import datetime
from decimal import Decimal
from typing import Final

from msgspec.structs import replace

from csms.core import accounts, events, session_timeline
from csms.core.attribution import current_register
from csms.core.clocks import is_suspect
from csms.core.evidence import Conclusion, SessionEnd, conclude
from csms.core.pricing import Cost, session_cost
from csms.core.records import BilledState, Connector, Transaction, TransactionRevision
from csms.core.session_register import NO_FALL_WH, SessionRegister
from csms.core.work import Work

BILLED, HELD, VOID = "billed", "held", "void"
ENDS_ABOVE_NEXT: Final = "ends_above_next"  # the same energy may be in the bill of the next session
CHARGER, CSMS, AUDIT = "charger", "csms", "audit"  # authors of revisions, beside operators


def close(
    work: Work,
    transaction: Transaction,
    end: SessionEnd,
    *,
    reason: str,
    id_tag: str | None,
    anomalies: tuple[str, ...] = (),
    author: str = CHARGER,
    note: str | None = None,
    source: str | None = None,
) -> Transaction:
    """End a transaction, or end it anew with better evidence, as its next revision."""
    closed, cost = concluded(
        work, transaction, end, reason=reason, id_tag=id_tag, anomalies=anomalies, source=source
    )
    closed = book(work, transaction, closed, cost, author=author, note=note)
    _free_connector(work, closed)
    return closed


def concluded(
    work: Work,
    transaction: Transaction,
    end: SessionEnd,
    *,
    reason: str,
    id_tag: str | None,
    anomalies: tuple[str, ...] = (),
    source: str | None = None,
) -> tuple[Transaction, Cost]:
    """Return a transaction as it ends, with its price, and book nothing.

    `source`: where the register at the end comes from, if not from the charger.
    """
    began = current_register(work, transaction)
    found = conclude(
        began, end, started_at=transaction.started_at, start_received_at=transaction.start_received_at
    )
    if _ends_above_next(work, transaction, found.register):
        anomalies = (*anomalies, ENDS_ABOVE_NEXT)
    held = found.held_because if work.policy.hold_implausible else ()
    closed = replace(
        transaction,
        meter_start_wh=_start_wh(transaction, found.register),
        meter_stop_wh=found.meter_stop_wh,
        stopped_at=end.stopped_at,
        stop_received_at=end.received_at,
        stop_reason=reason,
        stop_id_tag=id_tag,
        energy_wh=found.energy_wh,
        energy_source=source if source and _shows_register(found, end) else found.energy_source,
        duration_s=found.seconds,
        inferred=end.inferred,
        anomalies=tuple(dict.fromkeys((*anomalies, *found.anomalies))),
        billing=HELD if held else BILLED,
        held_because=held,
        register=found.register,
    )
    return priced(work, closed, found.began_at, found.ended_at)


def _ends_above_next(work: Work, transaction: Transaction, ended: SessionRegister) -> bool:
    """Return whether a session ends, by what came late, above the start of the one that has begun on its connector since."""
    running = work.open_transaction(transaction.charger_id, transaction.connector_id)
    connector = work.connector(transaction.charger_id, transaction.connector_id)
    if running is not None and running.id != transaction.id:
        later = current_register(work, running)
    elif (connector.reading_transaction_id or 0) > transaction.id and connector.register is not None:
        later = connector.register
    else:
        return False
    # Registers that begin at 0 in each session are not comparable.
    begun_wh = later.before_wh if later.start_wh is None else later.start_wh
    return bool(begun_wh) and ended.segment_wh <= (begun_wh or 0) < ended.last.wh - NO_FALL_WH


def _shows_register(found: Conclusion, end: SessionEnd) -> bool:
    return end.meter_stop_wh is not None and found.register.last.wh == end.meter_stop_wh


def close_inferred(work: Work, transaction: Transaction, *, reason: str) -> None:
    """End a transaction whose stop never came. A real stop that comes later amends it."""
    stopped_at = inferred_end(work, transaction)
    end = SessionEnd(meter_stop_wh=None, stopped_at=stopped_at, received_at=work.now, inferred=True)
    close(work, transaction, end, reason=reason, id_tag=None, author=CSMS)


def inferred_end(work: Work, transaction: Transaction) -> datetime:
    """Return when an open transaction ended, as far as the signs of it are known.

    One that has ended by inference, and of which readings came since while another one runs, ended with the last of them.
    """
    connector = work.connector(transaction.charger_id, transaction.connector_id)
    register = current_register(work, transaction)
    if transaction.stopped_at is not None:
        last = register.last
        plausible = not is_suspect(last.at, last.received_at) and last.at <= last.received_at
        return max(transaction.stopped_at, last.at) if plausible else transaction.stopped_at
    own = connector.reading_transaction_id == transaction.id
    stamped = (connector.free_since, connector.reading_at if own else None)
    ends = [at for at in stamped if at is not None and at >= transaction.started_at]
    if not ends:
        # The charger's clock was set back, or is ahead: only the times of receipt are comparable.
        freed_at = None if connector.free_since is None else connector.status_recorded_at
        received = (freed_at, register.last.received_at if register.readings else None)
        ends = [at for at in received if at is not None and at >= transaction.start_received_at]
    return min(ends, default=transaction.started_at)


def reopen(work: Work, transaction: Transaction) -> Transaction:
    """Open a transaction again whose end was inferred: its charger goes on with it. The next end is its next revision."""
    opened = replace(
        transaction,
        stopped_at=None,
        stop_received_at=None,
        stop_reason=None,
        stop_id_tag=None,
        meter_stop_wh=None,
        energy_wh=None,
        energy_source=None,
        duration_s=None,
        inferred=False,
        cost_minor=None,
        cost=None,
        bill=None,
        billing=None,
        held_because=(),
    )
    work.put(opened)
    connector = work.connector(transaction.charger_id, transaction.connector_id)
    if connector.reading_transaction_id == transaction.id and transaction.register is not None:
        # It has what came after the end.
        work.put(replace(connector, register=transaction.register))
    return opened


def book(
    work: Work, before: Transaction, closed: Transaction, cost: Cost, *, author: str, note: str | None
) -> Transaction:
    """Store a transaction as its next revision, settle its account and publish it.

    A revision after the first one, or a first one that is not by the charger, is recorded with its author and note. The
    state before it is recorded as the charger's, unless it is recorded already.
    """
    closed = replace(closed, revision=before.revision + 1)
    work.put(closed)
    if before.revision and not before.open:
        work.add(revision_of(before, CHARGER, None, before.stop_received_at or work.now))
    if before.revision or author != CHARGER:
        work.add(revision_of(closed, author, note, work.now))
    accounts.settle(work, closed, charge=closed.billing != HELD)
    work.emit(closed.charger_id, events.completed(closed))
    work.emit(closed.charger_id, events.bill(closed, cost))
    return closed


def revision_of(
    transaction: Transaction, author: str, note: str | None, recorded_at: datetime
) -> TransactionRevision:
    """Return the revision at which a transaction is, as a record."""
    return TransactionRevision(
        transaction_id=transaction.id,
        revision=transaction.revision,
        recorded_at=recorded_at,
        author=author,
        note=note,
        state=BilledState(**{name: getattr(transaction, name) for name in BilledState.__struct_fields__}),
    )


def _start_wh(transaction: Transaction, register: SessionRegister) -> int:
    """Return the register at the start: the reported one, or what the readings show where there was none."""
    begun = transaction.register
    if begun is not None and begun.start_wh is None and register.start_wh is not None:
        return register.start_wh
    return transaction.meter_start_wh


def priced(
    work: Work, closed: Transaction, began_at: datetime, ended_at: datetime
) -> tuple[Transaction, Cost]:
    """Return an ended transaction with its price, which is for the time from `began_at` to `ended_at`."""
    energy_wh = closed.energy_wh or 0
    timeline = session_timeline.closed_timeline(
        work, closed, started_at=began_at, ended_at=ended_at, energy_wh=energy_wh
    )
    cost = session_cost(closed.tariff, energy_wh, closed.duration_s or Decimal(0), timeline)
    bill = None if timeline is None else cost.bill
    return replace(closed, cost_minor=cost.amount_minor, cost=cost.amount, bill=bill), cost


def _free_connector(work: Work, closed: Transaction) -> None:
    """Keep the register at the end on the connector, for the session that follows, and no power."""
    running = work.open_transaction(closed.charger_id, closed.connector_id)
    connector = work.connector(closed.charger_id, closed.connector_id)
    newer = connector.reading_transaction_id is not None and connector.reading_transaction_id > closed.id
    if running is not None or newer or closed.register is None:
        return
    work.put(after_session(connector, closed))


def after_session(connector: Connector, closed: Transaction) -> Connector:
    """Return the connector as a session leaves it: with the register at its end and no power."""
    register = closed.register
    assert register is not None
    return replace(
        connector,
        reading_transaction_id=closed.id,
        energy_wh=register.last.wh,
        power_w=None if connector.power_w is None else 0,
        register=register,
    )
