"""A charger's plan as inline SVG: prices with what was chosen of them, the schedule on the charger, now.

Time runs evenly, whatever clocks do; its labels are the charger's local time.
"""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import pairwise
from typing import Final
from zoneinfo import ZoneInfo

from markupsafe import Markup
from msgspec import Struct

from csms.core.tariffs import zone_exists
from csms.scheduling.periods import ChargePeriod
from csms.scheduling.plan_view import PlanSlot, PlanView

_WIDTH, _HEIGHT = 900, 300
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 16, 26, 62
_STRIP_TOP, _STRIP = _HEIGHT - 54, 12  # what is on the charger, below the prices
_QUARTER: Final = timedelta(minutes=15)
_SHORTEST: Final = timedelta(hours=6)


class Row(Struct, frozen=True, kw_only=True):
    """A line of the table: a slot, or a period of a HEMS. `price` of a kWh; `limit_a` None: nothing flows."""

    day: str
    start: str
    end: str
    price: str | None
    chosen: bool
    limit_a: float | None
    now: bool


def zone_of(view: PlanView) -> ZoneInfo:
    return ZoneInfo(view.zone if zone_exists(view.zone) else "UTC")


# --- the drawing -----------------------------------------------------------------------------------------


class _Sheet:
    """Where a moment and a value are."""

    def __init__(self, begin: datetime, end: datetime, low: float, high: float) -> None:
        self.begin, self.end = begin, end
        self.low, self.high = low, high
        self._span_s = (end - begin).total_seconds() or 1

    def x(self, at: datetime) -> float:
        share = (at - self.begin).total_seconds() / self._span_s
        return _LEFT + min(max(share, 0), 1) * (_WIDTH - _LEFT - _RIGHT)

    def y(self, value: float) -> float:
        return _TOP + (self.high - value) / (self.high - self.low) * (_HEIGHT - _TOP - _BOTTOM)


def plot(view: PlanView, now: datetime) -> Markup:
    """Prices, or a HEMS's currents; empty where there is nothing of either."""
    span = _span(view, now)
    if span is None:
        return Markup("")
    by_price = bool(view.slots)
    limit = float(view.max_price) if view.max_price is not None and by_price else None
    values = [float(slot.price) for slot in view.slots] or [
        period.current_a for period in (*view.periods, *view.running)
    ]
    low, high, step = _scale([*values, 0.0, *([limit] if limit is not None else [])])
    sheet = _Sheet(*span, low, high)
    unit = f"{view.currency or ''}/kWh".lstrip("/") if by_price else "A"
    parts = [_values(sheet, step, unit), _hours(sheet, zone_of(view))]
    if by_price:
        parts += [_bar(sheet, slot, view) for slot in view.slots]
    else:
        parts += [_block(sheet, period, zone_of(view)) for period in view.periods]
    if limit is not None:
        parts.append(_line("threshold", _LEFT, _WIDTH - _RIGHT, sheet.y(limit), sheet.y(limit)))
    parts.append(_line("axis", _LEFT, _WIDTH - _RIGHT, sheet.y(0), sheet.y(0)))
    parts.append(
        Markup('<rect class="strip" x="{}" y="{}" width="{}" height="{}"/>').format(
            _LEFT, _STRIP_TOP, _WIDTH - _LEFT - _RIGHT, _STRIP
        )
    )
    parts += [_running(sheet, period, zone_of(view)) for period in view.running]
    if sheet.begin <= now <= sheet.end:
        x = sheet.x(now)
        parts.append(_line("now", x, x, _TOP - 6, _STRIP_TOP + _STRIP))
        parts.append(Markup('<text class="now" x="{:.1f}" y="12" text-anchor="middle">now</text>').format(x))
    return Markup('<svg class="plot planned" viewBox="0 0 {} {}" role="img" aria-label="{}">{}</svg>').format(
        _WIDTH,
        _HEIGHT,
        "Prices and the slots to charge in" if by_price else "Periods to charge in",
        Markup("").join(parts),
    )


def _span(view: PlanView, now: datetime) -> tuple[datetime, datetime] | None:
    if view.slots:
        return view.slots[0].start, view.slots[-1].end
    periods = (*view.periods, *view.running)
    if not periods:
        return None
    begin = min(now, *(period.start for period in periods)) - timedelta(hours=1)
    end = max(period.end for period in periods) + timedelta(hours=1)
    return begin, max(end, begin + _SHORTEST)


def _scale(values: Sequence[float]) -> tuple[float, float, float]:
    """Lowest, highest, and a round step: about four of them from one to the other."""
    low, high = min(values), max(values)
    span = (high - low) or 1.0
    steps = (size * scale for scale in (0.001, 0.01, 0.1, 1, 10, 100, 1000) for size in (1, 2, 5))
    step = next((step for step in steps if step * 5 >= span), span / 4)
    return -(-low // -step) * -step if low < 0 else 0.0, -(-high // step) * step or step, step


def _values(sheet: _Sheet, step: float, unit: str) -> Markup:
    parts = [Markup('<text class="unit" x="2" y="12">{}</text>').format(unit)]
    for number in range(round((sheet.high - sheet.low) / step) + 1):
        value = sheet.low + number * step
        y = sheet.y(value)
        parts.append(_line("grid", _LEFT, _WIDTH - _RIGHT, y, y))
        parts.append(
            Markup('<text x="{}" y="{:.1f}" text-anchor="end">{}</text>').format(
                _LEFT - 8, y + 4, f"{round(value, 6):g}"
            )
        )
    return Markup("").join(parts)


def _hours(sheet: _Sheet, zone: ZoneInfo) -> Markup:
    """Labels at full local hours, and at each local midnight the day."""
    hours = (sheet.end - sheet.begin).total_seconds() / 3600
    every = next((step for step in (1, 2, 3, 6, 12, 24) if hours / step <= 17), 24)
    parts = []
    at = datetime.fromtimestamp(-(-sheet.begin.timestamp() // 900) * 900, UTC)
    before, dated = None, False
    while at <= sheet.end:
        local = at.astimezone(zone)
        # In the hour that comes twice a label comes once.
        if local.minute == 0 and local.hour % every == 0 and (local.date(), local.hour) != before:
            before = local.date(), local.hour
            x = sheet.x(at)
            if local.hour == 0:
                parts.append(_line("day", x, x, _TOP, _STRIP_TOP + _STRIP))
            # The day at its beginning, and at the first label whatever it is.
            if at < sheet.end and (local.hour == 0 or not dated):
                dated = True
                parts.append(
                    Markup('<text class="date" x="{:.1f}" y="{}">{}</text>').format(
                        x + 2, _HEIGHT - 6, f"{local:%a %d %b}"
                    )
                )
            parts.append(
                Markup('<text x="{:.1f}" y="{}" text-anchor="middle">{}</text>').format(
                    x, _HEIGHT - 24, f"{local:%H:%M}"
                )
            )
        at += _QUARTER
    return Markup("").join(parts)


def _bar(sheet: _Sheet, slot: PlanSlot, view: PlanView) -> Markup:
    price = float(slot.price)
    top, bottom = sorted((sheet.y(price), sheet.y(0)))
    left, right = sheet.x(slot.start), sheet.x(slot.end)
    kind = "chosen" if slot.chosen else "dear" if _dear(slot, view) else "left"
    return Markup(
        '<rect class="{}" x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{:.1f}"><title>{}</title></rect>'
    ).format(
        kind,
        left,
        top,
        max(right - left - 0.6, 0.4),
        max(bottom - top, 0.8),
        f"{_times(slot.start, slot.end, zone_of(view))}: {price:.4f} {view.currency or ''}"
        f"{', chosen' if slot.chosen else ''}",
    )


def _dear(slot: PlanSlot, view: PlanView) -> bool:
    return view.max_price is not None and slot.price > view.max_price


def _block(sheet: _Sheet, period: ChargePeriod, zone: ZoneInfo) -> Markup:
    return Markup(
        '<rect class="chosen" x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{:.1f}"><title>{}</title></rect>'
    ).format(
        sheet.x(period.start),
        sheet.y(period.current_a),
        max(sheet.x(period.end) - sheet.x(period.start), 0.8),
        sheet.y(0) - sheet.y(period.current_a),
        f"{_times(period.start, period.end, zone)}: {period.current_a:g} A",
    )


def _running(sheet: _Sheet, period: ChargePeriod, zone: ZoneInfo) -> Markup:
    if period.end <= sheet.begin or period.start >= sheet.end:
        return Markup("")
    left, right = sheet.x(period.start), sheet.x(period.end)
    return Markup(
        '<rect class="running" x="{:.1f}" y="{}" width="{:.1f}" height="{}"><title>{}</title></rect>'
    ).format(
        left,
        _STRIP_TOP,
        max(right - left, 0.8),
        _STRIP,
        f"on the charger, {_times(period.start, period.end, zone)}: {period.current_a:g} A",
    )


def _line(kind: str, x1: float, x2: float, y1: float, y2: float) -> Markup:
    return Markup('<line class="{}" x1="{:.1f}" x2="{:.1f}" y1="{:.1f}" y2="{:.1f}"/>').format(
        kind, x1, x2, y1, y2
    )


# --- the same in words -----------------------------------------------------------------------------------


def _clock(at: datetime, zone: ZoneInfo) -> str:
    """Local time; where clocks are set back that day and the hour comes twice, also which of the two."""
    local = at.astimezone(zone)
    twice = local.utcoffset() != local.replace(fold=1 - local.fold).utcoffset()
    return f"{local:%H:%M} {local:%Z}" if twice else f"{local:%H:%M}"


def _times(start: datetime, end: datetime, zone: ZoneInfo) -> str:
    return f"{start.astimezone(zone):%a} {_clock(start, zone)} to {_clock(end, zone)}"


def periods(view: PlanView, now: datetime) -> list[Row]:
    """What is to come, a line for each period, with the mean price of its slots."""
    zone = zone_of(view)
    return [
        Row(
            day=f"{period.start.astimezone(zone):%a %d %b}",
            start=_clock(period.start, zone),
            end=_clock(period.end, zone),
            price=_mean(view.slots, period),
            chosen=True,
            limit_a=period.current_a,
            now=period.start <= now < period.end,
        )
        for period in view.periods
        if period.end > now
    ]


def _mean(slots: Iterable[PlanSlot], period: ChargePeriod) -> str | None:
    """By time, not by slot: slots have any length."""
    parts = [
        (slot.price, Decimal((min(slot.end, period.end) - max(slot.start, period.start)).total_seconds()))
        for slot in slots
        if slot.start < period.end and slot.end > period.start
    ]
    whole = sum(seconds for _, seconds in parts)
    return f"{sum(price * seconds for price, seconds in parts) / whole:.4f}" if whole else None


def table(view: PlanView, now: datetime) -> list[tuple[str, list[Row]]]:
    """Every slot by local day: its price, whether it was chosen, what the charger has of it."""
    zone, days = zone_of(view), dict[str, list[Row]]()
    for slot in view.slots:
        day = f"{slot.start.astimezone(zone):%A %d %B %Y}"
        held = next((p for p in view.running if p.start <= slot.start < p.end), None)
        days.setdefault(day, []).append(
            Row(
                day=day,
                start=_clock(slot.start, zone),
                end=_clock(slot.end, zone),
                price=f"{slot.price:.4f}",
                chosen=slot.chosen,
                limit_a=None if held is None else held.current_a,
                now=slot.start <= now < slot.end,
            )
        )
    return list(days.items())


def gaps(view: PlanView) -> int:
    """How many holes the prices have."""
    return sum(before.end < after.start for before, after in pairwise(view.slots))
