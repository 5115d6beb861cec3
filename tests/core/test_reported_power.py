"""What the reported power of a session adds up to, and what it contradicts. Times are in minutes after the start."""

from datetime import UTC, datetime

import pytest

from csms.core import reported_power
from csms.core.reported_power import ReportedPower
from tests.harness.fake_store import at

LOST = datetime(1970, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("values", "shown_wh"),
    [
        ([], None),
        ([(7000, at(0), at(0))], 0),
        # Of two values the smaller one counts between them.
        ([(7000, at(0), at(0)), (6000, at(30), at(30)), (8000, at(60), at(60))], 6000),
        ([(7000, at(0), at(0)), (-6000, at(30), at(30)), (8000, at(60), at(60))], 0),
        ([(7000, at(0), at(0)), (23_000, at(30), at(30)), (7000, at(60), at(60))], 0),
        # Over more than an hour they prove nothing.
        ([(7000, at(0), at(0)), (7000, at(600), at(600))], 7000),
        # What waited in the charger counts by its own clock, unless that is wrong.
        ([(7000, at(0), at(90)), (7000, at(30), at(90))], 3500),
        ([(7000, LOST, at(0)), (7000, LOST, at(30))], 3500),
        ([(7000, at(0), at(0)), (7000, LOST, at(30)), (7000, at(60), at(60))], 7000),
        # One that was overtaken changes nothing.
        ([(7000, at(0), at(0)), (7000, at(30), at(30)), (0, at(10), at(31)), (7000, at(60), at(60))], 7000),
    ],
)
def test_power_adds_up_to_too_little_rather_than_too_much(
    values: list[tuple[int, datetime, datetime]], shown_wh: int | None
) -> None:
    known: ReportedPower | None = None
    for w, when, received_at in values:
        known = reported_power.add(known, w, when, received_at, most_w=22_000)
    assert (None if known is None else known.energy_ws / 3600) == shown_wh


@pytest.mark.parametrize(
    ("shown_wh", "energy_wh", "contradicted"),
    [
        (None, 0, False),
        (999, 0, False),
        (1000, 0, True),
        (1000, 5, True),
        (1000, 6, False),
        (7000, 7, True),
        (7000, 7000, False),
    ],
)
def test_power_contradicts_an_energy_that_is_a_fraction_of_it(
    shown_wh: int | None, energy_wh: int, *, contradicted: bool
) -> None:
    known = None if shown_wh is None else ReportedPower(0, at(0), at(0), shown_wh * 3600)
    assert reported_power.contradicts(known, energy_wh) == contradicted
