"""Smart charging: the profiles a charger has taken, and what they come to."""

from csms.api.chargers import ChargerId
from csms.api.device_state_models import (
    ChargingProfileOut,
    ChargingProfiles,
    CompositeIn,
    CompositeOut,
    PeriodOut,
)
from csms.api.security import Context, Operator, guarded_router, viewer
from csms.core.command_answers import as_objects, parse_time
from csms.core.composite_schedule import schedules_agree
from csms.db import device_state_views
from csms.service.chargers import known
from csms.service.commands import perform

router = guarded_router(prefix="/chargers", tags=["smart charging"])


@router.get("/{charger_id:segment}/charging-profiles", dependencies=[viewer])
async def list_profiles(context: Context, charger_id: ChargerId, past: bool = False) -> ChargingProfiles:
    """The profiles installed on a charger by all we know. `past`: replaced and cleared ones too.

    Profiles are set and cleared with the commands SetChargingProfile and ClearChargingProfile.
    """
    await known(context, charger_id)
    async with context.engine.connect() as db:
        rows = await device_state_views.list_profiles(db, charger_id, past=past)
    return ChargingProfiles(items=[ChargingProfileOut.model_validate(row) for row in rows])


@router.post("/{charger_id:segment}/composite-schedule")
async def composite_schedule(
    context: Context, charger_id: ChargerId, asked: CompositeIn, who: Operator
) -> CompositeOut:
    """What limits a connector from now on, by our own reckoning, beside what the charger says of it."""
    await known(context, charger_id)
    begin = context.now().replace(microsecond=0)
    reported = None
    if asked.ask:
        payload = {
            "connectorId": asked.connector_id,
            "duration": asked.duration_s,
            "chargingRateUnit": asked.charging_rate_unit,
        }
        _, reported = await perform(
            context, who, charger_id, "GetCompositeSchedule", payload, asked.timeout_s
        )
        begin = parse_time(reported.get("scheduleStart")) or begin
    async with context.engine.connect() as db:
        expected = await device_state_views.expected_schedule(
            db, charger_id, asked.connector_id, begin, asked.duration_s, asked.charging_rate_unit
        )
    plan = (reported or {}).get("chargingSchedule")
    agrees = None
    if isinstance(plan, dict) and plan.get("chargingRateUnit") == asked.charging_rate_unit:
        agrees = schedules_agree(expected, as_objects(plan.get("chargingSchedulePeriod")))
    return CompositeOut(
        begin=begin,
        charging_rate_unit=asked.charging_rate_unit,
        expected=[PeriodOut.model_validate(period) for period in expected],
        reported=reported,
        agrees=agrees,
    )
