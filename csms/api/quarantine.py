"""What was acknowledged but could not be booked: shown, repaired and booked, or noted as dealt with."""

from typing import Annotated

from fastapi import APIRouter, Query

from csms.api import pages
from csms.api.access import Identity
from csms.api.commands import Operator
from csms.api.deps import Api
from csms.api.models import QuarantinedOut, QuarantinePage, RepairIn, RepairOut, Resolution
from csms.api.problems import Problem
from csms.api.security import Deps, operator, viewer
from csms.core.quarantine import REPAIRABLE, offered
from csms.core.reports import Repair
from csms.db import admin, logs
from csms.errors import NotBookable

router = APIRouter(tags=["quarantine"])
_BIGINT = 2**63 - 1


def _shown(held: logs.Held) -> QuarantinedOut:
    fields = {name: getattr(held, name) for name in held.__struct_fields__ if name != "payload"}
    return QuarantinedOut(**fields, payload=held.text, ocpp=offered(held.action, held.payload))


@router.get("/quarantine", dependencies=[viewer])
async def list_quarantine(
    api: Deps,
    charger: Annotated[str | None, Query(max_length=255)] = None,
    resolved: Annotated[bool, Query(description="What has been dealt with, instead of what has not")] = False,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    cursor: pages.Cursor = None,
) -> QuarantinePage:
    """What was acknowledged but could not be booked, newest first."""
    before = pages.decode(cursor, tuple[int])
    async with api.engine.connect() as db:
        found = await logs.list_quarantine(
            db,
            charger_id=None if charger is None else charger.replace("\0", "\ufffd"),
            resolved=resolved,
            before_id=min(before[0], _BIGINT) if before else None,
            limit=limit + 1,
        )
    items, following = pages.cut(found, limit, lambda held: (held.id,))
    return QuarantinePage(items=[_shown(held) for held in items], next_cursor=following)


@router.get("/quarantine/{held_id}", dependencies=[viewer])
async def get_quarantined(api: Deps, held_id: int) -> QuarantinedOut:
    return _shown(await _held(api, held_id))


@router.post("/quarantine/{held_id}/resolve", dependencies=[operator])
async def resolve(api: Deps, held_id: int, resolution: Resolution) -> QuarantinedOut:
    """Note what was done about it. 409 when that was noted already."""
    async with api.engine.begin() as db:
        await admin.resolve_quarantined(db, held_id, resolution.note.replace("\0", ""))
    return await get_quarantined(api, held_id)


@router.post("/quarantine/{held_id}/repair")
async def repair(api: Deps, held_id: int, asked: RepairIn, who: Operator) -> RepairOut:
    """Book it after all, repaired: a start under the id its charger was given, readings, a stop.

    A stop of a transaction that has ended corrects it: `updated` and `session_cost` with the next revision. 422
    when it cannot be booked as it stands, 409 when it has been dealt with already.
    """
    transaction_id = await book(api, who, held_id, asked)
    return RepairOut(transaction_id=transaction_id, entry=await get_quarantined(api, held_id))


async def book(api: Api, who: Identity, held_id: int, asked: RepairIn) -> int | None:
    """What it was booked as. Raises Problem."""
    held = await _held(api, held_id)
    if held.resolved_at is not None:
        raise Problem(409, "conflict", f"Message {held_id} has been dealt with already.")
    if held.action not in REPAIRABLE or api.book is None:
        raise Problem(422, "not-bookable", f"A {held.action} cannot be booked; resolve it with a note.")
    payload = asked.payload if asked.payload is not None else offered(held.action, held.payload)
    if payload is None:
        raise Problem(
            422, "not-bookable", "What came is no JSON object: send the payload as it should have been."
        )
    if asked.transaction_id is not None and held.action != "StartTransaction":
        payload = payload | {"transactionId": asked.transaction_id}
    note = " ".join(filter(None, (asked.note.replace("\0", "").strip(), f"repaired by {who.name}")))
    order = Repair(
        quarantine_id=held_id,
        note=note,
        transaction_id=held.transaction_id if held.action == "StartTransaction" else None,
    )
    try:
        answer = await api.book(held.charger_id, held.action, payload, order)
    except NotBookable as error:
        raise Problem(422, "not-bookable", str(error)) from None
    booked: int | None = getattr(answer, "transaction_id", None)
    return booked


async def _held(api: Api, held_id: int) -> logs.Held:
    async with api.engine.connect() as db:
        held = await logs.get_quarantined(db, held_id)
    if held is None:
        raise Problem(404, "not-found", f"There is no message {held_id} in quarantine.")
    return held
