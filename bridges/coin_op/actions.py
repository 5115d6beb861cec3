"""What an operator has set for a station, and what a station may ask to be done beside being reported."""

from decimal import Decimal
from typing import Any

from msgspec import Struct

from csms.core.reports import Report

NEVER, AT_MAX_DEBT = "never", "at_max_debt"


class StationRules(Struct, frozen=True, kw_only=True):
    """What an operator has set. `max_debt` in the account's major unit."""

    power_scale: str = "auto"
    energy_mode: str = "auto"
    rated_power_w: float = 3680
    answer_s: float = 15
    meter_interval_s: float = 60
    probe_interval_s: float = 300
    autostop: str = NEVER
    max_debt: Decimal = Decimal(100)


class SendHello(Struct, frozen=True):
    """Ask the station how it is (hello)."""


class ReachabilityChange(Struct, frozen=True):
    """The station can be reached, or not any more."""

    online: bool


class SendStop(Struct, frozen=True):
    """Send the running rental's stop, once: the operator has said so beforehand."""


class StationAlarm(Struct, frozen=True):
    """Somebody should look."""

    kind: str


class StationAnomaly(Struct, frozen=True):
    """Something to count."""

    kind: str


StationAction = Report[Any] | SendHello | ReachabilityChange | SendStop | StationAlarm | StationAnomaly
