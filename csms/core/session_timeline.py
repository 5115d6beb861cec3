"""From the records to the timeline of a session: whose timeline a batch will need, what to load for it, and by whose clock.

Only for tariffs that go by it (`Tariff.needs_timeline`): all others cost nothing here.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from msgspec import Struct

from csms.core import reports
from csms.core.bands import band_boundaries
from csms.core.records import StoredReading, StoredStatus, Transaction
from csms.core.usage import Evidence, SessionTimeline
from csms.core.work import Work

LONGEST_SESSION = timedelta(days=30)  # a session that lasts longer has a clock that was set in mid-session
_AHEAD = timedelta(hours=24)  # a charger's clock may be ahead of ours by so much and be believed
_NONE = timedelta(0)
_STEPS = 1000


class ReadingsWindow(Struct, frozen=True, kw_only=True):
    """What to load for a session: readings and statuses of a connector, times by the charger's clock.

    Of the readings in each part between two `boundaries`, and in each `step_s` of it, the first and the last are enough:
    what lies between them changes no band's energy, and the end of charging by less than a step. That bounds them.
    """

    transaction_id: int
    charger_id: str
    connector_id: int
    since: datetime
    until: datetime
    received_since: datetime
    boundaries: tuple[datetime, ...]
    step_s: float
    statuses: bool


def readings_window(transaction: Transaction, until: datetime) -> ReadingsWindow:
    """What there is to know of a session up to a moment (the charger's clock)."""
    since, shift = transaction.started_at, _shift(transaction)
    until = max(since, min(until, since + LONGEST_SESSION))
    return ReadingsWindow(
        transaction_id=transaction.id,
        charger_id=transaction.charger_id,
        connector_id=transaction.connector_id,
        since=since,
        until=until,
        received_since=transaction.start_received_at,
        boundaries=tuple(
            edge - shift for edge in band_boundaries(transaction.tariff, since + shift, until + shift)
        ),
        step_s=max(1.0, (until - since).total_seconds() / _STEPS),
        statuses=transaction.tariff.charges("idle"),
    )


def running_window(transaction: Transaction, now: datetime) -> ReadingsWindow:
    """What there is to know of a session that runs."""
    return readings_window(
        transaction, transaction.started_at + LONGEST_SESSION if transaction.clock_suspect else now + _AHEAD
    )


def closing_windows(work: Work, batch: Sequence[reports.Report[Any]]) -> list[ReadingsWindow]:
    """Of the transactions that this batch may end, those whose price depends on their timeline."""
    found: dict[int, datetime] = {}
    for report in batch:
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
    return [
        readings_window(t, t.started_at + LONGEST_SESSION if t.clock_suspect else until)
        for t, until in ((work.transactions[number], until) for number, until in found.items())
    ]


def closed_timeline(
    work: Work,
    transaction: Transaction,
    *,
    started_at: datetime,
    ended_at: datetime,
    energy_wh: int,
    meter_start_wh: int,
) -> SessionTimeline | None:
    """The timeline of a session that ends now, from what was loaded and what this batch has added to it.

    `started_at`: the transaction's own, or ours where the charger's clock was set in between: then no reading's time
    can be placed, and the energy counts as taken evenly. None for a tariff that does not need it.
    """
    if not transaction.tariff.needs_timeline:
        return None
    if started_at != transaction.started_at:
        return SessionTimeline(started_at=started_at, ended_at=ended_at, energy_wh=energy_wh)
    loaded = work.session_evidence.get(transaction.id, Evidence())
    readings: list[StoredReading] = work.added.get(StoredReading, [])
    statuses: list[StoredStatus] = work.added.get(StoredStatus, [])
    place = transaction.charger_id, transaction.connector_id
    evidence = Evidence(
        registers=loaded.registers
        + tuple(
            (r.sampled_at, r.energy_wh)
            for r in readings
            if (r.charger_id, r.connector_id) == place
            and r.energy_wh is not None
            and r.transaction_id in {None, transaction.id}
        ),
        statuses=loaded.statuses
        + tuple(
            (s.reported_at or s.recorded_at, s.status)
            for s in statuses
            if (s.charger_id, s.connector_id) == place
        ),
    )
    return _timeline(transaction, ended_at, energy_wh, meter_start_wh, evidence, None)


def running_timeline(
    transaction: Transaction, until: datetime, energy_wh: int, evidence: Evidence, read_at: datetime | None
) -> SessionTimeline:
    """The timeline of a running session. It is idle at most until its last reading: what comes then is not known."""
    idle_until = transaction.started_at if read_at is None else read_at
    return _timeline(transaction, until, energy_wh, transaction.meter_start_wh, evidence, idle_until)


def _timeline(
    transaction: Transaction,
    ended_at: datetime,
    energy_wh: int,
    meter_start_wh: int,
    evidence: Evidence,
    idle_until: datetime | None,
) -> SessionTimeline:
    """With all times moved to where they were by our clock, if the charger's was wrong from the start."""
    shift = _shift(transaction)
    if shift:
        evidence = Evidence(
            registers=tuple((at + shift, energy_wh) for at, energy_wh in evidence.registers),
            statuses=tuple((at + shift, status) for at, status in evidence.statuses),
        )
    return SessionTimeline(
        started_at=transaction.started_at + shift,
        ended_at=ended_at + shift,
        energy_wh=energy_wh,
        meter_start_wh=meter_start_wh,
        evidence=evidence,
        idle_until=None if idle_until is None else idle_until + shift,
    )


def _shift(transaction: Transaction) -> timedelta:
    return transaction.start_received_at - transaction.started_at if transaction.clock_suspect else _NONE
