"""How a battery charges: power over state of charge, the energy register, and what a meter shows. Pure."""

import itertools
import math
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

MAINS_V = 230.0
MIN_CURRENT_A = 6.0
"""IEC 61851: below 6 A a phase a vehicle does not charge at all."""
STEP_S = 10.0
"""The longest time over which power is taken as constant."""

_DC_CURVE = ((0, 0.60), (8, 0.95), (15, 1.0), (45, 0.88), (60, 0.66), (80, 0.38), (95, 0.14), (100, 0.05))
_AC_TAPER_FROM_PERCENT = 95.0


@dataclass(frozen=True, slots=True)
class Vehicle:
    name: str
    battery_wh: int
    ac_phases: int
    ac_power_w: int
    dc_power_w: int


@dataclass(frozen=True, slots=True)
class Outlet:
    """What one connector can supply."""

    current: Literal["AC", "DC"]
    phases: int
    power_w: int

    @property
    def name(self) -> str:
        return f"{self.current}-{self.power_w / 1000:g}"


VEHICLES = (
    Vehicle("city car", 24_000, 1, 3_700, 46_000),
    Vehicle("small hatchback", 42_000, 1, 7_400, 85_000),
    Vehicle("hatchback", 58_000, 3, 11_000, 120_000),
    Vehicle("saloon", 78_000, 3, 11_000, 170_000),
    Vehicle("estate", 90_000, 3, 22_000, 150_000),
    Vehicle("van", 75_000, 3, 11_000, 100_000),
)

AC_3_7 = Outlet("AC", 1, 3_700)
AC_7_4 = Outlet("AC", 1, 7_400)
AC_11 = Outlet("AC", 3, 11_000)
AC_22 = Outlet("AC", 3, 22_000)
DC_50 = Outlet("DC", 1, 50_000)
DC_150 = Outlet("DC", 1, 150_000)
OUTLETS = (AC_22, AC_22, AC_11, AC_11, AC_7_4, AC_3_7, DC_50, DC_150)
"""A realistic mix: most public outlets have 11 or 22 kW."""


def phases_used(vehicle: Vehicle, outlet: Outlet) -> int:
    return 1 if outlet.current == "DC" else min(vehicle.ac_phases, outlet.phases)


def dc_share(soc_percent: float) -> float:
    """Return the share (0 to 1) of its peak DC power that a battery takes: rises, peaks early, tapers."""
    for (soc0, share0), (soc1, share1) in itertools.pairwise(_DC_CURVE):
        if soc_percent <= soc1:
            return share0 + (share1 - share0) * max(0.0, soc_percent - soc0) / (soc1 - soc0)
    return _DC_CURVE[-1][1]


def power_w(vehicle: Vehicle, outlet: Outlet, soc_percent: float, limit_w: float | None = None) -> float:
    """Return the power (W) drawn at a state of charge, within what vehicle, outlet and `limit_w` allow."""
    if soc_percent >= 100:
        return 0.0
    if outlet.current == "DC":
        power = min(vehicle.dc_power_w * dc_share(soc_percent), outlet.power_w)
        return max(0.0, power if limit_w is None else min(power, limit_w))
    phases = phases_used(vehicle, outlet)
    ceiling = phases * min(vehicle.ac_power_w / vehicle.ac_phases, outlet.power_w / outlet.phases)
    if limit_w is not None:
        if limit_w < phases * MIN_CURRENT_A * MAINS_V:
            return 0.0
        ceiling = min(ceiling, limit_w)
    if soc_percent <= _AC_TAPER_FROM_PERCENT:
        return ceiling
    return ceiling * (1 - 0.8 * (soc_percent - _AC_TAPER_FROM_PERCENT) / (100 - _AC_TAPER_FROM_PERCENT))


@dataclass(frozen=True, slots=True)
class SimulatedReading:
    """What the meter shows at one moment. `voltage_v` and `current_a` have an entry for each phase used."""

    register_wh: int
    power_w: float
    voltage_v: tuple[float, ...]
    current_a: tuple[float, ...]
    soc_percent: float


class Charge:
    """One vehicle at one outlet. `register` is the connector's lifetime energy (Wh) with its fraction."""

    def __init__(self, vehicle: Vehicle, outlet: Outlet, soc_percent: float, register: float) -> None:
        self.vehicle = vehicle
        self.outlet = outlet
        self.soc_percent = soc_percent
        self.register = register
        self.power_w = 0.0
        self._efficiency = 0.96 if outlet.current == "DC" else 0.90

    @property
    def register_wh(self) -> int:
        return math.floor(self.register)

    def advance(self, duration_s: float, limit_w: Callable[[float], float | None] | None = None) -> None:
        """Charge for `duration_s`. `limit_w(offset_s)` returns the allowed power at that offset."""
        done_s = 0.0
        while done_s < duration_s:
            step_s = min(STEP_S, duration_s - done_s)
            limit = limit_w(done_s) if limit_w else None
            self.power_w = power_w(self.vehicle, self.outlet, self.soc_percent, limit)
            energy = self.power_w * step_s / 3600
            self.register += energy
            gained = 100 * energy * self._efficiency / self.vehicle.battery_wh
            self.soc_percent = min(100.0, self.soc_percent + gained)
            done_s += step_s

    def reading(self, rng: random.Random) -> SimulatedReading:
        phases = phases_used(self.vehicle, self.outlet)
        if self.outlet.current == "DC":
            volts: tuple[float, ...] = (round(330 + 0.8 * self.soc_percent + rng.uniform(-1, 1), 1),)
        else:
            volts = tuple(round(MAINS_V + rng.uniform(-3, 3), 1) for _ in range(phases))
        amps = tuple(round(self.power_w / phases / volt, 2) for volt in volts)
        return SimulatedReading(
            self.register_wh, round(self.power_w, 1), volts, amps, round(self.soc_percent, 1)
        )
