"""The zone of times that a charge point sends without an offset."""

from datetime import UTC, tzinfo
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError


def time_zone(name: str | None) -> tzinfo:
    """The zone of that name, as an operator has set it; UTC if there is none."""
    try:
        return UTC if name is None else ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError):
        return UTC
