"""In which units a station's meter speaks: found out by what fits together, then kept. Pure."""

from typing import Final

from msgspec import Struct

from bridges.coin_op.packet import StatusPacket

AUTO, WATTS, TENTHS = "auto", "1", "0.1"
_DECIDED_AFTER: Final = 5
_ENOUGH_CURRENT_A: Final = 0.2


class Measurements(Struct, frozen=True, kw_only=True):
    """A packet's measurements in our units; None: unknown."""

    voltage_v: float | None = None
    current_a: float | None = None
    power_w: float | None = None
    frequency_hz: float | None = None
    power_factor: float | None = None


class MeterUnits:
    """One station's units. `power` is AUTO, or WATTS or TENTHS as an operator has set it.

    The power's unit is decided by P = U x I x pf once five packets in a row agree. A wrong one costs no money:
    energy is billed.
    """

    def __init__(self, power: str = AUTO) -> None:
        self.power: float | None = None if power == AUTO else float(power)
        self.doubtful = False
        self._agreeing: tuple[float, int] = (0, 0)

    def learned(self, power: float | None) -> None:
        """Found out before a restart; what an operator has set wins."""
        self.power = self.power if self.power is not None else power

    def read(self, packet: StatusPacket) -> Measurements:
        voltage_v = _tenths(packet.voltage, 80, 260)
        current_a, factor = self._current_and_factor(packet, voltage_v)
        return Measurements(
            voltage_v=voltage_v,
            current_a=current_a,
            power_w=self._power(packet.power, voltage_v, current_a, factor),
            frequency_hz=_tenths(packet.frequency, 45, 65),
            power_factor=factor,
        )

    def _current_and_factor(
        self, packet: StatusPacket, voltage_v: float | None
    ) -> tuple[float | None, float | None]:
        current, pf, power = packet.current, packet.pf, packet.power
        milli = None if current is None else current / 1000
        factors = _factors(pf)
        if current is None or voltage_v is None or power is None:
            return milli, factors[0]
        currents = [milli]
        if 0 < current < 100 and power > 100:
            currents.insert(0, current)  # amperes
        for amperes in currents:
            for factor in factors:
                if _scale(power, voltage_v, amperes, factor) is not None:
                    return amperes, factor
        return currents[0], factors[0]

    def _power(
        self, power: float | None, voltage_v: float | None, current_a: float | None, factor: float | None
    ) -> float | None:
        if power is None:
            return None
        if self.power is not None:
            return round(power * self.power, 3)
        seen = _scale(power, voltage_v, current_a, factor)
        if seen is None:
            measured = voltage_v is not None and current_a is not None and current_a >= _ENOUGH_CURRENT_A
            self.doubtful = self.doubtful or (measured and factor is not None)
            return power
        last, times = self._agreeing
        self._agreeing = (seen, times + 1 if seen == last else 1)
        if self._agreeing[1] >= _DECIDED_AFTER:
            self.power = seen
        return round(power * seen, 3)


def _scale(
    power: float, voltage_v: float | None, current_a: float | None, factor: float | None
) -> float | None:
    """What turns `power` into watts, if the other values say so."""
    if voltage_v is None or current_a is None or factor is None or current_a < _ENOUGH_CURRENT_A:
        return None
    expected_w = voltage_v * current_a * factor
    if expected_w <= 0:
        return None
    ratio = power / expected_w
    if 0.8 <= ratio <= 1.2:
        return 1.0
    return 0.1 if 8 <= ratio <= 12 else None


def _factors(pf: float | None) -> list[float | None]:
    """A power factor as a fraction; exactly 1 may be 100 % or 1 %."""
    if pf is None or not 0 <= pf <= 100:
        return [None]
    if pf == 1:
        return [1.0, 0.01]
    return [pf / 100 if pf > 1 else pf]


def _tenths(value: float | None, low: float, high: float) -> float | None:
    if value is not None and low * 10 <= value <= high * 10:
        return round(value / 10, 3)
    return value
