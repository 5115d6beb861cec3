"""Text and JSON in a form that Postgres can store."""

import math
import re
from typing import Any

_UNSTORABLE = re.compile("[\0\ud800-\udfff]")


def storable(text: str) -> str:
    """The text with U+FFFD for each U+0000 and each lone surrogate: Postgres stores neither, UTF-8 has no surrogates."""
    return _UNSTORABLE.sub("\ufffd", text)


def fold(name: str) -> str:
    """`name` as it is compared when it does not match exactly: letters and digits only, lower case."""
    return "".join(c for c in name.casefold() if c.isalnum())


def storable_json(value: Any) -> Any:
    """A JSON value whose texts are storable, without the numbers that JSON lacks (NaN and infinity become null)."""
    match value:
        case str():
            return storable(value)
        case dict():
            return {storable_json(key): storable_json(item) for key, item in value.items()}
        case list() | tuple():
            return [storable_json(item) for item in value]
        case float() if not math.isfinite(value):
            return None
    return value
