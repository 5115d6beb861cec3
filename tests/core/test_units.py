import json

import msgspec
import pytest

from csms.core.units import ENERGY_REGISTER, default_unit, measure, parse_number
from tests.harness.fake_store import sample


def measured(*samples):
    return measure(samples)


def published(*samples):
    return json.loads(msgspec.json.encode(measure(samples).measurands))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("12500", 12500.0),
        ("-3.5", -3.5),
        (" 7 ", 7.0),
        ("1e3", 1000.0),
        ("12,5", None),
        ("NaN", None),
        ("-Infinity", None),
        ("", None),
        ("1e400", None),
        ("1e15", None),
        ("-1e15", None),
        ("1_000", None),
        ("0x10", None),
        (None, None),
    ],
)
def test_only_plausible_numbers_are_parsed(text, expected):
    assert parse_number(text) == expected


def test_a_bare_value_is_the_energy_register_in_wh():
    assert published(sample("12500")) == {
        "Energy.Active.Import.Register": {"value": 12.5, "unit": "kWh", "context": "Sample.Periodic"}
    }
    entry = measured(sample("12500"))
    assert (entry.energy_wh, entry.power_w, entry.skipped) == (12500, None, 0)


@pytest.mark.parametrize(
    ("measurand", "unit", "value", "expected", "expected_unit"),
    [
        ("Energy.Active.Import.Register", None, "1234.6", 1.235, "kWh"),
        ("Energy.Active.Import.Register", "kWh", "12.34567", 12.346, "kWh"),
        ("Energy.Reactive.Import.Register", None, "1500", 1.5, "kvarh"),
        ("Energy.Active.Export.Interval", "Wh", "1", 0.001, "kWh"),
        ("Power.Active.Import", None, "7200", 7.2, "kW"),
        ("Power.Active.Import", "kW", "7.2", 7.2, "kW"),
        ("Power.Reactive.Import", None, "10", 0.01, "kvar"),
        ("Power.Offered", "VA", "11000", 11.0, "kVA"),
        ("Power.Active.Export", "var", "-400", -0.4, "kvar"),
        ("Current.Import", None, "16.1", 16.1, "A"),
        ("Voltage", None, "230.4", 230.4, "V"),
        ("SoC", None, "55", 55.0, "Percent"),
        ("Temperature", None, "31.25", 31.25, "Celsius"),
        ("Temperature", "Celcius", "31", 31.0, "Celsius"),
        ("Temperature", "K", "300", 300.0, "K"),
        ("Frequency", None, "50.01", 50.01, "Hz"),
        ("RPM", None, "900", 900.0, "RPM"),
        ("Current.Import", None, "0.00001", 0.0, "A"),
        ("Power.Active.Import", None, "-0.2", 0.0, "kW"),
    ],
)
def test_units_are_converted_and_rounded_to_a_watt_or_a_watt_hour(
    measurand, unit, value, expected, expected_unit
):
    entry = published(sample(value, measurand, unit))[measurand]
    assert entry == {"value": expected, "unit": expected_unit, "context": "Sample.Periodic"}


def test_a_measurand_without_a_unit_of_its_own_has_none():
    assert default_unit("Power.Factor") == ""
    assert published(sample("0.98", "Power.Factor")) == {
        "Power.Factor": {"value": 0.98, "context": "Sample.Periodic"}
    }
    assert default_unit("Vendor.Thing") == ""


def test_no_value_is_printed_with_an_exponent_or_as_minus_zero():
    text = msgspec.json.encode(
        measure([sample("0.00002", "Current.Import"), sample("-0.1", "Power.Active.Import"), sample("9e14")])
    ).decode()
    assert "e-" not in text
    assert "e1" not in text
    assert "-0.0" not in text


def test_three_phases_of_power_are_summed():
    phases = [sample("2400", "Power.Active.Import", "W", phase=phase) for phase in ("L1", "L2", "L3")]
    entry = measured(*phases)
    assert published(*phases)["Power.Active.Import"] == {
        "value": 7.2,
        "unit": "kW",
        "context": "Sample.Periodic",
        "phases": {"L1": 2.4, "L2": 2.4, "L3": 2.4},
    }
    assert entry.power_w == 7200


def test_the_neutral_is_never_summed():
    entry = published(
        sample("100", "Power.Active.Import", phase="L1"), sample("3", "Power.Active.Import", phase="N")
    )["Power.Active.Import"]
    assert entry["value"] == 0.1
    assert entry["phases"] == {"L1": 0.1, "N": 0.003}


def test_phases_of_current_are_not_summed_and_the_first_is_named():
    entry = published(
        sample("16.1", "Current.Import", phase="L1"), sample("15.9", "Current.Import", phase="L2")
    )["Current.Import"]
    assert (entry["value"], entry["phase"]) == (16.1, "L1")
    assert entry["phases"] == {"L1": 16.1, "L2": 15.9}


@pytest.mark.parametrize("total_first", [True, False])
def test_a_total_beside_its_phases_is_the_value(total_first):
    samples = [sample("7000", "Power.Active.Import"), sample("2400", "Power.Active.Import", phase="L1")]
    entry = published(*(samples if total_first else reversed(samples)))["Power.Active.Import"]
    assert entry["value"] == 7.0
    assert entry["phases"] == {"L1": 2.4}
    assert "phase" not in entry


def test_the_outlet_sets_energy_and_power_where_it_is_measured():
    entry = measured(
        sample("100", "Power.Active.Import", location="Inlet"),
        sample("90", "Power.Active.Import", location="Outlet"),
        sample("5000", location="Inlet"),
    )
    assert set(entry.measurands) == {
        "Power.Active.Import@Inlet",
        "Power.Active.Import",
        "Energy.Active.Import.Register@Inlet",
    }
    assert entry.power_w == 90
    assert (entry.energy_wh, entry.energy_location) == (5000, "Inlet")
    assert entry.measurands["Power.Active.Import"].location == "Outlet"


def test_the_state_of_charge_may_be_the_cars():
    assert measured(sample("61", "SoC", location="EV")).soc_percent == 61.0


def test_signed_data_is_kept_as_text_and_never_read_as_a_number():
    entry = measured(sample("123456", format="SignedData"))
    assert published(sample("123456", format="SignedData")) == {
        "Energy.Active.Import.Register": {"signed": "123456"}
    }
    assert entry.energy_wh is None
    both = published(sample("123456", format="SignedData"), sample("12500"))
    assert both["Energy.Active.Import.Register"] == {
        "value": 12.5,
        "unit": "kWh",
        "context": "Sample.Periodic",
        "signed": "123456",
    }


def test_of_several_signed_samples_the_last_is_kept():
    measured = measure([sample("first", format="SignedData"), sample("second", format="SignedData")])
    assert measured.measurands[ENERGY_REGISTER].signed == "second"


@pytest.mark.parametrize("text", ["12,5", "NaN", "", "1e400", "1e300"])
def test_samples_that_are_not_numbers_are_skipped_and_counted(text):
    entry = measured(sample(text), sample("0", "Power.Active.Import"))
    assert entry.skipped == 1
    assert list(entry.measurands) == ["Power.Active.Import"]
    assert entry.power_w == 0


def test_energy_in_another_unit_sets_nothing():
    assert measured(sample("5", "Energy.Active.Import.Register", "A")).energy_wh is None


def test_the_largest_register_still_fits_the_database():
    entry = measured(sample("999999999999999", None, "kWh"))
    assert entry.energy_wh is not None
    assert entry.energy_wh < 2**63


@pytest.mark.parametrize("unit", ["Wh", "kWh"])
@pytest.mark.parametrize("text", ["1e-99999999999999999999", "1e-400", "0.0001"])
def test_an_energy_far_below_a_watt_hour_is_0(text, unit):
    assert measured(sample(text, None, unit)).energy_wh == 0
