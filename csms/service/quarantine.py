"""Messages in quarantine: booked after all, repaired, or noted as dealt with."""

from typing import Any

from msgspec.structs import replace

from csms.core.quarantine import REPAIRABLE_ACTIONS, is_as_sent, repairable_message
from csms.core.reports import Repair
from csms.core.text import storable
from csms.db import admin, charger_views, logs
from csms.errors import NotBookable
from csms.ocpp.operator_repair import repaired_report
from csms.ocpp.quirks import Behaviours, quirks_for
from csms.service.access import Identity
from csms.service.context import ServiceContext
from csms.service.problems import Problem


async def held(context: ServiceContext, held_id: int) -> logs.QuarantinedMessage:
    """Raises Problem 404."""
    async with context.engine.connect() as db:
        found = await logs.get_quarantined(db, held_id)
    if found is None:
        raise Problem(404, "not-found", f"There is no message {held_id} in quarantine.")
    return found


async def resolve(context: ServiceContext, held_id: int, note: str) -> None:
    """Note what was done about a message. Raises Missing, and Conflict when that was noted already."""
    async with context.engine.begin() as db:
        await admin.resolve_quarantined(db, held_id, storable(note))


async def book(
    context: ServiceContext,
    who: Identity,
    held_id: int,
    *,
    payload: dict[str, Any] | None,
    transaction_id: int | None,
    note: str,
) -> int | None:
    """Book a message as it stands, or as `payload` says. Returns the transaction it was booked as.

    Raises Problem 404, 409 when it has been dealt with, 422 when it cannot be booked.
    """
    message = await held(context, held_id)
    if message.resolved_at is not None:
        raise Problem(409, "conflict", f"Message {held_id} has been dealt with already.")
    if message.enrollment is not None:
        async with context.engine.connect() as db:
            enrollment = await charger_views.get_enrollment(db, message.charger_id)
        if enrollment != "Accepted":
            raise Problem(
                409,
                "conflict",
                f"{message.charger_id} is not accepted: accept it first, or resolve the message.",
            )
    if message.action not in REPAIRABLE_ACTIONS:
        raise Problem(422, "not-bookable", f"A {message.action} cannot be booked; resolve it with a note.")
    if payload is None:
        payload = repairable_message(message.action, message.payload)
    if payload is None:
        raise Problem(
            422, "not-bookable", "What came is no JSON object: send the payload as it should have been."
        )
    if transaction_id is not None and message.action != "StartTransaction":
        payload = payload | {"transactionId": transaction_id}
    order = Repair(
        quarantine_id=held_id,
        note=" ".join(filter(None, (storable(note).strip(), f"repaired by {who.name}"))),
        author=who.name,
        transaction_id=message.transaction_id if message.action == "StartTransaction" else None,
    )
    try:
        behaviours = await _behaviours(context, message)
        report = repaired_report(
            message.charger_id, message.action, payload, order, context.now(), behaviours
        )
        answer = await context.node.record(report)
    except NotBookable as error:
        raise Problem(422, "not-bookable", str(error)) from None
    booked: int | None = getattr(answer, "transaction_id", None)
    return booked


async def _behaviours(context: ServiceContext, message: logs.QuarantinedMessage) -> Behaviours:
    """How the registers of a message are read: as its charger counts them, but in Wh if csms had read the message."""
    async with context.engine.connect() as db:
        found = await charger_views.get_charger(db, message.charger_id)
    if found is None:
        return Behaviours()
    known = quirks_for(found.charger.vendor, found.charger.model, found.charger.firmware_version)
    return (
        known if is_as_sent(message.action, message.payload) else replace(known, energy_kwh_labelled_wh=False)
    )
