"""Price slots of any length, and the local days to which they belong."""

from collections.abc import Iterable, Sequence
from datetime import UTC, date, datetime, time, timedelta, tzinfo
from decimal import ROUND_HALF_UP, Decimal, InvalidOperation
from itertools import pairwise
from typing import Any, Final

from msgspec import Struct

_LEVEL: Final = Decimal("0.0001")


class PriceSlot(Struct, frozen=True, order=True):
    """`start` ≤ t < `end`, aware UTC, at `price` per kWh in the feed's currency. A price may be negative."""

    start: datetime
    end: datetime
    price: Decimal


def price_level(price: Decimal) -> Decimal:
    """Return the price to four decimal places, by which prices are compared."""
    return price.quantize(_LEVEL, ROUND_HALF_UP)


def parse_price(value: Any) -> Decimal | None:
    """Return a feed's number, exactly. None: it is missing, not a number, or not finite."""
    if isinstance(value, bool) or not isinstance(value, int | float | str | Decimal):
        return None
    try:
        # By its shortest text, so that a float of 0.1 is exactly 0.1.
        number = Decimal(str(value).strip())
    except InvalidOperation:
        return None
    # A larger number is not a price, and Decimal's arithmetic would round or raise.
    return number if number.is_finite() and abs(number) < 10**9 else None


def sort_slots(slots: Iterable[PriceSlot]) -> tuple[PriceSlot, ...]:
    """Sort slots by time, without empty ones and without those that overlap an earlier one."""
    result: list[PriceSlot] = []
    for slot in sorted(slots, key=lambda slot: slot.start):
        if slot.end > slot.start and (not result or slot.start >= result[-1].end):
            result.append(slot)
    return tuple(result)


def day_bounds(day: date, zone: tzinfo) -> tuple[datetime, datetime]:
    """Return the begin and end of a local day in UTC, 23, 24 or 25 hours apart."""
    start = datetime.combine(day, time(), zone).astimezone(UTC)
    return start, datetime.combine(day + timedelta(days=1), time(), zone).astimezone(UTC)


def slots_of_day(slots: Iterable[PriceSlot], day: date, zone: tzinfo) -> tuple[PriceSlot, ...]:
    """Return the slots that begin on a local day."""
    start, end = day_bounds(day, zone)
    return tuple(slot for slot in slots if start <= slot.start < end)


def covers_day(slots: Sequence[PriceSlot], day: date, zone: tzinfo) -> bool:
    """Return whether slots of any length cover a local day from midnight to midnight without a gap."""
    own = slots_of_day(slots, day, zone)
    start, end = day_bounds(day, zone)
    contiguous = all(before.end == after.start for before, after in pairwise(own))
    return bool(own) and own[0].start == start and own[-1].end == end and contiguous
