"""HEMS mode: the commands of an energy management system for one connector, and the status that it gets."""

from datetime import datetime
from typing import Final

import structlog

from bridges.charge_amps.cloud import CloudError, PolledConnector
from bridges.charge_amps.config import ChargeAmpsConfig
from bridges.charge_amps.schedule_sync import ScheduleSync, SyncState
from bridges.charge_amps.session_accounting import SessionAccounting
from bridges.charge_amps.weekly_schedule import HorizonTooLong
from csms.adapter import BrokerMessage
from csms.scheduling.hems import (
    INVALID_SCHEDULE,
    HemsRefused,
    HemsStatus,
    hems_state,
    iso_time,
    read_schedule,
)
from csms.scheduling.periods import current_or_next
from csms.scheduling.plan_delivery import HEMS, DesiredPlan

log = structlog.get_logger()
NOT_APPLIED: Final = "Failed to apply schedule to charger"
NOT_CLEARED: Final = "Failed to clear schedule"


def topic_name(charge_point_id: str, connector_id: int, *, primary: bool) -> str:
    """Return the name of a connector in HEMS topics: its number alone on the primary charge point."""
    return str(connector_id) if primary else f"{charge_point_id}-{connector_id}"


async def apply_command(
    message: BrokerMessage, sync: ScheduleSync, config: ChargeAmpsConfig, now: datetime
) -> bool:
    """Execute a command; its result is noted in `sync.state`. Return False if the message has none."""
    if message.topic.endswith("/schedule/clear"):
        # A retained clear would delete newer schedules at every reconnect.
        if message.retained:
            return False
        await _clear(sync)
        return True
    if not message.topic.endswith("/schedule/set") or not message.body:
        return False
    try:
        schedule = read_schedule(message.body, now=now, zone=config.zone, default_current_a=config.current_a)
    except HemsRefused as error:
        log.error("hems_schedule_refused", topic=message.topic, error=error.text, detail=error.detail)
        await sync.note_command("error", error.text)
        return True
    if schedule.past:
        log.warning("hems_periods_in_past", topic=message.topic, periods=schedule.past)
    desired = DesiredPlan(
        source=HEMS,
        periods=schedule.periods,
        expires_at=schedule.expires_at,
        source_id=schedule.source_id,
    )
    try:
        await sync.apply(desired)
    except HorizonTooLong as error:
        log.error("hems_schedule_refused", topic=message.topic, error=INVALID_SCHEDULE, detail=str(error))
        await sync.note_command("error", INVALID_SCHEDULE)
    except CloudError as error:
        log.error("hems_schedule_not_applied", topic=message.topic, error=str(error))
        await sync.note_command("error", NOT_APPLIED)
    else:
        await sync.note_command("success")
    return True


async def _clear(sync: ScheduleSync) -> None:
    try:
        await sync.apply(DesiredPlan(source=HEMS))
    except CloudError as error:
        log.error("hems_schedule_not_cleared", error=str(error))
        await sync.note_command("error", NOT_CLEARED)
    else:
        await sync.note_command("cleared")


def status(
    *,
    charge_point_id: str,
    connector_id: int,
    online: bool,
    ready: bool,
    accounting: SessionAccounting | None,
    polled: PolledConnector | None,
    state: SyncState,
    now: datetime,
) -> HemsStatus:
    """Return the status for the HEMS. Unknown values are null."""
    charger_state = hems_state(accounting.last_status if accounting is not None else None, online=online)
    period = current_or_next(state.periods, now)
    power_w = polled.power_w if polled is not None and online else None
    command_at = iso_time(state.last_command_at)
    return HemsStatus(
        state=charger_state,
        charger_state=charger_state,
        ready_for_schedule=ready and charger_state not in {"error", "offline"},
        schedule_source=state.source,
        schedule_active=state.source != "none",
        next_period_start=iso_time(period.start) if period is not None else None,
        next_period_end=iso_time(period.end) if period is not None else None,
        current_power_kw=None if power_w is None else power_w / 1000,
        session_energy_kwh=accounting.session_energy_kwh if accounting is not None else None,
        current_schedule_id=state.schedule_id,
        last_hems_command_at=command_at,
        last_command_at=command_at,
        last_command_result=state.last_command_result,
        error=state.error,
        charge_point_id=charge_point_id,
        connector_id=connector_id,
        source_id=state.source_id,
        expires_at=iso_time(state.expires_at),
        timestamp=iso_time(now) or "",
    )
