"""What the bridge wants to know of a station after its own restart, beside what the books say. Pure."""

from datetime import datetime
from typing import Any

import msgspec
from msgspec import Struct


class RentalNotes(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Of the running rental. `shift_wh`: how far the counter stands from where its energy would have brought it."""

    uid: str
    started_at: datetime
    shift_wh: float = 0.0
    flags: tuple[str, ...] = ()
    stop_asked_at: datetime | None = None


class StationNotes(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """`power_scale`: what turns its power into watts; `resets`: its counter begins each session at 0.

    `last_done_wh`: what the counter read when the last rental ended.
    """

    power_scale: float | None = None
    resets: bool | None = None
    last_done_wh: float | None = None
    session: RentalNotes | None = None

    def plain(self) -> dict[str, Any]:
        written: dict[str, Any] = msgspec.to_builtins(self)
        return written


NO_NOTES = StationNotes()


def decode(notes: dict[str, Any]) -> StationNotes:
    """What cannot be read (an older or a newer bridge has written it) is not known."""
    try:
        return msgspec.convert(notes, StationNotes, strict=False)
    except msgspec.ValidationError:
        return NO_NOTES
