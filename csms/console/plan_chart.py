"""A charger's plan as a chart: prices with the chosen slots, below them the schedule on the charger.

The time axis is even, also on the days when clocks are set; its labels are the plan's local time.
"""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from math import ceil, floor
from typing import Final
from zoneinfo import ZoneInfo

from markupsafe import Markup

from csms.console.charts import Chart, Scale, round_step
from csms.console.plan_table import clock, zone_of
from csms.scheduling.plan_view import PlanView

_HEIGHT, _BOTTOM = 300, 62
_STRIP_TOP, _STRIP = _HEIGHT - 54, 12  # the schedule on the charger, below the prices
_QUARTER: Final = timedelta(minutes=15)
_SHORTEST: Final = timedelta(hours=6)


def plot(view: PlanView, now: datetime) -> Markup:
    """Draw the prices, or the currents that a HEMS wants; empty where there is neither."""
    span = _span(view, now)
    if span is None:
        return Markup("")
    begin, end = span
    chart = Chart(
        900, _HEIGHT, (begin.timestamp(), end.timestamp()), left=52, right=16, top=26, bottom=_BOTTOM
    )
    limit = float(view.max_price) if view.max_price is not None and view.slots else None
    y = _value_axis(chart, view, limit)
    _time_axis(chart, begin, end, zone_of(view))
    if view.slots:
        _add_prices(chart, y, view)
    else:
        _add_currents(chart, y, view)
    if limit is not None:
        chart.line("threshold", chart.left, chart.right, y(limit), y(limit))
    chart.line("axis", chart.left, chart.right, y(0), y(0))
    _add_schedule(chart, view)
    if begin <= now <= end:
        x = chart.x(now.timestamp())
        chart.line("now", x, x, chart.top - 6, _STRIP_TOP + _STRIP)
        chart.text("now", x, 12, kind="now")
    return chart.svg(
        "plot planned", "Prices and the slots to charge in" if view.slots else "Periods to charge in"
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


def _value_axis(chart: Chart, view: PlanView, limit: float | None) -> Scale:
    """Add the axis of prices or currents, from 0 or the lowest negative price, in about four steps."""
    values = [float(slot.price) for slot in view.slots] or [
        period.current_a for period in (*view.periods, *view.running)
    ]
    low, high = min(0, limit or 0, *values), max(0, limit or 0, *values)
    step = round_step((high - low) or 1, 5)
    y = chart.y(floor(low / step) * step, ceil(high / step) * step or step)
    chart.text(f"{view.currency or ''}/kWh".lstrip("/") if view.slots else "A", 2, 12, "start", "unit")
    chart.value_axis(y, step)
    return y


def _time_axis(chart: Chart, begin: datetime, end: datetime, zone: ZoneInfo) -> None:
    """Label full local hours, and the day at its beginning and at the first label."""
    dated = False
    for at, local in _full_hours(begin, end, zone):
        x = chart.x(at.timestamp())
        if local.hour == 0:
            chart.line("day", x, x, chart.top, _STRIP_TOP + _STRIP)
        if at < end and (local.hour == 0 or not dated):
            dated = True
            chart.text(f"{local:%a %d %b}", x + 2, _HEIGHT - 6, "start", "date")
        chart.text(f"{local:%H:%M}", x, _HEIGHT - 24)


def _full_hours(begin: datetime, end: datetime, zone: ZoneInfo) -> Iterator[tuple[datetime, datetime]]:
    """Yield the times of at most 17 labels, in UTC and in local time; an hour that comes twice, once."""
    hours = (end - begin).total_seconds() / 3600
    every = next((step for step in (1, 2, 3, 6, 12, 24) if hours / step <= 17), 24)
    before = None
    at = datetime.fromtimestamp(-(-begin.timestamp() // 900) * 900, UTC)
    while at <= end:
        local = at.astimezone(zone)
        if local.minute == 0 and local.hour % every == 0 and (local.date(), local.hour) != before:
            before = local.date(), local.hour
            yield at, local
        at += _QUARTER


def _add_prices(chart: Chart, y: Scale, view: PlanView) -> None:
    zone = zone_of(view)
    for slot in view.slots:
        price = float(slot.price)
        top, bottom = sorted((y(price), y(0)))
        above = view.max_price is not None and slot.price > view.max_price
        title = f"{_times(slot.start, slot.end, zone)}: {price:.4f} {view.currency or ''}"
        chart.bar(
            "chosen" if slot.chosen else "dear" if above else "left",
            chart.x(slot.start.timestamp()),
            chart.x(slot.end.timestamp()) - 0.6,
            top,
            bottom - top,
            f"{title}, chosen" if slot.chosen else title,
        )


def _add_currents(chart: Chart, y: Scale, view: PlanView) -> None:
    zone = zone_of(view)
    for period in view.periods:
        chart.bar(
            "chosen",
            chart.x(period.start.timestamp()),
            chart.x(period.end.timestamp()),
            y(period.current_a),
            y(0) - y(period.current_a),
            f"{_times(period.start, period.end, zone)}: {period.current_a:g} A",
        )


def _add_schedule(chart: Chart, view: PlanView) -> None:
    """Add the strip of the periods that the charger has."""
    zone = zone_of(view)
    chart.bar("strip", chart.left, chart.right, _STRIP_TOP, _STRIP)
    for period in view.running:
        start, end = period.start.timestamp(), period.end.timestamp()
        if end > chart.x.low and start < chart.x.high:
            title = f"on the charger, {_times(period.start, period.end, zone)}: {period.current_a:g} A"
            chart.bar("running", chart.x(start), chart.x(end), _STRIP_TOP, _STRIP, title)


def _times(start: datetime, end: datetime, zone: ZoneInfo) -> str:
    return f"{start.astimezone(zone):%a} {clock(start, zone)} to {clock(end, zone)}"
