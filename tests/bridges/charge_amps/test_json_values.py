from datetime import UTC, datetime
from decimal import Decimal

import pytest

from bridges.charge_amps.cloud import PhaseMeasurement
from bridges.charge_amps.json_values import items, moment, phases, power_w, text, whole


@pytest.mark.parametrize(
    ("value", "expected"),
    [(" a ", "a"), (7, "7"), ("", None), (None, None), (True, None), ({}, None), ([1], None)],
)
def test_text_is_a_text_or_a_number(value: object, expected: str | None) -> None:
    assert text(value) == expected


@pytest.mark.parametrize(
    ("value", "expected"), [(3, 3), ("3", 3), (3.0, 3), (3.5, None), ("x", None), (None, None)]
)
def test_whole_is_a_number_without_a_fraction(value: object, expected: int | None) -> None:
    assert whole(value) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("2026-11-21T12:00:00", datetime(2026, 11, 21, 12, tzinfo=UTC)),
        ("2026-11-21T12:00:00+01:00", datetime(2026, 11, 21, 11, tzinfo=UTC)),
        ("yesterday", None),
        (1_700_000_000, None),
    ],
)
def test_a_time_without_an_offset_is_in_utc(value: object, expected: datetime | None) -> None:
    assert moment(value) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [([{"a": 1}, 7, None], [{"a": 1}]), ({"a": 1}, [{"a": 1}]), ("x", []), (None, [])],
)
def test_items_are_the_objects_of_a_list_or_one_object(value: object, expected: list[object]) -> None:
    assert items(value) == expected


def test_phases_without_any_measurement_are_left_out() -> None:
    assert phases([("L1", "16", 230), ("L2", None, 231), ("L3", None, "n/a")]) == (
        PhaseMeasurement("L1", Decimal(16), Decimal(230)),
        PhaseMeasurement("L2", None, Decimal(231)),
    )


def test_power_is_the_answers_or_else_current_times_voltage() -> None:
    measured = phases([("L1", 10, 230), ("L2", 5, 230), ("L3", None, 230)])
    assert power_w("11.04", measured) == 11_040
    assert power_w(None, measured) == 3450
    assert power_w(None, measured[2:]) is None
    assert power_w(None, ()) is None
