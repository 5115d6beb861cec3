"""Charge Amps' words for a connector, as OCPP's and as a HEMS knows them. Pure tables."""

from typing import Final

# By number, if a charger's firmware sends numbers: two kinds of chargers, two countings (vendor's document for v4).
_OCPP_BY_NUMBER: Final = (
    "Available", "Preparing", "Charging", "SuspendedEVSE", "SuspendedEV", "Finishing",
    "Reserved", "Unavailable", "Faulted", "Unknown",
)  # fmt: skip
_CAPI_BY_NUMBER: Final = ("Available", "Charging", "Connected", "Error", "Unknown")
_OCPP_STATUSES: Final = {status.lower(): status for status in _OCPP_BY_NUMBER[:-1]}
_ERROR_CODES: Final = {
    code.lower(): code
    for code in (
        "ConnectorLockFailure", "EVCommunicationError", "GroundFailure", "HighTemperature", "InternalError",
        "LocalListConflict", "NoError", "OtherError", "OverCurrentFailure", "OverVoltage", "PowerMeterFailure",
        "PowerSwitchFailure", "ReaderFailure", "ResetFailure", "UnderVoltage", "WeakSignal",
    )
}  # fmt: skip


def status_name(raw: str | None, *, capi: bool) -> str | None:
    """The status as a word of its kind of charger. None: the cloud says nothing, or nothing known."""
    if raw is None:
        return None
    if raw.isdecimal():
        words = _CAPI_BY_NUMBER if capi else _OCPP_BY_NUMBER
        raw = words[int(raw)] if int(raw) < len(words) else "Unknown"
    if raw.lower() in {"connected", "error"}:
        return raw.capitalize()
    return _OCPP_STATUSES.get(raw.lower())


def ocpp_status(raw: str | None, *, capi: bool, mode: str | None, in_session: bool) -> str | None:
    """In OCPP 1.6 words. None: unknown, what is known stays.

    An old charger says "Connected" for every car that does not charge; with an open session and a closed
    schedule it is the charger that waits.
    """
    found = status_name(raw, capi=capi)
    if found == "Error":
        return "Faulted"
    if found == "Connected":
        waiting = in_session and (mode or "").lower() in {"off", "schedule"}
        return "SuspendedEVSE" if waiting else "Preparing"
    return found


def error_code(raw: str | None, status: str | None) -> str:
    """OCPP's error code; a fault without a known one is OtherError."""
    known = _ERROR_CODES.get((raw or "").lower())
    if status == "Faulted":
        return known if known is not None and known != "NoError" else "OtherError"
    return known or "NoError"
