"""The evidence of a session: one function decides its energy, its times, its anomalies and whether its bill is held.

It serves each end of a session: the real stop, the inferred one, the amended one, the one that an operator makes. The
running figure is the same state (`session_register`) before its end, so the two differ by evidence only. What
contradicts better evidence is neither used nor dropped: it is an anomaly. docs/energy.md has the table of cases.
"""

from datetime import datetime
from decimal import Decimal
from typing import Final

from msgspec import Struct
from msgspec.structs import replace

from csms.core import reported_power, session_register
from csms.core.clocks import CLOCK_TOLERANCE, LONGEST_SESSION, is_suspect
from csms.core.pricing import duration_s
from csms.core.session_register import SESSION_REGISTER, SessionRegister

METER_STOP, LAST_READING, NO_READING, OPERATOR = "meter_stop", "last_reading", "none", "operator"

NO_METER_STOP: Final = "no_meter_stop"  # neither a register at the end nor a reading
METER_DECREASED: Final = "meter_decreased"  # the register at the end is below the last one
IMPLAUSIBLE_METER_STOP: Final = "implausible_meter_stop"  # it is more than the meter can have advanced to
ENERGY_EXCEEDS_POWER: Final = "energy_exceeds_power"  # more energy than the charger can give in that time
ENERGY_BELOW_POWER: Final = "energy_below_power"  # a fraction of what the reported power adds up to
CLOCK_CHANGED: Final = "clock_changed"  # the charger's clock was wrong at one end, so csms's was used

_LONGEST_S = Decimal(int(LONGEST_SESSION.total_seconds()))
_ROUNDING_WH = 1000  # readings may be rounded to 1 kWh, the register at the end is not


class SessionEnd(Struct, frozen=True, kw_only=True):
    """What is known of the end of a session.

    `meter_stop_wh`: the register that the charger sent, if any. `stopped_at`: by the charger's clock, or the best known;
    `received_at`: when csms learned of it. `session_register`: the charger is known to count from 0 in each session.
    `lost_power_at`: when the last sign of the session was received, if the charger lost its power after it.
    """

    meter_stop_wh: int | None
    stopped_at: datetime
    received_at: datetime
    inferred: bool = False
    session_register: bool = False
    lost_power_at: datetime | None = None


class Conclusion(Struct, frozen=True, kw_only=True):
    """What a session is billed by. `register`: its state with the end; `held_because`: why a person must look first."""

    energy_wh: int
    energy_source: str
    meter_stop_wh: int
    began_at: datetime
    ended_at: datetime
    seconds: Decimal
    anomalies: tuple[str, ...]
    held_because: tuple[str, ...]
    register: SessionRegister


def conclude(
    register: SessionRegister, end: SessionEnd, *, started_at: datetime, start_received_at: datetime
) -> Conclusion:
    """Decide what a session is billed by, from its register and what is known of its end."""
    began_at, ended_at, clock = _times(register, end, started_at, start_received_at)
    seconds = duration_s(began_at, ended_at)
    ended, source, marks, held = _energy(register, end)
    lasted_s = max(float(seconds), (end.received_at - start_received_at).total_seconds(), 0.0)
    if ended.energy_wh > session_register.limit_wh(register.max_power_w, lasted_s):
        held = (*held, ENERGY_EXCEEDS_POWER)
    if reported_power.contradicts(ended.power, ended.energy_wh):
        # A register that stood still may be right, and the power stale.
        marks, held = (*marks, ENERGY_BELOW_POWER), (*held, ENERGY_BELOW_POWER) if ended.energy_wh else held
    if ended.pending is not None:
        marks = (*marks, session_register.IMPLAUSIBLE_READING)  # nothing has confirmed it
    reported = end.meter_stop_wh
    return Conclusion(
        energy_wh=ended.energy_wh,
        energy_source=source,
        meter_stop_wh=ended.last.wh if reported is None else reported,
        began_at=began_at,
        ended_at=ended_at,
        seconds=seconds,
        anomalies=tuple(dict.fromkeys((*marks, *clock, *ended.anomalies, *held))),
        held_because=held,
        register=ended,
    )


def _energy(
    register: SessionRegister, end: SessionEnd
) -> tuple[SessionRegister, str, tuple[str, ...], tuple[str, ...]]:
    """Return the register at the end, the source of its energy, the anomalies of the end, and why the bill is held."""
    reported = end.meter_stop_wh
    source = LAST_READING if register.readings else NO_READING
    if reported is None:
        return register, source, () if register.readings else (NO_METER_STOP,), ()
    last = register.last
    if end.session_register and 0 <= reported < last.wh and not (register.readings or register.pending):
        counted = replace(
            last, wh=reported, energy_wh=reported, at=end.stopped_at, received_at=end.received_at
        )
        if reported <= _limit_wh(register, end):
            return replace(register, last=counted), METER_STOP, (SESSION_REGISTER,), ()
    if register.start_wh is None and not register.readings:
        if register.before_wh is None:
            return register, NO_READING, (), (session_register.NO_METER_START,)
        register = replace(register, start_wh=register.before_wh)
    fall_wh = last.wh - reported
    rounding_wh = _ROUNDING_WH if last.wh % _ROUNDING_WH == 0 else session_register.NO_FALL_WH
    if 0 < fall_wh <= min(rounding_wh, last.energy_wh) and reported >= register.segment_wh:
        rounded = replace(last, wh=reported, energy_wh=last.energy_wh - fall_wh)
        return replace(register, last=rounded), METER_STOP, (), ()
    if 0 < fall_wh <= session_register.NO_FALL_WH and not register.readings:
        return register, METER_STOP, (), ()
    point = replace(last, wh=reported, at=end.stopped_at, received_at=end.received_at)
    whole_wh = reported - (register.start_wh or 0)
    if _shows_parts(register, end, reported):
        register = session_register.without_mark(register, session_register.PHASES_REPEAT_TOTAL)
        return replace(register, last=replace(point, energy_wh=whole_wh)), METER_STOP, (), ()
    ended = session_register.advance(register, reported, end.stopped_at, end.received_at)
    if ended.readings > register.readings:
        if _confirms_itself(register, ended):
            return register, source, (), (IMPLAUSIBLE_METER_STOP,)
        return ended, LAST_READING if end.inferred else METER_STOP, (), ()
    # The readings may count on another scale than start and end do.
    if last.energy_wh <= whole_wh <= last.energy_wh + _limit_wh(register, end) and register.segment_wh < (
        register.start_wh or 0
    ):
        return replace(register, last=replace(point, energy_wh=whole_wh)), METER_STOP, (), ()
    if (
        reported < last.wh
        and not register.at_outlet
        and whole_wh >= 0
        and register.segment_wh == register.start_wh
    ):
        # Start and end are of the outlet, the readings of another place, which has a meter of its own.
        ended = replace(register, last=replace(point, energy_wh=whole_wh))
        return ended, METER_STOP, (session_register.IMPLAUSIBLE_READING,), ()
    if reported < last.wh:
        return register, source, (METER_DECREASED,), ()
    return register, source, (), (IMPLAUSIBLE_METER_STOP,)


def _shows_parts(register: SessionRegister, end: SessionEnd, reported_wh: int) -> bool:
    """Return whether the end is the sum of equal phases, each of which was taken for the whole register."""
    return (
        session_register.PHASES_REPEAT_TOTAL in register.anomalies
        and register.segment_wh == register.start_wh
        and 2 * register.last.wh <= reported_wh <= 3 * register.last.wh + _limit_wh(register, end)
    )


def _confirms_itself(register: SessionRegister, ended: SessionRegister) -> bool:
    """Return whether the end counts above all that the meter can have reached, and nothing but itself shows that it can.

    A meter that was replaced goes on from its own register, in two readings at least. A reading that the end repeats, or
    one that stands still until the end, may as well be the same error twice.
    """
    if ended.segment_wh <= register.last.wh or ended.segment_wh == register.before_wh:
        return session_register.REGISTER_JUMPED in ended.anomalies and ended.last.wh == ended.segment_wh
    return register.pending is not None


def _limit_wh(register: SessionRegister, end: SessionEnd) -> int:
    point = replace(register.last, at=end.stopped_at, received_at=end.received_at)
    return session_register.limit_wh(
        register.max_power_w, session_register.seconds_between(register.last, point)
    )


def _times(
    register: SessionRegister, end: SessionEnd, started_at: datetime, start_received_at: datetime
) -> tuple[datetime, datetime, tuple[str, ...]]:
    """Return when the session began and ended for its price, and an anomaly if csms's clock decided.

    Both are by the charger's clock while that is consistent. A moment cannot lie after its receipt, an end not before
    the last evidence of the session; where it does, the times of receipt count.
    """
    stopped_at, received_at = end.stopped_at, end.received_at
    ahead = stopped_at > received_at + CLOCK_TOLERANCE
    start_ahead = started_at > start_received_at + CLOCK_TOLERANCE
    began_at = start_received_at if start_ahead else started_at
    if contradictory(register, end, started_at, start_received_at):
        by_receipt = end.lost_power_at or (min(stopped_at, received_at) if end.inferred else received_at)
        if is_suspect(stopped_at, received_at) and not is_suspect(started_at, start_received_at):
            seen_at, seen_received_at = _last_seen(register, started_at, start_received_at)
            if seen_received_at > seen_at + CLOCK_TOLERANCE:
                by_receipt = seen_at  # it waited in the charger, and so may have the end
        else:
            began_at = start_received_at
        return began_at, max(by_receipt, began_at), (CLOCK_CHANGED,)
    if ahead:
        drift = abs((stopped_at - received_at) - (started_at - start_received_at))
        return began_at, received_at, () if drift <= CLOCK_TOLERANCE else (CLOCK_CHANGED,)
    last = register.last
    set_back = register.readings > 0 and not is_suspect(last.at, last.received_at)
    if set_back and stopped_at < last.at - CLOCK_TOLERANCE and not end.inferred:
        # A reading received as it was taken proves the clock of the end wrong; another one may be wrong itself.
        proved = start_ahead or abs(last.received_at - last.at) <= CLOCK_TOLERANCE
        return began_at, received_at if proved else stopped_at, (CLOCK_CHANGED,)
    if start_ahead and set_back and last.at <= last.received_at + CLOCK_TOLERANCE:
        return start_received_at, stopped_at, (CLOCK_CHANGED,)
    return started_at, stopped_at, ()


def _last_seen(
    register: SessionRegister, started_at: datetime, start_received_at: datetime
) -> tuple[datetime, datetime]:
    """Return when the last evidence of the session was taken, by the charger's clock, and when it was received."""
    last = register.last
    if register.readings and not is_suspect(last.at, last.received_at):
        return last.at, last.received_at
    return started_at, start_received_at


def contradictory(
    register: SessionRegister, end: SessionEnd, started_at: datetime, start_received_at: datetime
) -> bool:
    """Return whether the charger's times of start and end cannot be by the same clock."""
    started_suspect = is_suspect(started_at, start_received_at)
    if end.stopped_at < started_at or duration_s(started_at, end.stopped_at) > _LONGEST_S:
        return True
    if started_suspect != is_suspect(end.stopped_at, end.received_at) or register.ended_before is not None:
        return True
    # A clock that stands still measures nothing.
    return started_suspect and end.stopped_at == started_at and end.received_at > start_received_at
