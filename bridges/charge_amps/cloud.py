"""What the bridge needs of Charge Amps' cloud, whichever of its APIs gives it."""

from datetime import datetime
from decimal import Decimal
from typing import Protocol

from msgspec import Struct

from bridges.charge_amps.weekly_schedule import WeeklyPeriod, WeeklySchedule


class CloudError(Exception):
    """A request came to nothing. A sentence without secrets."""


class CloudUnavailable(CloudError):
    """No usable answer: worth another try. `done_perhaps`: it was a write, and it may have been carried out."""

    def __init__(
        self, message: str, *, retry_after_s: float | None = None, done_perhaps: bool = False
    ) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s
        self.done_perhaps = done_perhaps


class CloudRefused(CloudError):
    """The cloud has understood and does not want to."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


class LoginRefused(CloudRefused):
    """Wrong e-mail, password or API key, or no right to it."""


class CloudCapabilities(Struct, frozen=True, kw_only=True):
    """What a backend can do. `session_energy`: energy counts from 0 in each session."""

    sessions: bool = False
    session_energy: bool = False
    schedules: bool = False
    modes: bool = False
    remote_start: bool = False
    reboot: bool = False


class Phase(Struct, frozen=True):
    name: str  # L1, L2, L3
    current_a: Decimal | None = None
    voltage_v: Decimal | None = None


class PolledConnector(Struct, frozen=True, kw_only=True):
    """A connector as polled; None: the cloud does not say. `status` as the cloud words it."""

    number: int
    status: str | None = None
    mode: str | None = None
    energy_kwh: Decimal | None = None
    power_w: int | None = None
    phases: tuple[Phase, ...] = ()
    session_id: str | None = None
    session_started_at: datetime | None = None
    session_ended_at: datetime | None = None
    error_code: str | None = None


class CloudChargePoint(Struct, frozen=True, kw_only=True):
    """`capi`: one of the older kind, with status words of its own."""

    id: str
    name: str | None = None
    model: str | None = None
    firmware: str | None = None
    online: bool = False
    capi: bool = False
    connectors: tuple[PolledConnector, ...] = ()


class CloudSession(Struct, frozen=True, kw_only=True):
    """A session of the cloud's history; open while `ended_at` is None."""

    id: str
    connector_id: int
    started_at: datetime
    ended_at: datetime | None = None
    energy_kwh: Decimal | None = None
    rfid: str | None = None
    user_id: str | None = None
    external_id: str | None = None


class StoredSchedule(Struct, frozen=True, kw_only=True):
    """A schedule read back."""

    id: str
    connector_id: int
    start: datetime | None
    periods: tuple[WeeklyPeriod, ...]
    active: bool = True
    synced: bool = False

    def holds(self, week: WeeklySchedule) -> bool:
        """Whether this is what `week` asks for."""
        return (self.start, self.periods) == (week.start, week.periods) and self.active


class ChargeAmpsCloud(Protocol):
    """Raises CloudError. Reads may be repeated by the backend, writes never are."""

    @property
    def capabilities(self) -> CloudCapabilities: ...

    async def charge_points(self) -> tuple[CloudChargePoint, ...]:
        """Those of the account, with what is known of their connectors."""

    async def status(self, charge_point: CloudChargePoint) -> CloudChargePoint:
        """The same charge point as it is now."""

    async def sessions(self, charge_point_id: str, since: datetime) -> tuple[CloudSession, ...]:
        """History from `since`, oldest first."""

    async def session(self, charge_point_id: str, session_id: str) -> CloudSession | None: ...

    async def schedule(self, charge_point_id: str, connector_id: int) -> StoredSchedule | None: ...

    async def put_schedule(
        self, charge_point_id: str, connector_id: int, week: WeeklySchedule, time_zone: str
    ) -> str | None:
        """Replace the connector's whole weekly schedule; its new id. Puts the connector into mode Schedule."""

    async def delete_schedule(self, charge_point_id: str, connector_id: int) -> None:
        """Done as well when there was none."""

    async def set_mode(self, charge_point_id: str, connector_id: int, mode: str) -> None:
        """On, Off or Schedule."""

    async def start(self, charge_point_id: str, connector_id: int, rfid: str, reference: str) -> bool:
        """False: there was nothing to start."""

    async def stop(self, charge_point_id: str, connector_id: int) -> bool:
        """False: there was nothing to stop."""

    async def reboot(self, charge_point_id: str) -> None: ...

    async def close(self) -> None: ...
