"""What a station's tracker asks its handler to do."""

from typing import Any

from msgspec import Struct

from csms.core.reports import Report


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
