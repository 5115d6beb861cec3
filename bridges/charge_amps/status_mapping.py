"""Charge Amps' connector statuses and error codes as those of OCPP 1.6. Pure."""

from typing import Final

# Statuses by number, if the firmware sends numbers; chargers with OCPP and with CAPI differ (vendor's document for v4).
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
    """Return the name of a status of this kind of charger. None: missing or unknown."""
    if raw is None:
        return None
    if raw.isdecimal():
        names = _CAPI_BY_NUMBER if capi else _OCPP_BY_NUMBER
        raw = names[int(raw)] if int(raw) < len(names) else "Unknown"
    if raw.lower() in {"connected", "error"}:
        return raw.capitalize()
    return _OCPP_STATUSES.get(raw.lower())


def ocpp_status(raw: str | None, *, capi: bool, mode: str | None, in_session: bool) -> str | None:
    """Return the OCPP 1.6 status. None: unknown, so that the last one stays.

    A CAPI charger sends "Connected" for every car that does not charge. In a session, and in mode Off or Schedule, it is
    the charger that suspends charging.
    """
    found = status_name(raw, capi=capi)
    if found == "Error":
        return "Faulted"
    if found == "Connected":
        waiting = in_session and (mode or "").lower() in {"off", "schedule"}
        return "SuspendedEVSE" if waiting else "Preparing"
    return found


def error_code(raw: str | None, status: str | None) -> str:
    """Return the OCPP error code; OtherError for a fault without a known one."""
    known = _ERROR_CODES.get((raw or "").lower())
    if status == "Faulted":
        return known if known is not None and known != "NoError" else "OtherError"
    return known or "NoError"
