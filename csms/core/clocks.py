"""What a charger's time proves. Some chargers start in 1970, some run ahead, some are set in mid-session."""

from datetime import UTC, datetime, timedelta

_EARLIEST_PLAUSIBLE = datetime(2015, 1, 1, tzinfo=UTC)
_DAY_AHEAD = timedelta(hours=24)
_HOUR_AHEAD = timedelta(hours=1)


def is_suspect(moment: datetime, now: datetime) -> bool:
    """A charger's time that cannot be true: before 2015, or more than a day ahead of ours."""
    return moment < _EARLIEST_PLAUSIBLE or moment > now + _DAY_AHEAD


def proves_older(moment: datetime, known: datetime, now: datetime) -> bool:
    """Whether a report is older than the one we know, going by the charger's times of both.

    A clock that lost its time proves nothing, and a time ahead of ours must not shut out all later reports:
    then the order of arrival counts.
    """
    return moment < known and moment >= _EARLIEST_PLAUSIBLE and known <= now + _HOUR_AHEAD
