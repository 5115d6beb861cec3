"""The energy management system's side: its commands for one connector, and the status it gets."""

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
    """How a connector is called in topics: by its number alone on the primary charger."""
    return str(connector_id) if primary else f"{charge_point_id}-{connector_id}"


async def apply_command(
    heard: BrokerMessage, keeper: ScheduleSync, config: ChargeAmpsConfig, now: datetime
) -> bool:
    """Follow a command. False: there was none in it. What goes wrong is in `keeper.kept` afterwards."""
    if heard.topic.endswith("/schedule/clear"):
        # A retained one would clear at every reconnect, whatever was asked for since.
        if heard.retained:
            return False
        await _clear(keeper)
        return True
    if not heard.topic.endswith("/schedule/set") or not heard.body:
        return False
    try:
        schedule = read_schedule(heard.body, now=now, zone=config.zone, default_current_a=config.current_a)
    except HemsRefused as refused:
        log.error("HEMS schedule refused", topic=heard.topic, error=refused.text, detail=refused.detail)
        await keeper.command("error", refused.text)
        return True
    if schedule.past:
        log.warning("HEMS periods are over and left out", topic=heard.topic, periods=schedule.past)
    wanted = DesiredPlan(
        source=HEMS,
        periods=schedule.periods,
        expires_at=schedule.expires_at,
        source_id=schedule.source_id,
    )
    try:
        await keeper.want(wanted)
    except HorizonTooLong as error:
        log.error("HEMS schedule refused", topic=heard.topic, error=str(error))
        await keeper.command("error", INVALID_SCHEDULE)
    except CloudError as error:
        log.error("HEMS schedule not applied", topic=heard.topic, error=str(error))
        await keeper.command("error", NOT_APPLIED)
    else:
        await keeper.command("success")
    return True


async def _clear(keeper: ScheduleSync) -> None:
    try:
        await keeper.want(DesiredPlan(source=HEMS))
    except CloudError as error:
        log.error("HEMS schedule not cleared", error=str(error))
        await keeper.command("error", NOT_CLEARED)
    else:
        await keeper.command("cleared")


def status(
    *,
    charge_point_id: str,
    connector_id: int,
    online: bool,
    ready: bool,
    books: SessionAccounting | None,
    view: PolledConnector | None,
    kept: SyncState,
    now: datetime,
) -> HemsStatus:
    """What a HEMS is told. What is not known is null."""
    state = hems_state(books.last_status if books is not None else None, online=online)
    period = current_or_next(kept.periods, now)
    in_session = books is not None and books.running is not None
    session_kwh = (
        (books.register_wh - books.running.meter_start_wh) / 1000
        if books is not None and books.running is not None
        else None
    )
    power_w = view.power_w if view is not None and online else None
    command_at = iso_time(kept.last_command_at)
    return HemsStatus(
        state=state,
        charger_state=state,
        ready_for_schedule=ready and state not in {"error", "offline"},
        schedule_source=kept.source,
        schedule_active=kept.source != "none",
        next_period_start=iso_time(period.start) if period is not None else None,
        next_period_end=iso_time(period.end) if period is not None else None,
        current_power_kw=None if power_w is None else power_w / 1000,
        session_energy_kwh=session_kwh if in_session else None,
        current_schedule_id=kept.schedule_id,
        last_hems_command_at=command_at,
        last_command_at=command_at,
        last_command_result=kept.last_command_result,
        error=kept.error,
        charge_point_id=charge_point_id,
        connector_id=connector_id,
        source_id=kept.source_id,
        expires_at=iso_time(kept.expires_at),
        timestamp=iso_time(now) or "",
    )
