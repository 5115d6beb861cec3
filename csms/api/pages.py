"""Pages of a list: an opaque cursor that says after which row the next page begins."""

from datetime import UTC, date, datetime
from typing import Annotated, Any, TypeVar

from fastapi import Query
from pydantic import BeforeValidator

T = TypeVar("T")

Cursor = Annotated[
    str | None,
    Query(
        max_length=1000, description="`nextCursor` of the page before; the other filters must be the same."
    ),
]


def _moment(value: Any) -> Any:
    """`+` of a UTC offset arrives as a space when it was not escaped; a time without offset is UTC."""
    if not isinstance(value, str):
        return value
    try:
        moment = datetime.fromisoformat(value.strip().replace(" ", "+") if "T" in value else value)
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except (ValueError, OverflowError):
        raise ValueError("a time as in 2026-01-31T12:00:00Z") from None


def _day_or_moment(value: Any) -> Any:
    if isinstance(value, str) and len(value.strip()) == len("2026-01-31"):
        try:
            return date.fromisoformat(value.strip())
        except ValueError:
            raise ValueError("a date as in 2026-01-31, or a time as in 2026-01-31T12:00:00Z") from None
    return _moment(value)


def _exact_moment(value: Any) -> Any:
    """A bill does not begin or end at a day, nor at a number that may be seconds or milliseconds."""
    if value is not None and (not isinstance(value, str) or len(value.strip()) <= len("2026-01-31")):
        raise ValueError("a date and time as in 2026-01-31T12:00:00Z")
    return _moment(value)


# A date alone is a day of the site.
DayOrMoment = Annotated[date | datetime | None, BeforeValidator(_day_or_moment)]
Moment = Annotated[datetime | None, BeforeValidator(_exact_moment)]
