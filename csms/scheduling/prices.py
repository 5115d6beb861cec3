"""Prices of energy in slots of any length, and the local days they belong to."""

from collections.abc import Iterable, Sequence
from datetime import UTC, date, datetime, time, timedelta, tzinfo
from decimal import ROUND_HALF_UP, Decimal, InvalidOperation
from itertools import pairwise
from typing import Any, Final

from msgspec import Struct

_LEVEL: Final = Decimal("0.0001")


class PriceSlot(Struct, frozen=True, order=True):
    """`start` ≤ t < `end`, aware UTC, at `price` a kWh in the feed's currency. Negative is an ordinary price."""

    start: datetime
    end: datetime
    price: Decimal


def price_level(price: Decimal) -> Decimal:
    """What makes two prices the same price: four decimal places."""
    return price.quantize(_LEVEL, ROUND_HALF_UP)


def parse_price(value: Any) -> Decimal | None:
    """A number of a feed, exact. None: it is missing, no number, or not finite."""
    if isinstance(value, bool) or not isinstance(value, int | float | str | Decimal):
        return None
    try:
        # By way of its shortest text: 0.1 means 0.1, not what a float makes of it.
        number = Decimal(str(value).strip())
    except InvalidOperation:
        return None
    # Beyond that it is no price, and Decimal's arithmetic would round or raise.
    return number if number.is_finite() and abs(number) < 10**9 else None


def sort_slots(slots: Iterable[PriceSlot]) -> tuple[PriceSlot, ...]:
    """In order of time, without empty slots, and without what overlaps an earlier one (duplicates among it)."""
    result: list[PriceSlot] = []
    for slot in sorted(slots, key=lambda slot: slot.start):
        if slot.end > slot.start and (not result or slot.start >= result[-1].end):
            result.append(slot)
    return tuple(result)


def day_bounds(day: date, zone: tzinfo) -> tuple[datetime, datetime]:
    """From local midnight to the next, in UTC: 23, 24 or 25 hours."""
    start = datetime.combine(day, time(), zone).astimezone(UTC)
    return start, datetime.combine(day + timedelta(days=1), time(), zone).astimezone(UTC)


def slots_of_day(slots: Iterable[PriceSlot], day: date, zone: tzinfo) -> tuple[PriceSlot, ...]:
    """The slots that begin on a local day."""
    start, end = day_bounds(day, zone)
    return tuple(slot for slot in slots if start <= slot.start < end)


def covers_day(slots: Sequence[PriceSlot], day: date, zone: tzinfo) -> bool:
    """Whether the slots cover a local day from midnight to midnight without a gap, however many there are."""
    own = slots_of_day(slots, day, zone)
    start, end = day_bounds(day, zone)
    contiguous = all(before.end == after.start for before, after in pairwise(own))
    return bool(own) and own[0].start == start and own[-1].end == end and contiguous
