"""The bands of a tariff over the week: a row for each day, 24 hours across."""

from markupsafe import Markup

from csms.console.charts import Chart
from csms.core.tariffs import DAYS, MINUTES_PER_DAY, Tariff, weekly_bands

_TOP, _ROW, _BAR = 18, 22, 16
_COLOURS = 6  # classes band-0 to band-5 in the stylesheet


def plot(tariff: Tariff, rates: list[str]) -> Markup:
    """Draw the week; `rates` has a sentence for each band, its tooltip."""
    chart = Chart(800, _TOP + len(DAYS) * _ROW, (0, MINUTES_PER_DAY), left=40)
    for hour in range(0, 25, 6):
        anchor = {0: "start", 24: "end"}.get(hour, "middle")
        chart.text(f"{hour:02d}:00", chart.x(hour * 60), 11, anchor)
    for row, (day, segments) in enumerate(zip(DAYS, weekly_bands(tariff.bands), strict=True)):
        y = _TOP + row * _ROW
        chart.text(day.capitalize(), 0, y + 12, "start")
        chart.bar("band-base", chart.left, chart.right, y, _BAR)
        for start, end, band in segments:
            chart.bar(f"band-{band % _COLOURS}", chart.x(start), chart.x(end), y, _BAR, rates[band])
    return chart.svg("plot week", "Bands of the week")
