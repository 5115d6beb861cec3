"""The units of a station's meter, determined from the relation of its measurements. Pure."""

from typing import Final

from msgspec import Struct

from bridges.coin_op.packet import StatusPacket

AUTO: Final = "auto"
_DECIDED_AFTER: Final = 5
_MIN_CURRENT_A: Final = 0.2


class Measurements(Struct, frozen=True, kw_only=True):
    """The measurements of a packet in SI units; `power_factor` is a fraction. None: unknown."""

    voltage_v: float | None = None
    current_a: float | None = None
    power_w: float | None = None
    frequency_hz: float | None = None
    power_factor: float | None = None


class MeterUnits:
    """The units of one station.

    `power_scale` (AUTO, "1" or "0.1") turns the station's power into watts. AUTO is decided by P = U x I x pf once
    five packets in a row agree. A wrong scale has no effect on bills, which use energy only.
    """

    def __init__(self, power_scale: str = AUTO) -> None:
        self.power_scale: float | None = None if power_scale == AUTO else float(power_scale)
        self._agreeing: tuple[float, int] = (0, 0)  # a scale, and how many packets in a row agree on it

    def restore(self, power_scale: float | None) -> None:
        """Take over what was known before a restart. An operator's setting takes precedence."""
        self.power_scale = self.power_scale if self.power_scale is not None else power_scale

    def measurements(self, packet: StatusPacket) -> Measurements:
        voltage_v = _from_tenths(packet.voltage, 80, 260)
        current_a, factor = self._current_and_factor(packet, voltage_v)
        return Measurements(
            voltage_v=voltage_v,
            current_a=current_a,
            power_w=self._power_w(packet.power, voltage_v, current_a, factor),
            frequency_hz=_from_tenths(packet.frequency, 45, 65),
            power_factor=factor,
        )

    def _current_and_factor(
        self, packet: StatusPacket, voltage_v: float | None
    ) -> tuple[float | None, float | None]:
        current, power = packet.current, packet.power
        from_milliamperes = None if current is None else current / 1000
        factors = _power_factors(packet.pf)
        if current is None or voltage_v is None or power is None:
            return from_milliamperes, factors[0]
        candidates_a = [from_milliamperes]
        if 0 < current < 100 and power > 100:
            candidates_a.insert(0, current)  # the station sends amperes
        for current_a in candidates_a:
            for factor in factors:
                if _power_scale(power, voltage_v, current_a, factor) is not None:
                    return current_a, factor
        return candidates_a[0], factors[0]

    def _power_w(
        self, power: float | None, voltage_v: float | None, current_a: float | None, factor: float | None
    ) -> float | None:
        if power is None:
            return None
        if self.power_scale is not None:
            return round(power * self.power_scale, 3)
        scale = _power_scale(power, voltage_v, current_a, factor)
        if scale is None:
            return power
        last_scale, packets = self._agreeing
        self._agreeing = (scale, packets + 1 if scale == last_scale else 1)
        if self._agreeing[1] >= _DECIDED_AFTER:
            self.power_scale = scale
        return round(power * scale, 3)


def _power_scale(
    power: float, voltage_v: float | None, current_a: float | None, factor: float | None
) -> float | None:
    """Return the factor that turns `power` into watts, if the other measurements determine it."""
    if voltage_v is None or current_a is None or factor is None or current_a < _MIN_CURRENT_A:
        return None
    expected_w = voltage_v * current_a * factor
    if expected_w <= 0:
        return None
    ratio = power / expected_w
    if 0.8 <= ratio <= 1.2:
        return 1.0
    return 0.1 if 8 <= ratio <= 12 else None


def _power_factors(pf: float | None) -> list[float | None]:
    """Return the possible power factors as fractions; exactly 1 may mean 100 % or 1 %."""
    if pf is None or not 0 <= pf <= 100:
        return [None]
    if pf == 1:
        return [1.0, 0.01]
    return [pf / 100 if pf > 1 else pf]


def _from_tenths(value: float | None, low: float, high: float) -> float | None:
    if value is not None and low * 10 <= value <= high * 10:
        return round(value / 10, 3)
    return value
