"""Queued commands: which may be sent again, when, and how to find out whether one was carried out. Decisions only."""

from collections.abc import Collection, Mapping
from datetime import datetime, timedelta
from typing import Any, Final

from msgspec import Struct

from csms.core.command_checks import OCPP_PROTOCOL
from csms.core.command_states import NO_ANSWER, NOT_SENT
from csms.core.configuration import same_value
from csms.core.masking import is_secret

SAFE, RECONCILE, MANUAL = "safe", "reconcile", "manual"

# A repetition has no effect.
_SAFE = {
    "ClearCache",
    "ExtendedTriggerMessage",
    "GetCompositeSchedule",
    "GetConfiguration",
    "GetInstalledCertificateIds",
    "GetLocalListVersion",
    "RemoteStopTransaction",
    "TriggerMessage",
}
# A repetition leads to the same state. Where the charger can tell whether it is there already, it is asked first.
_RECONCILE = {
    "CancelReservation",
    "ChangeAvailability",
    "ChangeConfiguration",
    "ClearChargingProfile",
    "DeleteCertificate",
    "InstallCertificate",
    "ReserveNow",
    "SendLocalList",
    "SetChargingProfile",
}
COIN_OP_PROTOCOL: Final = "coinop-mqtt"
_NOT_QUEUED_FOR_COIN_OP = {"RemoteStartTransaction", "RemoteStopTransaction"}
MAX_ATTEMPTS: Final = 5
_RETRY_NOT_SENT = timedelta(seconds=5)
_FIRST_RETRY = timedelta(seconds=10)
_LAST_RETRY = timedelta(minutes=5)
_TRIGGER_INTERVAL = timedelta(minutes=10)


class Retry(Struct, frozen=True):
    """Send the command again, not before `at`."""

    at: datetime


def retry_class(action: str) -> str:
    """Return whether a command may be repeated: safe (always), reconcile (after a look at the state), manual (never)."""
    if action in _SAFE:
        return SAFE
    return RECONCILE if action in _RECONCILE else MANUAL


def next_attempt(
    action: str, state: str, attempts: int, now: datetime, expires_at: datetime | None
) -> Retry | None:
    """Return when to send a queued command again after an attempt that ended in `state`. None: it has ended.

    `attempts` includes this one. A command of any class that was not sent waits on until it expires.
    """
    if state == NOT_SENT:
        at = now + _RETRY_NOT_SENT
    elif state == NO_ANSWER and retry_class(action) != MANUAL and attempts < MAX_ATTEMPTS:
        at = now + min(_FIRST_RETRY * 2 ** max(attempts - 1, 0), _LAST_RETRY)
    else:
        return None
    return None if expires_at is not None and at >= expires_at else Retry(at)


def queue_problems(action: str, payload: Mapping[str, Any], protocol: str = OCPP_PROTOCOL) -> list[str]:
    """Return why a command cannot be queued.

    A queued command is stored, and passwords are not; the door of a rental station must not open after the renter has
    left.
    """
    if protocol == COIN_OP_PROTOCOL and action in _NOT_QUEUED_FOR_COIN_OP:
        return [
            f"{action}: it opens the station's door, so it cannot wait; send it while the station answers"
        ]
    if action == "ChangeConfiguration" and is_secret(str(payload.get("key", ""))):
        return ["key: a password is never kept, so it cannot wait; send it while the charger is connected"]
    return []


def reconcile_request(action: str, payload: Mapping[str, Any]) -> tuple[str, dict[str, Any]] | None:
    """Return the action and payload of the request that shows whether a command was carried out. None: send it again."""
    if action == "ChangeConfiguration":
        return "GetConfiguration", {"key": [payload["key"]]}
    if action == "SendLocalList":
        return "GetLocalListVersion", {}
    return None


def was_carried_out(action: str, payload: Mapping[str, Any], answer: Mapping[str, Any]) -> bool:
    """Return whether the answer to that request proves that the command was carried out."""
    if action == "ChangeConfiguration":
        found = answer.get("configurationKey")
        for item in found if isinstance(found, list) else []:
            if isinstance(item, dict) and str(item.get("key", "")).lower() == str(payload["key"]).lower():
                value = item.get("value")
                return isinstance(value, str) and same_value(value, str(payload["value"]))
        return False
    if action == "SendLocalList":
        return bool(answer.get("listVersion") == payload["listVersion"])
    return False


def reconnect_triggers(
    *,
    now: datetime,
    connected_at: datetime | None,
    booted_at: datetime | None,
    asked_at: datetime | None,
    unsupported: Collection[str],
) -> list[dict[str, Any]]:
    """Return the TriggerMessage payloads for a charger that reconnected without a BootNotification.

    `unsupported`: the features that it does not have, `TriggerMessage` or `TriggerMessage/<message>`.
    `asked_at`: when it was last asked; after an unstable connection it is not asked again each time.
    """
    if connected_at is None or (booted_at is not None and booted_at >= connected_at):
        return []
    if "TriggerMessage" in unsupported or (asked_at is not None and now - asked_at < _TRIGGER_INTERVAL):
        return []
    return [
        {"requestedMessage": message}
        for message in ("BootNotification", "StatusNotification")
        if f"TriggerMessage/{message}" not in unsupported
    ]
