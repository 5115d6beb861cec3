"""The terms of a tariff, their validation, and the week of its bands. `Work.tariff_for` decides which tariff applies."""

import re
from collections.abc import Iterator
from decimal import Decimal
from functools import cache, lru_cache
from itertools import combinations
from zoneinfo import available_timezones

from msgspec import Struct
from msgspec.structs import replace

from csms.core.currencies import CURRENCIES

ENERGY_BASED, TIME_BASED, ENERGY_AND_TIME, FLAT = "energy_based", "time_based", "energy_and_time", "flat"
DEFAULT_TARIFF_ID = "default"
DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
MINUTES_PER_DAY = 24 * 60
NO_BAND = -1  # in place of a band's index: no band applies, so the tariff's own rates do
MAX_BANDS = 168  # one per hour of the week
MAX_GRACE_MIN = 7 * MINUTES_PER_DAY
_TIME = re.compile(r"([01]\d|2[0-3]):([0-5]\d)|24:00")


class Band(Struct, frozen=True, kw_only=True):
    """Other rates at some times of the week, in local time.

    It lasts from `start` up to, not including, `end`, "HH:MM"; `end` may be "24:00", and an `end` before the `start`
    is on the next day. `days` are the days on which it begins. A rate of None is the tariff's own.
    """

    name: str
    days: tuple[str, ...] = DAYS
    start: str = "00:00"
    end: str = "24:00"
    energy_rate: Decimal | None = None  # per kWh
    time_rate: Decimal | None = None  # per minute
    idle_rate: Decimal | None = None  # per minute


class Tariff(Struct, frozen=True, kw_only=True):
    """Prices. A transaction keeps the tariff it started under, so a later change does not affect it.

    `minimum` and `maximum` bound the sum of all components and, like the rates, contain the tax if `tax_included`. The
    minimum applies to sessions without energy only if `minimum_without_energy`.
    `time_zone` is that of the bands; None: the charger's, or else the default.
    """

    id: str = DEFAULT_TARIFF_ID
    version: int = 1
    currency: str = "USD"
    energy_rate: Decimal = Decimal(0)  # per kWh
    time_rate: Decimal = Decimal(0)  # per minute
    session_fee: Decimal = Decimal(0)
    idle_rate: Decimal = Decimal(0)  # per minute that a car blocks the connector after charging has ended
    idle_grace_min: int = 0
    bands: tuple[Band, ...] = ()
    time_zone: str | None = None
    minimum: Decimal | None = None
    maximum: Decimal | None = None
    minimum_without_energy: bool = False
    tax_percent: Decimal | None = None
    tax_included: bool = True

    @property
    def pricing_model(self) -> str:
        """The `pricingModel` of billing events; a free tariff is energy based."""
        by_energy, by_time = self.charges("energy"), self.charges("time")
        if by_energy and by_time:
            return ENERGY_AND_TIME
        if by_time:
            return TIME_BASED
        if self.session_fee and not by_energy:
            return FLAT
        return ENERGY_BASED

    @property
    def needs_timeline(self) -> bool:
        """Whether the price depends on when energy was drawn, not on energy and duration alone."""
        return bool(self.bands) or self.idle_rate > 0

    def charges(self, component: str) -> bool:
        """Return whether a component (energy, time, idle) has a price at any time."""
        return any(self.rate(component, band) > 0 for band in range(NO_BAND, len(self.bands)))

    def rate(self, component: str, band: int) -> Decimal:
        """Return the price of a kWh or a minute in a band or, with NO_BAND, outside of all."""
        name = f"{component}_rate"
        own = getattr(self.bands[band], name) if band != NO_BAND else None
        rate: Decimal = getattr(self, name) if own is None else own
        return rate

    def with_time_zone(self, time_zone: str) -> "Tariff":
        """Return the tariff as a transaction keeps it: if it has bands, with their time zone."""
        return replace(self, time_zone=time_zone) if self.bands and self.time_zone is None else self


class TariffProblem(Struct, frozen=True):
    """A validation error: `pointer` is a JSON pointer (RFC 6901)."""

    pointer: str
    detail: str


def zone_exists(name: str) -> bool:
    """Return whether the IANA time zone database has the zone."""
    return name in _zones()


@cache
def _zones() -> set[str]:
    # Cached: this reads a directory tree of six hundred files.
    return available_timezones()


def tariff_problems(tariff: Tariff) -> list[TariffProblem]:
    """Return all that is wrong with a tariff's terms; empty if it may be stored."""
    found = []
    if tariff.currency not in CURRENCIES:
        wrong = f"{tariff.currency!r} is not a currency of ISO 4217, such as EUR"
        found.append(TariffProblem("/currency", wrong))
    if tariff.time_zone is not None and not zone_exists(tariff.time_zone):
        wrong = f"{tariff.time_zone!r} is not an IANA time zone, such as Europe/Vienna"
        found.append(TariffProblem("/timeZone", wrong))
    if tariff.minimum is not None and tariff.maximum is not None and tariff.minimum > tariff.maximum:
        wrong = f"the maximum {tariff.maximum} is below the minimum {tariff.minimum}"
        found.append(TariffProblem("/maximum", wrong))
    if len(tariff.bands) > MAX_BANDS:
        return [*found, TariffProblem("/bands", f"at most {MAX_BANDS} bands are allowed")]
    malformed = list(_malformed(tariff.bands))
    return found + (malformed or list(_overlapping(tariff.bands)))


def _malformed(bands: tuple[Band, ...]) -> Iterator[TariffProblem]:
    names: dict[str, int] = {}
    for i, band in enumerate(bands):
        at = f"/bands/{i}"
        if names.setdefault(band.name, i) != i:
            yield TariffProblem(f"{at}/name", f"band {names[band.name]} is named {band.name!r} already")
        for which, time in (("start", band.start), ("end", band.end)):
            if not _TIME.fullmatch(time) or (which == "start" and time == "24:00"):
                allowed = "HH:MM, 00:00 to 23:59" if which == "start" else "HH:MM, 00:00 to 24:00"
                yield TariffProblem(f"{at}/{which}", f"{time!r} is not a time of day: {allowed}")
        if band.start == band.end:
            wrong = f"the band begins and ends at {band.start}; a whole day is from 00:00 to 24:00"
            yield TariffProblem(f"{at}/end", wrong)
        for day in band.days:
            if day not in DAYS:
                yield TariffProblem(f"{at}/days", f"{day!r} is not a day: {', '.join(DAYS)}")
        if not band.days:
            yield TariffProblem(f"{at}/days", "name at least one day")


def _overlapping(bands: tuple[Band, ...]) -> Iterator[TariffProblem]:
    reported = set()
    for day, segments in zip(DAYS, weekly_bands(bands), strict=True):
        for (start, end, one), (later, until, other) in combinations(segments, 2):
            pair = min(one, other), max(one, other)
            if later < end and start < until and pair not in reported:
                reported.add(pair)
                first, second = (f"band {i} ({bands[i].name!r})" for i in pair)
                overlap = f"on {day} from {time_of_day(max(start, later))} to {time_of_day(min(end, until))}"
                yield TariffProblem(f"/bands/{pair[1]}", f"{second} overlaps {first} {overlap}")


@lru_cache(maxsize=256)
def weekly_bands(bands: tuple[Band, ...]) -> tuple[tuple[tuple[int, int, int], ...], ...]:
    """Return the bands of each day from Monday on, sorted: (first minute of the day, minute after the last, index)."""
    days: list[list[tuple[int, int, int]]] = [[] for _ in DAYS]
    for i, band in enumerate(bands):
        start, end = minute_of_day(band.start), minute_of_day(band.end)
        for name in dict.fromkeys(band.days):
            day = DAYS.index(name)
            if start < end:
                days[day].append((start, end, i))
                continue
            days[day].append((start, MINUTES_PER_DAY, i))
            if end:
                days[(day + 1) % 7].append((0, end, i))
    return tuple(tuple(sorted(segments)) for segments in days)


def minute_of_day(time: str) -> int:
    """Return "HH:MM" as a minute of the day, 0 to 1440."""
    hours, minutes = time.split(":")
    return int(hours) * 60 + int(minutes)


def time_of_day(minute: int) -> str:
    """Return a minute of the day as "HH:MM"."""
    return f"{minute // 60:02d}:{minute % 60:02d}"
