"""Charts of readings are well-formed and bounded, and empty where there is nothing to draw."""

from datetime import UTC, datetime, timedelta
from xml.etree import ElementTree as ET

import pytest

from csms.console.readings_chart import plot, sparkline, thinned
from csms.db.transaction_views import PlotPoint

START = datetime(2026, 1, 1, tzinfo=UTC)


def points(
    count: int, *, power: int | None = 7000, energy: int | None = 100, every_s: int = 60
) -> list[PlotPoint]:
    return [
        PlotPoint(START + timedelta(seconds=n * every_s), None if energy is None else energy * n, power)
        for n in range(count)
    ]


@pytest.mark.parametrize("count", [0, 1])
def test_too_few_points_draw_nothing(count: int):
    assert not sparkline(points(count))
    assert not plot(points(count), 0)


@pytest.mark.parametrize(
    "drawn",
    [
        points(2),
        points(5000),
        points(10, power=None),
        points(10, energy=None),
        points(10, power=0, energy=0),
        points(10, power=350_000, energy=10_000_000),
        points(3, every_s=0),
        points(4, every_s=86_400 * 30),
        [PlotPoint(START, None, None), PlotPoint(START, None, None)],
    ],
)
def test_a_chart_of_any_readings_is_well_formed_and_small(drawn: list[PlotPoint]):
    for svg in (sparkline(drawn), plot(drawn, 0)):
        assert "nan" not in svg
        if svg:
            ET.fromstring(svg)
            assert len(svg) < 40_000


def test_points_are_thinned_evenly_and_the_last_one_is_kept():
    many = points(1000)
    few = thinned(many, 10)
    assert (len(few), few[0], few[-1]) == (10, many[0], many[-1])
    assert thinned(many[:5], 10) == many[:5]
