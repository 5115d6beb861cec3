"""Business events: built from records, rendered once. Five are specified by the customer, the others are additions.

csms/core/payloads.py describes their keys; docs/mqtt.md fixes units and roundings.
"""

from datetime import UTC, datetime
from decimal import Decimal
from functools import lru_cache
from typing import TypeVar

import msgspec
from msgspec import UNSET, Struct, UnsetType

from csms.core.payloads import (
    BootedPayload,
    CompletedPayload,
    ConnectedPayload,
    CostHeldPayload,
    CostLine,
    CostTax,
    DisconnectedPayload,
    Envelope,
    MeterReadingPayload,
    OrphanStopPayload,
    Payload,
    QuarantinedPayload,
    SessionCostPayload,
    StartedPayload,
    StatusChangedPayload,
)
from csms.core.pricing import Bill, Cost
from csms.core.records import Charger, ChargerState, Connector, Event, QuarantineEntry, Transaction
from csms.core.reports import Stop
from csms.core.units import Measured

SCHEMA_VERSION = "1.0"
T = TypeVar("T")


class EventDraft(Struct, frozen=True):
    """An event before it has its number: category and type (the topic), payload, and natural key."""

    category: str
    event_type: str
    dedup_key: str
    payload: Payload
    transaction_id: int | None = None


_encode = msgspec.json.Encoder().encode


def timestamp(at: datetime) -> str:
    """Return a time in RFC 3339, UTC, `Z`; with milliseconds only when not zero."""
    if at.tzinfo is not UTC:
        at = at.astimezone(UTC)
    text = at.isoformat(timespec="milliseconds")
    return f"{text[:19]}Z" if text[20:23] == "000" else f"{text[:23]}Z"


@lru_cache(maxsize=50_000)
def topic_level(charger_id: str) -> str:
    """Return a charger's identity as one topic level: `/ + # %`, controls and a leading `$` are percent-encoded."""
    if charger_id.isalnum():
        return charger_id
    escaped = "".join(
        "".join(f"%{byte:02X}" for byte in char.encode())
        if char in "/+#%" or not char.isprintable()
        else char
        for char in charger_id
    )
    return "%24" + escaped[1:] if escaped.startswith("$") else escaped


_batch_time = lru_cache(maxsize=8)(timestamp)  # all events of a batch have the same time


def render(
    draft: EventDraft, *, charger_id: str, seq: int, number: int, now: datetime, history_epoch: int = 0
) -> Event:
    """Render a draft to the event whose bytes never change again, however often it is published.

    `number` is a value of one database sequence. Preceded by the millisecond it makes 19 digits that are unique over
    all nodes and sort by time. `history_epoch`: how often the database has been restored from a backup.
    """
    millis = int(now.timestamp() * 1000)
    event_id = f"{draft.event_type}_{millis:013d}{number % 1_000_000:06d}"
    envelope = Envelope(
        timestamp=_batch_time(now),
        client_id=charger_id,
        event_type=draft.event_type,
        event_id=event_id,
        payload=draft.payload,
        seq=seq,
        schema_version=SCHEMA_VERSION,
        dedup_key=draft.dedup_key,
        history_epoch=history_epoch or UNSET,
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
        history_epoch=history_epoch,
    )


def kwh(energy_wh: int) -> float:
    """Return Wh as kWh, with at most three decimals."""
    return energy_wh / 1000


def minutes(seconds: Decimal) -> float:
    """Return seconds as minutes, rounded half up to two decimals."""
    return float((seconds / 60).quantize(Decimal("0.01"), rounding="ROUND_HALF_UP"))


def started(transaction: Transaction) -> EventDraft:
    payload = StartedPayload(
        transaction_id=transaction.id,
        connector_id=transaction.connector_id,
        id_tag=transaction.id_tag,
        meter_start=transaction.meter_start_wh,
        start_time=timestamp(transaction.started_at),
        parent_id_tag=_or_unset(transaction.parent_id_tag),
        reservation_id=_or_unset(transaction.reservation_id),
        tariff_id=transaction.tariff.id,
    )
    if transaction.authorization_status != "Accepted":
        payload.authorization_status = transaction.authorization_status
    if transaction.clock_suspect:
        payload.clock_suspect = True
        payload.received_time = timestamp(transaction.start_received_at)
    return EventDraft("transactions", "started", f"tx:{transaction.id}:started", payload, transaction.id)


def completed(transaction: Transaction) -> EventDraft:
    """Return the event of a transaction's end; after a correction it is named `updated`."""
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
        stop_id_tag=_or_unset(transaction.stop_id_tag),
        energy_source=_or_unset(transaction.energy_source),
        revision=transaction.revision,
        billing=transaction.billing or "billed",
        anomalies=transaction.anomalies or UNSET,
        held_because=transaction.held_because or UNSET,
        accounting_at=timestamp(transaction.accounting_at),
    )
    if transaction.inferred:
        payload.inferred = True
    if transaction.anomalies:
        payload.anomaly = transaction.anomalies[0]
    first = transaction.revision == 1
    return EventDraft(
        "transactions",
        "completed" if first else "updated",
        f"tx:{transaction.id}:completed" + ("" if first else f":{transaction.revision}"),
        payload,
        transaction.id,
    )


def bill(transaction: Transaction, cost: Cost) -> EventDraft:
    """Return the event of a transaction's cost: `session_cost`, or `cost_held` while an operator must look at it."""
    return cost_held(transaction, cost) if transaction.billing == "held" else session_cost(transaction, cost)


def cost_held(transaction: Transaction, cost: Cost) -> EventDraft:
    assert transaction.stopped_at is not None
    payload = CostHeldPayload(
        transaction_id=transaction.id,
        connector_id=transaction.connector_id,
        id_tag=transaction.id_tag,
        start_time=timestamp(transaction.started_at),
        end_time=timestamp(transaction.stopped_at),
        energy_consumed=kwh(transaction.energy_wh or 0),
        duration=minutes(transaction.duration_s or Decimal(0)),
        estimated_cost=float(cost.amount),
        currency=cost.currency,
        amount_minor=cost.amount_minor,
        held_because=transaction.held_because,
        anomalies=transaction.anomalies,
        revision=transaction.revision,
        accounting_at=timestamp(transaction.accounting_at),
    )
    key = f"tx:{transaction.id}:held:{transaction.revision}"
    return EventDraft("billing", "cost_held", key, payload, transaction.id)


def session_cost(transaction: Transaction, cost: Cost) -> EventDraft:
    assert transaction.stopped_at is not None
    tariff = transaction.tariff
    seconds = transaction.duration_s or Decimal(0)
    payload = SessionCostPayload(
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
        void=True if transaction.billing == "void" else UNSET,
        accounting_at=timestamp(transaction.accounting_at),
    )
    return EventDraft(
        "billing", "session_cost", f"tx:{transaction.id}:cost:{transaction.revision}", payload, transaction.id
    )


def _breakdown(bill: Bill) -> tuple[CostLine, ...]:
    return tuple(
        CostLine(
            component=line.component,
            band=_or_unset(line.band),
            quantity=UNSET if line.quantity is None else float(line.quantity),
            unit=_or_unset(line.unit),
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
    *,
    register_wh: int | None,
    session_wh: int | None,
) -> EventDraft:
    """Return the event of a reading. `session_wh`: the energy of the session after it, if that is known."""
    payload = MeterReadingPayload(
        connector_id=connector_id, timestamp=timestamp(sampled_at), measurands=measured.measurands
    )
    transaction_id = 0
    if transaction is not None:
        transaction_id = payload.transaction_id = transaction.id
    if measured.power_w is not None:
        payload.current_power = kwh(measured.power_w)
    if register_wh is not None:
        payload.total_energy = kwh(register_wh)
        if transaction is not None and session_wh is not None:
            payload.session_energy = kwh(session_wh)
    if measured.soc_percent is not None:
        payload.soc = measured.soc_percent
    millis = int(sampled_at.timestamp() * 1000)
    return EventDraft(
        "transactions",
        "meter_reading",
        f"mv:{charger_id}:{connector_id}:{transaction_id}:{millis}:{digest.hex()}",
        payload,
        transaction_id or None,
    )


def status_changed(
    connector: Connector,
    previous_status: str | None,
    transaction_id: int | None,
    number: int,
    *,
    reported_at: datetime | None,
) -> EventDraft:
    """Return the event of a changed status. `number`: the id of the stored status, which makes each change unique."""
    assert connector.status is not None
    payload = StatusChangedPayload(
        connector_id=connector.connector_id,
        status=connector.status,
        previous_status=previous_status or "Unknown",
        transaction_id=_or_unset(transaction_id),
        error_code=connector.error_code,
        info=_or_unset(connector.info),
        vendor_id=_or_unset(connector.vendor_id),
        vendor_error_code=_or_unset(connector.vendor_error_code),
        reported_at=UNSET if reported_at is None else timestamp(reported_at),
    )
    return EventDraft(
        "connectors",
        "status_changed",
        f"st:{connector.charger_id}:{connector.connector_id}:{number}",
        payload,
        transaction_id,
    )


def orphan_stop(stop: Stop, at: datetime, digest: bytes) -> EventDraft:
    payload = OrphanStopPayload(
        transaction_id=_or_unset(stop.transaction_id),
        meter_stop=_or_unset(stop.meter_wh),
        stop_time=timestamp(at),
        reason=stop.reason,
        id_tag=_or_unset(stop.id_tag),
    )
    return EventDraft("transactions", "orphan_stop", f"orphan:{stop.charger_id}:{digest.hex()}", payload)


def connected(state: ChargerState, protocol: str) -> EventDraft:
    """Return the event of a connection. `state` is the one after it; its generation identifies the connection."""
    payload = ConnectedPayload(
        protocol=protocol, node=state.node or "", remote_address=_or_unset(state.remote_address)
    )
    return EventDraft(
        "chargepoints", "connected", f"cp:{state.charger_id}:connected:{state.generation}", payload
    )


def disconnected(state: ChargerState, reason: str, now: datetime) -> EventDraft:
    since = state.connected_at
    payload = DisconnectedPayload(
        node=state.node or "",
        reason=reason or UNSET,
        duration_seconds=UNSET if since is None else max(int((now - since).total_seconds()), 0),
    )
    return EventDraft(
        "chargepoints", "disconnected", f"cp:{state.charger_id}:disconnected:{state.generation}", payload
    )


def booted(charger: Charger, number: int) -> EventDraft:
    """Return the event of a boot. `number` makes each boot unique."""
    payload = BootedPayload(
        enrollment=charger.enrollment,
        vendor=_or_unset(charger.vendor),
        model=_or_unset(charger.model),
        serial_number=_or_unset(charger.serial_number),
        firmware_version=_or_unset(charger.firmware_version),
    )
    return EventDraft("chargepoints", "booted", f"cp:{charger.id}:booted:{number}", payload)


def quarantined(entry: QuarantineEntry) -> EventDraft:
    payload = QuarantinedPayload(
        action=entry.action,
        error=entry.error,
        received_time=timestamp(entry.received_at),
        message_id=_or_unset(entry.message_id),
        transaction_id=_or_unset(entry.transaction_id),
    )
    return EventDraft(
        "errors",
        "quarantined",
        f"quarantine:{entry.charger_id}:{entry.action}:{entry.digest.hex()}",
        payload,
        entry.transaction_id,
    )


def _or_unset(value: T | None) -> T | UnsetType:
    return UNSET if value is None else value
