"""What was acknowledged but could not be booked: shown, repaired and booked, or noted as dealt with."""

from typing import Annotated

from fastapi import Query
from msgspec.structs import asdict

from csms.api import pages
from csms.api.log_models import QuarantinedOut, QuarantinePage, RepairIn, RepairOut, Resolution
from csms.api.security import Context, Operator, guarded_router, operator, viewer
from csms.core.masking import masked
from csms.core.quarantine import repairable_message
from csms.core.text import storable
from csms.db import logs
from csms.service import cursors
from csms.service import quarantine as service

router = guarded_router(tags=["quarantine"])
_BIGINT = 2**63 - 1


def _shown(held: logs.QuarantinedMessage) -> QuarantinedOut:
    shown = {"payload": held.text, "error": masked(held.error)}
    ocpp = masked(repairable_message(held.action, held.payload))
    return QuarantinedOut(**asdict(held) | shown, ocpp=ocpp)


@router.get("/quarantine", dependencies=[viewer])
async def list_quarantine(
    context: Context,
    charger: Annotated[str | None, Query(max_length=255)] = None,
    resolved: Annotated[bool, Query(description="What has been dealt with, instead of what has not")] = False,
    deferred: Annotated[
        bool | None, Query(description="Only messages of chargers that were not accepted, or only others")
    ] = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    cursor: pages.Cursor = None,
) -> QuarantinePage:
    """What was acknowledged but could not be booked, newest first."""
    before = cursors.decode(cursor, tuple[int])
    async with context.engine.connect() as db:
        found = await logs.list_quarantine(
            db,
            charger_id=None if charger is None else storable(charger),
            resolved=resolved,
            deferred=deferred,
            before_id=min(before[0], _BIGINT) if before else None,
            limit=limit + 1,
        )
    items, following = cursors.cut(found, limit, lambda held: (held.id,))
    return QuarantinePage(items=[_shown(held) for held in items], next_cursor=following)


@router.get("/quarantine/{held_id}", dependencies=[viewer])
async def get_quarantined(context: Context, held_id: int) -> QuarantinedOut:
    return _shown(await service.held(context, held_id))


@router.post("/quarantine/{held_id}/resolve", dependencies=[operator])
async def resolve(context: Context, held_id: int, resolution: Resolution) -> QuarantinedOut:
    """Note what was done about it. 409 when that was noted already."""
    await service.resolve(context, held_id, resolution.note)
    return await get_quarantined(context, held_id)


@router.post("/quarantine/{held_id}/repair")
async def repair(context: Context, held_id: int, asked: RepairIn, who: Operator) -> RepairOut:
    """Book it after all, repaired: a start under the id its charger was given, readings, a stop.

    A stop of a transaction that has ended corrects it: `updated` and `session_cost` with the next revision. 422
    when it cannot be booked as it stands, or an operator has corrected the transaction or made it void; 409 when it has
    been dealt with already.
    """
    transaction_id = await service.book(
        context, who, held_id, payload=asked.payload, transaction_id=asked.transaction_id, note=asked.note
    )
    return RepairOut(transaction_id=transaction_id, entry=await get_quarantined(context, held_id))
