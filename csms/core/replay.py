"""Replays an ended transaction from what is stored of it: its readings in the order of arrival, its start, its stop.

The replay runs the decisions of the ledger itself (`store_readings`, `concluded`) on rows in memory, so there is no second way
to a bill. Nothing of the stored bill goes into it but what the ledger cannot know again: the limits of the charger and the
connector's register before the session, which the session's register keeps.
"""

from collections.abc import Iterable
from datetime import datetime
from typing import Final

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from csms.core import evidence, reports, session_register
from csms.core.attribution import current_register
from csms.core.clocks import accounting_time, is_suspect
from csms.core.closing import after_session, concluded, reopen
from csms.core.evidence import METER_STOP, NO_READING, SessionEnd
from csms.core.presence import rescale_registers
from csms.core.pricing import Cost
from csms.core.readings import LATE, NAMED, UNCOUNTED, store_readings
from csms.core.records import Charger, Connector, StoredReading, Transaction
from csms.core.session_register import NO_METER_START, SessionRegister
from csms.core.transactions import lost_power_at
from csms.core.usage import Evidence
from csms.core.work import Policy, Work

TRANSACTION_ID_INFERRED: Final = "transaction_id_inferred"
# What the evidence decides. Other anomalies are given: by an adapter, or by a reservation.
DECIDED: Final = frozenset(
    {
        session_register.NO_METER_START,
        session_register.METER_START_REPLACED,
        session_register.REGISTER_OVERLAP,
        session_register.REGISTER_GAP,
        session_register.REGISTER_RESET,
        session_register.REGISTER_WRAPPED,
        session_register.REGISTER_JUMPED,
        session_register.SESSION_REGISTER,
        session_register.PHASES_REPEAT_TOTAL,
        session_register.IMPLAUSIBLE_READING,
        evidence.NO_METER_STOP,
        evidence.METER_DECREASED,
        evidence.IMPLAUSIBLE_METER_STOP,
        evidence.ENERGY_EXCEEDS_POWER,
        evidence.ENERGY_BELOW_POWER,
        evidence.CLOCK_CHANGED,
    }
)
_CONTRADICTED: Final = frozenset({evidence.METER_DECREASED, evidence.IMPLAUSIBLE_METER_STOP})
_decode_samples = msgspec.json.Decoder(list[reports.SampledValue]).decode


class SessionSources(Struct, frozen=True, kw_only=True):
    """What is stored about a transaction beside its row and its readings.

    `start` and `stop`: its StartTransaction and StopTransaction as reports, None if their frames are not stored.
    `adapter_ends`: its adapter may have reported an end that it did not see (a bridge). `timeline`: what its price depends
    on. `booted_at`, `status_at`: the last boot, and the receipt of the connector's last status, before the end.
    """

    start: reports.Start | None = None
    stop: reports.Stop | None = None
    adapter_ends: bool = False
    timeline: Evidence = Evidence()
    booted_at: datetime | None = None
    status_at: datetime | None = None
    max_power_w: int | None = None


def clocks_disagree(ended: Transaction) -> bool:
    """Return whether the last boot and status may count, because the charger's clock was wrong at one end."""
    stopped_at, received_at = ended.stopped_at, ended.stop_received_at
    if stopped_at is None or received_at is None or ended.register is None:
        return False
    end = SessionEnd(meter_stop_wh=None, stopped_at=stopped_at, received_at=received_at)
    return evidence.CLOCK_CHANGED in ended.anomalies or evidence.contradictory(
        ended.register, end, ended.started_at, ended.start_received_at
    )


def replayed(
    ended: Transaction, readings: Iterable[StoredReading], sources: SessionSources, policy: Policy
) -> tuple[Transaction, Cost]:
    """Return an ended transaction as the ledger would book it from its evidence, with its price."""
    received_at = ended.stop_received_at or ended.stopped_at
    assert received_at is not None
    work = _work(ended, sources, policy)
    begun = _begun(work, ended, sources)
    scale, scaled_at = _scale(ended)
    for reading in readings:
        if scaled_at is not None and reading.received_at >= scaled_at:
            _rescale(work, ended.charger_id, scale, scaled_at)
            scaled_at = None
        if reading.weight != UNCOUNTED:
            _read(work, ended.id, reading)
    if scaled_at is not None:
        _rescale(work, ended.charger_id, scale, scaled_at)
    work.added.clear()  # the timeline has them
    work.session_evidence[ended.id] = sources.timeline
    work.now = received_at
    running = work.transactions[begun.id]
    register = current_register(work, running)
    stop = sources.stop or _stop_of(ended, register, adapter_ends=sources.adapter_ends)
    anomalies = tuple(word for word in ended.anomalies if word not in DECIDED | set(register.start_anomalies))
    if sources.stop is not None:
        anomalies = tuple(word for word in anomalies if word != TRANSACTION_ID_INFERRED)
        if sources.stop.transaction_id != ended.id:
            anomalies = (TRANSACTION_ID_INFERRED, *anomalies)
    stopped_at = stop.at or received_at
    end = SessionEnd(
        meter_stop_wh=stop.meter_wh,
        stopped_at=stopped_at,
        received_at=received_at,
        inferred=stop.inferred,
        session_register=stop.session_register,
        lost_power_at=None if stop.inferred else lost_power_at(work, stop, running),
    )
    return concluded(work, running, end, reason=stop.reason, id_tag=stop.id_tag, anomalies=anomalies)


def _scale(ended: Transaction) -> tuple[int, datetime | None]:
    """Return what the registers of before a moment were multiplied by then, and that moment; None: there was none."""
    kept = ended.register
    return (1, None) if kept is None else (kept.scale, kept.scaled_at)


def _rescale(work: Work, charger_id: str, scale: int, scaled_at: datetime) -> None:
    work.now = scaled_at
    rescale_registers(work, charger_id, scale)


def _work(ended: Transaction, sources: SessionSources, policy: Policy) -> Work:
    work = Work(ended.start_received_at, policy, numbers=iter(()), transaction_ids=iter(()))
    work.load(Charger(id=ended.charger_id, booted_at=sources.booted_at))
    connector = Connector(charger_id=ended.charger_id, connector_id=ended.connector_id)
    work.load(replace(connector, status_recorded_at=sources.status_at))
    return work


def _begun(work: Work, ended: Transaction, sources: SessionSources) -> Transaction:
    """Return the transaction as it began, with its register at the start."""
    start, kept = sources.start, ended.register
    marks = () if kept is None else kept.start_anomalies
    scale, _ = _scale(ended)
    if start is not None and scale == 1:
        meter_wh = start.meter_wh
    else:
        # The frame does not show by which scale its register was read.
        meter_wh = None if NO_METER_START in marks else ended.meter_start_wh // scale
    started_at = ended.started_at if start is None else start.at or ended.start_received_at
    if kept is None:
        given = tuple(word for word in ended.anomalies if word not in DECIDED)
        most_w, before_wh = sources.max_power_w or work.policy.max_power_w, None
    else:
        given, most_w = marks, kept.max_power_w
        before_wh = None if kept.before_wh is None else kept.before_wh // scale
    register = session_register.begin(
        meter_wh,
        started_at,
        ended.start_received_at,
        max_power_w=most_w,
        before_wh=before_wh,
        anomalies=given,
        ended_before=None if kept is None else kept.ended_before,
    )
    if register.start_wh is None and before_wh is None and kept is not None and not kept.readings:
        # The connector's register, of sessions that each began at 0: it is in no other field.
        segment_wh = kept.segment_wh // scale
        register = replace(register, segment_wh=segment_wh, last=replace(register.last, wh=segment_wh))
    if start is None:
        reported_wh = ended.meter_start_wh // scale
    else:
        reported_wh = register.last.wh if meter_wh is None else meter_wh
    begun = replace(
        reopen(work, ended),
        connector_id=ended.connector_id if start is None else start.connector_id,
        id_tag=ended.id_tag if start is None else start.id_tag,
        meter_start_wh=reported_wh,
        started_at=started_at,
        clock_suspect=is_suspect(started_at, ended.start_received_at),
        accounting_at=accounting_time(started_at, ended.start_received_at),
        anomalies=register.anomalies,
        register=register,
    )
    work.put(begun)
    return begun


def _read(work: Work, transaction_id: int, reading: StoredReading) -> None:
    """Let a reading count as it did when it arrived. Of a reading without a weight only its transaction is known."""
    work.now = reading.received_at
    running = work.transactions[transaction_id]
    if reading.weight == LATE and running.open:
        running = _ended_for_now(work, running)
    elif reading.weight != LATE and not running.open:
        running = reopen(work, running)
    named = reading.transaction_id is not None
    store_readings(
        work,
        running.charger_id,
        running.connector_id,
        running if named else None,
        [reports.Reading(at=reading.sampled_at, samples=_decode_samples(reading.samples))],
        published=False,
        names_session=named and reading.weight in {None, NAMED, LATE},
    )


def _ended_for_now(work: Work, running: Transaction) -> Transaction:
    """End a transaction as inferred, without a price: its readings go on to count, as those of an ended one."""
    paused = replace(
        running, stopped_at=work.now, inferred=True, register=current_register(work, running), billing=None
    )
    connector = work.connector(running.charger_id, running.connector_id)
    work.put(paused)
    work.put(after_session(connector, paused))
    return paused


def _stop_of(ended: Transaction, register: SessionRegister, *, adapter_ends: bool) -> reports.Stop:
    """Return the stop that the stored figures say was reported, where its frame is not stored."""
    reported = ended.energy_source == METER_STOP or not _CONTRADICTED.isdisjoint(ended.anomalies)
    if ended.energy_source == NO_READING and evidence.NO_METER_STOP not in ended.anomalies:
        reported = True
    if ended.inferred:
        # csms itself knows no register at the end; an adapter may.
        reported = adapter_ends and ended.meter_stop_wh != register.last.wh
    return reports.Stop(
        charger_id=ended.charger_id,
        transaction_id=ended.id,
        meter_wh=ended.meter_stop_wh if reported else None,
        at=ended.stopped_at,
        reason=ended.stop_reason or "Local",
        id_tag=ended.stop_id_tag,
        session_register=session_register.SESSION_REGISTER in ended.anomalies,
        inferred=ended.inferred,
    )
