"""Charts as inline SVG: scales, axes and shapes. Colours are the stylesheet's, by class."""

from collections.abc import Iterable

from markupsafe import Markup
from msgspec import Struct


class Scale(Struct, frozen=True):
    """Maps values linearly to pixels: `low` to `at_low`, `high` to `at_high`, values beyond them to the nearer one."""

    low: float
    high: float
    at_low: float
    at_high: float

    def __call__(self, value: float) -> float:
        share = (value - self.low) / ((self.high - self.low) or 1)
        return self.at_low + min(max(share, 0), 1) * (self.at_high - self.at_low)


def round_step(span: float, cells: int) -> float:
    """Return the smallest of 1, 2 and 5 times a power of ten of which `cells` cover `span`; at least 0.001."""
    steps = (size * 10.0**exponent for exponent in range(-3, 10) for size in (1, 2, 5))
    return next((step for step in steps if step * cells >= span), span / cells)


class Chart:
    """A drawing of `width` by `height` pixels with a plot area within the given margins.

    `x` maps `span` to the plot area's width: Unix time in seconds, or any other measure of time. The parts are drawn
    in the order in which they are added.
    """

    def __init__(
        self,
        width: int,
        height: int,
        span: tuple[float, float],
        *,
        left: int = 0,
        right: int = 0,
        top: int = 0,
        bottom: int = 0,
    ) -> None:
        self.width, self.height = width, height
        self.left, self.right = left, width - right
        self.top, self.bottom = top, height - bottom
        self.x = Scale(*span, self.left, self.right)
        self._parts: list[Markup] = []

    def y(self, low: float, high: float) -> Scale:
        """Return the scale that maps `low` to the plot area's bottom and `high` to its top."""
        return Scale(low, high, self.bottom, self.top)

    def add(self, tag: str, text: str | Markup = "", kind: str = "", **attributes: float | str) -> None:
        """Add an element. `kind` is its class; an underscore in an attribute's name stands for a hyphen."""
        written = Markup("").join(
            Markup(' {}="{}"').format(
                name.replace("_", "-"), f"{value:.1f}" if isinstance(value, float) else value
            )
            for name, value in ({"class": kind} | attributes).items()
            if value != ""
        )
        self._parts.append(Markup("<{}{}>{}</{}>").format(tag, written, text, tag))

    def line(self, kind: str, x1: float, x2: float, y1: float, y2: float) -> None:
        self.add("line", kind=kind, x1=x1, x2=x2, y1=y1, y2=y2)

    def bar(self, kind: str, left: float, right: float, y: float, height: float, title: str = "") -> None:
        """Add a rectangle, at least 0.8 pixels in each direction; `title` is its tooltip."""
        text = Markup("<title>{}</title>").format(title) if title else ""
        self.add("rect", text, kind, x=left, y=y, width=max(right - left, 0.8), height=max(height, 0.8))

    def text(
        self, text: str, x: float, y: float, anchor: str = "middle", kind: str = "", at: str = ""
    ) -> None:
        """Add a label. `at` is the ISO 8601 time that it shows: the browser shows it in its own zone."""
        self.add("text", text, kind, x=x, y=y, text_anchor=anchor, data_at=at)

    def curve(self, kind: str, values: Iterable[tuple[float, float]], y: Scale, *, area: str = "") -> None:
        """Add a line through values, each with its place on `x`. `area`: also fill what is below it, in this class."""
        points = [(self.x(at), y(value)) for at, value in values]
        path = " ".join(f"{left:.1f},{height:.1f}" for left, height in points)
        if area:
            below = f"{points[0][0]:.1f},{self.bottom} {path} {points[-1][0]:.1f},{self.bottom}"
            self.add("polygon", kind=area, points=below)
        self.add("polyline", kind=kind, points=path)

    def value_axis(self, y: Scale, step: float, *, right: bool = False) -> None:
        """Label every step of `y`: left of the plot area and with grid lines, or right of it."""
        x, anchor = (self.right + 8, "start") if right else (self.left - 8, "end")
        for number in range(round((y.high - y.low) / step) + 1):
            value = y.low + number * step
            if not right:
                self.line("grid", self.left, self.right, y(value), y(value))
            self.text(f"{round(value, 6):g}", x, y(value) + 4, anchor)

    def svg(self, kind: str, label: str, **attributes: str) -> Markup:
        """Return the drawing. `label` describes it to screen readers."""
        more = Markup("").join(Markup(' {}="{}"').format(*each) for each in attributes.items())
        return Markup('<svg class="{}" viewBox="0 0 {} {}" role="img" aria-label="{}"{}>{}</svg>').format(
            kind, self.width, self.height, label, more, Markup("").join(self._parts)
        )
