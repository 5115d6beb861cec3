"""What the tracker of a charger observes in its frames, for the ledger and the operator."""

from datetime import datetime
from typing import Final, Literal

from msgspec import Struct

from bridges.ev_meter.frame import WorkingInfo
from bridges.ev_meter.status_mapping import ConnectorStatus

METER_START_ESTIMATED: Final = "meter_start_estimated"
METER_STOP_ESTIMATED: Final = "meter_stop_estimated"
MISSED_SESSION: Final = "missed_session"


class SessionBegan(Struct, frozen=True, kw_only=True):
    key: str
    meter_wh: int
    at: datetime
    anomalies: tuple[str, ...] = ()


class RegisterRead(Struct, frozen=True, kw_only=True):
    """A reading. `published` False: the register alone, outside a session, which updates the record only.

    `deferred`: the register follows the session counter, because the charger's total stands still.
    """

    info: WorkingInfo
    register_wh: int
    at: datetime
    published: bool = True
    deferred: bool = False


class SessionEnded(Struct, frozen=True, kw_only=True):
    """`closing`: the final register is not on record yet, so it must be recorded with the stop."""

    meter_wh: int
    at: datetime
    reason: str
    anomalies: tuple[str, ...] = ()
    closing: bool = False


class OperatorNote(Struct, frozen=True):
    """A line for the operator's log. `energy_wh`: the energy of a missed session."""

    code: Literal[
        "session_given_up",
        "register_implausible",
        "register_deferred",
        "meter_replaced",
        "missed_session_recorded",
        "missed_session_ignored",
    ]
    energy_wh: int | None = None


Observation = SessionBegan | RegisterRead | SessionEnded | ConnectorStatus | OperatorNote
