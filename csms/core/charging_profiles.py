"""Charging profiles that a charger has accepted: installed, replaced, cleared, bound to their transaction.

OCPP 1.6, 3.13, 5.5, 5.16; errata 3.25 (criteria are joined by AND), 3.41 (the profile of a remote start).
"""

from datetime import timedelta

from msgspec.structs import replace

from csms.core import reports
from csms.core.command_answers import CommandAnswer, as_int, as_text
from csms.core.device_state import ChargingProfile
from csms.core.work import Work, tag_key

MAX_PROFILE, DEFAULT_PROFILE, TX_PROFILE = "ChargePointMaxProfile", "TxDefaultProfile", "TxProfile"
_REMOTE_START_HELD = timedelta(hours=1)


def on_set_charging_profile(work: Work, done: CommandAnswer) -> None:
    """Apply SetChargingProfile.conf Accepted.

    The profile replaces the one with its id, and the one with its purpose, stack level and connector.
    """
    connector_id = as_int(done.payload.get("connectorId"))
    if done.status == "Accepted" and connector_id is not None:
        _install(work, done, done.payload.get("csChargingProfiles"), connector_id, None)


def on_remote_start(work: Work, done: CommandAnswer) -> None:
    """Apply RemoteStartTransaction.conf Accepted: keep the profile of the request until the start is reported."""
    if done.status == "Accepted" and "chargingProfile" in done.payload:
        connector_id = as_int(done.payload.get("connectorId")) or 0
        _install(
            work,
            done,
            done.payload["chargingProfile"],
            connector_id,
            as_text(done.payload.get("idTag")) or "",
        )


def on_clear_charging_profile(work: Work, done: CommandAnswer) -> None:
    """Apply ClearChargingProfile.conf.

    Unknown means that no profile matched, so the stored ones that match are not on the charger either.
    """
    if done.status not in {"Accepted", "Unknown"}:
        return
    p = done.payload
    for row in work.device_rows(ChargingProfile, done.charger_id):
        if row.cleared_at is None and (
            p.get("id") in {None, row.id}
            and p.get("connectorId") in {None, row.connector_id}
            and p.get("chargingProfilePurpose") in {None, row.purpose}
            and p.get("stackLevel") in {None, row.stack_level}
        ):
            work.put(replace(row, cleared_at=work.now))


def bind_remote_start_profile(work: Work, start: reports.Start, transaction_id: int) -> None:
    """Assign the profile of a remote start to the transaction and connector of the start that followed it."""
    for row in work.device_rows(ChargingProfile, start.charger_id):
        if row.purpose != TX_PROFILE or row.transaction_id is not None or row.cleared_at is not None:
            continue
        if row.id_tag is None or tag_key(row.id_tag) != tag_key(start.id_tag):
            continue
        if row.connector_id in {0, start.connector_id}:
            if row.installed_at < work.now - _REMOTE_START_HELD:
                work.put(replace(row, cleared_at=work.now))
            else:
                work.put(replace(row, transaction_id=transaction_id, connector_id=start.connector_id))


def _install(work: Work, done: CommandAnswer, profile: object, connector_id: int, id_tag: str | None) -> None:
    if not isinstance(profile, dict):
        return
    profile_id, level = as_int(profile.get("chargingProfileId")), as_int(profile.get("stackLevel"))
    purpose = as_text(profile.get("chargingProfilePurpose"))
    if profile_id is None or level is None or purpose is None:
        return
    transaction_id = as_int(profile.get("transactionId"))
    if transaction_id is None and purpose == TX_PROFILE and id_tag is None:
        running = work.open_transaction(done.charger_id, connector_id)
        transaction_id = None if running is None else running.id
    for row in work.device_rows(ChargingProfile, done.charger_id):
        same_place = (row.purpose, row.stack_level, row.connector_id) == (purpose, level, connector_id)
        if row.cleared_at is None and same_place and row.id != profile_id:
            work.put(replace(row, cleared_at=work.now))
    work.put(
        ChargingProfile(
            charger_id=done.charger_id,
            id=profile_id,
            connector_id=connector_id,
            purpose=purpose,
            stack_level=level,
            transaction_id=transaction_id,
            id_tag=id_tag,
            profile=profile,
            installed_at=work.now,
        )
    )
