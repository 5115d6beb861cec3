"""Logs: events, raw frames, quarantined messages, deviations."""

import re
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from msgspec import Struct
from sqlalchemy import (
    ColumnElement,
    RowMapping,
    Select,
    and_,
    column,
    func,
    literal_column,
    or_,
    select,
    true,
)
from sqlalchemy.ext.asyncio import AsyncConnection

from csms.core.masking import masked_frame
from csms.core.records import DeviationCount, Event, Frame, QuarantineEntry
from csms.core.text import storable
from csms.db.driver import DriverConnection
from csms.db.event_tables import events, messages
from csms.db.rows import all_rows, all_structs, first_struct, from_row
from csms.db.tables import charger_states, deviations, quarantine

_TID = re.compile(r"\(\d{1,10},\d{1,5}\)")
_CTID: ColumnElement[Any] = literal_column("messages.ctid")
_RECENT = timedelta(days=2)
_RECENT_CHARGERS = 50


class LoggedFrame(Struct, frozen=True, kw_only=True):
    """A raw frame. `place` is the row's physical location, which orders frames of one microsecond."""

    at: datetime
    outgoing: bool
    action: str | None
    message_id: str | None
    frame: bytes
    place: str

    @property
    def text(self) -> str:
        """The frame, masked once more: older releases masked less."""
        return masked_frame(self.frame).decode(errors="replace")


class QuarantinedMessage(QuarantineEntry, frozen=True, kw_only=True):
    """A message in quarantine."""

    id: int
    resolved_at: datetime | None
    resolution: str | None

    @property
    def text(self) -> str:
        """The payload with its secrets masked."""
        return masked_frame(self.payload).decode(errors="replace")


class DeviationView(DeviationCount, frozen=True, kw_only=True):
    first_at: datetime


# --- events ----------------------------------------------------------------------------------------------


def events_select(charger_id: str, after_seq: int, limit: int) -> Select[Any]:
    return (
        select(events)
        .where(events.c.charger_id == charger_id, events.c.seq > after_seq)
        .order_by(events.c.seq)
        .limit(limit)
    )


async def events_after(db: AsyncConnection, charger_id: str, after_seq: int, limit: int) -> list[Event]:
    """A charger's events in the order of `seq`, from the one after `after_seq`."""
    return await all_structs(db, Event, events_select(charger_id, after_seq, limit))


async def kept_events(db: AsyncConnection, charger_id: str) -> tuple[int | None, int]:
    """The lowest stored seq (None: no event is stored) and the last assigned one (0: none yet)."""
    first = await db.scalar(select(func.min(events.c.seq)).where(events.c.charger_id == charger_id))
    last = await db.scalar(
        select(charger_states.c.event_seq).where(charger_states.c.charger_id == charger_id)
    )
    return first, last or 0


async def positions(db: AsyncConnection, *, after: str | None, limit: int) -> list[tuple[str, int]]:
    """The last seq of each charger, by identity, from the charger after `after`."""
    query = select(charger_states.c.charger_id, charger_states.c.event_seq)
    if after is not None:
        query = query.where(charger_states.c.charger_id > after)
    rows = await db.execute(query.order_by(charger_states.c.charger_id).limit(limit))
    return [(row[0], row[1]) for row in rows]


async def recent_events(
    db: AsyncConnection, now: datetime, limit: int, charger_id: str | None = None
) -> list[Event]:
    """The newest events of one charger or of all, newest first.

    Events are indexed by charger only: of all chargers, the fifty that were seen last are searched.
    """
    lately = select(charger_states.c.charger_id, charger_states.c.event_seq)
    if charger_id is not None:
        lately = lately.where(charger_states.c.charger_id == charger_id)
    else:
        lately = lately.order_by(charger_states.c.last_seen_at.desc().nulls_last()).limit(_RECENT_CHARGERS)
    states = lately.subquery("states")
    newest = (
        select(events)
        .where(
            events.c.charger_id == states.c.charger_id,
            events.c.seq > states.c.event_seq - limit,
            events.c.recorded_at > now - _RECENT,
        )
        .order_by(events.c.seq.desc())
        .limit(limit)
        .lateral("newest")
    )
    query = (
        select(newest)
        .select_from(states.join(newest, true()))
        .order_by(newest.c.recorded_at.desc(), newest.c.charger_id, newest.c.seq.desc())
        .limit(limit)
    )
    return await all_structs(db, Event, query)


async def events_of_transaction(
    db: AsyncConnection, charger_id: str, transaction_id: int, since: datetime, limit: int
) -> list[Event]:
    """The events of one transaction but its readings, in the order of `seq`."""
    query = (
        select(events)
        .where(
            events.c.charger_id == charger_id,
            events.c.transaction_id == transaction_id,
            events.c.event_type != "meter_reading",
            events.c.recorded_at >= since,
        )
        .order_by(events.c.seq)
        .limit(limit)
    )
    return await all_structs(db, Event, query)


# --- raw frames ------------------------------------------------------------------------------------------


def frames_select(
    charger_id: str, *, before: tuple[datetime, str] | None = None, limit: int = 100
) -> Select[Any]:
    """Newest first. `before` is (at, place) of the last frame of the page before. Raises ValueError for no place."""
    place = _CTID.label("place")
    query = (
        select(messages, place)
        .where(messages.c.charger_id == charger_id)
        .order_by(messages.c.at.desc(), column("place").desc())
        .limit(limit)
    )
    if before is not None:
        at, tid = before
        if not _TID.fullmatch(tid):
            raise ValueError("not a place")
        query = query.where(
            messages.c.at <= at,
            or_(messages.c.at < at, and_(messages.c.at == at, literal_column(f"'{tid}'::tid") > _CTID)),
        )
    return query


async def list_frames(
    db: AsyncConnection,
    charger_id: str,
    *,
    before: tuple[datetime, str] | None = None,
    limit: int = 100,
) -> list[LoggedFrame]:
    return [_frame(row) for row in await all_rows(db, frames_select(charger_id, before=before, limit=limit))]


async def frames_since(
    db: AsyncConnection, charger_id: str, since: datetime, limit: int = 1000
) -> list[LoggedFrame]:
    """Frames from `since` on, oldest first, for live views."""
    query = (
        select(messages, _CTID.label("place"))
        .where(messages.c.charger_id == charger_id, messages.c.at >= since)
        .order_by(messages.c.at, column("place"))
        .limit(limit)
    )
    return [_frame(row) for row in await all_rows(db, query)]


def _frame(row: RowMapping) -> LoggedFrame:
    block, offset = row["place"]
    return from_row(LoggedFrame, {**row, "place": f"({block},{offset})"})


async def save_frames(db: DriverConnection, frames: Sequence[Frame]) -> None:
    def text(value: str | None) -> str | None:
        return None if value is None else storable(value)

    await db.copy_records_to_table(
        "messages",
        records=[
            (f.charger_id, f.at, f.outgoing, text(f.action), text(f.message_id), f.frame) for f in frames
        ],
        columns=("charger_id", "at", "outgoing", "action", "message_id", "frame"),
    )


# --- quarantine, deviations ------------------------------------------------------------------------------


async def list_quarantine(
    db: AsyncConnection,
    *,
    charger_id: str | None = None,
    resolved: bool | None = False,
    deferred: bool | None = None,
    before_id: int | None = None,
    limit: int = 100,
) -> list[QuarantinedMessage]:
    """Newest first; by default only what is not resolved. `deferred`: those of chargers not accepted, or all others."""
    query = select(quarantine).order_by(quarantine.c.id.desc()).limit(limit)
    if charger_id is not None:
        query = query.where(quarantine.c.charger_id == charger_id)
    if resolved is not None:
        at = quarantine.c.resolved_at
        query = query.where(at.is_not(None) if resolved else at.is_(None))
    if deferred is not None:
        of = quarantine.c.enrollment
        query = query.where(of.is_not(None) if deferred else of.is_(None))
    if before_id is not None:
        query = query.where(quarantine.c.id < before_id)
    return await all_structs(db, QuarantinedMessage, query)


async def get_quarantined(db: AsyncConnection, quarantine_id: int) -> QuarantinedMessage | None:
    if not 0 < quarantine_id < 2**63:
        return None
    query = select(quarantine).where(quarantine.c.id == quarantine_id)
    return await first_struct(db, QuarantinedMessage, query)


async def count_quarantine(db: AsyncConnection, *, deferred: bool = False) -> int:
    """How many messages wait for an operator's repair, or (`deferred`) for the acceptance of their chargers."""
    of = quarantine.c.enrollment
    query = (
        select(func.count())
        .select_from(quarantine)
        .where(quarantine.c.resolved_at.is_(None), of.is_not(None) if deferred else of.is_(None))
    )
    return await db.scalar(query) or 0


async def list_deviations(db: AsyncConnection, charger_id: str) -> list[DeviationView]:
    """The deviations of a charger, the most frequent first."""
    query = (
        select(deviations)
        .where(deviations.c.charger_id == charger_id)
        .order_by(deviations.c.count.desc(), deviations.c.action, deviations.c.field, deviations.c.kind)
    )
    return await all_structs(db, DeviationView, query)
