"""What came of a command: the outcome is kept, and what the answer means for what we remember of the charger."""

from collections.abc import Callable
from typing import Any

from csms.core import availability, charging, configuration, jobs, local_list, reports, reservations
from csms.core.answers import Answer
from csms.core.device_state import (
    Availability,
    Capability,
    ChargingProfile,
    CommandOutcome,
    ConfigurationKey,
    DeviceState,
    Job,
    LocalList,
    Reservation,
)
from csms.core.masking import masked
from csms.core.presence import enrolled
from csms.core.text import storable_json
from csms.core.work import Work

_LACKING = {"NotImplemented", "NotSupported"}
# Here the word speaks of the whole feature; elsewhere of a key, a connector or a message.
_WHOLE_FEATURE = {"SendLocalList", "SetChargingProfile"}
_TRIGGERS = {"TriggerMessage", "ExtendedTriggerMessage"}

EFFECTS: dict[str, tuple[Callable[[Work, Answer], None], type[DeviceState]]] = {
    "CancelReservation": (reservations.cancelled, Reservation),
    "ChangeAvailability": (availability.changed, Availability),
    "ChangeConfiguration": (configuration.changed, ConfigurationKey),
    "ClearChargingProfile": (charging.cleared, ChargingProfile),
    "GetConfiguration": (configuration.reported, ConfigurationKey),
    "GetDiagnostics": (jobs.begun, Job),
    "GetLocalListVersion": (local_list.version_reported, LocalList),
    "GetLog": (jobs.begun, Job),
    "RemoteStartTransaction": (charging.remote_started, ChargingProfile),
    "ReserveNow": (reservations.reserved, Reservation),
    "SendLocalList": (local_list.updated, LocalList),
    "SetChargingProfile": (charging.installed, ChargingProfile),
    "SignedUpdateFirmware": (jobs.begun, Job),
    "UpdateFirmware": (jobs.begun, Job),
}


def commanded(work: Work, r: reports.Commanded) -> None:
    """Keep the outcome; an answer, however late, also changes what we remember: the charger did act."""
    enrolled(work, r.charger_id)
    payload, answer = storable_json(r.payload), storable_json(r.answer)
    work.add(
        CommandOutcome(
            id=r.id,
            charger_id=r.charger_id,
            action=r.action,
            payload=masked(payload),
            requested_by=r.requested_by,
            state=r.outcome,
            answer=masked(answer) if answer is not None else None,
            error=storable_json(r.error),
            sent_at=r.sent_at,
            ended_at=work.now,
            late=r.late,
        )
    )
    if r.outcome not in {"answered", "refused"} or not isinstance(answer, dict):
        return
    done = Answer(charger_id=r.charger_id, command_id=r.id, action=r.action, payload=payload, answer=answer)
    _learn(work, done, refused=r.outcome == "refused")
    effect = EFFECTS.get(r.action)
    if effect is not None and r.outcome == "answered":
        effect[0](work, done)


def looks_at(report: reports.Report[Any]) -> set[type[DeviceState]]:
    """What must be loaded before a report can be decided."""
    match report:
        case reports.Commanded():
            effect = EFFECTS.get(report.action)
            return {Capability} if effect is None else {Capability, effect[1]}
        case reports.Progress():
            return {Job}
        case reports.Start():
            return {Reservation, ChargingProfile}
        case reports.Rent():
            return {Availability}
    return set()


def _learn(work: Work, done: Answer, *, refused: bool) -> None:
    feature = done.action
    supported = not refused or done.answer.get("code") not in _LACKING
    if not refused and done.status in _LACKING:
        if done.action in _TRIGGERS:
            feature, supported = f"{done.action}/{done.payload.get('requestedMessage')}", False
        elif done.action in _WHOLE_FEATURE:
            supported = False
    elif not refused and done.action in _TRIGGERS:
        feature = f"{done.action}/{done.payload.get('requestedMessage')}"
    elif refused and supported:
        return  # it knows the action and refused this one
    known = work.recalled(Capability, done.charger_id, feature)
    if known is None or known.supported != supported:
        work.put(
            Capability(charger_id=done.charger_id, feature=feature, supported=supported, seen_at=work.now)
        )
