"""What an energy management system asks for over MQTT: a schedule, checked as a whole before anything is done."""

from datetime import UTC, datetime, tzinfo
from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta, Struct

from csms.scheduling.periods import ChargePeriod, PeriodsOverlap, as_utc, merge_periods, remaining_periods

INVALID_SCHEDULE = "Invalid schedule payload"
SCHEDULE_EXPIRED = "Schedule already expired"
NO_PERIODS_LEFT = "No valid periods after conversion"

_HEMS_STATES: Final[dict[str, str]] = {
    "Available": "idle",
    "Reserved": "idle",
    "Preparing": "plugged_in",
    "SuspendedEV": "plugged_in",
    "SuspendedEVSE": "plugged_in",
    "Finishing": "plugged_in",
    "Charging": "charging",
    "Unavailable": "error",
    "Faulted": "error",
}

_Current = Annotated[float, Meta(ge=6, le=32)]
_Time = Annotated[str, Meta(min_length=16)]  # a date alone is no moment


class HemsRefused(ValueError):
    """The message is not followed. `text` is for the status, `detail` for the log."""

    def __init__(self, text: str, detail: str = "") -> None:
        super().__init__(f"{text}: {detail}" if detail else text)
        self.text = text
        self.detail = detail


class HemsSchedule(Struct, frozen=True, kw_only=True):
    """A schedule as asked for: periods that are not over, in order. It ends when now > `expires_at`."""

    periods: tuple[ChargePeriod, ...]
    expires_at: datetime | None = None
    source_id: str | None = None
    past: int = 0


class HemsRequest(Struct, frozen=True, kw_only=True):
    """The last that a HEMS asked of a charger, as it is kept; without periods nothing is wanted.

    `digest` names the last message, so that a retained one counts once. `result`: pending, success, error, cleared,
    expired.
    """

    periods: tuple[ChargePeriod, ...] = ()
    expires_at: datetime | None = None
    source_id: str | None = None
    digest: str | None = None
    command_at: datetime | None = None
    result: str | None = None
    error: str | None = None


class HemsStatus(Struct, frozen=True, kw_only=True):
    """What a HEMS is told, on `…/status`. `charger_state` and `last_command_at` are older names of the same."""

    state: str
    charger_state: str
    ready_for_schedule: bool
    schedule_source: str
    schedule_active: bool
    next_period_start: str | None
    next_period_end: str | None
    current_power_kw: float | None
    session_energy_kwh: float | None
    current_schedule_id: str | None
    last_hems_command_at: str | None
    last_command_at: str | None
    last_command_result: str | None
    error: str | None
    charge_point_id: str
    connector_id: int
    source_id: str | None
    expires_at: str | None
    timestamp: str


def hems_state(status: str | None, *, online: bool) -> str:
    """idle, plugged_in, charging, error or offline."""
    if not online:
        return "offline"
    return _HEMS_STATES.get(status or "", "error")


def iso_time(moment: datetime | None) -> str | None:
    return None if moment is None else moment.astimezone(UTC).isoformat(timespec="seconds")


def without_measurements(payload: Struct) -> dict[str, Any]:
    """What makes two statuses differ; and meters count all the time."""
    content: dict[str, Any] = msgspec.to_builtins(payload)
    for name in ("timestamp", "current_power_kw", "session_energy_kwh"):
        content.pop(name, None)
    return content


class _Period(Struct):
    start: _Time
    end: _Time
    max_current: _Current | None = None


class _Message(Struct):
    periods: Annotated[list[_Period], Meta(min_length=1, max_length=700)]
    max_current: _Current | None = None
    expires_at: _Time | None = None
    source: str | None = None
    source_id: str | None = None


def read_schedule(body: bytes, *, now: datetime, zone: tzinfo, default_current_a: float) -> HemsSchedule:
    """One bad period refuses the whole message. A time without an offset is local time of `zone`.

    Raises HemsRefused.
    """
    try:
        message = msgspec.json.decode(body, type=_Message)
    except (msgspec.MsgspecError, ValueError) as error:
        raise HemsRefused(INVALID_SCHEDULE, str(error)) from None
    expires_at = None if message.expires_at is None else _time(message.expires_at, zone, "expires_at")
    if expires_at is not None and now > expires_at:
        raise HemsRefused(SCHEDULE_EXPIRED, f"expires_at is {expires_at.isoformat()}")
    try:
        periods = merge_periods(
            _period(period, number, message.max_current or default_current_a, zone)
            for number, period in enumerate(message.periods)
        )
    except PeriodsOverlap as error:
        raise HemsRefused(INVALID_SCHEDULE, str(error)) from None
    left = remaining_periods(periods, now)
    if not left:
        raise HemsRefused(NO_PERIODS_LEFT, "all periods are over")
    return HemsSchedule(
        periods=left,
        expires_at=expires_at,
        source_id=message.source_id or message.source,
        past=len(periods) - len(left),
    )


def _period(period: _Period, number: int, default_a: float, zone: tzinfo) -> ChargePeriod:
    start = _time(period.start, zone, f"periods[{number}].start")
    end = _time(period.end, zone, f"periods[{number}].end")
    if end <= start:
        raise HemsRefused(INVALID_SCHEDULE, f"periods[{number}] ends at or before its start")
    return ChargePeriod(start, end, period.max_current or default_a)


def _time(text: str, zone: tzinfo, where: str) -> datetime:
    try:
        return as_utc(datetime.fromisoformat(text), zone)
    except (ValueError, OverflowError) as error:
        raise HemsRefused(INVALID_SCHEDULE, f"{where}: {error}") from None
