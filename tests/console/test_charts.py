"""The scale, the axis and the shapes that all charts are made of."""

from xml.etree import ElementTree as ET

import pytest

from csms.console.charts import Chart, Scale, round_step


def test_a_scale_maps_its_bounds_and_holds_values_beyond_them_at_the_nearer_one() -> None:
    scale = Scale(10, 20, 100, 0)
    assert [scale(value) for value in (10, 15, 20, 0, 99)] == [100, 50, 0, 100, 0]
    assert Scale(5, 5, 7, 9)(5) == 7


@pytest.mark.parametrize(
    ("span", "cells", "step"),
    [
        (0, 4, 0.001),
        (0.004, 4, 0.001),
        (0.4, 4, 0.1),
        (11, 4, 5),
        (20, 4, 5),
        (20.1, 4, 10),
        (350_000, 4, 100_000),
    ],
)
def test_a_step_is_the_smallest_round_one_that_covers_the_span(span: float, cells: int, step: float) -> None:
    assert round_step(span, cells) == step


def test_a_chart_escapes_text_and_labels_every_step() -> None:
    chart = Chart(100, 50, (0, 1), left=10, bottom=10)
    chart.value_axis(chart.y(-1, 1), 0.5)
    chart.bar("chosen", 20, 20, 5, 5, '<script>"')
    svg = chart.svg("plot", "<label>")
    assert "<script>" not in svg
    drawn = ET.fromstring(svg)
    assert [one.text for one in drawn if one.tag == "text"] == ["-1", "-0.5", "0", "0.5", "1"]
    (bar,) = [one for one in drawn if one.tag == "rect"]
    assert float(bar.get("width", 0)) == 0.8
