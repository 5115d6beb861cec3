"""Identities of chargers: the one rule for everything that creates a charger or names one."""

import unicodedata
from typing import Final

LONGEST_BYTES: Final = 255
_LONGEST_EARLIER: Final = 255  # characters, up to release 1.0.0rc1


def identity_problem(identity: str) -> str | None:
    """Return why a charger cannot have this identity, as the end of a sentence that begins with the identity; None: it can.

    Two identities that look alike must be one charger, and each must be one segment of an address: no outer spaces, no
    invisible characters, Unicode normal form C, neither `.` nor `..`, at most 255 bytes in UTF-8.
    """
    if not identity:
        return "is empty"
    if identity in {".", ".."}:
        return "means a folder in an address: choose another one"
    if not identity.isprintable():
        return "contains a control character or another invisible one: remove it"
    if identity != identity.strip():
        return "begins or ends with a space: remove it"
    if not unicodedata.is_normalized("NFC", identity):
        return "is not in Unicode normal form C (NFC): enter its accented letters as single characters"
    size = len(identity.encode())
    if size > LONGEST_BYTES:
        return f"has {size} bytes in UTF-8: {LONGEST_BYTES} are allowed"
    return None


def could_be_on_record(identity: str) -> bool:
    """Return whether a charger can have this identity, also one that an earlier release stored: those go on working."""
    return 0 < len(identity) <= _LONGEST_EARLIER and identity.isprintable()
