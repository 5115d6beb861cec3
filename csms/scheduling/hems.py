"""Schedules that a home energy management system (HEMS) requests over MQTT: validation, state and status."""

from datetime import UTC, datetime, tzinfo
from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta, Struct

from csms.outside import UnusableDocument, read_json
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
_Time = Annotated[str, Meta(min_length=16)]  # a date alone is not enough


class HemsRefused(ValueError):
    """The message is rejected. `text` is published in the status, `detail` logged."""

    def __init__(self, text: str, detail: str = "") -> None:
        super().__init__(f"{text}: {detail}" if detail else text)
        self.text = text
        self.detail = detail


class HemsSchedule(Struct, frozen=True, kw_only=True):
    """A requested schedule: the periods that have not ended, sorted, and the number that have (`past`).

    It ends when now > `expires_at`.
    """

    periods: tuple[ChargePeriod, ...]
    expires_at: datetime | None = None
    source_id: str | None = None
    past: int = 0


class HemsRequest(Struct, frozen=True, kw_only=True):
    """The last request of a HEMS for a charger, as it is stored. Without periods no schedule is requested.

    `digest` identifies the last message, so that a retained one counts once. `result`: pending, success, error,
    cleared, expired.
    """

    periods: tuple[ChargePeriod, ...] = ()
    expires_at: datetime | None = None
    source_id: str | None = None
    digest: str | None = None
    command_at: datetime | None = None
    result: str | None = None
    error: str | None = None


class HemsStatus(Struct, frozen=True, kw_only=True):
    """The payload published on `…/status`.

    `charger_state` and `last_command_at` are older names of `state` and `last_hems_command_at`.
    """

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
    """Return the HEMS state of an OCPP status: idle, plugged_in, charging, error or offline."""
    if not online:
        return "offline"
    return _HEMS_STATES.get(status or "", "error")


def iso_time(at: datetime | None) -> str | None:
    """Return a time in ISO 8601, UTC, to the second."""
    return None if at is None else at.astimezone(UTC).isoformat(timespec="seconds")


def without_measurements(payload: Struct) -> dict[str, Any]:
    """Return what makes a status new: all but its time, power and energy, which always change."""
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
    """Decode a requested schedule. A time without an offset is in `zone`.

    Raises HemsRefused; a single malformed period rejects the whole message.
    """
    try:
        message = read_json(body, _Message)
    except UnusableDocument as error:
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
    remaining = remaining_periods(periods, now)
    if not remaining:
        raise HemsRefused(NO_PERIODS_LEFT, "all periods have ended")
    return HemsSchedule(
        periods=remaining,
        expires_at=expires_at,
        source_id=message.source_id or message.source,
        past=len(periods) - len(remaining),
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
