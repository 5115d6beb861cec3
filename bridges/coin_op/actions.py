"""What an operator configures for a station, and what its tracker asks for besides the recording of reports."""

from decimal import Decimal
from typing import Any

from msgspec import Struct

from csms.core.reports import Report

NEVER, AT_MAX_DEBT = "never", "at_max_debt"


class StationRules(Struct, frozen=True, kw_only=True):
    """An operator's settings for a station. `max_debt` is in the major unit of the account's currency."""

    power_scale: str = "auto"
    energy_mode: str = "auto"
    rated_power_w: float = 3680
    answer_s: float = 15
    meter_interval_s: float = 60
    probe_interval_s: float = 300
    autostop: str = NEVER
    max_debt: Decimal = Decimal(100)


class SendHello(Struct, frozen=True):
    """Send `hello`, which makes the station send its status."""


class SendStop(Struct, frozen=True):
    """Send `stop` for the open rental, once. An operator has configured this (COINOP_AUTOSTOP)."""


class ReachabilityChange(Struct, frozen=True):
    """The station has become reachable, or unreachable."""

    online: bool


class StationAlarm(Struct, frozen=True):
    """A condition that an operator must look at."""

    kind: str


class StationAnomaly(Struct, frozen=True):
    """A deviation in what a station sends, to be counted."""

    kind: str


StationAction = Report[Any] | SendHello | SendStop | ReachabilityChange | StationAlarm | StationAnomaly
