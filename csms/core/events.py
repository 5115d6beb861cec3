"""What we tell the world: the five business events of the customer's document, rendered once.

Keys, units and roundings are a contract: docs/mqtt.md. Customer's keys come first, ours are only added.
"""

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, TypeVar

import msgspec
from msgspec import UNSET, Struct, UnsetType

from csms.core.pricing import Bill, Component, Cost, Unit
from csms.core.records import Connector, Event, Transaction
from csms.core.units import Measurand, Measured

SCHEMA_VERSION = "1.0"
T = TypeVar("T")


class _Payload(Struct, rename="camel", kw_only=True):
    """Optional keys that are unknown are left out, never null; a true zero is sent."""


class StartedPayload(_Payload, kw_only=True):
    transaction_id: int
    connector_id: int
    id_tag: str
    meter_start: int
    start_time: str
    status: str = "started"
    parent_id_tag: str | UnsetType = UNSET
    reservation_id: int | UnsetType = UNSET
    tariff_id: str | UnsetType = UNSET
    authorization_status: str | UnsetType = UNSET
    clock_suspect: bool | UnsetType = UNSET
    received_time: str | UnsetType = UNSET


class CompletedPayload(_Payload, kw_only=True):
    transaction_id: int
    connector_id: int
    id_tag: str
    meter_start: int
    meter_stop: int
    start_time: str
    stop_time: str
    energy_used: float
    duration: float
    reason: str
    status: str = "completed"
    duration_seconds: int
    stop_id_tag: str | UnsetType = UNSET
    energy_source: str | UnsetType = UNSET
    inferred: bool | UnsetType = UNSET
    anomaly: str | UnsetType = UNSET
    revision: int = 1


class MeterReadingPayload(_Payload, kw_only=True):
    transaction_id: int | UnsetType = UNSET
    connector_id: int
    timestamp: str
    measurands: dict[str, Measurand]
    current_power: float | UnsetType = UNSET
    total_energy: float | UnsetType = UNSET
    session_energy: float | UnsetType = UNSET
    soc: float | UnsetType = UNSET


class StatusChangedPayload(_Payload, kw_only=True):
    connector_id: int
    status: str
    previous_status: str
    transaction_id: int | UnsetType = UNSET
    error_code: str
    info: str | UnsetType = UNSET
    vendor_id: str | UnsetType = UNSET
    vendor_error_code: str | UnsetType = UNSET
    reported_at: str | UnsetType = UNSET


class CostLine(_Payload, kw_only=True):
    """One component of a cost; all of them add up to the event's `amountMinor`.

    `component`: what is charged for; `minimum` is what a session was short of the least it costs, `maximum`
        (negative) what it was over the most, `tax` the tax where rates are without it.
    `band`: the name of the tariff's band; left out for its base rates.
    `quantity`: energy, or minutes rounded to two decimals; the amount is computed from what was not rounded.
    `unit`: of the quantity.
    `rate`: price per unit; for `tax` per cent.
    `amountMinor`: this component's share in minor units.
    """

    component: Component
    band: str | UnsetType = UNSET
    quantity: float | UnsetType = UNSET
    unit: Unit | UnsetType = UNSET
    rate: float | UnsetType = UNSET
    amount_minor: int


class CostTax(_Payload, kw_only=True):
    """The tax in a cost.

    `percent`: the rate.
    `included`: whether the tariff's rates have it in them; if not, the breakdown has a line for it.
    `amountMinor`: the tax in the event's `amountMinor`, in minor units.
    `netMinor`: what remains without it.
    """

    percent: float
    included: bool
    amount_minor: int
    net_minor: int


class SessionCostPayload(_Payload, kw_only=True):
    """What a session costs, by the tariff it began with.

    `transactionId`, `connectorId`, `idTag`, `startTime`: as in `started`.
    `endTime`: as `stopTime` in `completed`.
    `energyConsumed`: kWh.
    `duration`: minutes, rounded to two decimals.
    `estimatedCost`: the total with all tax, in the currency's major unit.
    `currency`: ISO 4217.
    `pricingModel`: energy_based, time_based, energy_and_time or flat.
    `energyRate`: per kWh; with bands of different rates what a kWh came to on average, rounded to six decimals.
    `timeRate`: per minute; with bands as `energyRate`.
    `amountMinor`: the total as an integer in minor units: what to book.
    `sessionFee`: left out when there is none.
    `tariffId`: the tariff's id.
    `revision`: 1, and one more with each correction; the highest holds.
    `tariffVersion`: the version of the tariff, fixed at the start.
    `breakdown`: the components; they add up to `amountMinor`.
    `tax`: left out when the tariff says nothing of tax.
    """

    transaction_id: int
    connector_id: int
    id_tag: str
    start_time: str
    end_time: str
    energy_consumed: float
    duration: float
    estimated_cost: float
    currency: str
    pricing_model: str
    energy_rate: float
    time_rate: float
    amount_minor: int
    session_fee: float | UnsetType = UNSET
    tariff_id: str | UnsetType = UNSET
    revision: int = 1
    tariff_version: int = 1
    breakdown: tuple[CostLine, ...] = ()
    tax: CostTax | UnsetType = UNSET


class OrphanStopPayload(_Payload, kw_only=True):
    """A stop of a transaction nobody knows: acknowledged, kept in quarantine, never billed by itself."""

    transaction_id: int | UnsetType = UNSET
    meter_stop: int | UnsetType = UNSET
    stop_time: str
    reason: str
    id_tag: str | UnsetType = UNSET


class Envelope(Struct, rename="camel", kw_only=True):
    """What every business event is wrapped in. `seq` counts a charger's events from 1 without a gap."""

    timestamp: str
    client_id: str
    event_type: str
    event_id: str
    payload: Any
    seq: int
    schema_version: str
    dedup_key: str


class Draft(Struct, frozen=True, kw_only=True):
    """An event before it has a number: what happened, where it is told, and its natural key."""

    category: str
    event_type: str
    dedup_key: str
    payload: _Payload
    transaction_id: int | None = None


_encode = msgspec.json.Encoder().encode


def timestamp(moment: datetime) -> str:
    """RFC 3339, UTC, `Z`; milliseconds only when not zero."""
    if moment.tzinfo is not UTC:
        moment = moment.astimezone(UTC)
    text = moment.strftime("%Y-%m-%dT%H:%M:%S") if moment.year >= 1000 else moment.isoformat()[:19]
    millis = moment.microsecond // 1000
    return f"{text}.{millis:03d}Z" if millis else f"{text}Z"


def topic_level(charger_id: str) -> str:
    """A charger's identity as one topic level: `/ + # %`, controls and a leading `$` percent-encoded."""
    if charger_id.isalnum():
        return charger_id
    escaped = "".join(
        "".join(f"%{byte:02X}" for byte in char.encode())
        if char in "/+#%" or not char.isprintable()
        else char
        for char in charger_id
    )
    return "%24" + escaped[1:] if escaped.startswith("$") else escaped


def render(draft: Draft, *, charger_id: str, seq: int, number: int, now: datetime) -> Event:
    """Give a draft its number and its bytes. They never change again, however often they are sent.

    `number` comes from one database sequence. With the millisecond before it, it makes 19 digits that are
    unique over all nodes and sort by time.
    """
    millis = int(now.timestamp() * 1000)
    event_id = f"{draft.event_type}_{millis:013d}{number % 1_000_000:06d}"
    envelope = Envelope(
        timestamp=timestamp(now),
        client_id=charger_id,
        event_type=draft.event_type,
        event_id=event_id,
        payload=draft.payload,
        seq=seq,
        schema_version=SCHEMA_VERSION,
        dedup_key=draft.dedup_key,
    )
    return Event(
        charger_id=charger_id,
        seq=seq,
        event_id=event_id,
        event_type=draft.event_type,
        topic=f"csms/{draft.category}/{topic_level(charger_id)}/{draft.event_type}",
        body=_encode(envelope),
        transaction_id=draft.transaction_id,
        recorded_at=now,
    )


def kwh(energy_wh: int) -> float:
    """Wh as kWh with at most three decimals."""
    return energy_wh / 1000


def minutes(seconds: Decimal) -> float:
    """Seconds as minutes, rounded to two decimals, half up."""
    return float((seconds / 60).quantize(Decimal("0.01"), rounding="ROUND_HALF_UP"))


def started(transaction: Transaction) -> Draft:
    payload = StartedPayload(
        transaction_id=transaction.id,
        connector_id=transaction.connector_id,
        id_tag=transaction.id_tag,
        meter_start=transaction.meter_start_wh,
        start_time=timestamp(transaction.started_at),
        parent_id_tag=_known(transaction.parent_id_tag),
        reservation_id=_known(transaction.reservation_id),
        tariff_id=transaction.tariff.id,
    )
    if transaction.authorization_status != "Accepted":
        payload.authorization_status = transaction.authorization_status
    if transaction.clock_suspect:
        payload.clock_suspect = True
        payload.received_time = timestamp(transaction.start_received_at)
    return Draft(
        category="transactions",
        event_type="started",
        dedup_key=f"tx:{transaction.id}:started",
        payload=payload,
        transaction_id=transaction.id,
    )


def completed(transaction: Transaction) -> Draft:
    """The end of a transaction; after a correction the same under the name `updated`."""
    assert transaction.stopped_at is not None
    seconds = transaction.duration_s or Decimal(0)
    payload = CompletedPayload(
        transaction_id=transaction.id,
        connector_id=transaction.connector_id,
        id_tag=transaction.id_tag,
        meter_start=transaction.meter_start_wh,
        meter_stop=transaction.meter_stop_wh or 0,
        start_time=timestamp(transaction.started_at),
        stop_time=timestamp(transaction.stopped_at),
        energy_used=kwh(transaction.energy_wh or 0),
        duration=minutes(seconds),
        duration_seconds=int(seconds),
        reason=transaction.stop_reason or "Local",
        stop_id_tag=_known(transaction.stop_id_tag),
        energy_source=_known(transaction.energy_source),
        revision=transaction.revision,
    )
    if transaction.inferred:
        payload.inferred = True
    if transaction.anomalies:
        payload.anomaly = transaction.anomalies[0]
    first = transaction.revision == 1
    return Draft(
        category="transactions",
        event_type="completed" if first else "updated",
        dedup_key=f"tx:{transaction.id}:completed" + ("" if first else f":{transaction.revision}"),
        payload=payload,
        transaction_id=transaction.id,
    )


def session_cost(transaction: Transaction, cost: Cost) -> Draft:
    assert transaction.stopped_at is not None
    tariff = transaction.tariff
    seconds = transaction.duration_s or Decimal(0)
    return Draft(
        category="billing",
        event_type="session_cost",
        dedup_key=f"tx:{transaction.id}:cost:{transaction.revision}",
        payload=SessionCostPayload(
            transaction_id=transaction.id,
            connector_id=transaction.connector_id,
            id_tag=transaction.id_tag,
            start_time=timestamp(transaction.started_at),
            end_time=timestamp(transaction.stopped_at),
            energy_consumed=kwh(transaction.energy_wh or 0),
            duration=minutes(seconds),
            estimated_cost=float(cost.amount),
            currency=cost.currency,
            pricing_model=tariff.pricing_model,
            energy_rate=float(cost.energy_rate),
            time_rate=float(cost.time_rate),
            amount_minor=cost.amount_minor,
            session_fee=float(tariff.session_fee) if tariff.session_fee else UNSET,
            tariff_id=tariff.id,
            revision=transaction.revision,
            tariff_version=tariff.version,
            breakdown=_breakdown(cost.bill),
            tax=_tax(cost.bill),
        ),
        transaction_id=transaction.id,
    )


def _breakdown(bill: Bill) -> tuple[CostLine, ...]:
    return tuple(
        CostLine(
            component=line.component,
            band=_known(line.band),
            quantity=UNSET if line.quantity is None else float(line.quantity),
            unit=_known(line.unit),
            rate=UNSET if line.rate is None else float(line.rate),
            amount_minor=line.amount_minor,
        )
        for line in bill.lines
    )


def _tax(bill: Bill) -> CostTax | UnsetType:
    tax = bill.tax
    if tax is None:
        return UNSET
    return CostTax(
        percent=float(tax.percent),
        included=tax.included,
        amount_minor=tax.amount_minor,
        net_minor=tax.net_minor,
    )


def meter_reading(
    charger_id: str,
    connector_id: int,
    transaction: Transaction | None,
    sampled_at: datetime,
    measured: Measured,
    digest: bytes,
) -> Draft:
    payload = MeterReadingPayload(
        connector_id=connector_id, timestamp=timestamp(sampled_at), measurands=measured.measurands
    )
    transaction_id = 0
    if transaction is not None:
        transaction_id = payload.transaction_id = transaction.id
    if measured.power_w is not None:
        payload.current_power = kwh(measured.power_w)
    if measured.energy_wh is not None:
        payload.total_energy = kwh(measured.energy_wh)
        if transaction is not None:
            payload.session_energy = kwh(max(measured.energy_wh - transaction.meter_start_wh, 0))
    if measured.soc_percent is not None:
        payload.soc = measured.soc_percent
    millis = int(sampled_at.timestamp() * 1000)
    return Draft(
        category="transactions",
        event_type="meter_reading",
        dedup_key=f"mv:{charger_id}:{connector_id}:{transaction_id}:{millis}:{digest.hex()}",
        payload=payload,
        transaction_id=transaction_id or None,
    )


def status_changed(
    connector: Connector,
    previous_status: str | None,
    transaction_id: int | None,
    number: int,
    *,
    reported_at: datetime | None,
) -> Draft:
    """`number` is the stored status row's id: every change is a fact of its own."""
    assert connector.status is not None
    return Draft(
        category="connectors",
        event_type="status_changed",
        dedup_key=f"st:{connector.charger_id}:{connector.connector_id}:{number}",
        payload=StatusChangedPayload(
            connector_id=connector.connector_id,
            status=connector.status,
            previous_status=previous_status or "Unknown",
            transaction_id=_known(transaction_id),
            error_code=connector.error_code,
            info=_known(connector.info),
            vendor_id=_known(connector.vendor_id),
            vendor_error_code=_known(connector.vendor_error_code),
            reported_at=UNSET if reported_at is None else timestamp(reported_at),
        ),
        transaction_id=transaction_id,
    )


def orphan_stop(
    *,
    charger_id: str,
    transaction_id: int | None,
    meter_wh: int | None,
    at: datetime,
    reason: str,
    id_tag: str | None,
    digest: bytes,
) -> Draft:
    return Draft(
        category="transactions",
        event_type="orphan_stop",
        dedup_key=f"orphan:{charger_id}:{digest.hex()}",
        payload=OrphanStopPayload(
            transaction_id=_known(transaction_id),
            meter_stop=_known(meter_wh),
            stop_time=timestamp(at),
            reason=reason,
            id_tag=_known(id_tag),
        ),
    )


def _known(value: T | None) -> T | UnsetType:
    return UNSET if value is None else value
