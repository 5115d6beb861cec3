"""What follows when an operator changes a charger's enrollment: the charger learns of it now, not after its retry interval."""

import structlog

from csms.adapter import Command
from csms.errors import CommandError
from csms.service.context import ServiceContext

log = structlog.get_logger()


async def announce_enrollment(context: ServiceContext, charger_id: str, enrollment: str) -> None:
    """Accepted: the charger is asked to boot anew (TriggerMessage), and the answer lets it in.

    Rejected or Pending: its connection is ended; BootNotification.conf of its next connection says the rest.
    Best effort: a charger that does not understand is told at its next BootNotification.
    """
    try:
        if enrollment == "Accepted":
            command = Command(action="TriggerMessage", payload={"requestedMessage": "BootNotification"})
            answer = (await context.node.send(charger_id, command)).get("status")
            log.info("boot_notification_requested", charger=charger_id, answer=answer)
        else:
            await context.node.disconnect(charger_id)
    except CommandError as error:
        log.info("enrollment_not_announced", charger=charger_id, enrollment=enrollment, error=str(error))
    except Exception:
        log.exception("enrollment_announcement_failed", charger=charger_id, enrollment=enrollment)
