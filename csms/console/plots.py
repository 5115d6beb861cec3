"""Readings as inline SVG: a sparkline for a row, a plot with axes for a page. Colours are the stylesheet's."""

from collections.abc import Sequence
from datetime import UTC, datetime

from markupsafe import Markup

from csms.db.transaction_views import PlotPoint

_SPARK_WIDTH, _SPARK_HEIGHT = 120, 28
_WIDTH, _HEIGHT = 800, 280
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 60, 26, 30
_MOST_POINTS = 300
_STEPS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)
_MINUTES = (1, 2, 5, 10, 15, 30, 60, 120, 180, 360, 720, 1440, 2880, 10_080)


def thinned(points: Sequence[PlotPoint], most: int) -> list[PlotPoint]:
    """Evenly spaced ones and always the last, if there are too many."""
    if len(points) <= most:
        return list(points)
    step = (len(points) - 1) / (most - 1)
    return [points[round(number * step)] for number in range(most)]


def sparkline(points: Sequence[PlotPoint]) -> Markup:
    """Power over time; the energy gained where a charger reports no power. Empty without two points."""
    values = [(p.at, p.power_w) for p in points if p.power_w is not None]
    what = "Power"
    if len(values) < 2:
        values = [(p.at, p.energy_wh) for p in points if p.energy_wh is not None]
        what = "Energy"
    if len(values) < 2:
        return Markup("")
    low = 0 if what == "Power" else min(value for _, value in values)
    high = max(value for _, value in values)
    start, span = values[0][0], _seconds(values[0][0], values[-1][0])
    step = max(len(values) // 60, 1)
    line = " ".join(
        f"{_seconds(start, at) / span * _SPARK_WIDTH:.1f},"
        f"{_SPARK_HEIGHT - 2 - (value - low) / ((high - low) or 1) * (_SPARK_HEIGHT - 4):.1f}"
        for at, value in [*values[::step], values[-1]]
    )
    unit = "kW" if what == "Power" else "kWh"
    return Markup(
        '<svg class="spark" viewBox="0 0 {w} {h}" preserveAspectRatio="none" role="img"'
        ' aria-label="{what}, up to {high} {unit}">'
        '<polygon class="area" points="0,{h} {line} {w},{h}"/><polyline class="line" points="{line}"/></svg>'
    ).format(w=_SPARK_WIDTH, h=_SPARK_HEIGHT, what=what, high=f"{high / 1000:.1f}", unit=unit, line=line)


def plot(points: Sequence[PlotPoint], meter_start_wh: int) -> Markup:
    """Power (left axis, area) and energy since the start (right axis, line). Empty without two points."""
    shown = thinned(points, _MOST_POINTS)
    if len(shown) < 2:
        return Markup("")
    start, end = shown[0].at, shown[-1].at
    powers = [(p.at, p.power_w / 1000) for p in shown if p.power_w is not None]
    energies = [(p.at, max(p.energy_wh - meter_start_wh, 0) / 1000) for p in shown if p.energy_wh is not None]
    parts = [_time_axis(start, end)]
    if powers:
        step = _step(max(value for _, value in powers))
        line = _line(powers, start, end, step * 4)
        left, right, floor = line.split()[0].split(",")[0], line.split()[-1].split(",")[0], _HEIGHT - _BOTTOM
        parts.append(
            Markup('<polygon class="area" points="{},{f} {} {},{f}"/>').format(left, line, right, f=floor)
        )
        parts.append(Markup('<polyline class="line" points="{}"/>').format(line))
        parts.append(_value_axis(step, "kW", _LEFT - 8, "end"))
    if energies:
        step = _step(max(value for _, value in energies))
        parts.append(
            Markup('<polyline class="energy" points="{}"/>').format(_line(energies, start, end, step * 4))
        )
        parts.append(_value_axis(step, "kWh", _WIDTH - _RIGHT + 8, "start"))
    return Markup(
        '<svg class="plot" viewBox="0 0 {} {}" role="img" aria-label="Power and energy over time">{}</svg>'
    ).format(_WIDTH, _HEIGHT, Markup("").join(parts))


def _seconds(start: datetime, at: datetime) -> float:
    return (at - start).total_seconds() or 1e-9


def _step(highest: float) -> float:
    """The height of one of four grid cells, a round number."""
    for scale in (0.001, 0.01, 0.1, 1):
        for step in (1, 2, 5):
            if step * scale * 4 >= highest:
                return step * scale
    return next((step for step in _STEPS if step * 4 >= highest), highest / 4)


def _line(values: Sequence[tuple[datetime, float]], start: datetime, end: datetime, top: float) -> str:
    width, height = _WIDTH - _LEFT - _RIGHT, _HEIGHT - _TOP - _BOTTOM
    span = _seconds(start, end)
    return " ".join(
        f"{_LEFT + (at - start).total_seconds() / span * width:.1f},{_TOP + height - value / top * height:.1f}"
        for at, value in values
    )


def _value_axis(step: float, unit: str, x: float, anchor: str) -> Markup:
    height = _HEIGHT - _TOP - _BOTTOM
    labels = []
    for number in range(5):
        y = _TOP + height - number * height / 4
        if anchor == "end":
            labels.append(
                Markup('<line class="grid" x1="{}" x2="{}" y1="{y}" y2="{y}"/>').format(
                    _LEFT, _WIDTH - _RIGHT, y=y
                )
            )
        labels.append(
            Markup('<text x="{}" y="{}" text-anchor="{}">{}</text>').format(
                x, y + 4, anchor, f"{step * number:g}"
            )
        )
    labels.append(
        Markup('<text class="unit" x="{}" y="11" text-anchor="{}">{}</text>').format(x, anchor, unit)
    )
    return Markup("").join(labels)


def _time_axis(start: datetime, end: datetime) -> Markup:
    minutes = _seconds(start, end) / 60
    every = next((step for step in _MINUTES if minutes / step <= 7), _MINUTES[-1]) * 60
    first = int(-(-start.timestamp() // every)) * every
    width, labels = _WIDTH - _LEFT - _RIGHT, []
    for number in range(9):
        at = datetime.fromtimestamp(first + number * every, UTC)
        if at > end:
            break
        x = _LEFT + (at - start).total_seconds() / _seconds(start, end) * width
        text = f"{at:%d %b}" if every >= 86_400 else f"{at:%H:%M}"
        labels.append(
            Markup('<text x="{x:.1f}" y="{}" text-anchor="middle" data-at="{}">{}</text>').format(
                _HEIGHT - 8, at.isoformat(), text, x=x
            )
        )
    return Markup("").join(labels)
