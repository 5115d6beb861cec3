"""What the power that a charger reports in a session adds up to: evidence against a register of another unit.

It never decides the energy: power is rounded, stale, or left out. It is counted so that it is too low rather than too high.
"""

from datetime import datetime

from msgspec import Struct

from csms.core.clocks import is_suspect

_LONGEST_S = 3600.0  # over longer than this two values of power prove nothing
_CLEARLY = 200  # by which factor the register must be below the power; kWh in place of Wh is 1000
_LEAST_WH = 1000  # of what the power adds up to: a register in steps of 1 kWh may stand still for less


class ReportedPower(Struct, frozen=True, gc=False):
    """The newest power of a session in W, its times, and the energy in Ws that all of it adds up to."""

    w: int
    at: datetime
    received_at: datetime
    energy_ws: int = 0


def add(
    known: ReportedPower | None, w: int, at: datetime, received_at: datetime, *, most_w: int
) -> ReportedPower:
    """Return what the power adds up to with one more value. More than the charger has (`most_w`) counts as none."""
    w = w if 0 < w <= most_w else 0
    if known is None:
        return ReportedPower(w, at, received_at)
    seconds = (received_at - known.received_at).total_seconds()
    if not (is_suspect(at, received_at) or is_suspect(known.at, known.received_at)):
        seconds = (at - known.at).total_seconds()
        if seconds < 0:
            return known
    energy_ws = int(min(w, known.w) * min(max(seconds, 0.0), _LONGEST_S))
    return ReportedPower(w, at, received_at, known.energy_ws + energy_ws)


def contradicts(known: ReportedPower | None, energy_wh: int) -> bool:
    """Return whether the power adds up to so much that the energy is in another unit, or the register stood still."""
    if known is None:
        return False
    shown_wh = known.energy_ws // 3600
    return shown_wh >= max(_LEAST_WH, energy_wh * _CLEARLY)
