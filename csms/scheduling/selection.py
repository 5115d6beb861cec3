"""Selection of slots: of each local day all those at the cheapest X price levels at or below a threshold."""

from collections.abc import Iterable, Sequence
from datetime import date, datetime, timedelta, tzinfo
from decimal import Decimal
from typing import Final

from msgspec import Struct

from csms.scheduling.periods import ChargePeriod, merge_periods
from csms.scheduling.prices import PriceSlot, day_bounds, price_level, slots_of_day

WAITING_FOR_PRICES: Final = "waiting_for_prices"
SCHEDULED: Final = "scheduled"
NO_ELIGIBLE_SLOTS: Final = "no_eligible_slots"
_MAX_PLANS: Final = 1000


class DayChoice(Struct, frozen=True, kw_only=True):
    """The chosen slots of a local day and their price levels.

    `offered`: the number of slots with a price; `excluded`: those above the threshold.
    """

    day: date
    slots: tuple[PriceSlot, ...] = ()
    levels: tuple[Decimal, ...] = ()
    offered: int = 0
    excluded: int = 0

    @property
    def message(self) -> str:
        return f"{len(self.slots)} slots at {len(self.levels)} price levels"


class PricePlan(Struct, frozen=True, kw_only=True):
    """The choice for today and tomorrow. `state`: waiting_for_prices, scheduled or no_eligible_slots.

    `window`: begin and end of the two days. `known_until`: the end of the last slot with a price.
    """

    state: str
    message: str
    choices: tuple[DayChoice, ...]
    periods: tuple[ChargePeriod, ...] = ()
    threshold_active: bool = False
    window: tuple[datetime, datetime]
    known_until: datetime | None = None

    @property
    def plan_day(self) -> date | None:
        """The day to which `message` refers."""
        return next((choice.day for choice in self.choices if choice.slots), None)


def choose_slots(
    slots: Iterable[PriceSlot], day: date, *, top_x: int, threshold: Decimal | None
) -> DayChoice:
    """Choose the slots of the `top_x` cheapest price levels at or below the threshold (None: no threshold)."""
    offered = sorted(slots)
    eligible = [slot for slot in offered if threshold is None or price_level(slot.price) <= threshold]
    levels = tuple(sorted({price_level(slot.price) for slot in eligible})[:top_x])
    return DayChoice(
        day=day,
        slots=tuple(slot for slot in eligible if price_level(slot.price) in levels),
        levels=levels,
        offered=len(offered),
        excluded=len(offered) - len(eligible),
    )


def plan_by_price(
    prices: Sequence[PriceSlot],
    *,
    now: datetime,
    zone: tzinfo,
    top_x: int,
    threshold: Decimal | None,
    current_a: float,
) -> PricePlan:
    """Plan today and tomorrow, each with its own `top_x` levels. Slots that have ended are included."""
    today = now.astimezone(zone).date()
    days = (today, today + timedelta(days=1))
    window = (day_bounds(days[0], zone)[0], day_bounds(days[1], zone)[1])
    offered = [slots_of_day(prices, day, zone) for day in days]
    choices = tuple(
        choose_slots(slots, day, top_x=top_x, threshold=threshold)
        for day, slots in zip(days, offered, strict=True)
    )
    chosen = [choice for choice in choices if choice.slots]
    if chosen:
        state, message = SCHEDULED, chosen[0].message
    elif any(choice.offered for choice in choices):
        state, message = NO_ELIGIBLE_SLOTS, f"No slots at or below {threshold}"
    else:
        state, message = WAITING_FOR_PRICES, "No price data available"
    return PricePlan(
        state=state,
        message=message,
        choices=choices,
        periods=merge_periods(
            ChargePeriod(slot.start, slot.end, current_a) for choice in chosen for slot in choice.slots
        ),
        threshold_active=any(choice.excluded for choice in choices),
        window=window,
        known_until=max((slot.end for slots in offered for slot in slots), default=None),
    )


class PlanCache:
    """Results of `plan_by_price`, one for all chargers with the same terms, until day or prices change."""

    def __init__(self) -> None:
        self._prices: Sequence[PriceSlot] = ()
        self._plans: dict[object, PricePlan] = {}

    def plan(
        self,
        prices: Sequence[PriceSlot],
        *,
        now: datetime,
        zone: tzinfo,
        top_x: int,
        threshold: Decimal | None,
        current_a: float,
    ) -> PricePlan:
        if prices is not self._prices or len(self._plans) >= _MAX_PLANS:
            self._prices = prices
            self._plans.clear()
        key = (now.astimezone(zone).date(), zone, top_x, threshold, current_a)
        if key not in self._plans:
            self._plans[key] = plan_by_price(
                prices, now=now, zone=zone, top_x=top_x, threshold=threshold, current_a=current_a
            )
        return self._plans[key]
