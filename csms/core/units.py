"""Conversion of OCPP's sampled values: units, phases, locations (OCPP 1.6, 7.28 to 7.46)."""

from collections.abc import Sequence
from typing import Annotated

from msgspec import UNSET, Meta, Struct, UnsetType

from csms.core.reports import Sample

ENERGY_REGISTER = "Energy.Active.Import.Register"
POWER_IMPORT = "Power.Active.Import"
STATE_OF_CHARGE = "SoC"

# unit as given -> (unit as published, divisor); published with three decimals
_PUBLISHED = {
    "Wh": ("kWh", 1000),
    "varh": ("kvarh", 1000),
    "W": ("kW", 1000),
    "VA": ("kVA", 1000),
    "var": ("kvar", 1000),
    "kWh": ("kWh", 1),
    "kvarh": ("kvarh", 1),
    "kW": ("kW", 1),
    "kVA": ("kVA", 1),
    "kvar": ("kvar", 1),
}
# Beyond any meter. Below it, Wh fits the database's columns and JSON needs no exponent.
_LARGEST = 1e15
_SMALLEST = 1e-4
_DEFAULT_UNITS = (
    ("Energy.Reactive", "varh"),
    ("Energy", "Wh"),
    ("Power.Factor", ""),
    ("Power.Reactive", "var"),
    ("Power", "W"),
    ("Current", "A"),
    ("Voltage", "V"),
    ("SoC", "Percent"),
    ("Temperature", "Celsius"),
    ("Frequency", "Hz"),
    ("RPM", "RPM"),
)
_SUMMED_PHASES = {"L1", "L2", "L3", "L1-N", "L2-N", "L3-N"}


class Measurand(Struct, rename="camel", gc=False):
    """One published value. `value` is missing when the charger sent signed data only."""

    value: float | UnsetType = UNSET
    unit: Annotated[str, Meta(examples=["kWh", "kW", "A", "V", "Percent"])] | UnsetType = UNSET
    context: Annotated[str, Meta(description="OCPP's ReadingContext.")] | UnsetType = UNSET
    location: str | UnsetType = UNSET
    phase: Annotated[str, Meta(description="The phase `value` is of, when it is of one.")] | UnsetType = UNSET
    phases: Annotated[dict[str, float], Meta(description="Each phase's value.")] | UnsetType = UNSET
    signed: Annotated[str, Meta(description="Signed meter data, as it came.")] | UnsetType = UNSET


class Measured(Struct):
    """The values of one MeterValue. `skipped` counts the samples that are not numbers."""

    measurands: dict[str, Measurand]
    energy_wh: int | None = None
    power_w: int | None = None
    soc_percent: float | None = None
    skipped: int = 0


def default_unit(measurand: str) -> str:
    """Return OCPP's default unit of a measurand: Wh for energy, W for power, and so on."""
    for prefix, unit in _DEFAULT_UNITS:
        if measurand.startswith(prefix):
            return unit
    return ""


def parse_number(text: str) -> float | None:
    """Return the number in a charger's text. None: it is not a plausible number (`12,5`, empty, NaN, 1e400, 1e15)."""
    try:
        value = float(text)
    except (ValueError, TypeError):
        return None
    return value if -_LARGEST < value < _LARGEST and "_" not in text else None


def measure(samples: Sequence[Sample]) -> Measured:
    """Combine the samples of one MeterValue by measurand (`Measurand@Location` where it is not the outlet)."""
    measured = Measured(measurands={})
    measurands = measured.measurands
    phased: dict[str, dict[str, float]] = {}
    for sample in samples:
        name = sample.measurand or ENERGY_REGISTER
        location = sample.location
        key = name if location is None or location == "Outlet" else f"{name}@{location}"
        entry = measurands.get(key)
        if sample.format == "SignedData":
            if entry is None:
                entry = measurands[key] = Measurand()
            entry.signed = sample.value
            continue
        value = parse_number(sample.value)
        if value is None:
            measured.skipped += 1
            continue
        given = sample.unit or default_unit(name)
        published = _PUBLISHED.get(given)
        if published is not None:
            given, divisor = published
            value = round(value / divisor, 3) + 0.0  # no -0.0
        elif -_SMALLEST < value < _SMALLEST:
            value = round(value, 4) + 0.0
        if given == "Celcius":  # the misspelling of OCPP 1.6's own schema
            given = "Celsius"
        if entry is None:
            entry = measurands[key] = Measurand()
        if given:
            entry.unit = given
        entry.context = sample.context or "Sample.Periodic"
        if location is not None:
            entry.location = location
        if sample.phase:
            phased.setdefault(key, {})[sample.phase] = value
        else:
            entry.value = value
            entry.phase = UNSET
    for key, phases in phased.items():
        _combine(key, measurands[key], phases)
    _set_summary(measured)
    return measured


def _combine(key: str, entry: Measurand, phases: dict[str, float]) -> None:
    entry.phases = phases
    if entry.value is not UNSET:
        return
    summed = [value for phase, value in phases.items() if phase in _SUMMED_PHASES]
    if summed and key.startswith(("Energy", "Power")) and not key.startswith("Power.Factor"):
        entry.value = round(sum(summed), 3)
    else:
        entry.phase, entry.value = next(iter(phases.items()))


def _set_summary(measured: Measured) -> None:
    energy = measured.measurands.get(ENERGY_REGISTER)
    if energy is not None and isinstance(energy.value, float) and energy.unit == "kWh":
        measured.energy_wh = round(energy.value * 1000)
    power = measured.measurands.get(POWER_IMPORT)
    if power is not None and isinstance(power.value, float) and power.unit == "kW":
        measured.power_w = round(power.value * 1000)
    soc = measured.measurands.get(STATE_OF_CHARGE) or measured.measurands.get("SoC@EV")
    if soc is not None and isinstance(soc.value, float):
        measured.soc_percent = soc.value
