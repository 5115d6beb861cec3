"""A command together with the charger's answer, read with tolerance; and which parts of both are secrets."""

import math
import re
from typing import Any, Final

from msgspec import Struct

MASK: Final = "***"
_INT31 = 2**31
_CREDENTIALS = re.compile(r"^([a-z][a-z0-9+.-]*://)[^/?#@\s]*@", re.IGNORECASE)
_SECRET_KEYS = {"authorizationkey"}


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


def is_secret(key: str) -> bool:
    """Configuration keys whose value is never kept (OCPP 1.6-J, 6.2: write-only)."""
    return key.strip().lower() in _SECRET_KEYS


def masked(action: str, payload: Any) -> Any:
    """A payload or answer without its secrets: the AuthorizationKey, and passwords inside addresses."""
    if not isinstance(payload, dict):
        return payload
    if action == "ChangeConfiguration" and is_secret(str(payload.get("key", ""))):
        return {**payload, "value": MASK} if "value" in payload else payload
    if action == "GetConfiguration" and isinstance(payload.get("configurationKey"), list):
        shown = [
            {**item, "value": MASK}
            if isinstance(item, dict) and "value" in item and is_secret(str(item.get("key", "")))
            else item
            for item in payload["configurationKey"]
        ]
        return {**payload, "configurationKey": shown}
    return _without_credentials(payload)


def location(value: Any) -> str | None:
    """An address without its user and password."""
    return _CREDENTIALS.sub(rf"\1{MASK}@", value) if isinstance(value, str) else None


def _without_credentials(value: Any) -> Any:
    if isinstance(value, dict):
        return {
            key: location(item)
            if key in {"location", "remoteLocation"} and isinstance(item, str)
            else _without_credentials(item)
            for key, item in value.items()
        }
    if isinstance(value, list):
        return [_without_credentials(item) for item in value]
    return value


def clean(value: Any) -> Any:
    """JSON that Postgres takes: no NUL, no lone surrogate, no number that is none."""
    if isinstance(value, str):
        if value.isprintable() and value.isascii():
            return value
        return value.replace("\0", "\ufffd").encode(errors="replace").decode()
    if isinstance(value, dict):
        return {clean(key): clean(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [clean(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
