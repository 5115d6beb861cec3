"""What the bridge keeps of a station over its own restart, besides what the ledger has. Pure."""

from datetime import datetime
from typing import Any

import msgspec
from msgspec import Struct


class RentalNotes(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Notes on the open rental. `shift_wh`: see `SessionEnergy.shift_wh`."""

    uid: str
    started_at: datetime
    shift_wh: float = 0.0
    flags: tuple[str, ...] = ()
    stop_asked_at: datetime | None = None


class StationNotes(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Notes on a station, as stored with `reports.Noted`.

    `power_scale` turns its power into watts; `resets`: its energy counter starts each rental at 0; `last_done_wh`: the
    counter at the end of the last rental.
    """

    power_scale: float | None = None
    resets: bool | None = None
    last_done_wh: float | None = None
    session: RentalNotes | None = None

    def to_builtins(self) -> dict[str, Any]:
        builtins: dict[str, Any] = msgspec.to_builtins(self)
        return builtins


NO_NOTES = StationNotes()


def decode(notes: dict[str, Any]) -> StationNotes:
    """Decode stored notes. Notes of another release of the bridge that do not fit are ignored."""
    try:
        return msgspec.convert(notes, StationNotes, strict=False)
    except msgspec.ValidationError:
        return NO_NOTES
