"""What an operator is shown of a charger's plan, for any kind of charger."""

from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal
from typing import Literal

from msgspec import Struct
from msgspec.structs import replace

from csms.scheduling.periods import ChargePeriod
from csms.scheduling.plan_delivery import NONE, NOT_DESIRED
from csms.scheduling.prices import PriceSlot
from csms.scheduling.selection import PricePlan

PlanMode = Literal["standalone", "hems"]


class PlanningTerms(Struct, frozen=True, kw_only=True):
    """The terms by which an OCPP charger is planned.

    `max_price`: per kWh (None: no threshold). `levels`: the number of price levels per day. `limit_a`: per phase.
    `otherwise`: what the charger does while prices are known and no chosen slot remains, charge or wait.
    `stack_level`: the highest to use (None: the charger's). `connector_id` 0: all connectors.
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
    """A slot with its price, and whether it was chosen."""

    start: datetime
    end: datetime
    price: Decimal
    chosen: bool = False


class PlanView(Struct, frozen=True, kw_only=True):
    """A plan. `state` is that of the plan, `delivery` that of its delivery to the charger.

    `periods` are the desired ones, `running` those on the charger as far as known, `source` the origin of the latter.
    """

    charger_id: str
    connector_id: int
    mode: PlanMode
    state: str
    message: str = ""
    delivery: str = NOT_DESIRED
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
    """Return the view with the prices of the planned days and the slots chosen of them."""
    if plan is None:
        return view
    chosen = {slot for choice in plan.choices for slot in choice.slots}
    first_choice = next((choice for choice in plan.choices if choice.slots), None)
    first, last = plan.window
    return replace(
        view,
        slots=tuple(
            PlanSlot(slot.start, slot.end, slot.price, slot in chosen)
            for slot in prices
            if first <= slot.start < last
        ),
        slots_chosen=0 if first_choice is None else len(first_choice.slots),
        price_levels=0 if first_choice is None else len(first_choice.levels),
        slots_excluded=sum(choice.excluded for choice in plan.choices),
    )
