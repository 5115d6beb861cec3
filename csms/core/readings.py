"""Meter readings: each is stored once, published once, and kept as the newest of its connector."""

from collections.abc import Sequence
from datetime import datetime
from hashlib import sha256

import msgspec
from msgspec.structs import replace

from csms.core import events, reports
from csms.core.clocks import proves_older
from csms.core.records import DeviationCount, StoredReading, Transaction
from csms.core.text import storable
from csms.core.units import Measured, SampleDeviation, measure
from csms.core.work import Work

_encode = msgspec.json.Encoder().encode


def digest_of(samples: bytes) -> bytes:
    """Return what identifies a reading beside its time: eight bytes of SHA-256 over its samples as JSON."""
    return sha256(samples).digest()[:8]


def store_readings(
    work: Work,
    charger_id: str,
    connector_id: int,
    transaction: Transaction | None,
    readings: Sequence[reports.Reading],
    *,
    published: bool = True,
) -> None:
    """Store each new reading and publish it. One without a usable sample is stored only."""
    for reading in readings:
        sampled_at = reading.at or work.now
        samples = _encode(reading.samples)
        digest = digest_of(samples)
        key = (charger_id, connector_id, sampled_at, digest)
        if key in work.known_readings:
            continue
        work.add_known_reading(key)
        measured = measure(reading.samples)
        work.add(
            StoredReading(
                charger_id=charger_id,
                connector_id=connector_id,
                transaction_id=None if transaction is None else transaction.id,
                sampled_at=sampled_at,
                received_at=work.now,
                digest=digest,
                energy_wh=measured.energy_wh,
                power_w=measured.power_w,
                soc_percent=measured.soc_percent,
                samples=samples.decode(),
            )
        )
        _update_connector(work, charger_id, connector_id, transaction, sampled_at, measured)
        if measured.deviations:
            _count_deviations(work, charger_id, measured.deviations)
        if measured.measurands and published:
            work.emit(
                charger_id,
                events.meter_reading(charger_id, connector_id, transaction, sampled_at, measured, digest),
            )


def _count_deviations(work: Work, charger_id: str, deviations: Sequence[SampleDeviation]) -> None:
    """Count what was tolerated in the samples of one reading, each kind with its first example."""
    counted: dict[tuple[str, str], list[str]] = {}
    for deviation in deviations:
        counted.setdefault((deviation.kind, deviation.field), []).append(deviation.example)
    for (kind, field), examples in counted.items():
        work.add(
            DeviationCount(
                charger_id=charger_id,
                action="MeterValues",
                field=field,
                kind=kind,
                detail=storable(examples[0])[:200],
                count=len(examples),
                last_at=work.now,
            )
        )


def _update_connector(
    work: Work,
    charger_id: str,
    connector_id: int,
    transaction: Transaction | None,
    sampled_at: datetime,
    measured: Measured,
) -> None:
    """Keep the newest reading of the connector, for inferred stops and the console.

    Readings of an ended transaction, such as those sent with its stop, do not change it, nor do readings older than
    the newest. A reading without a transaction counts for the running one: it is the same register.
    """
    before = work.connector(charger_id, connector_id)
    newest_at = sampled_at if before.newest_reading_at is None else max(sampled_at, before.newest_reading_at)
    if transaction is None:
        transaction = work.open_transaction(charger_id, connector_id)
    transaction_id = None if transaction is None else transaction.id
    same = before.reading_transaction_id == transaction_id
    closed = transaction is not None and not transaction.open
    late = same and before.reading_at is not None and proves_older(sampled_at, before.reading_at, work.now)
    if closed or late:
        if newest_at != before.newest_reading_at:
            work.put(replace(before, newest_reading_at=newest_at))
        return
    energy_wh, power_w, soc_percent = measured.energy_wh, measured.power_w, measured.soc_percent
    if same:
        energy_wh = before.energy_wh if energy_wh is None else energy_wh
        power_w = before.power_w if power_w is None else power_w
        soc_percent = before.soc_percent if soc_percent is None else soc_percent
    work.put(
        replace(
            before,
            reading_transaction_id=transaction_id,
            reading_at=sampled_at,
            energy_wh=energy_wh,
            power_w=power_w,
            soc_percent=soc_percent,
            newest_reading_at=newest_at,
        )
    )
