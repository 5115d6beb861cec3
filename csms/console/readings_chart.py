"""A transaction's readings: a sparkline for a row of a table, a chart with axes for a page."""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime

from markupsafe import Markup

from csms.console.charts import Chart, Scale, round_step
from csms.db.transaction_views import PlotPoint

_MOST_POINTS = 300
_CELLS = 4  # of both value axes: they share the grid
_LABEL_MINUTES = (1, 2, 5, 10, 15, 30, 60, 120, 180, 360, 720, 1440, 2880, 10_080)
_MOST_LABELS = 9


def thinned(points: Sequence[PlotPoint], most: int) -> list[PlotPoint]:
    """Return at most `most` points, evenly spaced, the first and the last among them."""
    if len(points) <= most:
        return list(points)
    step = (len(points) - 1) / (most - 1)
    return [points[round(number * step)] for number in range(most)]


def sparkline(points: Sequence[PlotPoint]) -> Markup:
    """Draw power over time, or energy where a charger reports no power; empty for fewer than two points."""
    values = [(p.at.timestamp(), p.power_w) for p in points if p.power_w is not None]
    what, unit, low = "Power", "kW", 0
    if len(values) < 2:
        values = [(p.at.timestamp(), p.energy_wh) for p in points if p.energy_wh is not None]
        if len(values) < 2:
            return Markup("")
        what, unit, low = "Energy", "kWh", min(value for _, value in values)
    high = max(value for _, value in values)
    chart = Chart(120, 28, (values[0][0], values[-1][0]))
    shown = [*values[:: max(len(values) // 60, 1)], values[-1]]
    chart.curve("line", shown, Scale(low, high, 26, 2), area="area")
    label = f"{what}, up to {high / 1000:.1f} {unit}"
    return chart.svg("spark", label, preserveAspectRatio="none")


def plot(points: Sequence[PlotPoint], meter_start_wh: int) -> Markup:
    """Draw power (left axis, area) and energy since the start (right axis, line); empty for fewer than two points."""
    shown = thinned(points, _MOST_POINTS)
    if len(shown) < 2:
        return Markup("")
    start, end = shown[0].at, shown[-1].at
    chart = Chart(800, 280, (start.timestamp(), end.timestamp()), left=52, right=60, top=26, bottom=30)
    for at, text in _time_labels(start, end):
        chart.text(text, chart.x(at.timestamp()), chart.height - 8, at=at.isoformat())
    powers = [(p.at.timestamp(), p.power_w / 1000) for p in shown if p.power_w is not None]
    if powers:
        step = round_step(max(value for _, value in powers), _CELLS)
        y = chart.y(0, step * _CELLS)
        chart.curve("line", powers, y, area="area")
        chart.value_axis(y, step)
        chart.text("kW", chart.left - 8, 11, "end", "unit")
    energies = [
        (p.at.timestamp(), max(p.energy_wh - meter_start_wh, 0) / 1000)
        for p in shown
        if p.energy_wh is not None
    ]
    if energies:
        step = round_step(max(value for _, value in energies), _CELLS)
        y = chart.y(0, step * _CELLS)
        chart.curve("energy", energies, y)
        chart.value_axis(y, step, right=True)
        chart.text("kWh", chart.right + 8, 11, "start", "unit")
    return chart.svg("plot", "Power and energy over time")


def _time_labels(start: datetime, end: datetime) -> Iterator[tuple[datetime, str]]:
    """Yield round times in UTC, about seven of them: hours and minutes, or days."""
    minutes = (end - start).total_seconds() / 60
    every_s = next((step for step in _LABEL_MINUTES if minutes / step <= 7), _LABEL_MINUTES[-1]) * 60
    first_s = int(-(-start.timestamp() // every_s)) * every_s
    for number in range(_MOST_LABELS):
        at = datetime.fromtimestamp(first_s + number * every_s, UTC)
        if at > end:
            return
        yield at, f"{at:%d %b}" if every_s >= 86_400 else f"{at:%H:%M}"
