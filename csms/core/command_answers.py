"""A command with the charger's answer to it, and tolerant readers for the values of that answer."""

from datetime import UTC, datetime
from typing import Any

from msgspec import Struct

_INT31 = 2**31


class CommandAnswer(Struct, frozen=True, kw_only=True):
    """A command's payload and the charger's answer, both in OCPP's JSON.

    The payload obeys OCPP's schema; the answer may not. `command_id` is the id of the command in csms.
    """

    charger_id: str
    command_id: str
    action: str
    payload: dict[str, Any]
    answer: dict[str, Any]

    @property
    def status(self) -> str | None:
        return as_text(self.answer.get("status"))


def as_text(value: Any) -> str | None:
    """Return the value if it is a string."""
    return value if isinstance(value, str) else None


def as_int(value: Any) -> int | None:
    """Return the value as an integer if it is a whole number of 32 bits, as a column stores it."""
    if isinstance(value, bool) or not isinstance(value, int | float) or value % 1:
        return None
    return int(value) if -_INT31 <= value < _INT31 else None


def as_objects(value: Any) -> list[dict[str, Any]]:
    """Return the objects of a list, without the elements that are none."""
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def parse_time(value: object) -> datetime | None:
    """Return an OCPP dateTime as aware UTC; one without an offset is UTC. None: it is no dateTime."""
    if not isinstance(value, str):
        return None
    try:
        found = datetime.fromisoformat(value)
        return found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)
    except (ValueError, OverflowError):
        return None
