"""The energy of a rental from a station's energy counter. Pure.

Only positive differences count, never the counter itself: some stations start it at 0 for each rental, others do not.
"""

from typing import Final

from msgspec import Struct

AUTO, PER_SESSION, CUMULATIVE = "auto", "session", "cumulative"
BASELINE_UNCERTAIN, METER_RESET, ENERGY_JUMP = "energy_baseline_uncertain", "meter_reset", "energy_jump"
_FIRST_PACKET_S: Final = 2
_MARGIN, _SLACK_WH = 1.2, 2.0
_AGREEING_READINGS: Final = 3
# The ledger keeps whole Wh: after a restart the counter may seem to have fallen by less than one.
_ROUNDING_WH: Final = 1.0


def max_plausible_wh(rated_w: float, elapsed_s: float) -> float:
    """Return the most energy (Wh) that can have flowed in `elapsed_s` seconds."""
    return rated_w * max(elapsed_s, 0) / 3600 * _MARGIN + _SLACK_WH


class Baseline(Struct, frozen=True):
    """The counter (Wh) at the start of a rental. `certain` False: estimated, in the renter's favour."""

    counter_wh: float
    certain: bool = True


class CounterBehaviour:
    """Whether a station's counter starts each rental at 0 (`resets`), and what it read at the last `done`.

    `resets` is None until it is known.
    """

    def __init__(self, mode: str, rated_w: float) -> None:
        self._mode = mode
        self._rated_w = rated_w
        self.resets: bool | None = {PER_SESSION: True, CUMULATIVE: False}.get(mode)
        self.last_done_wh: float | None = None

    def restore(self, resets: bool | None, last_done_wh: float | None) -> None:
        """Take over what was known before a restart. An operator's setting takes precedence."""
        if self._mode == AUTO:
            self.resets = resets
        self.last_done_wh = last_done_wh

    def baseline(self, counter_wh: float | None, time_s: int) -> Baseline:
        """Return the baseline of a rental from the counter and the time of its first packet."""
        if counter_wh is None:
            return Baseline(self.last_done_wh or 0.0, certain=False)
        if time_s <= _FIRST_PACKET_S:
            if self._mode == AUTO:
                self.resets = counter_wh <= 1
            return Baseline(counter_wh)
        # The rental began before the first packet of it that arrived.
        expected_wh = 0.0 if self.resets else self.last_done_wh
        if expected_wh is not None and 0 <= counter_wh - expected_wh <= max_plausible_wh(
            self._rated_w, time_s
        ):
            return Baseline(expected_wh)
        return Baseline(counter_wh, certain=False)


class SessionEnergy:
    """The energy of one rental. `total_wh` may have a fraction; it never falls."""

    def __init__(
        self, baseline_wh: float, rated_w: float, *, total_wh: float = 0.0, shift_wh: float = 0.0
    ) -> None:
        """`total_wh` and `shift_wh`: of a rental that was on record at the start of the bridge."""
        self.total_wh = total_wh
        self._rated_w = rated_w
        self._baseline_wh = baseline_wh
        self._counter_wh = baseline_wh + total_wh + shift_wh
        self._outliers: list[float] = []

    @property
    def shift_wh(self) -> float:
        """The distance (Wh) of the counter from baseline + energy: not 0 once the counter has been reset."""
        return round(self._counter_wh - self._baseline_wh - self.total_wh, 3)

    @property
    def last_reading_rejected(self) -> bool:
        return bool(self._outliers)

    def add(self, counter_wh: float, elapsed_s: float) -> str | None:
        """Add a reading of the counter, `elapsed_s` seconds after the last accepted one. Return its anomaly, if any."""
        limit_wh = max_plausible_wh(self._rated_w, elapsed_s)
        delta_wh = counter_wh - self._counter_wh
        if 0 <= delta_wh <= limit_wh:
            self.total_wh += delta_wh
            self._accept(counter_wh)
            return None
        if -_ROUNDING_WH < delta_wh < 0:
            return None
        if delta_wh < 0 and counter_wh <= limit_wh:
            self.total_wh += counter_wh  # the energy since the reset to 0
            self._accept(counter_wh)
            return METER_RESET
        return self._add_outlier(counter_wh, limit_wh)

    def _accept(self, counter_wh: float) -> None:
        self._counter_wh = counter_wh
        self._outliers = []

    def _add_outlier(self, counter_wh: float, limit_wh: float) -> str:
        """Accept the third outlier in a row that agrees with the last one. The jump itself is not billed."""
        if self._outliers and not 0 <= counter_wh - self._outliers[-1] <= limit_wh:
            self._outliers = []
        self._outliers.append(counter_wh)
        if len(self._outliers) < _AGREEING_READINGS:
            return ENERGY_JUMP
        self.total_wh += counter_wh - self._outliers[0]
        self._accept(counter_wh)
        return METER_RESET


def whole_wh(energy_wh: float) -> int:
    """Round half up to whole Wh."""
    return int(energy_wh + 0.5)
