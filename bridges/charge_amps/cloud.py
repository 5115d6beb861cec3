"""What the bridge needs of Charge Amps' cloud, independent of which of its two APIs provides it."""

from abc import ABC, abstractmethod
from datetime import datetime
from decimal import Decimal
from typing import ClassVar

from msgspec import Struct

from bridges.charge_amps.weekly_schedule import WeeklyPeriod, WeeklySchedule
from csms.errors import NotSupported


class CloudError(Exception):
    """A request failed. The text is a sentence without secrets."""


class CloudUnavailable(CloudError):
    """There was no usable answer; another attempt may succeed. `maybe_done`: a write may have been carried out."""

    def __init__(self, message: str, *, retry_after_s: float | None = None, maybe_done: bool = False) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s
        self.maybe_done = maybe_done


class CloudRefused(CloudError):
    """The cloud has refused the request with an HTTP status."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


class LoginRefused(CloudRefused):
    """E-mail, password or API key are wrong, or lack the right."""


class PhaseMeasurement(Struct, frozen=True):
    name: str  # L1, L2, L3
    current_a: Decimal | None = None
    voltage_v: Decimal | None = None


class PolledConnector(Struct, frozen=True, kw_only=True):
    """A connector as polled. None: not in the answer. `status` is the vendor's, see status_mapping.py."""

    connector_id: int
    status: str | None = None
    mode: str | None = None
    energy_kwh: Decimal | None = None
    power_w: int | None = None
    phases: tuple[PhaseMeasurement, ...] = ()
    session_id: str | None = None
    session_started_at: datetime | None = None
    session_ended_at: datetime | None = None
    error_code: str | None = None


class CloudChargePoint(Struct, frozen=True, kw_only=True):
    """A charger of the account. `capi`: one of the older generation, whose statuses differ."""

    id: str
    name: str | None = None
    model: str | None = None
    firmware: str | None = None
    online: bool = False
    capi: bool = False
    connectors: tuple[PolledConnector, ...] = ()


class CloudSession(Struct, frozen=True, kw_only=True):
    """A session of the cloud's history. It is open while `ended_at` is None."""

    id: str
    connector_id: int
    started_at: datetime
    ended_at: datetime | None = None
    energy_kwh: Decimal | None = None
    rfid: str | None = None
    user_id: str | None = None
    external_id: str | None = None


class StoredSchedule(Struct, frozen=True, kw_only=True):
    """The weekly schedule of a connector, as read back."""

    id: str
    connector_id: int
    start: datetime | None
    periods: tuple[WeeklyPeriod, ...]
    active: bool = True

    def holds(self, week: WeeklySchedule) -> bool:
        """Return whether this is the schedule `week`."""
        return (self.start, self.periods) == (week.start, week.periods) and self.active


class ChargeAmpsCloud(ABC):
    """One of the vendor's APIs. All calls raise CloudError. Reads may be repeated, writes are sent once."""

    has_sessions: ClassVar[bool] = False

    @abstractmethod
    async def charge_points(self) -> tuple[CloudChargePoint, ...]:
        """Return the charge points of the account, with what is known of their connectors."""

    @abstractmethod
    async def status(self, charge_point: CloudChargePoint) -> CloudChargePoint:
        """Return the same charge point with its present status."""

    async def sessions(self, charge_point_id: str, since: datetime) -> tuple[CloudSession, ...]:
        """Return the history from `since`, oldest first; empty without `has_sessions`."""
        return ()

    async def session(self, charge_point_id: str, session_id: str) -> CloudSession | None:
        """Return one session of the history; None: it is unknown (yet)."""
        return None

    @abstractmethod
    async def set_mode(self, charge_point_id: str, connector_id: int, mode: str) -> None:
        """Set a connector's mode: On, Off or Schedule."""

    @abstractmethod
    async def start(self, charge_point_id: str, connector_id: int, rfid: str, reference: str) -> bool:
        """Start a session. False: there was nothing to start."""

    @abstractmethod
    async def stop(self, charge_point_id: str, connector_id: int) -> bool:
        """Stop the session. False: there was nothing to stop."""

    async def reboot(self, charge_point_id: str) -> None:
        """Reboot a charger. Raises NotSupported for an API that cannot."""
        raise NotSupported(f"{charge_point_id} is reached through Charge Amps' cloud: no Reset.")

    @abstractmethod
    async def close(self) -> None: ...
