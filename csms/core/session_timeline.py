"""The timeline of a session: which sessions of a batch need one, what to load for it, and how to build it.

Only sessions whose tariff `needs_timeline` have one. Times are the charger's, moved to the clock of csms where the
charger's was wrong from the start of the session.
"""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from msgspec import Struct

from csms.core import reports, session_register
from csms.core.bands import band_boundaries
from csms.core.clocks import LONGEST_SESSION
from csms.core.operator_reports import Rebook, Revise
from csms.core.records import StoredReading, StoredStatus, Transaction
from csms.core.usage import Evidence, RegisterReading, SessionTimeline
from csms.core.work import Work

_ANY_POWER_W = 10**9  # of a session that an older release has begun
_AHEAD = timedelta(hours=24)  # by which a charger's clock may be ahead and is still trusted
_NO_SHIFT = timedelta(0)
_EVER = datetime(9999, 1, 1, tzinfo=UTC)
_STEPS = 1000


class ReadingsWindow(Struct, frozen=True, kw_only=True):
    """The readings and statuses of a connector to load for a session, `since` ≤ t ≤ `until` by the charger's clock.

    Of the readings between two `boundaries`, and within each `step_s` of that span, the first and the last suffice:
    those between them change no band's energy, and the end of charging by less than a step. This bounds their number.
    `statuses`: whether the statuses are needed too.
    """

    transaction_id: int
    charger_id: str
    connector_id: int
    since: datetime
    until: datetime
    received_since: datetime
    received_until: datetime
    boundaries: tuple[datetime, ...]
    step_s: float
    statuses: bool


def readings_window(
    transaction: Transaction, until: datetime, received_until: datetime = _EVER
) -> ReadingsWindow:
    """Return the window of a session up to `until` (the charger's clock)."""
    since, shift = transaction.started_at, _shift(transaction)
    longest = since + LONGEST_SESSION
    until = longest if transaction.clock_suspect else max(since, min(until, longest))
    return ReadingsWindow(
        transaction_id=transaction.id,
        charger_id=transaction.charger_id,
        connector_id=transaction.connector_id,
        since=since,
        until=until,
        received_since=transaction.start_received_at,
        received_until=received_until,
        boundaries=tuple(
            at - shift for at in band_boundaries(transaction.tariff, since + shift, until + shift)
        ),
        step_s=max(1.0, (until - since).total_seconds() / _STEPS),
        statuses=transaction.tariff.charges("idle"),
    )


def running_window(transaction: Transaction, now: datetime) -> ReadingsWindow:
    """Return the window of a running session."""
    return readings_window(transaction, now + _AHEAD)


def closed_window(transaction: Transaction) -> ReadingsWindow:
    """Return the window of an ended session: what had been received when it ended, as `closing_windows` had it."""
    stopped_at, received_at = transaction.stopped_at, transaction.stop_received_at
    assert stopped_at is not None
    received_at = received_at or stopped_at
    return readings_window(
        transaction, received_at + _AHEAD if transaction.inferred else stopped_at, received_at
    )


def closing_windows(work: Work, batch: Sequence[reports.Report[Any]]) -> list[ReadingsWindow]:
    """Return the windows of the transactions that this batch may end or revise and whose price depends on a timeline."""
    found: dict[int, datetime] = {}
    for report in batch:
        if isinstance(report, Revise):
            revised = work.transactions.get(report.transaction_id)
            if revised is not None and revised.tariff.needs_timeline:
                found[revised.id] = report.stopped_at or revised.stopped_at or work.now + _AHEAD
            continue
        if isinstance(report, Rebook):
            rebooked = work.transactions.get(report.transaction_id)
            if report.cost is None and rebooked is not None and rebooked.tariff.needs_timeline:
                found[rebooked.id] = report.after.stopped_at or work.now
            continue
        if not isinstance(report, reports.Stop | reports.Start | reports.Reconcile):
            continue
        until = (report.at if isinstance(report, reports.Stop) else None) or work.now + _AHEAD
        named = (
            None if isinstance(report, reports.Start) else work.transactions.get(report.transaction_id or 0)
        )
        candidates = work.open_transactions(report.charger_id)
        if named is not None and named.charger_id == report.charger_id:
            candidates.append(named)
        for transaction in candidates:
            if transaction.tariff.needs_timeline:
                found[transaction.id] = max(until, found.get(transaction.id, until))
    return [readings_window(work.transactions[number], until) for number, until in found.items()]


def closed_timeline(
    work: Work,
    transaction: Transaction,
    *,
    started_at: datetime,
    ended_at: datetime,
    energy_wh: int,
) -> SessionTimeline | None:
    """Return the timeline of a session that ends now, from the loaded evidence and what this batch has added.

    `started_at` differs from the transaction's where the charger's clock was set during the session: then the times
    of readings prove nothing, and the energy counts as drawn evenly. None: the tariff needs no timeline.
    """
    if not transaction.tariff.needs_timeline:
        return None
    if started_at != transaction.started_at:
        return SessionTimeline(started_at=started_at, ended_at=ended_at, energy_wh=energy_wh)
    loaded = work.session_evidence.get(transaction.id, Evidence())
    readings: list[StoredReading] = work.added.get(StoredReading, [])
    statuses: list[StoredStatus] = work.added.get(StoredStatus, [])
    connector = transaction.charger_id, transaction.connector_id
    evidence = Evidence(
        registers=loaded.registers
        + tuple(
            (r.sampled_at, r.energy_wh)
            for r in readings
            if (r.charger_id, r.connector_id) == connector
            and r.energy_wh is not None
            and r.transaction_id in {None, transaction.id}
        ),
        statuses=loaded.statuses
        + tuple(
            (s.reported_at or s.recorded_at, s.status)
            for s in statuses
            if (s.charger_id, s.connector_id) == connector
        ),
    )
    return _timeline(transaction, ended_at, energy_wh, evidence, None)


def running_timeline(
    transaction: Transaction, until: datetime, energy_wh: int, evidence: Evidence, read_at: datetime | None
) -> SessionTimeline:
    """Return the timeline of a running session. It counts as idle at most until its newest reading (`read_at`)."""
    idle_until = transaction.started_at if read_at is None else read_at
    return _timeline(transaction, until, energy_wh, evidence, idle_until)


def _timeline(
    transaction: Transaction,
    ended_at: datetime,
    energy_wh: int,
    evidence: Evidence,
    idle_until: datetime | None,
) -> SessionTimeline:
    """Build a timeline, with all times moved to the clock of csms if the charger's was wrong from the start."""
    shift = _shift(transaction)
    return SessionTimeline(
        started_at=transaction.started_at + shift,
        ended_at=ended_at + shift,
        energy_wh=energy_wh,
        evidence=Evidence(
            registers=tuple(
                (at + shift, drawn_wh) for at, drawn_wh in _drawn(transaction, evidence.registers)
            ),
            statuses=tuple((at + shift, status) for at, status in evidence.statuses),
        ),
        idle_until=None if idle_until is None else idle_until + shift,
    )


def _drawn(transaction: Transaction, registers: Sequence[RegisterReading]) -> Iterator[RegisterReading]:
    """Yield the session's energy at the times of its readings, as csms/core/session_register.py believes them."""
    begun = transaction.register
    register = session_register.begin(
        transaction.meter_start_wh if begun is None else begun.start_wh,
        transaction.started_at,
        transaction.started_at,
        max_power_w=_ANY_POWER_W if begun is None else begun.max_power_w,
        before_wh=None if begun is None else begun.before_wh,
    )
    values = sorted(registers)
    if begun is not None and begun.scaled_at is not None:
        values = [(at, wh * begun.scale if at < begun.scaled_at else wh) for at, wh in values]
    if transaction.stopped_at is not None and transaction.meter_stop_wh is not None:
        values.append((transaction.stopped_at, transaction.meter_stop_wh))
    for at, value_wh in values:
        before, register = register, session_register.advance(register, value_wh, at, at)
        if register.readings == before.readings:
            continue
        waiting = before.pending
        if waiting is not None and register.segment_wh != before.segment_wh:
            yield waiting.at, register.energy_wh - (value_wh - waiting.wh)
        yield at, register.energy_wh


def _shift(transaction: Transaction) -> timedelta:
    return transaction.start_received_at - transaction.started_at if transaction.clock_suspect else _NO_SHIFT
