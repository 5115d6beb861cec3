"""What a frame says of the charger, in OCPP's words: one table, first match wins. Pure."""

from typing import Final

from msgspec import Struct

from bridges.ev_meter.frame import WorkingInfo

# EV status: 0 unknown, 1 A, 2 B, 3 C, 4 D, 5 E or F of IEC 61851.
NOT_CONNECTED, CONNECTED, WANTS_TO_CHARGE, NEEDS_VENTILATION, ERROR_STATE = 1, 2, 3, 4, 5
_PLUGGED: Final = {CONNECTED, WANTS_TO_CHARGE, NEEDS_VENTILATION}
# Charging state: 1 not offering, 2 and 3 contactor closed, 5 and 6 the same in always-on mode; 4 and 7 ready.
_NOT_OFFERING: Final = 1
_CLOSED: Final = {2, 3, 5, 6}
_LEAST_CURRENT_A: Final = 0.5
SINGLE_PHASE, THREE_PHASE = 1, 2
_MOST_V, _MOST_A = 500, 100


class ConnectorStatus(Struct, frozen=True):
    """A connector's status as OCPP 1.6 has it."""

    status: str
    error_code: str = "NoError"
    info: str | None = None
    vendor_error_code: str | None = None


CHARGER_OFFLINE: Final = ConnectorStatus("Unavailable", info="offline")


def plugged(info: WorkingInfo) -> bool:
    return info.ev_status in _PLUGGED


def flowing(info: WorkingInfo) -> bool:
    return any(current >= _LEAST_CURRENT_A for current in info.current_a)


def charging(info: WorkingInfo) -> bool:
    """Energy flows, and nothing is wrong."""
    return connector_status(info, in_session=True, had_session=False, previous=None) == ConnectorStatus(
        "Charging"
    )


def measured(info: WorkingInfo) -> bool:
    """Whether voltages and currents are any that a charger could have."""
    return max(info.voltage_v) <= _MOST_V and max(info.current_a) <= _MOST_A


def connector_status(
    info: WorkingInfo, *, in_session: bool, had_session: bool, previous: ConnectorStatus | None
) -> ConnectorStatus | None:
    """The status a frame means. `had_session`: one has ended since the car was plugged in. Warnings do not count."""
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
        return ConnectorStatus("Finishing" if had_session else "Preparing")
    if info.charging_state == _NOT_OFFERING or (state == NEEDS_VENTILATION and not closed):
        return ConnectorStatus("SuspendedEVSE")
    return ConnectorStatus("SuspendedEV" if info.set_current_a else "SuspendedEVSE")


def active_phases(info: WorkingInfo) -> tuple[int, ...]:
    """0 to 2 for L1 to L3. What the others show is noise; of an unknown kind, those with a current count."""
    if info.phase_type == THREE_PHASE:
        return (0, 1, 2)
    if info.phase_type == SINGLE_PHASE:
        return (0,)
    return tuple(i for i, current in enumerate(info.current_a) if current >= _LEAST_CURRENT_A) or (0,)
