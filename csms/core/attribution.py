"""Attribution: which transaction a start, a reading or a stop belongs to.

In this order: the transaction that it names, then its idTag, the connector, the order of arrival, and whether its
register fits.
"""

from collections.abc import Sequence
from datetime import timedelta

from csms.core import reports, session_register
from csms.core.clocks import is_suspect
from csms.core.evidence import IMPLAUSIBLE_METER_STOP, SessionEnd, conclude
from csms.core.records import Transaction
from csms.core.session_register import SessionRegister
from csms.core.units import measure
from csms.core.work import Work, tag_key

_SAME_STOP = timedelta(minutes=1)  # a charger that sends a stop again may stamp it anew


def find_transaction(work: Work, charger_id: str, transaction_id: int | None) -> Transaction | None:
    """Return the transaction of that id if it is the charger's."""
    transaction = work.transactions.get(transaction_id) if transaction_id is not None else None
    return transaction if transaction is not None and transaction.charger_id == charger_id else None


def find_stopped(work: Work, r: reports.Stop) -> Transaction | None:
    """Return the transaction that a stop names. With `trusted_id` False not one that ended in another way."""
    transaction = find_transaction(work, r.charger_id, r.transaction_id)
    if transaction is None or r.trusted_id or transaction.open or transaction.inferred:
        return transaction
    return None if differs(r, transaction) else transaction


def differs(r: reports.Stop, closed: Transaction) -> bool:
    """Return whether a stop contradicts the end that is booked: in its register, or in its time by more than a minute."""
    return (r.meter_wh is not None and r.meter_wh != closed.meter_stop_wh) or (
        r.at is not None and closed.stopped_at is not None and abs(r.at - closed.stopped_at) > _SAME_STOP
    )


def is_past(work: Work, r: reports.Start, running: Transaction) -> bool:
    """Return whether a start is older than the session that runs on its connector: it waited in the charger.

    Its time must be before the running session by both clocks, and its register not one that the running session can
    have reached. A charger whose clock was set back fails the first, one whose running session lost its stop the second.
    """
    if r.at is None or is_suspect(r.at, running.start_received_at):
        return False
    started_at = running.start_received_at if running.clock_suspect else running.started_at
    if r.at >= min(started_at, running.start_received_at):
        return False
    if r.repair is not None:
        return True
    return r.meter_wh is not None and (
        r.meter_wh <= running.meter_start_wh
        or not session_register.end_fits(current_register(work, running), r.meter_wh, work.now, work.now)
    )


def current_register(work: Work, transaction: Transaction) -> SessionRegister:
    """Return the register of a session as believed so far: the connector keeps that of the running one."""
    connector = work.connector(transaction.charger_id, transaction.connector_id)
    own = connector.reading_transaction_id == transaction.id
    if transaction.open and own and connector.register is not None:
        return connector.register
    if transaction.register is not None:
        return transaction.register
    # It was stored by a release that kept only the last register.
    begun = session_register.begin(
        transaction.meter_start_wh,
        transaction.started_at,
        transaction.start_received_at,
        max_power_w=work.policy.max_power_w,
        anomalies=transaction.anomalies,
    )
    last_wh = connector.energy_wh if own and transaction.open else transaction.meter_stop_wh
    if last_wh is None or transaction.energy_source == "none":
        return begun
    at = connector.reading_at if own and transaction.open else transaction.stopped_at
    return session_register.advance(begun, last_wh, at or transaction.started_at, work.now)


def stopped_by_evidence(work: Work, r: reports.Stop) -> Transaction | None:
    """Return the open transaction that a stop with an unusable id (0, -1, unknown) ends, if only one fits.

    Its idTag decides, or the parent of it; a stop by another idTag fits no transaction. Then the times and the registers.
    """
    candidates = [
        t
        for t in work.open_transactions(r.charger_id)
        if (r.meter_wh is None or t.meter_start_wh <= r.meter_wh)
        and (r.at is None or t.clock_suspect or is_suspect(r.at, work.now) or t.started_at <= r.at)
    ]
    if r.id_tag:
        candidates = _of_tag(work, r.id_tag, candidates)
    if len(candidates) > 1 and r.meter_wh is not None:
        at, register_wh = r.at or work.now, r.meter_wh
        candidates = [
            t
            for t in candidates
            if session_register.end_fits(current_register(work, t), register_wh, at, work.now)
        ]
    return candidates[0] if len(candidates) == 1 and _can_end(work, r, candidates[0]) else None


def _can_end(work: Work, r: reports.Stop, running: Transaction) -> bool:
    """Return whether the register of a stop can be the end of that session: else it may be of another connector."""
    end = SessionEnd(meter_stop_wh=r.meter_wh, stopped_at=r.at or work.now, received_at=work.now)
    found = conclude(
        current_register(work, running),
        end,
        started_at=running.started_at,
        start_received_at=running.start_received_at,
    )
    return r.repair is not None or IMPLAUSIBLE_METER_STOP not in found.held_because


def _of_tag(work: Work, id_tag: str, candidates: Sequence[Transaction]) -> list[Transaction]:
    same = [t for t in candidates if tag_key(t.id_tag) == tag_key(id_tag)]
    if same:
        return same
    tag = work.tag(id_tag)
    parent = None if tag is None else tag.parent_id_tag
    if parent is None:
        return [t for t in candidates if t.parent_id_tag and tag_key(t.parent_id_tag) == tag_key(id_tag)]
    return [
        t
        for t in candidates
        if tag_key(parent) in {tag_key(t.id_tag), tag_key(t.parent_id_tag) if t.parent_id_tag else None}
    ]


def belong_to_running(
    work: Work, running: Transaction, ended: Transaction, readings: Sequence[reports.Reading]
) -> bool:
    """Return whether readings that name an ended transaction were taken in the running one (a stale id).

    Their times must be in the running one, and their registers must fit it. Where the running one began below the end of
    the other, it is the older one of both, and what goes on from that end is not its own.
    """
    ended_at, register = ended.stopped_at, current_register(work, running)
    its_own = current_register(work, ended)
    older = running.meter_start_wh < its_own.last.wh - session_register.NO_FALL_WH
    return ended_at is not None and any(
        reading.at is not None
        and reading.at > ended_at
        and reading.at >= running.started_at
        and _fits(work, register, reading)
        and not (older and _fits(work, its_own, reading))
        for reading in readings
    )


def _fits(work: Work, register: SessionRegister, reading: reports.Reading) -> bool:
    value_wh = measure(reading.samples).energy_wh
    return value_wh is None or session_register.end_fits(register, value_wh, reading.at or work.now, work.now)
