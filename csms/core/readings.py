"""Meter readings: each is stored once, published once, and kept as the newest of its connector."""

from collections.abc import Sequence
from datetime import datetime
from hashlib import sha256

import msgspec
from msgspec import UnsetType
from msgspec.structs import replace

from csms.core import events, reported_power, reports, session_register
from csms.core.attribution import current_register
from csms.core.clocks import proves_older
from csms.core.records import Connector, DeviationCount, StoredReading, Transaction
from csms.core.reported_power import ReportedPower
from csms.core.sample_kinds import ENERGY_REGISTER, OUTLET
from csms.core.session_register import SessionRegister
from csms.core.text import storable
from csms.core.units import Measured, SampleDeviation, measure
from csms.core.work import Work

# How a reading counted for the register of a session when it arrived: for none; as one that names no session; as one
# that names it; after an end that was inferred. The audit replays a session by these.
UNCOUNTED, UNNAMED, NAMED, LATE = range(4)

_EQUAL_WH = 10  # registers of three phases that differ by less are one register

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
    names_session: bool = True,
) -> None:
    """Store each new reading and publish it. One without a usable sample is stored only.

    `names_session` False: the readings name another transaction or none, so they are weaker evidence of this one.
    """
    for reading in readings:
        sampled_at = reading.at or work.now
        samples = _encode(reading.samples)
        digest = digest_of(samples)
        key = (charger_id, connector_id, sampled_at, digest)
        if key in work.known_readings:
            continue
        work.add_known_reading(key)
        measured = measure(reading.samples)
        repeated = take_one_phase(work, charger_id, connector_id, transaction, measured)
        # A reading of the start alone has the register of then: it is kept, but not that of the session by now.
        of_start = measured.energy_wh is None and measured.begin_wh is not None
        register_wh = measured.begin_wh if of_start else measured.energy_wh
        work.add(
            StoredReading(
                charger_id=charger_id,
                connector_id=connector_id,
                transaction_id=None if transaction is None else transaction.id,
                sampled_at=sampled_at,
                received_at=work.now,
                digest=digest,
                energy_wh=register_wh,
                power_w=measured.power_w,
                soc_percent=measured.soc_percent,
                samples=samples.decode(),
                weight=_weight(work, charger_id, connector_id, transaction, names_session=names_session),
            )
        )
        session_wh = _update_connector(
            work,
            charger_id,
            connector_id,
            transaction,
            sampled_at,
            measured,
            names_session=names_session,
            repeated=repeated,
        )
        if measured.deviations:
            _count_deviations(work, charger_id, measured.deviations)
        if measured.measurands and published:
            work.emit(
                charger_id,
                events.meter_reading(
                    charger_id,
                    connector_id,
                    transaction,
                    sampled_at,
                    measured,
                    digest,
                    register_wh=register_wh,
                    session_wh=0 if of_start else session_wh,
                ),
            )


def _weight(
    work: Work, charger_id: str, connector_id: int, transaction: Transaction | None, *, names_session: bool
) -> int:
    counted = transaction or work.open_transaction(charger_id, connector_id)
    if counted is None:
        return UNCOUNTED
    if not counted.open:
        return LATE if counted.inferred else UNCOUNTED
    return NAMED if names_session and transaction is not None else UNNAMED


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
    *,
    names_session: bool,
    repeated: bool,
) -> int | None:
    """Keep the newest reading of the connector, and the register of its session. Return the session's energy in Wh.

    The order of arrival decides which reading is the newest, except for one that its own time and a lower register show
    to be overtaken. Readings of an ended transaction, such as those sent with its stop, do not change the connector. A
    reading without a transaction counts for the running one if its register fits: it may be of another register.
    """
    before = work.connector(charger_id, connector_id)
    newest_at = sampled_at if before.newest_reading_at is None else max(sampled_at, before.newest_reading_at)
    if transaction is None:
        transaction, names_session = work.open_transaction(charger_id, connector_id), False
    if transaction is not None and not transaction.open:
        if newest_at != before.newest_reading_at:
            work.put(replace(before, newest_reading_at=newest_at))
        return _add_to_ended(work, transaction, sampled_at, measured, repeated=repeated)
    register, energy_wh = None, measured.energy_wh
    if transaction is not None:
        register = current_register(work, transaction)
        if measured.begin_wh is not None:
            register = session_register.begun_at(register, measured.begin_wh)
        if energy_wh is not None:
            register = session_register.advance(
                register,
                energy_wh,
                sampled_at,
                work.now,
                names_session=names_session,
                at_outlet=measured.energy_location == OUTLET,
                summed=_summed_phases(measured) is not None,
                repeated=repeated,
            )
        if measured.power_w is not None:
            register = replace(register, power=_with_power(register, measured.power_w, sampled_at, work.now))
        energy_wh = register.last.wh if register.readings else None
    transaction_id = None if transaction is None else transaction.id
    same = before.reading_transaction_id == transaction_id
    if same and _overtaken(before, sampled_at, measured, work.now):
        if register != before.register and transaction is not None:
            work.put(replace(before, register=register))
    else:
        work.put(
            replace(
                before,
                reading_transaction_id=transaction_id,
                reading_at=sampled_at,
                energy_wh=energy_wh if energy_wh is not None or not same else before.energy_wh,
                power_w=before.power_w if same and measured.power_w is None else measured.power_w,
                soc_percent=before.soc_percent
                if same and measured.soc_percent is None
                else measured.soc_percent,
                newest_reading_at=newest_at,
                register=register if transaction is not None else before.register,
            )
        )
    return None if register is None or register.start_wh is None else register.energy_wh


def _with_power(
    register: SessionRegister, power_w: int, sampled_at: datetime, now: datetime
) -> ReportedPower:
    return reported_power.add(register.power, power_w, sampled_at, now, most_w=register.max_power_w)


def take_one_phase(
    work: Work, charger_id: str, connector_id: int, transaction: Transaction | None, measured: Measured
) -> bool:
    """Take one phase for the register if each phase carries all of it. Return whether it is so."""
    phases = _summed_phases(measured)
    if phases is None or len(phases) < 2 or max(phases) - min(phases) > _EQUAL_WH:
        return False
    each_wh = min(phases)
    session = transaction or work.open_transaction(charger_id, connector_id)
    known_wh = work.connector(charger_id, connector_id).energy_wh
    if session is not None:
        whole = session_register.repeats_total(current_register(work, session), each_wh)
    else:
        whole = known_wh is None or each_wh >= known_wh - session_register.NO_FALL_WH
    if whole:
        measured.energy_wh = each_wh
    return whole


def _summed_phases(measured: Measured) -> list[int] | None:
    """Return the register of each phase if the charger gave no total, so that it is the sum of them."""
    place = measured.energy_location
    found = measured.measurands.get(ENERGY_REGISTER if place == OUTLET else f"{ENERGY_REGISTER}@{place}")
    if found is None or measured.energy_wh is None or isinstance(found.phases, UnsetType):
        return None
    summed = measured.energy_wh == round(1000 * sum(found.phases.values()))
    return [round(1000 * kwh) for kwh in found.phases.values()] if summed else None


def _overtaken(before: Connector, sampled_at: datetime, measured: Measured, now: datetime) -> bool:
    """Return whether a reading is older than the connector's newest one, by its time and by its register."""
    if before.reading_at is None or measured.energy_wh is None or before.energy_wh is None:
        return False
    return measured.energy_wh < before.energy_wh and proves_older(sampled_at, before.reading_at, now)


def _add_to_ended(
    work: Work, transaction: Transaction, sampled_at: datetime, measured: Measured, *, repeated: bool
) -> int | None:
    """Let a late reading count for a transaction whose end was inferred; the real end of another one holds."""
    if transaction.inferred and measured.energy_wh is not None:
        register = session_register.advance(
            current_register(work, transaction),
            measured.energy_wh,
            sampled_at,
            work.now,
            summed=_summed_phases(measured) is not None,
            repeated=repeated,
        )
        work.put(replace(transaction, register=register))
        return register.energy_wh
    return transaction.energy_wh
