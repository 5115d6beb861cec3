"""Conversion of OCPP's sampled values: units, phases, locations (OCPP 1.6, 7.28 to 7.46)."""

from collections.abc import Iterable, Sequence
from decimal import Decimal, InvalidOperation
from math import nan
from typing import Annotated, Any

from msgspec import UNSET, Meta, Struct, UnsetType

from csms.core.reports import Sample
from csms.core.sample_kinds import (
    ENERGY_REGISTER,
    LARGEST,
    OUTLET,
    POWER_IMPORT,
    STATE_OF_CHARGE,
    SampleKind,
    default_unit,
    kind_of,
)

__all__ = [
    "ENERGY_REGISTER",
    "POWER_IMPORT",
    "STATE_OF_CHARGE",
    "Measurand",
    "Measured",
    "SampleDeviation",
    "default_unit",
    "measure",
    "parse_number",
]

_SMALLEST = 1e-4  # below it JSON needs an exponent
_LARGEST_POWER = 2000  # of several phases, in kW, kVA or kvar
_POWER_UNITS = {"kW", "kVA", "kvar"}
_TO_NEUTRAL = (("L1", "L1-N"), ("L2", "L2-N"), ("L3", "L3-N"))
_NOWHERE = 99

_Number = float | Decimal
_Lost = dict[str, set[tuple[int, str | None]]]  # key -> rank and phase of the samples without a usable number


class Measurand(Struct, rename="camel", gc=False):
    """One published value. `value` is missing when the charger sent signed data only, or not all phases of a total."""

    value: float | UnsetType = UNSET
    unit: Annotated[str, Meta(examples=["kWh", "kW", "A", "V", "Percent"])] | UnsetType = UNSET
    context: Annotated[str, Meta(description="OCPP's ReadingContext.")] | UnsetType = UNSET
    location: str | UnsetType = UNSET
    phase: Annotated[str, Meta(description="The phase `value` is of, when it is of one.")] | UnsetType = UNSET
    phases: Annotated[dict[str, float], Meta(description="Each phase's value.")] | UnsetType = UNSET
    signed: Annotated[str, Meta(description="Signed meter data, as it came.")] | UnsetType = UNSET


class SampleDeviation(Struct, frozen=True):
    """What was tolerated in one sample.

    `kind` is `not_a_number`, `implausible_value`, `unit_contradicts_measurand`, `enum_respelled` or `blank_dropped`,
    `field` a path in OCPP's names (`sampledValue.unit`), `example` what the charger sent.
    """

    kind: str
    field: str
    example: str


class Measured(Struct):
    """The values of one MeterValue, as far as they are plausible.

    `energy_wh` is the current register (Energy.Active.Import.Register) at `energy_location`: the outlet or, where the
    reading has none there, the first other one (`sample_kinds.LOCATIONS`). `begin_wh` is the register of a sample that
    says Transaction.Begin: evidence of the start, never the current register. `power_w` is the power at the same order
    of locations; of the state of charge the car's follows the outlet's. `deviations`: what was tolerated.
    """

    measurands: dict[str, Measurand]
    energy_wh: int | None = None
    power_w: int | None = None
    soc_percent: float | None = None
    begin_wh: int | None = None
    energy_location: str = OUTLET
    deviations: Sequence[SampleDeviation] = ()

    @property
    def skipped(self) -> int:
        """The number of samples that are not numbers."""
        return sum(deviation.kind == "not_a_number" for deviation in self.deviations)


class _Group(Struct, gc=False):
    """The samples of one key that are current: rounded numbers in the published unit, but energy in Wh and exact."""

    kind: SampleKind  # of the last one
    total: _Number | None = None
    phases: dict[str, Any] | None = None


def parse_number(text: str) -> float | None:
    """Return the number in a charger's text. None: it is not a plausible number (`12,5`, empty, NaN, 1e400, 1e15)."""
    try:
        value = float(text)
        return value if -LARGEST <= value <= LARGEST and "_" not in text else None
    except (ValueError, TypeError):
        return None


def measure(samples: Sequence[Sample]) -> Measured:
    """Combine the samples of one MeterValue by measurand (`Measurand@Location` where it is not the outlet).

    Of several samples of a measurand that which says `Transaction.End` is current, then every other, then an
    interruption's, last `Transaction.Begin`; of equals the last. A sample whose unit says that it is of this measurand
    counts where no other does. A value without a phase is the total, unless it is 0 beside phases that are not; else
    energy and power are L1 + L2 + L3, where L1 and L1-N are the same phase, and N and L1-L2 are never added.
    A value that cannot be (`SoC` 255, 3 MW) is left out. Fractions of a Wh are rounded to the nearest, halves to even.
    """
    measured = Measured({})
    measurands = measured.measurands
    current: dict[str, _Group] = {}
    begin: dict[str, _Group] | None = None
    signed: dict[str, tuple[int, str]] | None = None
    lost: _Lost = {}
    deviations: list[SampleDeviation] = []
    group: _Group | None
    value: _Number | None
    for sample in samples:
        kind = kind_of(
            sample.measurand, sample.unit, sample.context, sample.phase, sample.location, sample.format
        )
        key, text, groups = kind.key, sample.value, current
        if kind.special:
            deviations += [SampleDeviation(*noted) for noted in kind.deviations]
            if kind.signed:
                signed = signed or {}
                if key not in signed or kind.rank >= signed[key][0]:
                    signed[key] = kind.rank, text
                continue
            if kind.begin:
                groups = begin = {} if begin is None else begin
        try:
            number = float(text) if "_" not in text else nan
        except (ValueError, TypeError):
            number = nan
        if not kind.lowest <= number <= kind.highest:
            deviations.append(_refused(text))
            lost.setdefault(key, set()).add((kind.rank, kind.summed_as))
            continue
        value = number
        if kind.in_wh:
            value = int(number) if kind.divisor == 1000 and number.is_integer() else _exact_wh(text, kind)
        elif kind.converted:
            value = round(number / kind.divisor, 3) + 0.0  # no -0.0
        elif -_SMALLEST < number < _SMALLEST:
            value = round(number, 4) + 0.0
        phase, group = kind.phase, groups.get(key)
        if group is None or kind.rank > group.kind.rank:
            groups[key] = _Group(kind, value) if phase is None else _Group(kind, None, {phase: value})
        elif kind.rank == group.kind.rank:
            group.kind = kind
            if phase is None:
                group.total = value
            elif group.phases is None:
                group.phases = {phase: value}
            else:
                group.phases[phase] = value
    if begin:
        _keep_begin(measured, begin.values(), lost)
        current = begin | current
    elsewhere: list[tuple[SampleKind, _Number]] = []
    for key, group in current.items():
        kind, value, phase, phases = group.kind, group.total, None, group.phases
        if phases is not None:
            value, phase = _combined(group, lost, deviations)
            if kind.in_wh:
                phases = {name: round(wh) / 1000 for name, wh in phases.items()}
        measurands[key] = Measurand(
            UNSET if value is None else round(value) / 1000 if kind.in_wh else float(value),
            kind.unit or UNSET,
            kind.context,
            kind.location or UNSET,
            phase or UNSET,
            phases or UNSET,
        )
        if kind.summary and value is not None and not (phase and kind.additive):
            if kind.place:
                elsewhere.append((kind, value))
            elif kind.additive and not kind.in_wh:
                measured.power_w = round(value * 1000)
            elif kind.additive and not kind.begin:
                measured.energy_wh = round(value)
            elif not kind.additive:
                measured.soc_percent = float(value)
    if elsewhere:
        _fall_back(measured, elsewhere)
    if deviations:
        measured.deviations = deviations
    if signed:
        for key, (_, text) in signed.items():
            measurands.setdefault(key, Measurand()).signed = text
    return measured


def _fall_back(measured: Measured, elsewhere: list[tuple[SampleKind, _Number]]) -> None:
    """Take from other locations, the nearest first, what the reading does not have of the outlet."""
    elsewhere.sort(key=lambda one: one[0].place)
    for kind, value in elsewhere:
        if kind.in_wh:
            if measured.energy_wh is None and not kind.begin:
                measured.energy_wh, measured.energy_location = round(value), kind.location or OUTLET
        elif kind.additive:
            if measured.power_w is None:
                measured.power_w = round(value * 1000)
        elif measured.soc_percent is None:
            measured.soc_percent = float(value)


def _refused(text: str) -> SampleDeviation:
    kind = "not_a_number" if parse_number(text) is None else "implausible_value"
    return SampleDeviation(kind, "sampledValue.value", str(text))


def _exact_wh(text: str, kind: SampleKind) -> Decimal:
    """Return an energy in Wh. The divisor says how many of the given unit are one kWh."""
    try:
        return Decimal(text) * 1000 / Decimal(repr(kind.divisor))
    except InvalidOperation:  # a negative exponent of twenty digits
        return Decimal(0)


def _combined(
    group: _Group, lost: _Lost, deviations: list[SampleDeviation]
) -> tuple[_Number | None, str | None]:
    """Return the value of a group with phases, and the phase that it is of if it is no total.

    None: the sum is not plausible, or the number of one of its phases was lost.
    """
    total, phases, kind = group.total, group.phases or {}, group.kind
    if total:
        return total, None
    if not kind.additive and total is None:
        phase, value = next(iter(phases.items()))
        return value, phase
    # The same phase under two names: a 0 is the one that is not measured.
    summed = {
        phase: phases.get(phase) or phases.get(to_neutral, 0)
        for phase, to_neutral in _TO_NEUTRAL
        if phase in phases or to_neutral in phases
    }
    if total is not None and not any(summed.values()):
        return total, None
    if not (summed and kind.additive):
        phase, value = next(iter(phases.items()))
        return value, phase
    if any(rank == kind.rank and phase not in {None, *summed} for rank, phase in lost.get(kind.key, ())):
        return None, None
    total = sum(summed.values())
    if kind.in_wh:
        return total, None
    if kind.unit in _POWER_UNITS and abs(total) > _LARGEST_POWER:
        text = f"{total:g} {kind.unit}"
        deviations.append(SampleDeviation("implausible_value", "sampledValue.value", text))
        return None, None
    return round(total, 3), None


def _keep_begin(measured: Measured, groups: Iterable[_Group], lost: _Lost) -> None:
    """Keep the register of the begin that is nearest to the outlet."""
    nearest = _NOWHERE
    for group in groups:
        kind, value, phase = group.kind, group.total, None
        if kind.summary != ENERGY_REGISTER or kind.place >= nearest:
            continue
        if group.phases is not None:
            value, phase = _combined(group, lost, [])
        if value is not None and phase is None:
            measured.begin_wh, nearest = round(value), kind.place
