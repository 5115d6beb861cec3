"""What a simulated charge point knows of its transactions and calls, to compare with the central system."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any


@dataclass(slots=True)
class BelievedTransaction:
    """One transaction as the charge point knows it.

    `transaction_id`, `id_tag_info` and `id_tag_status` are the central system's answer to its start, None without one.
    `lost`: a message of it was dropped. `key` is the charge point's own number for it.
    """

    connector_id: int
    id_tag: str
    meter_start_wh: int
    started_at: datetime
    transaction_id: int | None = None
    id_tag_info: Mapping[str, Any] | None = None
    start_answered: bool = False
    meter_stop_wh: int | None = None
    stopped_at: datetime | None = None
    stop_reason: str | None = None
    stop_acknowledged: bool = False
    meter_values: int = 0
    meter_values_acknowledged: int = 0
    lost: bool = False
    key: int = -1

    @property
    def id_tag_status(self) -> str | None:
        return None if self.id_tag_info is None else str(self.id_tag_info["status"])

    @property
    def energy_wh(self) -> int | None:
        return None if self.meter_stop_wh is None else self.meter_stop_wh - self.meter_start_wh


@dataclass(slots=True)
class Counters:
    """`calls` = `answers` + `callerrors` + `invalid_answers` (against the schema) + `timeouts` + those cut off by a closed
    connection. `refused` counts drivers whose tag was refused, `lost` messages that were dropped.
    """

    calls: int = 0
    answers: int = 0
    callerrors: int = 0
    transaction_callerrors: int = 0
    invalid_answers: int = 0
    timeouts: int = 0
    resends: int = 0
    lost: int = 0
    connections: int = 0
    boots: int = 0
    refused: int = 0

    def add(self, other: "Counters") -> None:
        for field in fields(self):
            setattr(self, field.name, getattr(self, field.name) + getattr(other, field.name))


@dataclass(frozen=True, slots=True)
class ChargerEvent:
    """An event to show to a user. `kind`: connected, disconnected, connect_failed, booted, status, refused,
    started, start_answered, stopped, resend, lost, callerror."""

    charge_point: str
    kind: str
    detail: str = ""
    connector_id: int | None = None
