"""What a session has used, by band: energy from its readings, minutes from the clock, idle minutes from both.

Between two readings the register is taken to have risen evenly. Idle is the time at the end of a session in which
nothing was charged although the charger would have: see `idle`.
"""

from bisect import bisect_right
from collections.abc import Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from itertools import pairwise

from msgspec import Struct

from csms.core.bands import band_spans
from csms.core.exact import Fraction
from csms.core.tariffs import NO_BAND, Tariff

TimeSpan = tuple[datetime, datetime]
RegisterReading = tuple[datetime, int]

_MICROSECOND = timedelta(microseconds=1)
# What the car's or the charger's own electronics draw is no charging. Over a longer time the mean says nothing.
_CHARGING_W = 100
_LONGEST_MEAN = timedelta(hours=1)
_CAR_STOPPED = frozenset({"SuspendedEV", "Finishing"})
# The charger does not offer, or the car is gone: not the driver's delay.
_NOT_IDLE = frozenset({"SuspendedEVSE", "Faulted", "Unavailable", "Available", "Reserved"})


class Evidence(Struct, frozen=True, kw_only=True):
    """What the ledger has on the timeline of a session, both by the charger's clock, in any order.

    `registers`: the energy register in Wh; `statuses`: what the connector reported.
    """

    registers: tuple[RegisterReading, ...] = ()
    statuses: tuple[tuple[datetime, str], ...] = ()


class SessionTimeline(Struct, frozen=True, kw_only=True):
    """A session in time. `meter_start_wh`: what the register showed when it began; it ended at that + `energy_wh`.

    `idle_until`: idle at most until then, of a session that runs.
    """

    started_at: datetime
    ended_at: datetime
    energy_wh: int
    meter_start_wh: int = 0
    evidence: Evidence = Evidence()
    idle_until: datetime | None = None


class Usage(Struct, frozen=True, kw_only=True):
    """By band (index in the tariff, or BASE): energy in Wh, time and idle time in microseconds, exact."""

    energy_wh: dict[int, Fraction]
    time_us: dict[int, int]
    idle_us: dict[int, int] = {}


def usage_without_bands(energy_wh: int, duration_s: Decimal) -> Usage:
    """All of it in no band. Negative energy or time counts as zero."""
    micros = int(max(duration_s, Decimal(0)) * 1_000_000)
    return Usage(energy_wh={NO_BAND: Fraction(max(energy_wh, 0))}, time_us={NO_BAND: micros})


def usage_by_band(tariff: Tariff, timeline: SessionTimeline) -> Usage:
    """What a session used, by the tariff's bands. The sums are the session's energy and time, always."""
    registers = _register_curve(timeline)
    times = [at for at, _ in registers]
    energy_wh: dict[int, Fraction] = {}
    time_us: dict[int, int] = {}
    before = Fraction(registers[0][1])
    parts = band_spans(tariff, timeline.started_at, max(timeline.started_at, timeline.ended_at))
    for piece in parts:
        last = piece is parts[-1]
        after = Fraction(registers[-1][1]) if last else _register_at(registers, times, piece.end)
        energy_wh[piece.band] = energy_wh.get(piece.band, Fraction(0)) + after - before
        time_us[piece.band] = time_us.get(piece.band, 0) + (piece.end - piece.start) // _MICROSECOND
        before = after
    idle_us: dict[int, int] = {}
    if tariff.charges("idle"):
        for since, until in _after_grace(idle_spans(timeline), timedelta(minutes=tariff.idle_grace_min)):
            for piece in band_spans(tariff, since, until):
                length = (piece.end - piece.start) // _MICROSECOND
                idle_us[piece.band] = idle_us.get(piece.band, 0) + length
    return Usage(energy_wh=energy_wh, time_us=time_us, idle_us=idle_us)


def idle_spans(timeline: SessionTimeline) -> list[TimeSpan]:
    """When the car blocked the connector after charging had ended, without any grace.

    Charging ended with the last rise of the register between two readings (100 W at least, on average), at the second
    of them; or in between, when the connector said SuspendedEV or Finishing there and nothing else until then. So
    without readings and statuses nothing is idle, nor is a pause that ends in charging. A session that took nothing
    is idle from where the connector says so. Not idle: while the connector says that the charger does not offer
    (SuspendedEVSE, Faulted, Unavailable) or that the car is gone (Available, Reserved).
    """
    statuses = sorted(timeline.evidence.statuses)
    return _idle_from(timeline, _charging_ended(timeline, statuses), statuses)


def _charging_ended(timeline: SessionTimeline, statuses: Sequence[tuple[datetime, str]]) -> datetime:
    registers = _register_curve(timeline)
    for (since, low), (until, high) in reversed(list(pairwise(registers))):
        if not _is_charging(high - low, until - since):
            continue
        said = [(at, status) for at, status in statuses if at <= until]
        stopped = until
        while said and said[-1][1] in _CAR_STOPPED:
            stopped = said.pop()[0]
        return stopped if stopped > since else until
    stops = [at for at, status in statuses if status in _CAR_STOPPED and at < timeline.ended_at]
    return max(stops[0], timeline.started_at) if stops else timeline.ended_at


def _is_charging(energy_wh: int, length: timedelta) -> bool:
    if energy_wh <= 0:
        return False
    return length > _LONGEST_MEAN or energy_wh * 3600 >= _CHARGING_W * length.total_seconds()


def _idle_from(
    timeline: SessionTimeline, since: datetime, statuses: Sequence[tuple[datetime, str]]
) -> list[TimeSpan]:
    """From `since` to the end, without the times at which the connector said something of _NOT_IDLE."""
    spans: list[TimeSpan] = []
    now = ""
    end = timeline.ended_at if timeline.idle_until is None else min(timeline.idle_until, timeline.ended_at)
    for at, status in [*statuses, (end, "")]:
        until = min(at, end)
        if since < until:
            if now not in _NOT_IDLE:
                adjoins = bool(spans) and spans[-1][1] == since
                since = spans.pop()[0] if adjoins else since
                spans.append((since, until))
            since = until
        now = status
    return spans


def _after_grace(spans: Sequence[TimeSpan], grace: timedelta) -> list[TimeSpan]:
    """What is left of the spans when the first of the time is free."""
    left = []
    for since, until in spans:
        free = min(grace, until - since)
        grace -= free
        if since + free < until:
            left.append((since + free, until))
    return left


def _register_curve(timeline: SessionTimeline) -> list[RegisterReading]:
    """The register over the session: its two ends and the readings in between that fit, in order of time.

    A register does not go down, nor beyond where it ended: what does is no evidence. Of readings that contradict each
    other as many as possible count, so that one that is far off does not outvote all that come after it.
    """
    low, high = timeline.meter_start_wh, timeline.meter_start_wh + max(timeline.energy_wh, 0)
    between = sorted(
        (at, energy_wh)
        for at, energy_wh in timeline.evidence.registers
        if timeline.started_at < at < timeline.ended_at and low <= energy_wh <= high
    )
    return [(timeline.started_at, low), *_rising(between), (timeline.ended_at, high)]


def _rising(registers: Sequence[RegisterReading]) -> list[RegisterReading]:
    """The longest part of it that never falls (patience sorting)."""
    tops: list[int] = []
    last_of: list[int] = []
    before: list[int] = []
    for i, (_, energy_wh) in enumerate(registers):
        length = bisect_right(tops, energy_wh)
        before.append(last_of[length - 1] if length else -1)
        tops[length : length + 1] = [energy_wh]
        last_of[length : length + 1] = [i]
    found = []
    i = last_of[-1] if last_of else -1
    while i >= 0:
        found.append(registers[i])
        i = before[i]
    return found[::-1]


def _register_at(
    registers: Sequence[RegisterReading], times: Sequence[datetime], moment: datetime
) -> Fraction:
    """The register at a moment of the session, in Wh, linear between the readings around it."""
    i = bisect_right(times, moment)
    if i == len(times):
        return Fraction(registers[-1][1])
    (since, low), (until, high) = registers[i - 1], registers[i]
    return low + Fraction((moment - since) // _MICROSECOND, (until - since) // _MICROSECOND) * (high - low)
