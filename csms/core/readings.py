"""Meter readings: stored once, told once, and remembered as the connector's last."""

from collections.abc import Sequence
from datetime import datetime
from hashlib import sha256

import msgspec
from msgspec.structs import replace

from csms.core import events, reports
from csms.core.clocks import proves_older
from csms.core.records import DeviationCount, StoredReading, Transaction
from csms.core.text import storable
from csms.core.units import Measured, measure, number
from csms.core.work import Work

_encode = msgspec.json.Encoder().encode


def digest_of(samples: bytes) -> bytes:
    """What makes a reading itself: eight bytes of SHA-256 over its samples as JSON."""
    return sha256(samples).digest()[:8]


def take_readings(
    work: Work,
    charger_id: str,
    connector_id: int,
    transaction: Transaction | None,
    readings: Sequence[reports.Reading],
    *,
    told: bool = True,
) -> None:
    """Store and publish each reading that is new. One without a usable sample is stored, not published."""
    for reading in readings:
        sampled_at = reading.at or work.now
        samples = _encode(reading.samples)
        digest = digest_of(samples)
        key = (charger_id, connector_id, sampled_at, digest)
        if key in work.readings_known:
            continue
        work.know_reading(key)
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
        _remember(work, charger_id, connector_id, transaction, sampled_at, measured)
        if measured.skipped:
            work.add(_left_out(work, charger_id, reading, measured.skipped))
        if measured.measurands and told:
            work.emit(
                charger_id,
                events.meter_reading(charger_id, connector_id, transaction, sampled_at, measured, digest),
            )


def _left_out(work: Work, charger_id: str, reading: reports.Reading, count: int) -> DeviationCount:
    """Samples that are no numbers, counted with one of them."""
    odd = (s.value for s in reading.samples if s.format != "SignedData" and number(s.value) is None)
    return DeviationCount(
        charger_id=charger_id,
        action="MeterValues",
        field="sampledValue.value",
        kind="not_a_number",
        detail=storable(next(odd, ""))[:200],
        count=count,
        last_at=work.now,
    )


def _remember(
    work: Work,
    charger_id: str,
    connector_id: int,
    transaction: Transaction | None,
    sampled_at: datetime,
    measured: Measured,
) -> None:
    """Keep the newest reading of the connector: what an inferred stop and the console go by.

    Closing values that come after the stop do not revive the session, nor do late ones of an old session.
    One that names no transaction is evidence for the running one all the same: it is the same register.
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
