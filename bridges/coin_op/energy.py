"""A station's energy counter to the energy of a session: positive differences only, never the counter itself. Pure."""

from typing import Final

from msgspec import Struct

AUTO, PER_SESSION, CUMULATIVE = "auto", "session", "cumulative"
BASELINE_UNCERTAIN, METER_RESET, ENERGY_JUMP = "energy_baseline_uncertain", "meter_reset", "energy_jump"
_FIRST_PACKET_S: Final = 2
_MARGIN, _SLACK_WH = 1.2, 2.0
_AGREEING: Final = 3
# What is kept of a session is whole Wh: after a restart the counter may seem to have fallen by less.
_ROUNDING_WH: Final = 1.0


def max_plausible_wh(rated_w: float, elapsed_s: float) -> float:
    """The most energy that can have flowed."""
    return rated_w * max(elapsed_s, 0) / 3600 * _MARGIN + _SLACK_WH


class Baseline(Struct, frozen=True):
    """What the counter read when the session began. `certain` False: guessed, in the user's favour."""

    counter_wh: float
    certain: bool = True


class CounterBehaviour:
    """What a station's counter is known to do: start each session at 0, or go on."""

    def __init__(self, mode: str, rated_w: float) -> None:
        self._mode = mode
        self._rated_w = rated_w
        self.resets: bool | None = {PER_SESSION: True, CUMULATIVE: False}.get(mode)
        self.last_done_wh: float | None = None

    def learned(self, resets: bool | None, last_done_wh: float | None) -> None:
        """Found out before a restart; what an operator has set wins."""
        if self._mode == AUTO:
            self.resets = resets
        self.last_done_wh = last_done_wh

    def begin(self, counter_wh: float | None, time_s: int) -> Baseline:
        """The baseline of a session whose first packet says this."""
        if counter_wh is None:
            return Baseline(self.last_done_wh or 0.0, certain=False)
        if time_s <= _FIRST_PACKET_S:
            if self._mode == AUTO:
                self.resets = counter_wh <= 1
            return Baseline(counter_wh)
        # The door was opened before we looked.
        guesses = [0.0] if self.resets else [] if self.last_done_wh is None else [self.last_done_wh]
        for guess in guesses:
            if 0 <= counter_wh - guess <= max_plausible_wh(self._rated_w, time_s):
                return Baseline(guess)
        return Baseline(counter_wh, certain=False)


class SessionEnergy:
    """The energy of one session. `total_wh` may have a fraction; it never falls."""

    def __init__(self, baseline_wh: float, rated_w: float, *, total_wh: float = 0.0) -> None:
        self.total_wh = total_wh
        self._rated_w = rated_w
        self._baseline_wh = self._counter_wh = baseline_wh
        self._outliers: list[float] = []

    @classmethod
    def resumed(
        cls, baseline_wh: float, rated_w: float, total_wh: float, shift_wh: float = 0.0
    ) -> "SessionEnergy":
        """Of a session that was on record when we started."""
        energy = cls(baseline_wh, rated_w, total_wh=total_wh)
        energy._counter_wh = baseline_wh + total_wh + shift_wh
        return energy

    @property
    def shift_wh(self) -> float:
        """How far the counter stands from baseline + energy: not 0 once it has been reset."""
        return round(self._counter_wh - self._baseline_wh - self.total_wh, 3)

    @property
    def doubted(self) -> bool:
        """Whether the last reading was set aside."""
        return bool(self._outliers)

    def take(self, counter_wh: float, elapsed_s: float) -> str | None:
        """A new reading of the counter, so many seconds after the last good one; what was odd about it."""
        limit_wh = max_plausible_wh(self._rated_w, elapsed_s)
        delta_wh = counter_wh - self._counter_wh
        if 0 <= delta_wh <= limit_wh:
            self.total_wh += delta_wh
            self._accept(counter_wh)
            return None
        if -_ROUNDING_WH < delta_wh < 0:
            return None
        if delta_wh < 0 and counter_wh <= limit_wh:
            self.total_wh += counter_wh  # what has flowed since it was set to 0
            self._accept(counter_wh)
            return METER_RESET
        return self._outlier(counter_wh, limit_wh)

    def _accept(self, counter_wh: float) -> None:
        self._counter_wh = counter_wh
        self._outliers = []

    def _outlier(self, counter_wh: float, limit_wh: float) -> str:
        """Three in a row that agree are the counter's new place; what lies between is not billed."""
        if self._outliers and not 0 <= counter_wh - self._outliers[-1] <= limit_wh:
            self._outliers = []
        self._outliers.append(counter_wh)
        if len(self._outliers) < _AGREEING:
            return ENERGY_JUMP
        self.total_wh += counter_wh - self._outliers[0]
        self._accept(counter_wh)
        return METER_RESET


def whole_wh(energy_wh: float) -> int:
    """Half up."""
    return int(energy_wh + 0.5)
