"""A command together with the charger's answer, read with tolerance."""

import math
from typing import Any

from msgspec import Struct

_INT31 = 2**31


class CommandAnswer(Struct, frozen=True, kw_only=True):
    """What a charger answered to what; both in OCPP's JSON. The payload obeys the schema, the answer may not."""

    charger_id: str
    command_id: str
    action: str
    payload: dict[str, Any]
    answer: dict[str, Any]

    @property
    def status(self) -> str | None:
        return as_text(self.answer.get("status"))


def as_text(value: Any) -> str | None:
    return value if isinstance(value, str) else None


def as_int(value: Any) -> int | None:
    """A whole number that fits a column."""
    if isinstance(value, bool) or not isinstance(value, int | float) or value % 1:
        return None
    return int(value) if -_INT31 <= value < _INT31 else None


def as_objects(value: Any) -> list[dict[str, Any]]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def storable(value: Any) -> Any:
    """JSON that Postgres takes: no NUL, no lone surrogate, no number that is none."""
    if isinstance(value, str):
        if value.isprintable() and value.isascii():
            return value
        return value.replace("\0", "\ufffd").encode(errors="replace").decode()
    if isinstance(value, dict):
        return {storable(key): storable(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [storable(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
