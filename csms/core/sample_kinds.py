"""What one OCPP SampledValue measures, by its five enumerations (OCPP 1.6, 7.31, 7.33, 7.35, 7.36, 7.43, 7.45).

The enumerations are read as tolerantly as those of all other messages: letter case, blanks and separators do not count,
and an empty text is an absent one. Vendors' own values are kept as they came.

The unit decides where the measurand is missing, or names what the unit cannot measure: a sample in A is a current, under
any name. Such a sample loses against one that says what it is.
"""

from functools import lru_cache
from math import nextafter
from typing import Final

from msgspec import Struct

from csms.core.text import fold

ENERGY_REGISTER: Final = "Energy.Active.Import.Register"
POWER_IMPORT: Final = "Power.Active.Import"
STATE_OF_CHARGE: Final = "SoC"
TRANSACTION_BEGIN: Final = "Transaction.Begin"
SAMPLE_PERIODIC: Final = "Sample.Periodic"
OUTLET: Final = "Outlet"

# The register of a session is that of the outlet. Where a reading has none, the next location counts: the cable and the
# body are behind the same outlet, the inlet includes the charger's own losses, and the car sees less than was delivered.
# A location that OCPP does not know comes last.
LOCATIONS: Final = (OUTLET, "Cable", "Body", "Inlet", "EV")
_CAR_FIRST: Final = (OUTLET, "EV", "Cable", "Body", "Inlet")  # of the state of charge

_CONTEXTS: Final = {  # which sample of one measurand is the current one: the highest, Transaction.Begin where no other is
    "Transaction.End": 3,
    SAMPLE_PERIODIC: 2,
    "Sample.Clock": 2,
    "Trigger": 2,
    "Other": 2,
    "Interruption.End": 1,
    "Interruption.Begin": 1,
    TRANSACTION_BEGIN: 0,
}
_MEASURANDS: Final = (
    ENERGY_REGISTER,
    "Energy.Active.Export.Register",
    "Energy.Reactive.Import.Register",
    "Energy.Reactive.Export.Register",
    "Energy.Active.Import.Interval",
    "Energy.Active.Export.Interval",
    "Energy.Reactive.Import.Interval",
    "Energy.Reactive.Export.Interval",
    POWER_IMPORT,
    "Power.Active.Export",
    "Power.Reactive.Import",
    "Power.Reactive.Export",
    "Power.Offered",
    "Power.Factor",
    "Current.Import",
    "Current.Export",
    "Current.Offered",
    "Voltage",
    "Frequency",
    "Temperature",
    "SoC",
    "RPM",
)
_SUMMED: Final = {"L1": "L1", "L2": "L2", "L3": "L3", "L1-N": "L1", "L2-N": "L2", "L3-N": "L3"}
_PHASES: Final = (*_SUMMED, "N", "L1-L2", "L2-L3", "L3-L1")


_SUMMARIZED: Final = {ENERGY_REGISTER: "kWh", POWER_IMPORT: "kW", STATE_OF_CHARGE: "Percent"}


class _Unit(Struct, frozen=True, gc=False):
    """A unit: its name as published, how many of it one published unit has, and what it measures."""

    published: str
    divisor: float
    quantity: str


_UNITS: Final[dict[str, _Unit]] = {
    **{
        f"{prefix}{unit}": _Unit(f"k{unit}", divisor, quantity)
        for unit, quantity in {
            "Wh": "energy",
            "varh": "reactive energy",
            "W": "power",
            "VA": "apparent power",
            "var": "reactive power",
        }.items()
        for prefix, divisor in {"": 1000, "k": 1, "M": 1e-3, "G": 1e-6, "m": 1e6}.items()
    },
    **{
        f"{prefix}{unit}": _Unit(unit, divisor, quantity)
        for unit, quantity in {"A": "current", "V": "voltage"}.items()
        for prefix, divisor in {"": 1, "k": 1e-3, "m": 1000}.items()
    },
    "Hz": _Unit("Hz", 1, "frequency"),
    "kHz": _Unit("Hz", 1e-3, "frequency"),
    "Percent": _Unit("Percent", 1, "share"),
    "%": _Unit("Percent", 1, "share"),
    "Celsius": _Unit("Celsius", 1, "temperature"),
    "Celcius": _Unit("Celsius", 1, "temperature"),  # the misspelling of OCPP 1.6's own schema
    "Fahrenheit": _Unit("Fahrenheit", 1, "temperature"),
    "K": _Unit("K", 1, "temperature"),
    "RPM": _Unit("RPM", 1, "speed"),
}
_UNIT_WORDS: Final = {
    "watt": "W",
    "watts": "W",
    "kilowatt": "kW",
    "kilowatts": "kW",
    "watthour": "Wh",
    "watthours": "Wh",
    "kilowatthour": "kWh",
    "kilowatthours": "kWh",
    "amp": "A",
    "amps": "A",
    "ampere": "A",
    "amperes": "A",
    "volt": "V",
    "volts": "V",
    "hertz": "Hz",
    "pct": "Percent",
    "percentage": "Percent",
    "c": "Celsius",
    "degc": "Celsius",
    "f": "Fahrenheit",
    "degf": "Fahrenheit",
    "kelvin": "K",
}
# In lower case `mwh` may be either; nothing measures megaamperes.
_EITHER: Final = {fold(f"m{unit}") for unit in ("Wh", "varh", "W", "VA", "var")}

# quantity -> what a sample without a measurand is; the words Import and Register are replaced for other directions
_NAMED_BY_UNIT: Final = {
    "energy": ENERGY_REGISTER,
    "reactive energy": "Energy.Reactive.Import.Register",
    "power": POWER_IMPORT,
    "apparent power": POWER_IMPORT,
    "reactive power": "Power.Reactive.Import",
    "current": "Current.Import",
    "voltage": "Voltage",
    "frequency": "Frequency",
    "temperature": "Temperature",
    "share": STATE_OF_CHARGE,
    "speed": "RPM",
}
# beginning of a measurand -> its default unit, the quantities that it may be given in
_MEASURED_IN: Final = (
    ("Energy.Reactive", "varh", {"reactive energy", "energy"}),
    ("Energy", "Wh", {"energy", "reactive energy"}),
    ("Power.Factor", "", {"share"}),
    ("Power.Reactive", "var", {"reactive power", "power", "apparent power"}),
    ("Power", "W", {"power", "apparent power", "reactive power"}),
    ("Current", "A", {"current"}),
    ("Voltage", "V", {"voltage"}),
    ("SoC", "Percent", {"share"}),
    ("Temperature", "Celsius", {"temperature"}),
    ("Frequency", "Hz", {"frequency"}),
    ("RPM", "RPM", {"speed"}),
)
# Beyond any meter. Below it, Wh fits the database's columns and JSON needs no exponent.
LARGEST: Final = nextafter(1e15, 0)
# quantity -> smallest and largest plausible value, in the published unit
_PLAUSIBLE: Final = {
    "power": (-2000.0, 2000.0),
    "apparent power": (-2000.0, 2000.0),
    "reactive power": (-2000.0, 2000.0),
    "current": (-5000.0, 5000.0),
    "voltage": (-2000.0, 2000.0),
    "frequency": (0.0, 1000.0),
}
_TEMPERATURES: Final = {"Celsius": (-100.0, 300.0), "Fahrenheit": (-148.0, 572.0), "K": (173.15, 573.15)}


class SampleKind(Struct, frozen=True, gc=False):
    """What a sample measures, and how its number is read.

    `lowest` and `highest` bound a plausible number, in the unit as given; divided by `divisor` it is in `unit`, the one
    published. `rank`: of several samples with one `key` the highest are current. `place`: how near the location is to
    the outlet, from 0. `summed_as`: the phase that it adds to a total, if any. `in_wh`: its energy is counted in Wh.
    """

    key: str  # as published: `Measurand@Location`, the measurand alone at the outlet
    name: str
    unit: str
    context: str
    location: str | None
    phase: str | None
    summed_as: str | None
    place: int
    rank: int
    lowest: float
    highest: float
    divisor: float
    converted: bool
    in_wh: bool
    additive: bool
    summary: str | None  # the measurand, if its value is one of the reading's summary and the unit is that
    signed: bool
    begin: bool
    deviations: tuple[tuple[str, str, str], ...]  # kind, field, example
    special: bool  # signed, of the begin, or with deviations


def default_unit(measurand: str) -> str:
    """Return OCPP's default unit of a measurand: Wh for energy, W for power, and so on."""
    for prefix, unit, _ in _MEASURED_IN:
        if measurand.startswith(prefix):
            return unit
    return ""


@lru_cache(maxsize=2048)
def kind_of(
    measurand: str | None,
    unit: str | None,
    context: str | None,
    phase: str | None,
    location: str | None,
    form: str | None,
) -> SampleKind:
    """Return what a sample with these texts measures. Chargers send the same few over and over: they are kept."""
    notes: list[tuple[str, str, str]] = []
    name = _spelled(measurand, _BY_FOLD["measurand"], "measurand", notes)
    given = _spelled(unit, _BY_FOLD["unit"], "unit", notes)
    context = _spelled(context, _BY_FOLD["context"], "context", notes) or SAMPLE_PERIODIC
    phase = _spelled(phase, _BY_FOLD["phase"], "phase", notes)
    location = _spelled(location, _BY_FOLD["location"], "location", notes)
    signed = _spelled(form, _BY_FOLD["format"], "format", notes) == "SignedData"
    name, given, fitness = _reconciled(name, given, notes)
    known = _UNITS.get(given) or _Unit(given, 1, "")
    lowest, highest = _plausible(name, known)
    return SampleKind(
        key=name if location is None or location == OUTLET else f"{name}@{location}",
        name=name,
        unit=known.published,
        context=context,
        location=location,
        phase=phase,
        summed_as=_SUMMED.get(phase or ""),
        place=_place(name, location or OUTLET),
        rank=_CONTEXTS.get(context, 2) + 10 * fitness,
        lowest=lowest,
        highest=highest,
        divisor=known.divisor,
        converted=known.divisor != 1 or known.published.startswith("k"),
        in_wh=known.quantity == "energy",
        additive=name.startswith(("Energy", "Power")) and name != "Power.Factor",
        summary=name if _SUMMARIZED.get(name) == known.published else None,
        signed=signed,
        begin=context == TRANSACTION_BEGIN,
        deviations=tuple(notes),
        special=bool(notes) or signed or context == TRANSACTION_BEGIN,
    )


def _spelled(
    text: str | None, by_fold: dict[str, str], field: str, notes: list[tuple[str, str, str]]
) -> str | None:
    """Return a value of an enumeration as OCPP spells it; other texts as they came, blank ones as None."""
    if text is None:
        return None
    if by_fold.get(text) == text:
        return text
    stripped = text.strip()
    if not stripped:
        notes.append(("blank_dropped", f"sampledValue.{field}", text))
        return None
    folded = fold(stripped)
    if field == "unit" and folded in _EITHER and not stripped.startswith("M"):
        return text  # with an M it says which one it is: MWH is not in milliwatt hours
    found = by_fold.get(stripped) or by_fold.get(folded)
    if found is None:
        return text
    notes.append(("enum_respelled", f"sampledValue.{field}", text))
    return found


def _reconciled(
    name: str | None, given: str | None, notes: list[tuple[str, str, str]]
) -> tuple[str, str, int]:
    """Return measurand and unit of a sample, and how well they fit: 3 as in OCPP, 0 not at all."""
    if given is None:
        name = name or ENERGY_REGISTER
        return name, default_unit(name), 3
    known = _UNITS.get(given)
    if name is None:
        name = ENERGY_REGISTER if known is None else _NAMED_BY_UNIT[known.quantity]
        if name != ENERGY_REGISTER or known is None:
            notes.append(("unit_contradicts_measurand", "sampledValue.measurand", f"none in {given}"))
            return name, given, 0 if known is None else 1
        return name, given, 3
    possible = next((units for prefix, _, units in _MEASURED_IN if name.startswith(prefix)), None)
    if possible is None:
        return name, given, 3  # a vendor's own measurand
    if known is not None and known.quantity in possible:
        return name, given, 3 if _UNITS.get(default_unit(name), known).published == known.published else 2
    notes.append(("unit_contradicts_measurand", "sampledValue.unit", f"{name} in {given}"))
    if known is None:
        return name, given, 0
    if given == "Wh" and (name == "Power.Factor" or not name.startswith("Power")):
        # The default of OCPP's schema, which some libraries fill in for every measurand.
        return name, default_unit(name), 1
    if "Offered" in name and known.quantity in {"current", "power", "apparent power"}:
        return f"{'Current' if known.quantity == 'current' else 'Power'}.Offered", given, 1
    if "Offered" in name or (known.quantity == "share" and not name.startswith("Energy")):
        return name, given, 0  # neither an energy nor a state of charge
    direction = "Export" if "Export" in name else "Import"
    return _NAMED_BY_UNIT[known.quantity].replace("Import", direction), given, 1


def _plausible(name: str, unit: _Unit) -> tuple[float, float]:
    """Return the smallest and the largest plausible number of a measurand, in the unit as given."""
    if name == STATE_OF_CHARGE:
        lowest, highest = 0.0, 100.0
    elif not default_unit(name):
        return -LARGEST, LARGEST  # a ratio, or a vendor's own measurand
    elif name.startswith("Energy"):
        lowest, highest = (0.0 if name.endswith("Import.Register") else -LARGEST), LARGEST
    elif unit.quantity == "temperature":
        lowest, highest = _TEMPERATURES[unit.published]
    else:
        lowest, highest = _PLAUSIBLE.get(unit.quantity, (-LARGEST, LARGEST))
    scale = min(unit.divisor, 1.0) if highest == LARGEST else unit.divisor
    return lowest * scale, highest * scale


def _place(name: str, location: str) -> int:
    order = _CAR_FIRST if name == STATE_OF_CHARGE else LOCATIONS
    return order.index(location) if location in order else len(order)


def _by_fold(*values: str, **others: str) -> dict[str, str]:
    return {v: v for v in values} | {fold(v): v for v in reversed(values) if fold(v)} | others


_BY_FOLD: Final = {
    "measurand": _by_fold(*_MEASURANDS, stateofcharge=STATE_OF_CHARGE),
    # Each unit in front of its own prefixes: "mA" and "MA" are milliamperes, "MW" and "Mw" megawatts.
    "unit": _by_fold(*_UNITS, **_UNIT_WORDS) | {"%": "Percent", "Celcius": "Celcius"},
    "context": _by_fold(*_CONTEXTS),
    "phase": _by_fold(*_PHASES),
    "location": _by_fold(*LOCATIONS),
    "format": _by_fold("Raw", "SignedData"),
}
