"""A command together with the charger's answer, read with tolerance."""

from typing import Any

from msgspec import Struct

_INT31 = 2**31


class Answer(Struct, frozen=True, kw_only=True):
    """What a charger answered to what; both in OCPP's JSON. The payload obeys the schema, the answer may not."""

    charger_id: str
    command_id: str
    action: str
    payload: dict[str, Any]
    answer: dict[str, Any]

    @property
    def status(self) -> str | None:
        return text(self.answer.get("status"))


def text(value: Any) -> str | None:
    return value if isinstance(value, str) else None


def number(value: Any) -> int | None:
    """A whole number that fits a column."""
    if isinstance(value, bool) or not isinstance(value, int | float) or value % 1:
        return None
    return int(value) if -_INT31 <= value < _INT31 else None


def objects(value: Any) -> list[dict[str, Any]]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []
