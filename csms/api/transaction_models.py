"""Transactions, readings and costs in the JSON of the REST interface."""

from datetime import datetime
from decimal import Decimal
from typing import Annotated, Any, Literal

from msgspec.structs import asdict
from pydantic import Field, StringConstraints

from csms.api.models import Input, Model
from csms.api.pages import Moment
from csms.core.pricing import Component, Cost, QuantityUnit
from csms.core.records import BilledState
from csms.db.tariffs import TariffView
from csms.db.transaction_views import ReadingView, TransactionView
from csms.service.accounts import major
from csms.service.session_progress import progress
from csms.service.transactions import RevisionStep


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
    minimum_without_energy: bool
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
    energy_source: str | None = Field(description="meter_stop, last_reading, operator or none")
    duration_s: int
    power_w: int | None
    soc_percent: float | None
    cost: CostOut
    tariff: TariffOut
    inferred: bool = Field(description="The stop never came; it was inferred")
    revision: int
    anomalies: list[str]
    billing: str | None = Field(description="billed, held or void; null while it runs")
    held_because: list[str] = Field(description="Why an operator must look at the bill before it counts")
    accounting_at: datetime = Field(
        description="Decides the day and month: the charger's time, or ours where that is suspect"
    )

    @classmethod
    def of(cls, session: TransactionView, now: datetime) -> "TransactionOut":
        t, so_far = session.transaction, progress(session, now)
        values = asdict(t) | asdict(so_far)
        values |= {"duration_s": int(so_far.duration_s), "cost": CostOut.of(so_far.cost)}
        return cls(**values, active=t.open)


Note = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=500)]
# Strict: `true` is neither 1 Wh nor a date, and what books money is not guessed.
EnergyWh = Annotated[int, Field(ge=0, le=10**15, strict=True)]


class Decision(Input):
    note: Note = Field(description="Why; kept with the revision")
    expected_revision: Annotated[int, Field(ge=0, lt=2**31, strict=True)] | None = Field(
        None, description="The `revision` that the decision is about; 409 if it is another one by now"
    )


class StopIn(Decision):
    """What is left out is what the last sign of the session shows."""

    meter_stop_wh: EnergyWh | None = None
    stopped_at: Moment = None


class CorrectionIn(Decision):
    """What is left out stays as it is. `energyWh` precedes the registers."""

    meter_start_wh: EnergyWh | None = None
    meter_stop_wh: EnergyWh | None = None
    energy_wh: EnergyWh | None = None
    started_at: Moment = None
    stopped_at: Moment = None
    dry_run: bool = Field(False, strict=True, description="Answer what it would change, and change nothing")


class CorrectionPreview(Model):
    """The transaction as it is, and as it would be."""

    dry_run: Literal[True] = True
    before: TransactionOut
    after: TransactionOut


class BilledOut(Model):
    """What a revision is billed by."""

    meter_start_wh: int
    meter_stop_wh: int | None
    started_at: datetime
    stopped_at: datetime | None
    energy_wh: int | None
    energy_source: str | None
    duration_s: int | None
    cost: Money | None
    billing: str | None
    anomalies: list[str]
    held_because: list[str]

    @classmethod
    def of(cls, state: BilledState, currency: str) -> "BilledOut":
        named = {name: getattr(state, name) for name in state.__struct_fields__}
        minor = named.pop("cost_minor")
        named["duration_s"] = None if state.duration_s is None else int(state.duration_s)
        cost = None
        if minor is not None:
            cost = Money(amount=major(minor, currency), amount_minor=minor, currency=currency)
        return cls(**named, cost=cost)


class RevisionOut(Model):
    """`author`: the name of the operator's token, `charger`, `csms` where the end was inferred, or `audit`."""

    revision: int
    recorded_at: datetime
    author: str
    note: str | None
    before: BilledOut | None
    after: BilledOut

    @classmethod
    def of(cls, step: RevisionStep, currency: str) -> "RevisionOut":
        made = step.revision
        return cls(
            revision=made.revision,
            recorded_at=made.recorded_at,
            author=made.author,
            note=made.note,
            before=None if step.before is None else BilledOut.of(step.before, currency),
            after=BilledOut.of(made.state, currency),
        )


class Revisions(Model):
    """The first revision first."""

    items: list[RevisionOut]


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
