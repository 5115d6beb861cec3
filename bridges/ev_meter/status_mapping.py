"""The state in a frame as an OCPP 1.6 status: the first rule that matches applies. Pure."""

from typing import Final

from msgspec import Struct

from bridges.ev_meter.frame import WorkingInfo

# EV status: 0 unknown, 1 to 4 the states A to D of IEC 61851, 5 its states E and F.
NOT_CONNECTED, CONNECTED, WANTS_TO_CHARGE, NEEDS_VENTILATION, ERROR_STATE = 1, 2, 3, 4, 5
_PLUGGED: Final = {CONNECTED, WANTS_TO_CHARGE, NEEDS_VENTILATION}
# Charging state: 1 not offering; 2 and 3 contactor closed, 5 and 6 the same in always-on mode; 4 and 7 ready.
_NOT_OFFERING: Final = 1
_CLOSED: Final = {2, 3, 5, 6}
_MIN_CURRENT_A: Final = 0.5
SINGLE_PHASE, THREE_PHASE = 1, 2
_MAX_V, _MAX_A = 500, 100


class ConnectorStatus(Struct, frozen=True):
    """The status of a connector in OCPP 1.6 terms."""

    status: str
    error_code: str = "NoError"
    info: str | None = None
    vendor_error_code: str | None = None


CHARGER_OFFLINE: Final = ConnectorStatus("Unavailable", info="offline")


def plugged(info: WorkingInfo) -> bool:
    return info.ev_status in _PLUGGED


def flowing(info: WorkingInfo) -> bool:
    return any(current >= _MIN_CURRENT_A for current in info.current_a)


def charging(info: WorkingInfo) -> bool:
    """Return whether energy flows and the charger reports no error."""
    status = connector_status(info, in_session=True, session_since_plugged=False, previous=None)
    return status == ConnectorStatus("Charging")


def measured(info: WorkingInfo) -> bool:
    """Return whether voltages and currents are plausible."""
    return max(info.voltage_v) <= _MAX_V and max(info.current_a) <= _MAX_A


def connector_status(
    info: WorkingInfo, *, in_session: bool, session_since_plugged: bool, previous: ConnectorStatus | None
) -> ConnectorStatus | None:
    """Map a frame. `previous` is kept for undocumented EV statuses; warnings have no effect.

    `session_since_plugged`: a session has ended since the car was plugged in.
    """
    closed, state = info.charging_state in _CLOSED, info.ev_status
    if state == ERROR_STATE or info.errors:
        return ConnectorStatus("Faulted", "OtherError", vendor_error_code=f"errors=0x{info.errors:02x}")
    if state == NOT_CONNECTED:
        return ConnectorStatus("Available")
    if state not in _PLUGGED:
        return previous
    if state != CONNECTED and closed and flowing(info):
        return ConnectorStatus("Charging")
    if not in_session:
        return ConnectorStatus("Finishing" if session_since_plugged else "Preparing")
    if info.charging_state == _NOT_OFFERING or (state == NEEDS_VENTILATION and not closed):
        return ConnectorStatus("SuspendedEVSE")
    return ConnectorStatus("SuspendedEV" if info.set_current_a else "SuspendedEVSE")


def active_phases(info: WorkingInfo) -> tuple[int, ...]:
    """Return the phases in use: 0 to 2 for L1 to L3. The values of the others are noise.

    With an unknown phase type, these are the phases with a current.
    """
    if info.phase_type == THREE_PHASE:
        return (0, 1, 2)
    if info.phase_type == SINGLE_PHASE:
        return (0,)
    return tuple(i for i, current in enumerate(info.current_a) if current >= _MIN_CURRENT_A) or (0,)
