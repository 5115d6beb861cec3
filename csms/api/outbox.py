"""Where each charger's events stand, and those that the broker has refused for good."""

from datetime import datetime
from typing import Annotated

from fastapi import Query
from msgspec.structs import asdict
from pydantic import Field

from csms.api import pages
from csms.api.models import Input, Model
from csms.api.security import Context, guarded_router, operator, viewer
from csms.db import history, logs, outbox
from csms.db.driver import driver_connection
from csms.service import cursors
from csms.service.chargers import usable

router = guarded_router(tags=["events"])


class PositionOut(Model):
    client_id: str
    last_seq: int


class PositionPage(Model):
    items: list[PositionOut]
    next_cursor: str | None
    epoch: int


class ParkedOut(Model):
    """An event the broker has refused. `eventId` and `topic` are null when the event is no longer stored."""

    client_id: str
    seq: int
    event_id: str | None
    event_type: str | None
    topic: str | None
    recorded_at: datetime
    attempts: int
    error: str | None


class ParkedList(Model):
    items: list[ParkedOut]


class ChosenCharger(Input):
    client_id: Annotated[str | None, Field(max_length=255)] = None


class Freed(Model):
    events: int


@router.get("/events/positions", dependencies=[viewer])
async def positions(
    context: Context,
    limit: Annotated[int, Query(ge=1, le=10_000)] = 1000,
    cursor: pages.Cursor = None,
) -> PositionPage:
    """The last `seq` of every charger, by identity.

    A consumer compares them with what it has applied and asks the replay for the rest: that also finds what a
    broker dropped with nothing behind it, which no gap shows. `epoch` counts how often the database was restored from a
    backup: a `seq` from an earlier epoch says nothing about those of this one.
    """
    after = cursors.decode(cursor, tuple[str])
    async with context.engine.connect() as db:
        found = await logs.positions(db, after=after[0] if after else None, limit=limit + 1)
        epoch = await history.epoch(await driver_connection(db))
    items, following = cursors.cut(found, limit, lambda position: (position[0],))
    return PositionPage(
        items=[PositionOut(client_id=charger_id, last_seq=seq) for charger_id, seq in items],
        next_cursor=following,
        epoch=epoch,
    )


@router.get("/events/parked", dependencies=[viewer])
async def parked(
    context: Context,
    client_id: Annotated[str | None, Query(alias="clientId", max_length=255)] = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
) -> ParkedList:
    """Events set aside because the broker kept refusing them, the oldest first, with its reason."""
    async with context.engine.connect() as connection:
        found = await outbox.list_parked(await driver_connection(connection), limit, _charger(client_id))
    return ParkedList(items=[ParkedOut(client_id=row.charger_id, **asdict(row)) for row in found])


@router.post("/events/parked/revive", dependencies=[operator])
async def revive(context: Context, chosen: ChosenCharger) -> Freed:
    """Send them after all, of one charger or of all: when the cause is mended."""
    async with context.engine.connect() as connection:
        return Freed(
            events=await outbox.revive(await driver_connection(connection), _charger(chosen.client_id))
        )


@router.post("/events/parked/discard", dependencies=[operator])
async def discard(context: Context, chosen: ChosenCharger) -> Freed:
    """Never send them; the replay still has them."""
    async with context.engine.connect() as connection:
        return Freed(
            events=await outbox.discard(await driver_connection(connection), _charger(chosen.client_id))
        )


def _charger(client_id: str | None) -> str | None:
    return None if client_id is None else usable(client_id)
