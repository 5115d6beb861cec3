"""A charger's plan in tables: what is to come, every slot with its price. Times are the plan's local time."""

from collections.abc import Iterable
from datetime import datetime
from decimal import Decimal
from itertools import pairwise
from zoneinfo import ZoneInfo

from msgspec import Struct

from csms.core.tariffs import zone_exists
from csms.scheduling.periods import ChargePeriod
from csms.scheduling.plan_view import PlanSlot, PlanView


class PlanRow(Struct, frozen=True, kw_only=True):
    """A slot, or a period. `price` of a kWh; `limit_a` is what the charger may draw, None where it has no period."""

    day: str
    start: str
    end: str
    price: str | None
    chosen: bool
    limit_a: float | None
    now: bool


def zone_of(view: PlanView) -> ZoneInfo:
    """Return the plan's time zone; UTC where this machine does not know it."""
    return ZoneInfo(view.zone if zone_exists(view.zone) else "UTC")


def clock(at: datetime, zone: ZoneInfo) -> str:
    """Return the local time; in an hour that comes twice, when clocks are set back, with the zone's abbreviation."""
    local = at.astimezone(zone)
    twice = local.utcoffset() != local.replace(fold=1 - local.fold).utcoffset()
    return f"{local:%H:%M} {local:%Z}" if twice else f"{local:%H:%M}"


def upcoming(view: PlanView, now: datetime) -> list[PlanRow]:
    """Return the periods that have not ended, each with the mean price of its slots."""
    zone = zone_of(view)
    return [
        PlanRow(
            day=f"{period.start.astimezone(zone):%a %d %b}",
            start=clock(period.start, zone),
            end=clock(period.end, zone),
            price=_mean_price(view.slots, period),
            chosen=True,
            limit_a=period.current_a,
            now=period.start <= now < period.end,
        )
        for period in view.periods
        if period.end > now
    ]


def _mean_price(slots: Iterable[PlanSlot], period: ChargePeriod) -> str | None:
    """Weighted by time, because slots differ in length."""
    parts = [
        (slot.price, Decimal((min(slot.end, period.end) - max(slot.start, period.start)).total_seconds()))
        for slot in slots
        if slot.start < period.end and slot.end > period.start
    ]
    whole = sum(seconds for _, seconds in parts)
    return f"{sum(price * seconds for price, seconds in parts) / whole:.4f}" if whole else None


def slots_by_day(view: PlanView, now: datetime) -> dict[str, list[PlanRow]]:
    """Return every slot by local day: its price, whether it was chosen, and the current that the charger has for it."""
    zone, days = zone_of(view), dict[str, list[PlanRow]]()
    for slot in view.slots:
        day = f"{slot.start.astimezone(zone):%A %d %B %Y}"
        running = next((p for p in view.running if p.start <= slot.start < p.end), None)
        days.setdefault(day, []).append(
            PlanRow(
                day=day,
                start=clock(slot.start, zone),
                end=clock(slot.end, zone),
                price=f"{slot.price:.4f}",
                chosen=slot.chosen,
                limit_a=None if running is None else running.current_a,
                now=slot.start <= now < slot.end,
            )
        )
    return days


def has_gaps(view: PlanView) -> bool:
    """Whether prices are missing between two slots."""
    return any(before.end < after.start for before, after in pairwise(view.slots))
