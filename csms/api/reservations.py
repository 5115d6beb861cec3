"""Reservations of a charger: made, cancelled, listed."""

from datetime import UTC

from fastapi import Response

from csms.api.chargers import ChargerId
from csms.api.device_state_models import Answered, ReservationIn, ReservationOut, Reservations, Reserved
from csms.api.security import Context, Operator, guarded_router, viewer
from csms.db import commands, device_state_views
from csms.service.chargers import known
from csms.service.commands import perform

router = guarded_router(prefix="/chargers", tags=["reservations"])


@router.get("/{charger_id:segment}/reservations", dependencies=[viewer])
async def list_reservations(context: Context, charger_id: ChargerId, active: bool = False) -> Reservations:
    """A charger's reservations, the newest first. One that has expired is shown so without a message."""
    await known(context, charger_id)
    now = context.now()
    async with context.engine.connect() as db:
        rows = await device_state_views.list_reservations(db, charger_id)
    items = [ReservationOut.of(row, now) for row in rows]
    return Reservations(items=[item for item in items if not active or item.state == "active"])


@router.post("/{charger_id:segment}/reservations")
async def reserve(
    context: Context, charger_id: ChargerId, asked: ReservationIn, who: Operator, response: Response
) -> Reserved:
    """Reserve a connector (0: any) for a tag, under an id of our own. The charger may refuse: see `status`."""
    await known(context, charger_id)
    async with context.engine.begin() as db:
        reservation_id = await commands.next_reservation_id(db)
    payload = {
        "connectorId": asked.connector_id,
        "expiryDate": asked.expiry_date.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "idTag": asked.id_tag,
        "reservationId": reservation_id,
    }
    if asked.parent_id_tag is not None:
        payload["parentIdTag"] = asked.parent_id_tag
    command_id, answer = await perform(context, who, charger_id, "ReserveNow", payload, asked.timeout_s)
    response.headers["Location"] = f"/api/v1/commands/{command_id}"
    return Reserved(reservation_id=reservation_id, status=answer.get("status"))


@router.delete("/{charger_id:segment}/reservations/{reservation_id}")
async def cancel_reservation(
    context: Context, charger_id: ChargerId, reservation_id: int, who: Operator
) -> Answered:
    """Ask the charger to give a reservation up."""
    await known(context, charger_id)
    _, answer = await perform(
        context, who, charger_id, "CancelReservation", {"reservationId": reservation_id}
    )
    return Answered(status=answer.get("status"))
