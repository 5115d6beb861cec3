"""Availability of connectors: the desired one and the reported one (OCPP 1.6, 5.2)."""

from msgspec.structs import replace

from csms.core.command_answers import CommandAnswer, as_int, as_text
from csms.core.device_state import Availability
from csms.core.work import Work

INOPERATIVE = "Inoperative"


def on_change_availability(work: Work, done: CommandAnswer) -> None:
    """Apply ChangeAvailability.conf. Connector 0 is the charger with all its connectors."""
    connector_id, desired = as_int(done.payload.get("connectorId")), as_text(done.payload.get("type"))
    if done.status not in {"Accepted", "Scheduled"} or connector_id is None or desired is None:
        return
    scheduled = done.status == "Scheduled"
    for row in work.device_rows(Availability, done.charger_id):
        if connector_id == 0 and row.connector_id != 0:
            work.put(replace(row, desired=desired, desired_at=work.now, scheduled=scheduled))
    work.put(
        Availability(
            charger_id=done.charger_id,
            connector_id=connector_id,
            desired=desired,
            desired_at=work.now,
            scheduled=scheduled,
        )
    )


def availability_in_sync(desired: str | None, status: str | None) -> bool | None:
    """Return whether a connector's reported status agrees with the desired availability.

    None: one of the two is missing, or the connector is Faulted.
    """
    if desired is None or status is None or status == "Faulted":
        return None
    return (status == "Unavailable") == (desired == INOPERATIVE)
