"""Reservations: made, cancelled, used, broken, expired without a message (OCPP 1.6, 3.11, 5.1, 5.13)."""

from datetime import datetime, timedelta

from msgspec.structs import replace

from csms.core import reports
from csms.core.authorization import ACCEPTED
from csms.core.command_answers import CommandAnswer, as_int, as_text, parse_time
from csms.core.device_state import Reservation
from csms.core.work import Work, tag_key

_SLACK = timedelta(minutes=5)  # by which the charger's clock may be behind that of csms
USED, CANCELLED, EXPIRED, ACTIVE = "used", "cancelled", "expired", "active"


def reservation_state(reservation: Reservation, now: datetime) -> str:
    """Return active, used, cancelled or expired."""
    if reservation.ended_as is not None:
        return reservation.ended_as
    return ACTIVE if reservation.expires_at > now else EXPIRED


def on_reserve_now(work: Work, done: CommandAnswer) -> None:
    """Apply ReserveNow.conf Accepted. A reservation of the same id is replaced (5.13)."""
    p = done.payload
    reservation_id, connector_id = as_int(p.get("reservationId")), as_int(p.get("connectorId"))
    expires_at = parse_time(p.get("expiryDate"))
    if done.status != ACCEPTED or reservation_id is None or connector_id is None or expires_at is None:
        return
    work.put(
        Reservation(
            charger_id=done.charger_id,
            id=reservation_id,
            connector_id=connector_id,
            id_tag=as_text(p.get("idTag")) or "",
            parent_id_tag=as_text(p.get("parentIdTag")),
            expires_at=expires_at,
            reserved_at=work.now,
        )
    )


def on_cancel_reservation(work: Work, done: CommandAnswer) -> None:
    """Apply CancelReservation.conf. Rejected means that the charger has no such reservation, so it has ended too."""
    reservation_id = as_int(done.payload.get("reservationId"))
    known = work.device_row(Reservation, done.charger_id, reservation_id)
    if known is not None and known.ended_at is None and done.status in {"Accepted", "Rejected"}:
        work.put(replace(known, ended_at=work.now, ended_as=CANCELLED))


def use_reservation(
    work: Work, start: reports.Start, transaction_id: int, started_at: datetime, parent_id_tag: str | None
) -> bool:
    """End the reservation that a start uses. Return True if it broke another idTag's reservation of the connector.

    That does not change the authorization of the start: energy flows already, and the charger enforces reservations.
    """
    active = [
        row
        for row in work.device_rows(Reservation, start.charger_id)
        if row.ended_at is None
        and (row.id == start.reservation_id or row.reserved_at - _SLACK <= started_at < row.expires_at)
    ]
    named = [row for row in active if row.id == start.reservation_id]
    here = [row for row in active if row.connector_id == start.connector_id]
    anywhere = [row for row in active if row.connector_id == 0]
    own = named or [row for row in here + anywhere if _is_for(row, start.id_tag, parent_id_tag)]
    if own:
        work.put(replace(own[0], ended_at=work.now, ended_as=USED, transaction_id=transaction_id))
        return False
    for row in here:
        work.put(replace(row, broken_by=transaction_id))
    return bool(here)


def _is_for(reservation: Reservation, id_tag: str, parent_id_tag: str | None) -> bool:
    if tag_key(reservation.id_tag) == tag_key(id_tag):
        return True
    group = reservation.parent_id_tag
    return group is not None and parent_id_tag is not None and tag_key(group) == tag_key(parent_id_tag)
