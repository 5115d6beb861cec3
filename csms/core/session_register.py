"""What the readings of a session show of its energy: a fold over the register's values in the order of their arrival.

`begin` makes the state from the start, `advance` takes one value of the register, `conclude` the end (csms/core/evidence.py
adds times and decides about the bill). A value is believed if the meter can have advanced so far in the time since the
last one. A value that does not fit waits (`pending`) until the next one shows which of the two is wrong, so that no
single absurd value changes the energy. Energy and registers in Wh, power in W. docs/energy.md has the table of cases.
"""

from datetime import datetime
from typing import Final

from msgspec import Struct
from msgspec.structs import replace

from csms.core.clocks import CLOCK_TOLERANCE, is_suspect
from csms.core.reported_power import ReportedPower

NO_METER_START: Final = "no_meter_start"  # the charger sent no usable register at the start
METER_START_REPLACED: Final = "meter_start_replaced"  # the register at the start was a placeholder
REGISTER_OVERLAP: Final = "register_overlap"  # the session begins below the end of the one before
REGISTER_GAP: Final = "register_gap"  # the session begins above the end of the one before
REGISTER_RESET: Final = "register_reset"  # the register began again at a lower value
REGISTER_WRAPPED: Final = "register_wrapped"  # the register passed the largest value that it can hold
REGISTER_JUMPED: Final = "register_jumped"  # the register went on at another, higher value
SESSION_REGISTER: Final = "session_register"  # the register counts from 0 in each session
PHASES_REPEAT_TOTAL: Final = "phases_repeat_total"  # each phase has the same register: one of them counts
IMPLAUSIBLE_READING: Final = "implausible_reading"  # a value that the values around it contradict

# Six minutes at full power: clocks are set, readings wait in queues, meters report late.
_MARGIN_S = 360
_CLOCK_ERROR = 1.1
# What a register may differ by where it does not matter: rounding to 0.1 kWh, or readings that overtake each other.
NO_FALL_WH = 100
_STRICT_MARGIN_WH = 1000
_IN_KWH_WH = 1000  # a start in whole kWh is so near to the register in Wh
_LONGEST_S = 30 * 86_400.0
# The largest number of a field, which firmware sends for a register that it does not know.
_UNKNOWN: Final = frozenset(2**bits - 1 for bits in (31, 32, 63, 64))
_LIMITS = (2**31, 2**32, *(10**digits for digits in range(6, 13)))


class RegisterPoint(Struct, frozen=True, gc=False):
    """A value of the register with the session's energy up to it, the charger's time and that of receipt."""

    wh: int
    energy_wh: int
    at: datetime
    received_at: datetime


class SessionRegister(Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """The register of a session as believed so far.

    `start_wh`: the register at the start, None if unknown. `segment_wh`: where the register began to count without a
    break. `last`: the newest believed value, or the start. `fallback`: the state before a value that is less sure, to go
    back to if a later one contradicts it. `pending`: a value that does not fit. `peak`: the state before a reset.
    `before_wh`: the connector's register before the session, if it is on the same scale. `readings`: how many values
    are believed. `at_outlet`: one of them was taken at the outlet. `max_power_w`: the most that the charger can give.
    `start_anomalies`: those of the anomalies that were known at the start. `scale`: what the registers received before
    `scaled_at` were multiplied by then, because the charger was not identified before. `power`: what it adds up to.
    `ended_before`: the end of the session before, if the charger's time of the start lies before it.
    """

    start_wh: int | None
    segment_wh: int
    last: RegisterPoint
    max_power_w: int
    before_wh: int | None = None
    readings: int = 0
    at_outlet: bool = False
    fallback: RegisterPoint | None = None
    pending: RegisterPoint | None = None
    peak: RegisterPoint | None = None
    anomalies: tuple[str, ...] = ()
    start_anomalies: tuple[str, ...] = ()
    scale: int = 1
    scaled_at: datetime | None = None
    power: ReportedPower | None = None
    ended_before: datetime | None = None

    @property
    def energy_wh(self) -> int:
        """The energy of the session so far."""
        return self.last.energy_wh


def begin(
    meter_start_wh: int | None,
    at: datetime,
    received_at: datetime,
    *,
    max_power_w: int,
    before_wh: int | None = None,
    previous: SessionRegister | None = None,
    anomalies: tuple[str, ...] = (),
    ended_before: datetime | None = None,
) -> SessionRegister:
    """Return the state at the start of a session.

    `before_wh`: the register that the connector had last. `previous`: that of the session before on the connector. A
    register of sessions that each began at 0 is not comparable with a start. A start that is in kWh is as good as none.
    """
    lifetime = previous is None or bool(previous.start_wh)
    marks: tuple[str, ...] = ()
    if meter_start_wh and before_wh and lifetime and abs(meter_start_wh * 1000 - before_wh) <= _IN_KWH_WH:
        meter_start_wh, marks = before_wh, (METER_START_REPLACED,)
    elif meter_start_wh is None or meter_start_wh < 0 or meter_start_wh in _UNKNOWN:
        meter_start_wh, marks = None, (NO_METER_START,)
    elif before_wh is not None and meter_start_wh > 0 and previous is not None:
        marks = _compared(meter_start_wh, before_wh, previous)
    register_wh = meter_start_wh if meter_start_wh is not None else before_wh or 0
    anomalies = tuple(dict.fromkeys(marks + anomalies))
    return SessionRegister(
        start_wh=meter_start_wh,
        segment_wh=register_wh,
        last=RegisterPoint(register_wh, 0, at, received_at),
        max_power_w=max_power_w,
        before_wh=before_wh if lifetime else None,
        anomalies=anomalies,
        start_anomalies=anomalies,
        ended_before=ended_before or _ended_before(meter_start_wh, at, before_wh, previous),
    )


def _ended_before(
    meter_start_wh: int | None, at: datetime, before_wh: int | None, previous: SessionRegister | None
) -> datetime | None:
    """Return when the session before ended, if that was after the time of this start: its register shows the order."""
    if meter_start_wh is None or before_wh is None or previous is None:
        return None
    last = previous.last
    ended_at = last.received_at if is_suspect(last.at, last.received_at) else min(last.at, last.received_at)
    later = meter_start_wh >= last.wh - NO_FALL_WH and not is_suspect(at, last.received_at)
    return ended_at if later and at < ended_at - CLOCK_TOLERANCE else None


def begun_at(register: SessionRegister, begin_wh: int) -> SessionRegister:
    """Return the state after a sample of the begin: the start of a session whose own start is missing or a placeholder."""
    if register.readings or begin_wh < 0 or (register.start_wh or 0) > 0 or begin_wh == register.start_wh:
        return register
    if register.start_wh == 0:
        register = _marked(register, METER_START_REPLACED)
    last = replace(register.last, wh=begin_wh)
    return replace(register, start_wh=begin_wh, segment_wh=begin_wh, last=last)


def rescaled(register: SessionRegister, scale: int, now: datetime) -> SessionRegister:
    """Return the state with all registers and energies `scale` times as large, from now on."""

    def point(of: RegisterPoint | None) -> RegisterPoint | None:
        return None if of is None else replace(of, wh=of.wh * scale, energy_wh=of.energy_wh * scale)

    last = point(register.last)
    assert last is not None
    return replace(
        register,
        start_wh=None if register.start_wh is None else register.start_wh * scale,
        segment_wh=register.segment_wh * scale,
        last=last,
        before_wh=None if register.before_wh is None else register.before_wh * scale,
        fallback=point(register.fallback),
        pending=point(register.pending),
        peak=point(register.peak),
        scale=register.scale * scale,
        scaled_at=now,
    )


def _compared(meter_start_wh: int, before_wh: int, previous: SessionRegister) -> tuple[str, ...]:
    if abs(meter_start_wh - before_wh) <= NO_FALL_WH:
        return ()
    if meter_start_wh > before_wh:
        return (REGISTER_GAP,)
    return (REGISTER_OVERLAP if meter_start_wh >= previous.segment_wh else REGISTER_RESET,)


def limit_wh(max_power_w: int, seconds: float) -> int:
    """Return the most energy in Wh that a charger of `max_power_w` W gives in so many seconds, with a margin."""
    return int(max_power_w * (seconds * _CLOCK_ERROR + _MARGIN_S) / 3600)


def advance(
    register: SessionRegister,
    value_wh: int,
    at: datetime,
    received_at: datetime,
    *,
    names_session: bool = True,
    at_outlet: bool = True,
    summed: bool = False,
    repeated: bool = False,
) -> SessionRegister:
    """Return the state after one more value of the register.

    `names_session` False: the reading names no transaction, so it may be of another register; it counts if it fits, and
    never against readings that name the session. One of another location than the outlet (`at_outlet` False) is of
    another register where the session has readings of the outlet. `summed`: it was added up from phases, each of which
    may be the total, so it counts until a total contradicts it. `repeated`: each phase has this value (`repeats_total`).
    """
    if value_wh < 0:
        return _marked(register, IMPLAUSIBLE_READING)
    if not at_outlet and register.at_outlet:
        return register
    if at_outlet and not register.at_outlet:
        register = replace(register, at_outlet=True)
    if repeated:
        register = _marked(register, PHASES_REPEAT_TOTAL)
    elif summed:
        register = without_mark(register, PHASES_REPEAT_TOTAL)
    value = RegisterPoint(value_wh, 0, at, received_at)
    if register.start_wh is None and not register.readings:
        # The first reading of a session whose start is unknown is where it counts from.
        return _believed(register, value, 0, segment_wh=value_wh) if names_session else register
    return (
        _of_before_reset(register, value)
        or _since_before(register, value)
        or _rise(register, value, sure=names_session and not summed)
        or _small_fall(register, value)
        or _late(register, value)
        or _fallen_back(register, value)
        or _wrapped(register, value)
        or (_pending(register, value) if names_session else register)
    )


def repeats_total(register: SessionRegister, each_wh: int) -> bool:
    """Return whether a value that each phase has is the whole register: it alone goes on from what is known of the total."""
    return PHASES_REPEAT_TOTAL in register.anomalies or each_wh >= register.last.wh - NO_FALL_WH


def end_fits(register: SessionRegister, value_wh: int, at: datetime, received_at: datetime) -> bool:
    """Return whether the register at the end can be that of this session, by what is known of its readings."""
    return (
        value_wh >= register.last.wh - NO_FALL_WH
        and advance(register, value_wh, at, received_at).pending is None
    )


# --- what a value may be, one function each: the state after it, or None --------------------------------------------


def _of_before_reset(register: SessionRegister, value: RegisterPoint) -> SessionRegister | None:
    """A value of before a reset that comes after it, by a clock that was not set in between."""
    last, peak = register.last, register.peak
    if peak is None or is_suspect(value.at, value.received_at):
        return None
    return register if value.at < peak.at <= last.at and last.wh < value.wh <= peak.wh else None


def _since_before(register: SessionRegister, value: RegisterPoint) -> SessionRegister | None:
    """A first value that goes on from the session before: the register at the start is a placeholder or an old one."""
    before_wh, start_wh = register.before_wh, register.start_wh
    if register.readings or not before_wh or start_wh is None or start_wh >= before_wh:
        return None
    most_wh = _strict_limit(register, register.last, value)
    if not 0 <= value.wh - before_wh <= most_wh or (start_wh and value.wh - start_wh <= most_wh):
        return None
    replaced = replace(_marked(register, METER_START_REPLACED), start_wh=before_wh)
    return _believed(replaced, value, value.wh - before_wh, segment_wh=before_wh)


def _rise(register: SessionRegister, value: RegisterPoint, *, sure: bool) -> SessionRegister | None:
    last, peak = register.last, register.peak
    rise_wh = value.wh - last.wh
    if rise_wh < 0 or rise_wh > _limit(register, last, value):
        return None
    strictly = rise_wh <= _strict_limit(register, last, value)
    if peak is not None and value.wh >= peak.wh and _resumes(register, value, peak, strictly=strictly):
        back = replace(register, last=peak, peak=None, pending=None, segment_wh=register.start_wh or 0)
        return _believed(_marked(back, IMPLAUSIBLE_READING), value, value.wh - peak.wh)
    if register.pending is not None:
        register = _marked(replace(register, pending=None), IMPLAUSIBLE_READING)
    if sure and strictly:
        return _believed(register, value, rise_wh)
    return replace(_believed(register, value, rise_wh), fallback=register.fallback or last)


def _resumes(register: SessionRegister, value: RegisterPoint, peak: RegisterPoint, *, strictly: bool) -> bool:
    """Return whether a register that had seemed reset goes on where it was: the values between were wrong or late.

    It does if it stood still since, or if it would have risen at once by more than in all the session before.
    """
    last = register.last
    if value.wh - peak.wh > _limit(register, peak, value):
        return False
    return not strictly or last.wh == register.segment_wh or value.wh - last.wh > last.energy_wh


def _small_fall(register: SessionRegister, value: RegisterPoint) -> SessionRegister | None:
    """A fall within the tolerance is none. It confirms the last value."""
    if not -NO_FALL_WH <= value.wh - register.last.wh < 0:
        return None
    if register.pending is None:
        return replace(register, fallback=None) if register.fallback else register
    return _marked(replace(register, pending=None), IMPLAUSIBLE_READING)


def _late(register: SessionRegister, value: RegisterPoint) -> SessionRegister | None:
    """A lower value of an earlier time, on the same count: it was overtaken by the newest one."""
    last = register.last
    earlier = not is_suspect(value.at, value.received_at) and value.at < last.at
    return register if earlier and register.segment_wh <= value.wh < last.wh else None


def _fallen_back(register: SessionRegister, value: RegisterPoint) -> SessionRegister | None:
    sure = register.fallback
    if sure is None or not -NO_FALL_WH <= value.wh - sure.wh <= _limit(register, sure, value):
        return None
    back = replace(register, last=sure, fallback=None, pending=None)
    return _believed(_marked(back, IMPLAUSIBLE_READING), value, max(value.wh - sure.wh, 0))


def _wrapped(register: SessionRegister, value: RegisterPoint) -> SessionRegister | None:
    """A fall to a low value close below one of the largest values that registers hold. Zero is no value of a count."""
    last = register.last
    most_wh = _strict_limit(register, last, value)
    for limit in _LIMITS:
        rise_wh = limit - last.wh + value.wh
        if 0 < value.wh < last.wh < limit and rise_wh <= min(most_wh, limit // 50):
            wrapped = _marked(replace(register, pending=None), REGISTER_WRAPPED)
            return _believed(wrapped, value, rise_wh, segment_wh=value.wh)
    return None


def _pending(register: SessionRegister, value: RegisterPoint) -> SessionRegister:
    """Keep a value that does not fit, unless it continues the one kept before: then the register counts on from there."""
    pending, last = register.pending, register.last
    if pending is None or not 0 <= value.wh - pending.wh <= _limit(register, pending, value):
        if pending is not None:
            register = _marked(register, IMPLAUSIBLE_READING)
        return replace(register, pending=value)
    register = replace(register, pending=None, fallback=None)
    if register.readings == 0:
        return _restarted(register, pending, value)
    mark = REGISTER_RESET if pending.wh < last.wh else REGISTER_JUMPED
    reset = replace(_marked(register, mark), peak=last if pending.wh < last.wh else None)
    return _believed(reset, value, value.wh - pending.wh, segment_wh=pending.wh)


def _restarted(register: SessionRegister, first: RegisterPoint, value: RegisterPoint) -> SessionRegister:
    """Count from where the first two readings show that the register at the start was of another scale."""
    if first.wh < register.last.wh and first.wh <= _limit(register, register.last, first):
        return _believed(_marked(register, SESSION_REGISTER), value, value.wh, segment_wh=0)
    before_wh = register.before_wh
    known = before_wh is not None and 0 <= first.wh - before_wh <= _limit(register, register.last, first)
    start_wh = before_wh if known and before_wh is not None else first.wh
    replaced = replace(_marked(register, METER_START_REPLACED), start_wh=start_wh)
    return _believed(replaced, value, value.wh - start_wh, segment_wh=start_wh)


# --- parts ------------------------------------------------------------------------------------------------------------


def _believed(
    register: SessionRegister, value: RegisterPoint, rise_wh: int, *, segment_wh: int | None = None
) -> SessionRegister:
    return replace(
        register,
        last=replace(value, energy_wh=register.last.energy_wh + rise_wh),
        segment_wh=register.segment_wh if segment_wh is None else segment_wh,
        start_wh=value.wh if register.start_wh is None else register.start_wh,
        readings=register.readings + 1,
        fallback=None,
    )


def _marked(register: SessionRegister, anomaly: str) -> SessionRegister:
    if anomaly in register.anomalies:
        return register
    return replace(register, anomalies=(*register.anomalies, anomaly))


def without_mark(register: SessionRegister, anomaly: str) -> SessionRegister:
    """Return the state without an anomaly that later evidence has disproved."""
    if anomaly not in register.anomalies:
        return register
    return replace(register, anomalies=tuple(word for word in register.anomalies if word != anomaly))


def _limit(register: SessionRegister, earlier: RegisterPoint, later: RegisterPoint) -> int:
    return limit_wh(register.max_power_w, seconds_between(earlier, later))


def _strict_limit(register: SessionRegister, earlier: RegisterPoint, later: RegisterPoint) -> int:
    seconds = seconds_between(earlier, later)
    return int(register.max_power_w * seconds * _CLOCK_ERROR / 3600) + _STRICT_MARGIN_WH


def seconds_between(earlier: RegisterPoint, later: RegisterPoint) -> float:
    """Return the longer of the times between two values by the charger's clock and by receipt, at most 30 days.

    Values that waited in the charger arrive at once; by a clock that is wrong no time passes, or too much.
    """
    received_s = (later.received_at - earlier.received_at).total_seconds()
    stamped_s = 0.0
    if not (is_suspect(earlier.at, earlier.received_at) or is_suspect(later.at, later.received_at)):
        stamped_s = (later.at - earlier.at).total_seconds()
    return min(max(received_s, stamped_s, 0.0), _LONGEST_S)
