"""What else is remembered of a charger: jobs, availability, capabilities, vendor data."""

from typing import Annotated

from fastapi import Query

from csms.api import pages
from csms.api.chargers import ChargerId
from csms.api.device_state_models import (
    Availabilities,
    AvailabilityOut,
    Capabilities,
    CapabilityOut,
    JobOut,
    Jobs,
    TransferOut,
    TransferPage,
)
from csms.api.security import Context, guarded_router, viewer
from csms.db import device_state_views
from csms.service import cursors
from csms.service.chargers import known

router = guarded_router(prefix="/chargers", tags=["chargers"], dependencies=[viewer])


@router.get("/{charger_id:segment}/jobs")
async def list_jobs(context: Context, charger_id: ChargerId) -> Jobs:
    """Firmware updates, diagnostics and logs with every step the charger told of, the newest first.

    They begin with the commands UpdateFirmware, SignedUpdateFirmware, GetDiagnostics and GetLog.
    """
    await known(context, charger_id)
    async with context.engine.connect() as db:
        rows = await device_state_views.list_jobs(db, charger_id)
    return Jobs(items=[JobOut.model_validate(row) for row in rows])


@router.get("/{charger_id:segment}/availability")
async def list_availability(context: Context, charger_id: ChargerId) -> Availabilities:
    """Each connector's reported status beside what the last ChangeAvailability asked of it."""
    await known(context, charger_id)
    async with context.engine.connect() as db:
        plugs = await device_state_views.availability(db, charger_id)
    return Availabilities(items=[AvailabilityOut.of(plug) for plug in plugs])


@router.get("/{charger_id:segment}/capabilities")
async def list_capabilities(context: Context, charger_id: ChargerId) -> Capabilities:
    """What the charger's answers have shown it to know and not to know."""
    await known(context, charger_id)
    async with context.engine.connect() as db:
        rows = await device_state_views.list_capabilities(db, charger_id)
    return Capabilities(items=[CapabilityOut.model_validate(row) for row in rows])


@router.get("/{charger_id:segment}/data-transfers")
async def list_transfers(
    context: Context,
    charger_id: ChargerId,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    cursor: pages.Cursor = None,
) -> TransferPage:
    """Vendor data from the charger and what it was told, the newest first."""
    await known(context, charger_id)
    before = cursors.decode(cursor, tuple[int])
    async with context.engine.connect() as db:
        found = await device_state_views.list_transfers(
            db, charger_id, before=before[0] if before else None, limit=limit + 1
        )
    items, following = cursors.cut(found, limit, lambda row: (row.id,))
    return TransferPage(items=[TransferOut.model_validate(row) for row in items], next_cursor=following)
