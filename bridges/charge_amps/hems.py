"""HEMS mode: execute the commands of an energy management system for one connector."""

from datetime import datetime
from typing import Final

import structlog

from bridges.charge_amps.cloud import CloudError
from bridges.charge_amps.config import ChargeAmpsConfig
from bridges.charge_amps.schedule_sync import ScheduleSync
from bridges.charge_amps.weekly_schedule import HorizonTooLong
from csms.adapter import BrokerMessage
from csms.scheduling.hems import INVALID_SCHEDULE, HemsRefused, read_schedule
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
        log.warning("hems_past_periods_ignored", topic=message.topic, periods=schedule.past)
    desired = DesiredPlan(
        source=HEMS, periods=schedule.periods, expires_at=schedule.expires_at, source_id=schedule.source_id
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
