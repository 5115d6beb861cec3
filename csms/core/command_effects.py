"""Effects of commands: the outcome is stored, and the charger's answer changes what csms knows of the charger."""

from collections.abc import Callable
from typing import Any

from csms.core import availability, charging_profiles, configuration, jobs, local_list, reports, reservations
from csms.core.command_answers import CommandAnswer
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
from csms.core.text import storable_json
from csms.core.work import Work

_UNSUPPORTED = {"NotImplemented", "NotSupported"}
# NotSupported in the answer to these means the whole feature; elsewhere a key, a connector or a message.
_WHOLE_FEATURE = {"SendLocalList", "SetChargingProfile"}
_TRIGGERS = {"TriggerMessage", "ExtendedTriggerMessage"}

EFFECTS: dict[str, tuple[Callable[[Work, CommandAnswer], None], type[DeviceState]]] = {
    "CancelReservation": (reservations.on_cancel_reservation, Reservation),
    "ChangeAvailability": (availability.on_change_availability, Availability),
    "ChangeConfiguration": (configuration.on_change_configuration, ConfigurationKey),
    "ClearChargingProfile": (charging_profiles.on_clear_charging_profile, ChargingProfile),
    "GetConfiguration": (configuration.on_get_configuration, ConfigurationKey),
    "GetDiagnostics": (jobs.on_job_command, Job),
    "GetLocalListVersion": (local_list.on_get_local_list_version, LocalList),
    "GetLog": (jobs.on_job_command, Job),
    "RemoteStartTransaction": (charging_profiles.on_remote_start, ChargingProfile),
    "ReserveNow": (reservations.on_reserve_now, Reservation),
    "SendLocalList": (local_list.on_send_local_list, LocalList),
    "SetChargingProfile": (charging_profiles.on_set_charging_profile, ChargingProfile),
    "SignedUpdateFirmware": (jobs.on_job_command, Job),
    "UpdateFirmware": (jobs.on_job_command, Job),
}


def commanded(work: Work, r: reports.Commanded) -> None:
    """Store the outcome. An answer, even a late one, changes the device state: the charger has acted."""
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
            error=masked(storable_json(r.error)),
            sent_at=r.sent_at,
            ended_at=work.now,
            late=r.late,
        )
    )
    if r.outcome not in {"answered", "refused"} or not isinstance(answer, dict):
        return
    done = CommandAnswer(
        charger_id=r.charger_id, command_id=r.id, action=r.action, payload=payload, answer=answer
    )
    _note_capability(work, done, refused=r.outcome == "refused")
    effect = EFFECTS.get(r.action)
    if effect is not None and r.outcome == "answered":
        effect[0](work, done)


def required_device_state(report: reports.Report[Any]) -> set[type[DeviceState]]:
    """Return the kinds of device state that must be loaded before a report can be decided."""
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


def _note_capability(work: Work, done: CommandAnswer, *, refused: bool) -> None:
    feature = done.action
    if refused:
        if done.answer.get("code") not in _UNSUPPORTED:
            return  # the charger knows the action and refused this request
        supported = False
    else:
        supported = done.status not in _UNSUPPORTED or done.action not in _TRIGGERS | _WHOLE_FEATURE
        if done.action in _TRIGGERS:
            feature = f"{done.action}/{done.payload.get('requestedMessage')}"
    known = work.device_row(Capability, done.charger_id, feature)
    if known is None or known.supported != supported:
        work.put(
            Capability(charger_id=done.charger_id, feature=feature, supported=supported, seen_at=work.now)
        )
