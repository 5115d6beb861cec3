"""What a session has used, by tariff band: energy from its readings, time from the clock, idle time from both.

Between two readings the register counts as risen evenly. Idle time is the time at the end of a session in which the
car did not charge although the charger offered to: see `idle_spans`.
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
# The electronics of car and charger draw less than this. Over longer than _LONGEST_MEAN a mean power proves nothing.
_CHARGING_W = 100
_LONGEST_MEAN = timedelta(hours=1)
_CAR_STOPPED = frozenset({"SuspendedEV", "Finishing"})
# The charger does not offer energy, or the car is gone: the driver does not block the connector.
_NOT_IDLE = frozenset({"SuspendedEVSE", "Faulted", "Unavailable", "Available", "Reserved"})


class Evidence(Struct, frozen=True, kw_only=True):
    """What is stored about a session, by the charger's clock, in any order.

    `registers`: the energy register in Wh, in a timeline the energy since the start; `statuses`: what the connector
    reported.
    """

    registers: tuple[RegisterReading, ...] = ()
    statuses: tuple[tuple[datetime, str], ...] = ()


class SessionTimeline(Struct, frozen=True, kw_only=True):
    """A session in time.

    `idle_until`: the end of idle time of a session that still runs.
    """

    started_at: datetime
    ended_at: datetime
    energy_wh: int
    evidence: Evidence = Evidence()
    idle_until: datetime | None = None


class Usage(Struct, frozen=True, kw_only=True):
    """Energy in Wh, time and idle time in microseconds, exact, by band (its index in the tariff, or NO_BAND)."""

    energy_wh: dict[int, Fraction]
    time_us: dict[int, int]
    idle_us: dict[int, int] = {}


def usage_without_bands(energy_wh: int, duration_s: Decimal) -> Usage:
    """Return usage outside of all bands. Negative energy or time counts as zero."""
    micros = int(max(duration_s, Decimal(0)) * 1_000_000)
    return Usage(energy_wh={NO_BAND: Fraction(max(energy_wh, 0))}, time_us={NO_BAND: micros})


def usage_by_band(tariff: Tariff, timeline: SessionTimeline) -> Usage:
    """Return usage by the tariff's bands. Its sums are the session's energy and time."""
    registers = _register_curve(timeline)
    times = [at for at, _ in registers]
    energy_wh: dict[int, Fraction] = {}
    time_us: dict[int, int] = {}
    before = Fraction(registers[0][1])
    spans = band_spans(tariff, timeline.started_at, max(timeline.started_at, timeline.ended_at))
    for span in spans:
        last = span is spans[-1]
        after = Fraction(registers[-1][1]) if last else _register_at(registers, times, span.end)
        energy_wh[span.band] = energy_wh.get(span.band, Fraction(0)) + after - before
        time_us[span.band] = time_us.get(span.band, 0) + (span.end - span.start) // _MICROSECOND
        before = after
    idle_us: dict[int, int] = {}
    if tariff.charges("idle"):
        for since, until in _after_grace(idle_spans(timeline), timedelta(minutes=tariff.idle_grace_min)):
            for span in band_spans(tariff, since, until):
                length = (span.end - span.start) // _MICROSECOND
                idle_us[span.band] = idle_us.get(span.band, 0) + length
    return Usage(energy_wh=energy_wh, time_us=time_us, idle_us=idle_us)


def idle_spans(timeline: SessionTimeline) -> list[TimeSpan]:
    """Return when the car blocked the connector after charging had ended, before any grace is deducted.

    Charging ended with the last rise of the register between two readings (of at least 100 W on average), at the
    second of them; or between them, at the first of the statuses SuspendedEV and Finishing that last until then. So
    without readings and statuses nothing is idle, and neither is a pause that ends in charging. A session without
    energy is idle from the first of these statuses. Time is not idle while the connector reports that the charger
    does not offer energy (SuspendedEVSE, Faulted, Unavailable) or that the car is gone (Available, Reserved).
    """
    statuses = sorted(timeline.evidence.statuses)
    return _idle_from(timeline, _charging_ended(timeline, statuses), statuses)


def _charging_ended(timeline: SessionTimeline, statuses: Sequence[tuple[datetime, str]]) -> datetime:
    registers = _register_curve(timeline)
    for (since, low), (until, high) in reversed(list(pairwise(registers))):
        if not _is_charging(high - low, until - since):
            continue
        earlier = [(at, status) for at, status in statuses if at <= until]
        stopped = until
        while earlier and earlier[-1][1] in _CAR_STOPPED:
            stopped = earlier.pop()[0]
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
    """Return the time from `since` to the end, without the spans in which the status is one of _NOT_IDLE."""
    spans: list[TimeSpan] = []
    current = ""
    end = timeline.ended_at if timeline.idle_until is None else min(timeline.idle_until, timeline.ended_at)
    for at, status in [*statuses, (end, "")]:
        until = min(at, end)
        if since < until:
            if current not in _NOT_IDLE:
                adjoins = bool(spans) and spans[-1][1] == since
                since = spans.pop()[0] if adjoins else since
                spans.append((since, until))
            since = until
        current = status
    return spans


def _after_grace(spans: Sequence[TimeSpan], grace: timedelta) -> list[TimeSpan]:
    """Return the spans without the first `grace` of their time."""
    left = []
    for since, until in spans:
        free = min(grace, until - since)
        grace -= free
        if since + free < until:
            left.append((since + free, until))
    return left


def _register_curve(timeline: SessionTimeline) -> list[RegisterReading]:
    """Return the register over the session: its two ends and the plausible readings between them, in order of time.

    A register neither falls nor exceeds its value at the end: readings that do are ignored. Of readings that contradict
    each other as many as possible are kept, so that a single wrong one does not exclude all later ones.
    """
    low, high = 0, max(timeline.energy_wh, 0)
    between = sorted(
        (at, energy_wh)
        for at, energy_wh in timeline.evidence.registers
        if timeline.started_at < at < timeline.ended_at and low <= energy_wh <= high
    )
    return [(timeline.started_at, low), *_rising(between), (timeline.ended_at, high)]


def _rising(registers: Sequence[RegisterReading]) -> list[RegisterReading]:
    """Return the longest subsequence that never falls (patience sorting)."""
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


def _register_at(registers: Sequence[RegisterReading], times: Sequence[datetime], at: datetime) -> Fraction:
    """Return the register at a time before the end of the session, in Wh, linear between the readings around it."""
    i = bisect_right(times, at)
    (since, low), (until, high) = registers[i - 1], registers[i]
    return low + Fraction((at - since) // _MICROSECOND, (until - since) // _MICROSECOND) * (high - low)
