"""Pages of a list: an opaque cursor that says after which row the next page begins."""

from base64 import urlsafe_b64decode, urlsafe_b64encode
from binascii import Error as Base64Error
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import msgspec

from csms.service.problems import Problem

T = TypeVar("T")


def encode(*key: Any) -> str:
    return urlsafe_b64encode(msgspec.json.encode(key)).decode().rstrip("=")


def decode(cursor: str | None, kind: type[T]) -> T | None:
    """The key a cursor stands for, as a tuple type. Raises Problem 422 for what is none of ours."""
    if cursor is None:
        return None
    try:
        raw = urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4))
        return msgspec.json.decode(raw, type=kind)
    except (ValueError, Base64Error, msgspec.MsgspecError):
        raise Problem(
            422, "invalid-cursor", "The cursor is none that this list has given out; start without one."
        ) from None


def cut(
    found: Sequence[T], limit: int, key: Callable[[T], tuple[Any, ...]]
) -> tuple[Sequence[T], str | None]:
    """A page of what a query for `limit + 1` rows has found, and the cursor of the next one if there is more."""
    items = found[:limit]
    return items, encode(*key(items[-1])) if len(found) > limit else None
