"""Time spans divided at the boundaries of a tariff's bands.

Bands follow local time: on a day with 25 hours a band from 02:00 to 03:00 occurs twice, on a day with 23 hours not at
all. The spans of all bands together always last as long as the time that has passed.
"""

from collections.abc import Iterator
from datetime import UTC, datetime, time, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

from msgspec import Struct

from csms.core.tariffs import MINUTES_PER_DAY, NO_BAND, Tariff, minute_of_day, weekly_bands

_DAY = timedelta(days=1)


class BandSpan(Struct, frozen=True):
    """`start` ≤ t < `end`; `band` is the band's index in the tariff, or NO_BAND."""

    start: datetime
    end: datetime
    band: int


def tariff_zone(tariff: Tariff) -> ZoneInfo:
    """Return the time zone of the tariff's bands; UTC where none is set."""
    return ZoneInfo(tariff.time_zone or "UTC")


def band_at(tariff: Tariff, at: datetime) -> int:
    """Return the index of the band that applies at a time, or NO_BAND."""
    if not tariff.bands:
        return NO_BAND
    local = at.astimezone(tariff_zone(tariff))
    minute = local.hour * 60 + local.minute
    for start, end, band in weekly_bands(tariff.bands)[local.weekday()]:
        if start <= minute < end:
            return band
    return NO_BAND


def band_spans(tariff: Tariff, since: datetime, until: datetime) -> list[BandSpan]:
    """Return the spans of one band each that make up `since` to `until`. Equal ends give one span of no length."""
    found: list[BandSpan] = []
    for start, end in pairwise([since, *band_boundaries(tariff, since, until), until]):
        band = band_at(tariff, start)
        if found and found[-1].band == band:
            found[-1] = BandSpan(found[-1].start, end, band)
        else:
            found.append(BandSpan(start, end, band))
    return found


def band_boundaries(tariff: Tariff, since: datetime, until: datetime) -> list[datetime]:
    """Return the times strictly between `since` and `until` at which another band may begin, sorted, in UTC."""
    if not tariff.bands or until <= since:
        return []
    zone = tariff_zone(tariff)
    minutes = {0} | {
        minute_of_day(t) % MINUTES_PER_DAY for band in tariff.bands for t in (band.start, band.end)
    }
    times = [time(m // 60, m % 60) for m in minutes]
    day, last = since.astimezone(zone).date() - _DAY, until.astimezone(zone).date() + _DAY
    found = set(_clock_changes(zone, since, until))
    while day <= last:
        for at in times:
            for fold in (0, 1):  # at a change of the clock the two differ, and one of them is the boundary
                found.add(datetime.combine(day, at.replace(fold=fold), zone).astimezone(UTC))
        day += _DAY
    return sorted(at for at in found if since < at < until)


def _clock_changes(zone: ZoneInfo, since: datetime, until: datetime) -> Iterator[datetime]:
    """Yield the changes of the zone's UTC offset, to the second."""
    before = since
    while before < until:
        after = min(before + _DAY, until)
        offset = before.astimezone(zone).utcoffset()
        if after.astimezone(zone).utcoffset() != offset:
            low, high = int(before.timestamp()), int(after.timestamp()) + 1
            while high - low > 1:
                middle = (low + high) // 2
                if datetime.fromtimestamp(middle, zone).utcoffset() == offset:
                    low = middle
                else:
                    high = middle
            yield datetime.fromtimestamp(high, UTC)
        before = after
