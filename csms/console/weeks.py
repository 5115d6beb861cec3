"""A tariff's bands over the week, as inline SVG: a row a day, 24 hours across. Colours are the stylesheet's."""

from markupsafe import Markup

from csms.core.tariffs import DAYS, MINUTES_PER_DAY, Tariff, weekly_bands

_WIDTH, _LEFT, _TOP, _ROW, _BAR = 800, 40, 18, 22, 16
_COLOURS = 6  # classes band-0 to band-5 in the stylesheet


def plot(tariff: Tariff, rates: list[str]) -> Markup:
    """`rates`: for each band what it says, for the tooltip."""
    wide = _WIDTH - _LEFT
    parts = [
        Markup('<text x="{}" y="11" text-anchor="{}">{:02d}:00</text>').format(
            round(_LEFT + wide * hour / 24), "end" if hour == 24 else "middle" if hour else "start", hour
        )
        for hour in range(0, 25, 6)
    ]
    for row, (day, segments) in enumerate(zip(DAYS, weekly_bands(tariff.bands), strict=True)):
        y = _TOP + row * _ROW
        parts.append(Markup('<text x="0" y="{}">{}</text>').format(y + 12, day.capitalize()))
        parts.append(
            Markup('<rect class="band-base" x="{}" y="{}" width="{}" height="{}"/>').format(
                _LEFT, y, wide, _BAR
            )
        )
        for start, end, band in segments:
            parts.append(
                Markup(
                    '<rect class="band-{}" x="{:.1f}" y="{}" width="{:.1f}" height="{}"><title>{}</title></rect>'
                ).format(
                    band % _COLOURS,
                    _LEFT + wide * start / MINUTES_PER_DAY,
                    y,
                    wide * (end - start) / MINUTES_PER_DAY,
                    _BAR,
                    rates[band],
                )
            )
    return Markup(
        '<svg class="plot week" viewBox="0 0 {} {}" role="img" aria-label="Bands of the week">{}</svg>'
    ).format(_WIDTH, _TOP + len(DAYS) * _ROW, Markup("").join(parts))
