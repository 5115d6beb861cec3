"""What people are shown of a charger's plan, whatever the charger speaks."""

from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal
from typing import Literal

from msgspec import Struct
from msgspec.structs import replace

from csms.scheduling.periods import ChargePeriod
from csms.scheduling.plan_delivery import NONE, NOT_WANTED
from csms.scheduling.prices import PriceSlot
from csms.scheduling.selection import PricePlan

PlanMode = Literal["standalone", "hems"]


class PlanningTerms(Struct, frozen=True, kw_only=True):
    """How an OCPP charger is planned. `max_price` a kWh (None: none), `levels` a day, `limit_a` a phase.

    `otherwise`: what it does while prices are known and no chosen slot is left, charge or wait. `stack_level`:
    the highest to use (None: the charger's). `connector_id` 0: all connectors.
    """

    mode: PlanMode = "standalone"
    max_price: Decimal | None = Decimal("0.25")
    levels: int = 16
    limit_a: float = 16.0
    phases: int = 3
    connector_id: int = 0
    otherwise: Literal["charge", "wait"] = "charge"
    stack_level: int | None = None


class PlanSlot(Struct, frozen=True, array_like=True):
    """A slot with its price and whether it was chosen."""

    start: datetime
    end: datetime
    price: Decimal
    chosen: bool = False


class PlanView(Struct, frozen=True, kw_only=True):
    """A plan as it stands. `state` is the plan's, `delivery` what became of it on the charger.

    `periods` is what is wanted, `running` what the charger has by all we know. `source` is the running one's.
    """

    charger_id: str
    connector_id: int
    mode: PlanMode
    state: str
    message: str = ""
    delivery: str = NOT_WANTED
    problem: str | None = None
    source: str = NONE
    zone: str = "UTC"
    currency: str | None = None
    max_price: Decimal | None = None
    slots: tuple[PlanSlot, ...] = ()
    slots_chosen: int = 0
    price_levels: int = 0
    slots_excluded: int = 0
    periods: tuple[ChargePeriod, ...] = ()
    running: tuple[ChargePeriod, ...] = ()
    since: datetime | None = None
    expires_at: datetime | None = None
    source_id: str | None = None
    confirmed: bool | None = None


def with_prices(view: PlanView, plan: PricePlan | None, prices: Sequence[PriceSlot]) -> PlanView:
    """A view with the prices of the days that a plan is about, and what was chosen of them."""
    if plan is None:
        return view
    chosen = {slot for choice in plan.choices for slot in choice.slots}
    told = next((choice for choice in plan.choices if choice.slots), None)
    first, last = plan.window
    return replace(
        view,
        slots=tuple(
            PlanSlot(slot.start, slot.end, slot.price, slot in chosen)
            for slot in prices
            if first <= slot.start < last
        ),
        slots_chosen=len(told.slots) if told is not None else 0,
        price_levels=len(told.levels) if told is not None else 0,
        slots_excluded=sum(choice.excluded for choice in plan.choices),
    )
