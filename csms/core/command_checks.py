"""Checks of commands before they are sent: what OCPP 1.6 forbids although its schema allows it.

OCPP 1.6, 3.13, 5.5, 5.10, 5.13, 5.15, 5.16, 7.8 to 7.15; errata 3.41, 3.52, 3.56.
"""

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

from msgspec import Struct, field

from csms.core.charging_profiles import MAX_PROFILE, TX_PROFILE
from csms.core.command_answers import parse_time
from csms.core.configuration import key_id
from csms.scheduling.rate_units import allowed_units

CommandPayload = Mapping[str, Any]
OCPP_PROTOCOL = "ocpp1.6"
_ID_TAG_LENGTH, _MAX_ACCOUNT_ID_LENGTH = 20, 128


class ChargerFacts(Struct, frozen=True, kw_only=True):
    """What csms knows of the charger. `configuration`: reported values by key id; `open_transactions`: id → connector."""

    now: datetime
    protocol: str = OCPP_PROTOCOL
    configuration: dict[str, str] = field(default_factory=dict)
    open_transactions: dict[int, int] = field(default_factory=dict)

    def integer(self, name: str) -> int | None:
        """Return the value of a configuration key as an integer. None: it was not reported, or is not one."""
        value = self.configuration.get(key_id(name), "").strip()
        return int(value) if value.isdecimal() else None


def payload_for_schema(action: str, payload: CommandPayload, protocol: str) -> CommandPayload:
    """Return the payload to check against OCPP's schema.

    Chargers of bridges accept longer idTags than OCPP's 20 characters: theirs is shortened for the check.
    """
    id_tag = payload.get("idTag")
    if protocol.startswith("ocpp") or action != "RemoteStartTransaction" or not isinstance(id_tag, str):
        return payload
    return {**payload, "idTag": id_tag[:_ID_TAG_LENGTH]} if len(id_tag) <= _MAX_ACCOUNT_ID_LENGTH else payload


def find_problems(action: str, payload: CommandPayload, facts: ChargerFacts) -> list[str]:
    """Return the problems of a command, each as "field: problem" with OCPP's field name. Empty: it may be sent.

    The payload must obey OCPP's schema.
    """
    check = _CHECKS.get(action)
    return [] if check is None else check(payload, facts)


def _set_profile(p: CommandPayload, facts: ChargerFacts) -> list[str]:
    connector_id, profile = p["connectorId"], p["csChargingProfiles"]
    purpose = profile["chargingProfilePurpose"]
    problems = _profile("csChargingProfiles", profile, facts)
    if connector_id < 0:
        problems.append("connectorId: must not be negative")
    if purpose == MAX_PROFILE and connector_id != 0:
        problems.append("connectorId: ChargePointMaxProfile is set on connector 0 only")
    if purpose == TX_PROFILE and connector_id == 0:
        problems.append("connectorId: TxProfile is set on a connector, not on 0")
    transaction_id = profile.get("transactionId")
    if purpose != TX_PROFILE and transaction_id is not None:
        problems.append("csChargingProfiles.transactionId: only a TxProfile belongs to a transaction")
    if purpose == TX_PROFILE and connector_id > 0:
        if transaction_id is None and connector_id not in facts.open_transactions.values():
            problems.append("connectorId: a TxProfile needs a running transaction, and none runs there")
        elif transaction_id is not None and facts.open_transactions.get(transaction_id) != connector_id:
            problems.append(
                f"csChargingProfiles.transactionId: transaction {transaction_id} does not run on this connector"
            )
    return problems


def _remote_start(p: CommandPayload, facts: ChargerFacts) -> list[str]:
    problems = _positive("connectorId", p)
    profile = p.get("chargingProfile")
    if profile is not None:
        problems += _profile("chargingProfile", profile, facts)
        if profile["chargingProfilePurpose"] != TX_PROFILE:
            problems.append("chargingProfile.chargingProfilePurpose: must be TxProfile in a remote start")
        if "transactionId" in profile:
            problems.append("chargingProfile.transactionId: the transaction does not exist yet, leave it out")
    return problems


def _profile(at: str, profile: CommandPayload, facts: ChargerFacts) -> list[str]:
    problems = []
    kind, recurrency = profile["chargingProfileKind"], profile.get("recurrencyKind")
    if kind == "Recurring" and recurrency is None:
        problems.append(f"{at}.recurrencyKind: a Recurring profile needs it (Daily or Weekly)")
    if kind != "Recurring" and recurrency is not None:
        problems.append(f"{at}.recurrencyKind: only for Recurring profiles")
    level, most = profile["stackLevel"], facts.integer("ChargeProfileMaxStackLevel")
    if level < 0:
        problems.append(f"{at}.stackLevel: must not be negative")
    elif most is not None and level > most:
        problems.append(f"{at}.stackLevel: this charger's ChargeProfileMaxStackLevel is {most}")
    begin, end = parse_time(profile.get("validFrom")), parse_time(profile.get("validTo"))
    if begin is not None and end is not None and end <= begin:
        problems.append(f"{at}.validTo: must be later than validFrom")
    return problems + _schedule(f"{at}.chargingSchedule", profile["chargingSchedule"], kind, facts)


def _schedule(at: str, plan: CommandPayload, kind: str, facts: ChargerFacts) -> list[str]:
    problems = []
    if kind == "Relative" and "startSchedule" in plan:
        problems.append(f"{at}.startSchedule: a Relative profile begins with the transaction, leave it out")
    if kind == "Recurring" and "startSchedule" not in plan:
        problems.append(f"{at}.startSchedule: a Recurring profile needs the time from which it recurs")
    if plan.get("duration", 1) <= 0:
        problems.append(f"{at}.duration: must be positive")
    if plan.get("minChargingRate", 0) < 0:
        problems.append(f"{at}.minChargingRate: must not be negative")
    periods = plan["chargingSchedulePeriod"]
    where = f"{at}.chargingSchedulePeriod"
    if not periods:
        problems.append(f"{where}: at least one period is needed")
    for number, period in enumerate(periods):
        if number == 0 and period["startPeriod"] != 0:
            problems.append(f"{where}[0].startPeriod: the first period begins at 0")
        if number > 0 and period["startPeriod"] <= periods[number - 1]["startPeriod"]:
            problems.append(f"{where}[{number}].startPeriod: must be later than the period before")
        if period["limit"] < 0:
            problems.append(f"{where}[{number}].limit: must not be negative")
        elif abs(period["limit"] * 10 - round(period["limit"] * 10)) > 1e-6:
            problems.append(f"{where}[{number}].limit: one decimal at most")
        if not 1 <= period.get("numberPhases", 1) <= 3:
            problems.append(f"{where}[{number}].numberPhases: 1, 2 or 3")
    most = facts.integer("ChargingScheduleMaxPeriods")
    if most is not None and len(periods) > most:
        problems.append(f"{where}: this charger's ChargingScheduleMaxPeriods is {most}")
    allowed = allowed_units(facts.configuration.get(key_id("ChargingScheduleAllowedChargingRateUnit")))
    if allowed and plan["chargingRateUnit"] not in allowed:
        problems.append(f"{at}.chargingRateUnit: this charger takes {' and '.join(sorted(allowed))} only")
    return problems


def _reserve(p: CommandPayload, facts: ChargerFacts) -> list[str]:
    problems = _not_negative("connectorId", p)
    expires_at = parse_time(p["expiryDate"])
    if expires_at is not None and expires_at <= facts.now:
        problems.append("expiryDate: is in the past")
    return problems


def _local_list(p: CommandPayload, facts: ChargerFacts) -> list[str]:
    problems = []
    if p["listVersion"] <= 0:
        problems.append("listVersion: must be positive (0 and -1 mean something else)")
    entries = p.get("localAuthorizationList") or []
    seen: set[str] = set()
    for number, entry in enumerate(entries):
        where = f"localAuthorizationList[{number}]"
        if p["updateType"] == "Full" and "idTagInfo" not in entry:
            problems.append(f"{where}.idTagInfo: a full list needs it in every entry")
        id_tag = entry["idTag"].lower()
        if id_tag in seen:
            problems.append(f"{where}.idTag: {entry['idTag']} is in the list twice")
        seen.add(id_tag)
    most = facts.integer("SendLocalListMaxLength")
    if most is not None and len(entries) > most:
        problems.append(
            f"localAuthorizationList: this charger's SendLocalListMaxLength is {most}; PUT …/local-list splits it"
        )
    return problems


def _diagnostics(p: CommandPayload, _facts: ChargerFacts) -> list[str]:
    begin, end = parse_time(p.get("startTime")), parse_time(p.get("stopTime"))
    if begin is not None and end is not None and end <= begin:
        return ["stopTime: must be later than startTime"]
    return []


def _not_negative(name: str, p: CommandPayload) -> list[str]:
    return [f"{name}: must not be negative"] if p.get(name, 0) < 0 else []


def _positive(name: str, p: CommandPayload) -> list[str]:
    return [f"{name}: must be greater than 0"] if p.get(name, 1) <= 0 else []


_CHECKS: dict[str, Callable[[CommandPayload, ChargerFacts], list[str]]] = {
    "ChangeAvailability": lambda p, _: _not_negative("connectorId", p),
    "ClearChargingProfile": lambda p, _: _not_negative("connectorId", p) + _not_negative("stackLevel", p),
    "GetCompositeSchedule": lambda p, _: _not_negative("connectorId", p) + _positive("duration", p),
    "GetDiagnostics": _diagnostics,
    "RemoteStartTransaction": _remote_start,
    "ReserveNow": _reserve,
    "SendLocalList": _local_list,
    "SetChargingProfile": _set_profile,
    "UnlockConnector": lambda p, _: _positive("connectorId", p),
}
