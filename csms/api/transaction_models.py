"""Transactions, readings and costs in the JSON of the REST interface."""

from datetime import datetime
from decimal import Decimal
from typing import Any

from msgspec.structs import asdict
from pydantic import Field

from csms.api.models import Model
from csms.core.pricing import Component, Cost, QuantityUnit
from csms.db.tariffs import TariffView
from csms.db.transaction_views import ReadingView, TransactionView
from csms.service.session_progress import progress


class Money(Model):
    amount: Decimal
    amount_minor: int
    currency: str


class CostLineOut(Model):
    component: Component
    band: str | None = None
    quantity: Decimal | None = None
    unit: QuantityUnit | None = None
    rate: Decimal | None = None
    amount_minor: int


class TaxOut(Model):
    percent: Decimal
    included: bool
    amount_minor: int
    net_minor: int


class CostOut(Money):
    """The lines of `breakdown` add up to `amountMinor`."""

    breakdown: list[CostLineOut]
    tax: TaxOut | None

    @classmethod
    def of(cls, cost: Cost) -> "CostOut":
        return cls(
            amount=cost.amount,
            amount_minor=cost.amount_minor,
            currency=cost.currency,
            breakdown=[CostLineOut.model_validate(line) for line in cost.bill.lines],
            tax=None if cost.bill.tax is None else TaxOut.model_validate(cost.bill.tax),
        )


class BandOut(Model):
    name: str
    days: list[str]
    start: str
    end: str
    energy_rate: Decimal | None
    time_rate: Decimal | None
    idle_rate: Decimal | None


class TariffOut(Model):
    """Prices: per kWh, per minute, per session, per idle minute; other rates in bands of the week; bounds; tax."""

    id: str
    version: int
    currency: str
    energy_rate: Decimal
    time_rate: Decimal
    session_fee: Decimal
    idle_rate: Decimal
    idle_grace_min: int
    bands: list[BandOut]
    time_zone: str | None
    minimum: Decimal | None
    maximum: Decimal | None
    tax_percent: Decimal | None
    tax_included: bool
    created_at: datetime | None = None

    @classmethod
    def of(cls, view: TariffView) -> "TariffOut":
        return cls.model_validate(view.tariff).model_copy(update={"created_at": view.created_at})


class TransactionOut(Model):
    """While `active`, energy, duration and cost are those so far. Times are the charger's clock; `…ReceivedAt`
    ours. `energySource` says what the energy was derived from."""

    id: int
    charger_id: str
    connector_id: int
    id_tag: str
    parent_id_tag: str | None
    reservation_id: int | None
    authorization_status: str
    active: bool
    started_at: datetime
    start_received_at: datetime
    clock_suspect: bool
    stopped_at: datetime | None
    stop_received_at: datetime | None
    stop_reason: str | None
    stop_id_tag: str | None
    meter_start_wh: int
    meter_stop_wh: int | None
    energy_wh: int | None
    energy_source: str | None = Field(description="meter_stop, last_reading or none")
    duration_s: int
    power_w: int | None
    soc_percent: float | None
    cost: CostOut
    tariff: TariffOut
    inferred: bool = Field(description="The stop never came; it was inferred")
    revision: int
    anomalies: list[str]

    @classmethod
    def of(cls, session: TransactionView, now: datetime) -> "TransactionOut":
        t, so_far = session.transaction, progress(session, now)
        values = asdict(t) | asdict(so_far)
        values |= {"duration_s": int(so_far.duration_s), "cost": CostOut.of(so_far.cost)}
        return cls(**values, active=t.open)


class TransactionPage(Model):
    items: list[TransactionOut]
    next_cursor: str | None


class ReadingOut(Model):
    connector_id: int
    sampled_at: datetime
    received_at: datetime
    energy_wh: int | None
    power_w: int | None
    soc_percent: float | None
    samples: list[dict[str, Any]] = Field(description="The OCPP sampled values as they came")

    @classmethod
    def of(cls, view: ReadingView) -> "ReadingOut":
        samples = [{k: v for k, v in sample.items() if v is not None} for sample in view.samples]
        return cls.model_validate(view).model_copy(update={"samples": samples})


class ReadingPage(Model):
    items: list[ReadingOut]
    next_cursor: str | None
