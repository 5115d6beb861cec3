"""Text and JSON in a form that Postgres can store, and texts of chargers in a form that is safe to show."""

import math
import re
from collections.abc import Callable
from typing import Any

# A formula begins a cell: at the beginning, or behind what another dialect takes for a delimiter, a quote or a new line.
_FORMULA = re.compile(
    r"(?:(?<=[;,|\t\r\n\v\f\x1c-\x1e\x85\u2028\u2029\"'])|^)(?=\s*[=+\-@\uff1d\uff0b\uff0d\uff20]|[\t\r\n])"
)
_UNSTORABLE = re.compile("[\0\ud800-\udfff]")


def storable(text: str) -> str:
    """The text with U+FFFD for each U+0000 and each lone surrogate: Postgres stores neither, UTF-8 has no surrogates."""
    return _UNSTORABLE.sub("\ufffd", text)


def terminal_line(text: str) -> str:
    """One line of text that moves no cursor: all but spaces and what Unicode calls printable is escaped.

    Terminals act upon control characters (C0, C1, escape sequences) and upon marks that change the direction of text.
    """
    return text if text.isprintable() else _escaped(text, _as_in_python)


def terminal_json(encoded: str) -> str:
    """The same JSON, on one line and without what a terminal acts upon."""
    return encoded if encoded.isprintable() else _escaped(encoded, _as_in_json)


def spreadsheet_text(text: str) -> str:
    """A text for a cell of CSV that no spreadsheet takes for a formula, with any quotes and delimiters."""
    return _FORMULA.sub("'", text)


def _escaped(text: str, escape: Callable[[str], str]) -> str:
    return "".join(char if char.isprintable() else escape(char) for char in text)


def _as_in_python(char: str) -> str:
    return char.encode("unicode_escape").decode()


def _as_in_json(char: str) -> str:
    if char in " \t\r\n":
        return " "  # outside strings only: within them JSON has escaped it
    units = char.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[at : at + 2].hex()}" for at in range(0, len(units), 2))


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
