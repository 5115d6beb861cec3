"""A stretch of time, cut where another band of a tariff begins by the site's clock.

A band is what the clock on the wall shows: on the day with 25 hours a band from 02:00 to 03:00 comes twice, on the
day with 23 hours not at all, and the hours of all bands together are always the hours that have passed.
"""

from collections.abc import Iterator
from datetime import UTC, datetime, time, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

from msgspec import Struct

from csms.core.tariffs import MINUTES_PER_DAY, NO_BAND, Tariff, minute_of_day, weekly_bands

_DAY = timedelta(days=1)


class BandSpan(Struct, frozen=True):
    """From `start` up to, not including, `end`; `band` is its index in the tariff, or BASE."""

    start: datetime
    end: datetime
    band: int


def tariff_zone(tariff: Tariff) -> ZoneInfo:
    return ZoneInfo(tariff.time_zone or "UTC")


def band_at(tariff: Tariff, moment: datetime) -> int:
    """The band that applies at a moment, or BASE."""
    if not tariff.bands:
        return NO_BAND
    wall = moment.astimezone(tariff_zone(tariff))
    now = wall.hour * 60 + wall.minute
    for start, end, band in weekly_bands(tariff.bands)[wall.weekday()]:
        if start <= now < end:
            return band
    return NO_BAND


def band_spans(tariff: Tariff, since: datetime, until: datetime) -> list[BandSpan]:
    """The stretch in pieces of one band each, none missing; a moment alone is one piece without length."""
    found: list[BandSpan] = []
    cuts = [since, *band_boundaries(tariff, since, until), until]
    for start, end in pairwise(cuts):
        band = band_at(tariff, start)
        if found and found[-1].band == band:
            found[-1] = BandSpan(found[-1].start, end, band)
        else:
            found.append(BandSpan(start, end, band))
    return found


def band_boundaries(tariff: Tariff, since: datetime, until: datetime) -> list[datetime]:
    """The moments in between at which another band may begin, in order, UTC. At most a few a band and day."""
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
            for fold in (0, 1):  # around a change of the clock the two differ: one of them is the edge
                found.add(datetime.combine(day, at.replace(fold=fold), zone).astimezone(UTC))
        day += _DAY
    return sorted(edge for edge in found if since < edge < until)


def _clock_changes(zone: ZoneInfo, since: datetime, until: datetime) -> Iterator[datetime]:
    """To the second."""
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
