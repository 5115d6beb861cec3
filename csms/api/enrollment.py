"""What follows when an operator lets a charger in, or turns it away: it learns of it now, not after its retry interval."""

import structlog

from csms.adapter import Command
from csms.api.deps import Api
from csms.errors import CommandError

log = structlog.get_logger()


async def enrollment_changed(api: Api, charger_id: str, enrollment: str) -> None:
    """Accepted: the charger is asked to boot anew (TriggerMessage), and the answer lets it in.

    Rejected or Pending: its connection ends; when it dials again, BootNotification.conf says how things stand.
    Best effort: a charger that does not understand hears it at its own next BootNotification.
    """
    try:
        if enrollment == "Accepted":
            command = Command(action="TriggerMessage", payload={"requestedMessage": "BootNotification"})
            answer = (await api.send(charger_id, command)).get("status")
            log.info("asked to boot anew", charger=charger_id, answer=answer)
        elif api.hang_up is not None:
            await api.hang_up(charger_id)
    except CommandError as error:
        log.info("enrollment not told", charger=charger_id, enrollment=enrollment, why=str(error))
    except Exception:
        log.exception("enrollment not told", charger=charger_id, enrollment=enrollment)
