"""Plausibility of chargers' clocks. Some begin in 1970, some run ahead, some are set during a session."""

from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo

_EARLIEST_PLAUSIBLE = datetime(2015, 1, 1, tzinfo=UTC)
_DAY_AHEAD = timedelta(hours=24)
_HOUR_AHEAD = timedelta(hours=1)
LONGEST_SESSION = timedelta(days=30)  # in a session that seems longer the charger's clock was set
CLOCK_TOLERANCE = timedelta(minutes=5)  # by which a time may be after its receipt and still counts as it is


def is_suspect(at: datetime, now: datetime) -> bool:
    """Return whether a charger's time cannot be true: before 2015, or more than a day after `now`."""
    return at < _EARLIEST_PLAUSIBLE or at > now + _DAY_AHEAD


def proves_older(at: datetime, known: datetime, now: datetime) -> bool:
    """Return whether a report of `at` is older than the known one, by the charger's times of both.

    Where it returns False the order of arrival decides. A clock that lost its time proves nothing, and a known time
    far ahead of `now` must not exclude all later reports.
    """
    return _EARLIEST_PLAUSIBLE <= at < known <= now + _HOUR_AHEAD


def accounting_time(at: datetime, received_at: datetime) -> datetime:
    """Return the time that decides an accounting day and month: the charger's, that of receipt where it is suspect."""
    return received_at if is_suspect(at, received_at) or at > received_at + CLOCK_TOLERANCE else at


def begin_of_day(day: date, zone: str) -> datetime:
    """Return the moment at which a day begins in a time zone. Raises OverflowError at the ends of the calendar."""
    return datetime.combine(day, time(), ZoneInfo(zone)).astimezone(UTC)


def local_day(now: datetime, zone: str) -> tuple[datetime, datetime]:
    """Return the begin and the end of the day that it is in a time zone."""
    today = now.astimezone(ZoneInfo(zone)).date()
    return begin_of_day(today, zone), begin_of_day(today + timedelta(days=1), zone)
