"""The audit of stored bills: every ended transaction of a period is replayed from what is stored of it."""

from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

import msgspec
from msgspec import Struct
from sqlalchemy.ext.asyncio import AsyncEngine

from csms.core import reports, session_timeline
from csms.core.audit import (
    AuditedTransaction,
    AuditSources,
    audit_transaction,
    compared,
    evidence_differences,
)
from csms.core.operator_reports import Rebook
from csms.core.rebooking import proposed
from csms.core.records import Charger, StoredReading, Transaction
from csms.core.replay import clocks_disagree, replayed
from csms.core.tariffs import Tariff
from csms.core.usage import Evidence
from csms.core.work import Policy
from csms.db import audit as stored
from csms.db import readings_window
from csms.db.driver import DriverConnection
from csms.ocpp import call_handlers, messages
from csms.ocpp.quirks import quirks_for
from csms.ocpp.time_zones import time_zone

START, STOP, BOOT = "StartTransaction", "StopTransaction", "BootNotification"
_WAITED = timedelta(minutes=10)  # for Postgres, between a frame and its commit
_ROUNDS = 4


class AuditCounts(Struct, kw_only=True):
    """How many transactions there are in a period and what the audit of those so far has found."""

    ended: int
    open: int
    audited: int = 0
    differing: int = 0
    differences: int = 0
    older: int = 0
    by_frames: int = 0
    by_readings: int = 0
    by_figures: int = 0
    booked: int = 0

    def add(self, one: AuditedTransaction) -> None:
        self.audited += 1
        self.differences += len(one.differences)
        self.differing += bool(one.differences)
        self.older += one.older
        self.by_frames += one.checked_by == "frames"
        self.by_readings += one.checked_by == "readings"
        self.by_figures += one.checked_by == "figures"


async def counts(engine: AsyncEngine, period: stored.AuditPeriod) -> AuditCounts:
    """Count the transactions of a period before they are audited."""
    async with stored.snapshot(engine) as db:
        ended, running = await stored.count(db, period)
    return AuditCounts(ended=ended, open=running)


async def audited(
    engine: AsyncEngine, period: stored.AuditPeriod, policy: Policy
) -> AsyncIterator[AuditedTransaction]:
    """Audit the ended transactions of a period in the order of their ids."""
    after_id = 0
    while True:
        async with stored.snapshot(engine) as db:
            page = await stored.transactions_after(db, period, after_id)
            found = await _audited_page(db, page, policy)
        if not page:
            return
        for one in found:
            yield one
        after_id = page[-1].id


async def audited_again(
    engine: AsyncEngine, ids: Sequence[int], policy: Policy
) -> AsyncIterator[AuditedTransaction]:
    """Audit those of these transactions that are ended."""
    for at in range(0, len(ids), stored.PAGE):
        async with stored.snapshot(engine) as db:
            page = await stored.named(db, ids[at : at + stored.PAGE])
            found = await _audited_page(db, page, policy)
        for one in found:
            yield one


async def proposal(engine: AsyncEngine, transaction_id: int, policy: Policy) -> Rebook | str | None:
    """Return the correction of a transaction that differs, or the sentence why there is none. None: it does not differ.

    A false time or connector has let the audit look for evidence in the wrong place: it is looked for again at the place
    that the evidence found has shown, until that leads to the same bill.
    """
    async with stored.snapshot(engine) as db:
        page = await stored.named(db, [transaction_id])
        if not page:
            return None
        ended = page[0]
        readings, sources = await _evidence(db, ended, policy)
        found = compared(ended, readings, sources, policy)
        if not (found.figures or found.recorded or found.published or found.settled):
            return None
        shown = None
        candidate = ended
        for _ in range(_ROUNDS if found.basis == "evidence" else 0):
            replay = replayed(candidate, readings, sources, policy)
            if not evidence_differences(candidate, replay[0], sources):
                shown = replay
                break
            candidate = replay[0]
            readings, sources = await _evidence(db, candidate, policy)
        return proposed(ended, found, sources, shown, await stored.rental_debits(db, ended.id))


async def _audited_page(
    db: DriverConnection, page: Sequence[Transaction], policy: Policy
) -> list[AuditedTransaction]:
    if not page:
        return []
    sources = await _sources(db, page, policy)
    return [
        audit_transaction(one, readings, sources[one.id], policy)
        async for one, readings in _with_readings(db, page)
    ]


async def _evidence(
    db: DriverConnection, one: Transaction, policy: Policy
) -> tuple[Sequence[StoredReading], AuditSources]:
    sources = await _sources(db, [one], policy)
    (found,) = [readings async for _, readings in _with_readings(db, [one])]
    return found, sources[one.id]


async def _with_readings(
    db: DriverConnection, page: Sequence[Transaction]
) -> AsyncIterator[tuple[Transaction, list[StoredReading]]]:
    """Each transaction with its readings: those of one session at a time are in memory."""
    waiting = iter(page)
    current = next(waiting)
    own: list[StoredReading] = []
    async for number, reading in stored.readings(db, page):
        while number != current.id:
            yield current, own
            current, own = next(waiting), []
        own.append(reading)
    yield current, own
    for current in waiting:
        yield current, []


async def _sources(
    db: DriverConnection, page: Sequence[Transaction], policy: Policy
) -> dict[int, AuditSources]:
    """All that is stored about the transactions of a page, but their readings."""
    kept = await stored.kept(db)
    chargers = await stored.chargers(db, page)
    suspect = [t for t in page if clocks_disagree(t)]
    statuses = await stored.last_statuses(db, suspect)
    frames = await stored.frames(db, _frame_windows(page, suspect))
    terms = await stored.tariff_terms(db, page)
    revisions = await stored.newest_revisions(db, page)
    carriers = await stored.carriers(db, page, revisions)
    entries = await stored.entries(db, page)
    timelines = await readings_window.load(
        db, [session_timeline.closed_window(t) for t in page if t.tariff.needs_timeline]
    )
    found = {}
    for one in page:
        known = chargers.get(one.charger_id)
        charger = Charger(id=one.charger_id) if known is None else known.charger
        begun, own = one.start_received_at, frames.get(one.id, [])
        # A charger that was deleted since has lost its statuses, frames and events, also if it is registered again.
        forgotten = known is None or known.since > begun + _WAITED
        by_ocpp = charger.protocol.startswith("ocpp")
        revision, decided_by = revisions.get(one.id, (None, None))
        found[one.id] = AuditSources(
            start=_start(charger, one, own),
            stop=_stop(charger, one, own),
            adapter_ends=forgotten or not by_ocpp,
            timeline=timelines.get(one.id, Evidence()),
            booted_at=_booted_at(charger, one, own),
            status_at=statuses.get(one.id),
            max_power_w=charger.max_power_w,
            readings_kept=_since(kept.readings, begun),
            statuses_kept=not forgotten and _since(kept.statuses, begun),
            boots_known=not forgotten
            and (not _booted_since(charger, one) or (by_ocpp and _since(kept.messages, begun))),
            scaled=quirks_for(charger.vendor, charger.model, charger.firmware_version).energy_kwh_labelled_wh,
            terms=_terms(one, terms, policy),
            revision=revision,
            decided_by=decided_by,
            carriers=carriers.get(one.id, ()),
            entries_minor=entries.get(one.id),
        )
    return found


def _since(oldest: datetime | None, begun: datetime) -> bool:
    return oldest is None or begun >= oldest


def _booted_since(charger: Charger, ended: Transaction) -> bool:
    """Return whether the last boot that the charger's row knows of came after the transaction."""
    until = ended.stop_received_at
    return charger.booted_at is not None and (until is None or charger.booted_at > until)


def _terms(one: Transaction, terms: Mapping[tuple[str, int], Tariff], policy: Policy) -> Tariff | None:
    """Return the stored terms of the transaction's tariff. The one of the settings has the id of a stored one."""
    if one.tariff == policy.tariff.with_time_zone(one.tariff.time_zone or policy.time_zone):
        return None
    return terms.get((one.tariff.id, one.tariff.version))


def _frame_windows(page: Sequence[Transaction], suspect: Sequence[Transaction]) -> list[stored.FrameWindow]:
    def window(one: Transaction, action: str, since: datetime, until: datetime) -> stored.FrameWindow:
        return stored.FrameWindow(transaction=one, action=action, since=since, until=until)

    windows = []
    for one in page:
        begun, ended = one.start_received_at, one.stop_received_at or one.start_received_at
        windows.append(window(one, START, begun - _WAITED, begun + _WAITED))
        # The node that received the stop has taken the time of its commit after it: later stops are others.
        windows.append(window(one, STOP, ended - _WAITED, ended))
    for one in suspect:
        ended = one.stop_received_at or one.start_received_at
        windows.append(window(one, BOOT, one.start_received_at, ended))
    return windows


# --- frames as reports --------------------------------------------------------------------------------------------------


def _start(
    charger: Charger, transaction: Transaction, frames: Sequence[stored.StoredFrame]
) -> reports.Start | None:
    """The StartTransaction that was answered with the transaction's id."""
    calls: dict[str, Mapping[str, Any]] = {}
    for frame in frames:
        if frame.action != START:
            continue
        read = _read(frame)
        if not frame.outgoing and len(read) == 4:
            calls[str(read[1])] = {"payload": read[3], "frame": frame}
        elif frame.outgoing and len(read) == 3 and str(read[1]) in calls:
            answer = _decoded(read[2])
            if isinstance(answer, dict) and answer.get("transactionId") == transaction.id:
                call = calls[str(read[1])]
                report = _report(charger, START, str(read[1]), call["payload"], call["frame"].at)
                return report if isinstance(report, reports.Start) else None
    return None


def _stop(
    charger: Charger, transaction: Transaction, frames: Sequence[stored.StoredFrame]
) -> reports.Stop | None:
    """The last StopTransaction before the end that names the transaction, or the last one if none does."""
    found = None
    by_name = "transaction_id_inferred" not in transaction.anomalies
    for frame in frames:
        read = _read(frame) if frame.action == STOP and not frame.outgoing else ()
        if len(read) == 4:
            report = _report(charger, STOP, str(read[1]), read[3], frame.at)
            if isinstance(report, reports.Stop) and (report.transaction_id == transaction.id) == by_name:
                found = report
    return found


def _booted_at(
    charger: Charger, transaction: Transaction, frames: Sequence[stored.StoredFrame]
) -> datetime | None:
    """The last boot before the transaction's end, by its frame, or the charger's last one if that was before the end."""
    booted = [frame.at for frame in frames if frame.action == BOOT and not frame.outgoing]
    ended = transaction.stop_received_at
    if booted or ended is None or charger.booted_at is None or charger.booted_at > ended:
        return max(booted, default=None)
    return charger.booted_at


def _read(frame: stored.StoredFrame) -> Sequence[Any]:
    """The elements of a frame; the payload as it came."""
    try:
        read = msgspec.json.decode(frame.frame, type=list[msgspec.Raw])
    except (msgspec.DecodeError, UnicodeDecodeError):
        return ()
    return [bytes(part) if at >= len(read) - 1 else _decoded(part) for at, part in enumerate(read)]


def _decoded(part: Any) -> Any:
    try:
        return msgspec.json.decode(part)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None


def _report(charger: Charger, action: str, message_id: str, payload: bytes, at: datetime) -> object:
    """A frame as the report that it was, by the quirks and the time zone that are known of the charger now."""
    call = call_handlers.CallContext(
        charger.id,
        message_id,
        payload,
        at,
        quirks_for(charger.vendor, charger.model, charger.firmware_version),
    )
    decoded = messages.decode(action, payload, zone=time_zone(charger.time_zone))
    translate = call_handlers.CALL_HANDLERS[action].report
    if isinstance(decoded, messages.Unreadable) or translate is None:
        return None
    return translate(call, decoded.message)
