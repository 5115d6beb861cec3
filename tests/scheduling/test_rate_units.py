"""The unit that a charger takes, and amperes as watts."""

import pytest

from csms.scheduling.rate_units import allowed_units, amperes, watts


@pytest.mark.parametrize(
    "reported", ["W", "w", "Power", "power", " POWER ", "Watt", "Watts", '["W"]', "Power,Power"]
)
def test_watts_in_every_spelling(reported):
    assert allowed_units(reported) == {"W"}


@pytest.mark.parametrize(
    "reported", ["A", "Current", "current", "Amp", "amps", "Amperes", "['A']", "Current;"]
)
def test_amperes_in_every_spelling(reported):
    assert allowed_units(reported) == {"A"}


@pytest.mark.parametrize(
    "reported",
    ["Current,Power", "Power, Current", "A;W", "W/A", "Current|Power", '["Current","Power"]', "A W"],
)
def test_both(reported):
    assert allowed_units(reported) == {"A", "W"}


@pytest.mark.parametrize("reported", [None, "", "true", "VA", "kVAr", "Wallbox", "3"])
def test_what_names_no_unit(reported):
    assert allowed_units(reported) == frozenset()


def test_power_is_that_of_all_phases_at_230_v():
    assert watts(16, 3) == 11_040
    assert amperes(11_040, 3) == 16
    assert watts(16, 1) == 3680
