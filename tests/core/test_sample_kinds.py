"""What chargers send as samples, and what is made of it: recognition, choice among several, plausibility."""

import json

import msgspec
import pytest

from csms.core.sample_kinds import kind_of
from csms.core.units import measure
from tests.harness.fake_store import sample

REGISTER = "Energy.Active.Import.Register"
POWER = "Power.Active.Import"


def summary(*samples):
    """Register, power and state of charge of one reading."""
    one = measure(samples)
    return one.energy_wh, one.power_w, one.soc_percent


def published(*samples):
    return json.loads(msgspec.json.encode(measure(samples).measurands))


def deviations(*samples):
    return [(d.kind, d.field.removeprefix("sampledValue."), d.example) for d in measure(samples).deviations]


# --- spellings ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("unit", "wh"),
    [
        ("Wh", 12),
        ("wh", 12),
        ("WH", 12),
        (" Wh ", 12),
        ("watt-hours", 12),
        ("kWh", 12_000),
        ("kwh", 12_000),
        ("KWH", 12_000),
        ("kW h", 12_000),
        ("KWh", 12_000),
        ("kW_h", 12_000),
        ("Kilowatt hours", 12_000),
        ("MWh", 12_000_000),
        ("MWH", 12_000_000),
        ("Mwh", 12_000_000),
        ("GWh", 12_000_000_000),
        ("mWh", 0),
        ("", 12),
        ("  ", 12),
    ],
)
@pytest.mark.parametrize("measurand", [None, REGISTER])
def test_units_of_energy_are_read_in_any_spelling_and_with_any_prefix(unit, wh, measurand):
    assert summary(sample("12", measurand, unit)) == (wh, None, None)
    entry = published(sample("12", measurand, unit))[REGISTER]
    assert (entry["value"], entry["unit"]) == (wh / 1000, "kWh")


@pytest.mark.parametrize("unit", ["mwh", "mWH", "Joule", "m3", "x" * 1000])
def test_a_unit_that_says_nothing_or_two_things_sets_no_register(unit):
    assert summary(sample("12", None, unit)) == (None, None, None)
    assert summary(sample("12", REGISTER, unit), sample("7000")) == (7000, None, None)
    assert summary(sample("7000"), sample("12", REGISTER, unit)) == (7000, None, None)
    assert deviations(sample("12", REGISTER, unit)) == [
        ("unit_contradicts_measurand", "unit", f"{REGISTER} in {unit}")
    ]


@pytest.mark.parametrize(
    ("spelled", "measurand"),
    [
        ("energy.active.import.register", REGISTER),
        ("ENERGY.ACTIVE.IMPORT.REGISTER", REGISTER),
        ("Energy_Active_Import_Register", REGISTER),
        ("Energy Active Import Register", REGISTER),
        ("EnergyActiveImportRegister", REGISTER),
        (" Energy.Active.Import.Register", REGISTER),
        ("", REGISTER),
        (" ", REGISTER),
        ("Current.import", "Current.Import"),
        ("power.active.import", POWER),
        ("soc", "SoC"),
        ("SOC", "SoC"),
        ("State of Charge", "SoC"),
        ("voltage", "Voltage"),
        ("rpm", "RPM"),
    ],
)
def test_measurands_are_read_in_any_spelling(spelled, measurand):
    assert list(published(sample("7", spelled))) == [measurand]


@pytest.mark.parametrize(
    ("measurand", "unit", "expected"),
    [
        (POWER, "kw", (3.0, "kW")),
        (POWER, "KW", (3.0, "kW")),
        (POWER, "w", (0.003, "kW")),
        (POWER, "Watts", (0.003, "kW")),
        ("Current.Import", "a", (3.0, "A")),
        ("Current.Import", "Amps", (3.0, "A")),
        ("Current.Import", "mA", (0.003, "A")),
        ("Current.Import", "MA", (0.003, "A")),
        ("Voltage", "v", (3.0, "V")),
        ("Voltage", "mV", (0.003, "V")),
        ("Temperature", "celsius", (3.0, "Celsius")),
        ("Temperature", "celcius", (3.0, "Celsius")),
        ("Temperature", "°C", (3.0, "Celsius")),
        ("Temperature", "C", (3.0, "Celsius")),
        ("SoC", "%", (3.0, "Percent")),
        ("SoC", "percent", (3.0, "Percent")),
        ("Frequency", "hz", (3.0, "Hz")),
        ("Energy.Reactive.Import.Register", "kVArh", (3.0, "kvarh")),
        ("Power.Reactive.Import", "VAr", (0.003, "kvar")),
        ("Power.Offered", "kva", (3.0, "kVA")),
    ],
)
def test_other_units_are_read_in_any_spelling(measurand, unit, expected):
    entry = published(sample("3", measurand, unit))[measurand]
    assert (entry["value"], entry["unit"]) == expected


def test_contexts_locations_phases_and_formats_are_read_in_any_spelling():
    one = sample("7", POWER, "W", context="sample.clock", location="outlet", phase="l1 n", format="RAW")
    assert published(one)[POWER] == {
        "value": 0.007,
        "unit": "kW",
        "context": "Sample.Clock",
        "location": "Outlet",
        "phases": {"L1-N": 0.007},
    }
    assert published(sample("AB12", format="signed_data")) == {REGISTER: {"signed": "AB12"}}


def test_empty_texts_are_absent():
    one = sample("7", "", "", context="", location="", phase=" ", format="")
    assert published(one) == {REGISTER: {"value": 0.007, "unit": "kWh", "context": "Sample.Periodic"}}
    assert {kind for kind, _, _ in deviations(one)} == {"blank_dropped"}


def test_another_spelling_is_a_deviation_of_its_field_and_ocpps_own_is_none():
    assert deviations(sample("7", "soc", "%", location="ev")) == [
        ("enum_respelled", "measurand", "soc"),
        ("enum_respelled", "unit", "%"),
        ("enum_respelled", "location", "ev"),
    ]
    assert deviations(sample("7", "Temperature", "Celcius"), sample("50", "Frequency", "Hz")) == []
    vendors = sample("7", "Vendor.Thing", "furlong", context="Full.Moon", location="Garage", phase="L9")
    assert deviations(vendors) == []
    assert published(vendors)["Vendor.Thing@Garage"]["unit"] == "furlong"


# --- the unit decides ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("measurand", "unit", "expected"),
    [
        (None, "A", "Current.Import"),
        (None, "V", "Voltage"),
        (None, "W", POWER),
        (None, "kW", POWER),
        ("", "kW", POWER),
        (None, "VA", POWER),
        (None, "var", "Power.Reactive.Import"),
        (None, "kvarh", "Energy.Reactive.Import.Register"),
        (None, "Percent", "SoC"),
        (None, "%", "SoC"),
        (None, "Celsius", "Temperature"),
        (None, "Celcius", "Temperature"),
        (None, "K", None),  # 16 K is no temperature of a charger
        (None, "Hz", "Frequency"),
        (None, "RPM", "RPM"),
        (REGISTER, "A", "Current.Import"),
        (REGISTER, "V", "Voltage"),
        (REGISTER, "kW", POWER),
        (REGISTER, "Percent", "SoC"),
        (REGISTER, "Celsius", "Temperature"),
        ("Energy.Active.Import.Interval", "W", POWER),
        ("Energy.Active.Export.Register", "W", "Power.Active.Export"),
        ("Energy.Active.Export.Register", "A", "Current.Export"),
        (POWER, "A", "Current.Import"),
        (POWER, "V", "Voltage"),
        (POWER, "kWh", REGISTER),
        (POWER, "Wh", REGISTER),
        ("Power.Active.Export", "kWh", "Energy.Active.Export.Register"),
        ("Current.Import", "kW", POWER),
        ("Current.Export", "W", "Power.Active.Export"),
        ("Current.Import", "V", "Voltage"),
        ("Current.Offered", "W", "Power.Offered"),
        ("Power.Offered", "A", "Current.Offered"),
        ("Voltage", "A", "Current.Import"),
        ("SoC", "kWh", REGISTER),
        ("Temperature", "V", "Voltage"),
    ],
)
def test_a_unit_that_the_measurand_cannot_have_names_another(measurand, unit, expected):
    one = sample("16", measurand, unit)
    assert list(published(one)) == ([] if expected is None else [expected])
    assert deviations(one)[-1 if expected else 0][0] == "unit_contradicts_measurand"
    assert summary(one)[0] is None or expected == REGISTER


@pytest.mark.parametrize(
    "measurand", ["Current.Import", "Voltage", "SoC", "Temperature", "Frequency", "Power.Factor"]
)
def test_the_schemas_default_unit_on_everything_makes_no_registers(measurand):
    assert list(published(sample("1", measurand, "Wh"))) == [measurand]
    assert summary(sample("1", measurand, "Wh"))[0] is None


@pytest.mark.parametrize("measurand", ["Power.Offered", "Current.Offered"])
def test_what_is_offered_is_no_energy(measurand):
    assert summary(sample("11", measurand, "kWh")) == (None, None, None)
    assert summary(sample("11", measurand, "Percent")) == (None, None, None)


@pytest.mark.parametrize(
    "beside",
    [
        sample("16", None, "A"),
        sample("16", REGISTER, "A"),
        sample("230", REGISTER, "V"),
        sample("7.2", None, "kW"),
        sample("55", None, "Percent"),
        sample("3", POWER, "kWh"),
        sample("3", REGISTER, "m3"),
        sample("3", REGISTER, "varh"),
        sample("3", "Energy.Active.Import.Interval", "Wh"),
        sample("3", "Energy.Active.Export.Register", "Wh"),
        sample("3", location="Inlet"),
        sample("3", context="Transaction.Begin"),
        sample("3", context="Interruption.Begin"),
        sample("3", REGISTER, "kWh", context="transaction.begin"),
        sample("NaN"),
        sample("-1"),
    ],
)
@pytest.mark.parametrize("behind", [True, False])
def test_no_other_sample_takes_the_place_of_the_register(beside, behind):
    samples = [sample("12500", REGISTER, "Wh"), beside]
    one = measure(samples if behind else samples[::-1])
    assert one.energy_wh == 12500
    assert one.measurands[REGISTER].value == 12.5
    assert one.energy_location == "Outlet"


# --- which sample is current ---------------------------------------------------------------------------


@pytest.mark.parametrize("measurand", [REGISTER, None])
@pytest.mark.parametrize("turned", [False, True])
def test_a_register_of_the_begin_beside_the_current_one_is_kept_apart(measurand, turned):
    samples = [
        sample("163630", measurand, "Wh", context="Sample.Periodic"),
        sample("157440", measurand, "Wh", context="Transaction.Begin"),
    ]
    one = measure(samples[::-1] if turned else samples)
    assert (one.energy_wh, one.begin_wh) == (163630, 157440)
    assert (one.measurands[REGISTER].value, one.measurands[REGISTER].context) == (163.63, "Sample.Periodic")


def test_a_register_of_the_begin_alone_is_not_the_current_one():
    one = measure([sample("157440", context="Transaction.Begin"), sample("0", POWER)])
    assert (one.energy_wh, one.begin_wh, one.power_w) == (None, 157440, 0)
    assert one.measurands[REGISTER].context == "Transaction.Begin"


def test_a_begin_that_was_sent_in_phases_is_their_sum():
    begin = [sample(n, phase=f"L{n}", context="Transaction.Begin") for n in (1, 2, 3)]
    one = measure([*begin, sample("900")])
    assert (one.energy_wh, one.begin_wh) == (900, 6)


@pytest.mark.parametrize("phases", [("L1", "NaN"), ("N",)])
def test_a_begin_without_a_total_is_none(phases):
    begin = [sample(5, phase=phases[0], context="Transaction.Begin")]
    begin += [sample(text, phase="L2", context="Transaction.Begin") for text in phases[1:]]
    one = measure([*begin, sample("900")])
    assert (one.energy_wh, one.begin_wh) == (900, None)


def test_the_begin_of_an_interval_or_of_another_unit_is_no_register():
    one = measure(
        [
            sample("5", "Energy.Active.Import.Interval", context="Transaction.Begin"),
            sample("5", None, "A", context="Transaction.Begin"),
        ]
    )
    assert one.begin_wh is None


@pytest.mark.parametrize(
    ("contexts", "expected"),
    [
        (("Transaction.Begin", "Transaction.End"), "Transaction.End"),
        (("Transaction.Begin", "Sample.Periodic", "Transaction.End"), "Transaction.End"),
        (("Sample.Clock", "Transaction.End"), "Transaction.End"),
        (("Transaction.End", "Trigger", "Other"), "Transaction.End"),
        (("Interruption.Begin", "Sample.Periodic"), "Sample.Periodic"),
        (("Interruption.Begin", "Transaction.Begin"), "Interruption.Begin"),
        (("Trigger", "Interruption.End"), "Trigger"),
        (("Transaction.Begin", None), None),
        (("Transaction.Begin", "Full.Moon"), "Full.Moon"),
        (("transaction.begin", "TRANSACTION.END"), "TRANSACTION.END"),
    ],
)
@pytest.mark.parametrize("turned", [False, True])
def test_of_several_contexts_one_is_current(contexts, expected, turned):
    samples = [sample(100 + n, context=context) for n, context in enumerate(contexts)]
    one = measure(samples[::-1] if turned else samples)
    assert one.energy_wh == 100 + contexts.index(expected)


def test_of_equals_the_last_is_current():
    assert summary(sample("1"), sample("2", context="Sample.Clock")) == (2, None, None)


def test_the_current_phases_win_over_a_total_of_the_begin():
    phases = [sample(n * 100, POWER, phase=f"L{n}") for n in (1, 2, 3)]
    assert summary(sample("9", POWER, context="Transaction.Begin"), *phases) == (None, 600, None)


def test_of_several_signed_samples_the_current_is_kept():
    end = sample("END", format="SignedData", context="Transaction.End")
    begin = sample("BEGIN", format="SignedData", context="Transaction.Begin")
    assert published(end, begin) == published(begin, end) == {REGISTER: {"signed": "END"}}


# --- locations -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("first", ["Outlet", "Cable", "Body", "Inlet", "EV", "Garage"])
def test_the_register_is_that_nearest_to_the_outlet(first):
    order = ["Outlet", "Cable", "Body", "Inlet", "EV", "Garage"]
    there = order[order.index(first) :]
    samples = [sample(100 + order.index(location), location=location) for location in there]
    for turned in (samples, samples[::-1]):
        one = measure(turned)
        assert (one.energy_wh, one.energy_location) == (100 + order.index(first), first)


def test_power_falls_back_as_the_register_does_and_the_charge_to_the_car_first():
    assert summary(sample("100", POWER, location="Inlet"), sample("90", POWER, location="Body")) == (
        None,
        90,
        None,
    )
    assert summary(sample("50", "SoC", location="Inlet"), sample("60", "SoC", location="EV")) == (
        None,
        None,
        60.0,
    )
    assert summary(sample("50", "SoC", location="Body")) == (None, None, 50.0)


def test_a_begin_elsewhere_is_no_current_register():
    one = measure([sample("5", location="Inlet", context="Transaction.Begin")])
    assert (one.energy_wh, one.begin_wh) == (None, 5)


# --- phases --------------------------------------------------------------------------------------------


def phased(**values):
    """Samples of one measurand: `L1_N=5` is 5 in phase L1-N, `total=5` without a phase."""
    return [(None if name == "total" else name.replace("_", "-"), value) for name, value in values.items()]


PHASES = [
    (phased(L1=2400, L2=2400, L3=2400), 7200),
    (phased(L1_N=2400, L2_N=2400, L3_N=2400), 7200),
    (phased(L1=7000), 7000),
    (phased(L1=7000, L1_N=7000), 7000),
    (phased(L1_N=7000, L1=7000), 7000),
    (phased(L1=0, L1_N=7000), 7000),
    (phased(L1=7000, L1_N=0), 7000),
    (phased(L1=2, L2=3, L3=4, L1_N=2, L2_N=3, L3_N=4), 9),
    (phased(L1=2, L2_N=3), 5),
    (phased(total=7000, L1=7000, L2=7000, L3=7000), 7000),
    (phased(L1=7000, L2=7000, L3=7000, total=7000), 7000),
    (phased(total=0, L1=3600, L2=3600, L3=3600), 10800),
    (phased(L1=3600, L2=3600, L3=3600, total=0), 10800),
    (phased(total=0, L1=0, L2=0, L3=0), 0),
    (phased(total=9, L1=3), 9),
    (phased(total=0, N=4), 0),
    (phased(L1=3, N=4), 3),
    (phased(N=4), None),
    (phased(L1=3, L2=3, L1_L2=5), 6),
    (phased(L1_L2=5, L2_L3=5, L3_L1=5), None),
    (phased(total=0, L1_L2=5), 0),
]


@pytest.mark.parametrize(("values", "expected"), PHASES)
def test_one_rule_of_phases_holds_for_register_and_power(values, expected):
    assert summary(*[sample(value, POWER, "W", phase=phase) for phase, value in values])[1] == expected
    assert summary(*[sample(value, None, "Wh", phase=phase) for phase, value in values])[0] == expected


@pytest.mark.parametrize("lost", ["NaN", "", "1e18", "-1e18"])
def test_a_total_without_one_of_its_phases_is_none(lost):
    samples = [sample("100", phase="L1"), sample(lost, phase="L2"), sample("100", phase="L3")]
    assert summary(*samples) == (None, None, None)
    assert published(*samples)[REGISTER]["phases"] == {"L1": 0.1, "L3": 0.1}
    assert "value" not in published(*samples)[REGISTER]
    assert summary(*samples, sample("300")) == (300, None, None)
    assert summary(*samples, sample("101", phase="L2-N")) == (301, None, None)


def test_a_zero_current_beside_the_phases_is_a_placeholder():
    entry = published(sample("0", "Current.Import"), sample("16", "Current.Import", phase="L1"))[
        "Current.Import"
    ]
    assert (entry["value"], entry["phase"]) == (16.0, "L1")


# --- plausible or none ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("measurand", "unit", "value", "plausible"),
    [
        ("SoC", "Percent", "0", True),
        ("SoC", "Percent", "100", True),
        ("SoC", "Percent", "255", False),
        ("SoC", "Percent", "100.1", False),
        ("SoC", "Percent", "-1", False),
        ("SoC", None, "255", False),
        (POWER, "W", "2000000", True),
        (POWER, "W", "2000001", False),
        (POWER, "kW", "2000.1", False),
        (POWER, "MW", "2.1", False),
        (POWER, "MW", "1.9", True),
        ("Power.Active.Export", "W", "-2000001", False),
        ("Power.Offered", "W", "4294967295", False),
        ("Power.Reactive.Import", "var", "2000001", False),
        ("Voltage", "V", "2000", True),
        ("Voltage", "V", "2300", False),
        ("Voltage", "mV", "230000", True),
        ("Current.Import", "A", "5000", True),
        ("Current.Import", "A", "5001", False),
        ("Current.Import", "mA", "32000", True),
        ("Current.Offered", "A", "65535", False),
        ("Temperature", "Celsius", "-100", True),
        ("Temperature", "Celsius", "301", False),
        ("Temperature", "Fahrenheit", "500", True),
        ("Temperature", "K", "300", True),
        ("Temperature", "K", "25", False),
        ("Frequency", "Hz", "1000", True),
        ("Frequency", "Hz", "-1", False),
        ("Frequency", "Hz", "5001", False),
        (REGISTER, "Wh", "0", True),
        (REGISTER, "Wh", "-1", False),
        (REGISTER, "kWh", "-0.001", False),
        (REGISTER, "MWh", "999999999999999", False),
        ("Energy.Active.Import.Interval", "Wh", "-1", True),
        ("Energy.Active.Export.Register", "Wh", "-1", True),
        ("Power.Factor", None, "-0.9", True),
        ("Vendor.Thing", "A", "6000", True),
    ],
)
def test_what_cannot_be_is_left_out_and_counted(measurand, unit, value, plausible):
    one = sample(value, measurand, unit)
    assert (list(published(one)) == [measurand]) is plausible
    assert deviations(one) == ([] if plausible else [("implausible_value", "value", value)])
    if not plausible:
        assert summary(one) == (None, None, None)


def test_phases_that_are_too_much_together_are_no_total():
    phases = [sample("900000", POWER, "W", phase=phase) for phase in ("L1", "L2", "L3")]
    assert summary(*phases) == (None, None, None)
    assert deviations(*phases) == [("implausible_value", "value", "2700 kW")]


@pytest.mark.parametrize(
    "value",
    [
        "NaN",
        "nan",
        "Infinity",
        "-inf",
        "1" + "0" * 400,
        "1e400",
        "0x10",
        "true",
        "True",
        "",
        " ",
        "12,5",
        "1,234",
    ]
    + ["12 500", "1_000", "1.2.3", "12kWh", "--1", "null"],
)
def test_what_is_not_a_plain_number_is_none(value):
    assert summary(sample(value)) == (None, None, None)
    assert deviations(sample(value)) == [("not_a_number", "value", value)]


@pytest.mark.parametrize(
    ("value", "unit", "wh"),
    [
        ("20.0005", "kWh", 20000),  # a half goes to the even one, as in meterStart and meterStop
        ("20.0015", "kWh", 20002),
        ("20.00051", "kWh", 20001),
        ("12345.6789", "kWh", 12345679),
        ("2.675", "kWh", 2675),
        ("1.005", "kWh", 1005),
        ("4503599627370.497", "kWh", 4503599627370497),
        ("0.1", "Wh", 0),
        ("12500.4", "Wh", 12500),
        ("12500.6", "Wh", 12501),
        ("1e-99999999999999999999", "Wh", 0),
        ("12500.", "Wh", 12500),
        ("+12500", "Wh", 12500),
        ("1.25e4", "Wh", 12500),
        ("0.0000005", "GWh", 500),
        ("0.012500", "MWh", 12500),
    ],
)
def test_a_register_is_an_exact_number_of_watt_hours(value, unit, wh):
    assert summary(sample(value, REGISTER, unit))[0] == wh


def test_tenths_of_watt_hours_add_up_over_the_phases():
    assert summary(*[sample("100.4", phase=phase) for phase in ("L1", "L2", "L3")])[0] == 301
    assert summary(*[sample("0.1004", None, "kWh", phase=phase) for phase in ("L1", "L2", "L3")])[0] == 301


def test_every_sample_of_a_long_message_is_read_in_time():
    hostile = [sample("x", f"Energy.{n}", phase="L1") for n in range(3000)]
    assert measure(hostile).skipped == 3000


def test_what_was_found_out_about_a_sample_is_kept():
    texts = (REGISTER, "kwh", None, None, None, None)
    assert kind_of(*texts) is kind_of(*texts)
