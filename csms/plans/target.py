"""An OCPP charger as the target of a plan: its charging profile is installed, read back and cleared by commands."""

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, Final

import structlog
from msgspec import Struct
from msgspec.structs import replace
from sqlalchemy.ext.asyncio import AsyncEngine

from csms.adapter import Command, SendCommand
from csms.core import command_checks
from csms.core.command_answers import as_objects, parse_time
from csms.core.composite_schedule import schedules_agree
from csms.core.configuration import key_id
from csms.db import device_state_views
from csms.db.plans import Plan
from csms.errors import ChargerRefused, ChargerTimeout, CommandError, NotSupported
from csms.node.command_audit import outcome_of
from csms.ocpp.quirks import quirks_for
from csms.ocpp.request_schema import check_request
from csms.scheduling import plan_profile
from csms.scheduling.plan_delivery import NONE, DesiredPlan, InstalledPlan, PlanDelivery
from csms.scheduling.plan_profile import BuiltProfile, ExistingProfile, ProfileLimits, ProfilePlace

log = structlog.get_logger()
REQUESTED_BY: Final = "plan"
TAKEN: Final = "Every stack level is taken by charging profiles that are not ours"
_REFUSALS: Final = {
    "Rejected": "The charger rejects the charging profile",
    "NotSupported": "The charger has no smart charging",
}
_READ_BACK_S = 86_400
_SLACK_S = 5  # charge points round, and take their time to answer


class TargetOutcome(Struct, frozen=True):
    """`again`: it failed for a passing reason and is worth another try."""

    delivery: PlanDelivery
    again: bool = False


class ProfileTarget:
    """`put` and `clear` return what became of the plan; they raise only when the database is away.

    `timeout_s`: how long a charger may take to answer one command.
    """

    def __init__(
        self, engine: AsyncEngine, send: SendCommand, clock: Callable[[], datetime], *, timeout_s: float
    ) -> None:
        self._engine = engine
        self._send = send
        self._clock = clock
        self._timeout_s = timeout_s

    async def put(self, plan: Plan, desired: DesiredPlan) -> TargetOutcome:
        """Install a charging profile for the plan; it replaces an earlier one of ours, and no other."""
        held, terms = plan.delivery.installed, plan.terms
        if held is not None and held.connector_id != terms.connector_id:
            cleared = await self.clear(plan)
            if cleared.delivery.installed is not None:
                return cleared
            held = None
        try:
            able = await self._ability(plan)
            place = await self._place(plan, able)
            if place is None:
                return self._refused(plan, desired, TAKEN)
            installed, drawn = self._drawn(plan, desired, able, place)
            if problems := await self._problems(plan.charger_id, drawn):
                return self._refused(plan, desired, "; ".join(problems))
            if held is not None and held.stack_level != place.stack_level:
                # One that moves to another level might stay on the first one too.
                await self._command(plan.charger_id, "ClearChargingProfile", {"id": held.profile_id})
        except CommandError as error:
            return self._not_sent(plan, error)
        try:
            answer = await self._command(plan.charger_id, "SetChargingProfile", drawn.payload)
        except CommandError as error:
            if _final(error):
                return self._refused(plan, desired, _no(error))
            if outcome_of(error) == "not_sent":
                return self._not_sent(plan, error)
            # It is not known whether the charger has it: it is sent again, or cleared when it is not desired any more.
            return TargetOutcome(
                PlanDelivery(installed=replace(installed, unsure=True), problem=str(error)), again=True
            )
        status = str(answer.get("status"))
        if status != "Accepted":
            return self._refused(plan, desired, _REFUSALS.get(status, f"The charger answers {status}"))
        installed = replace(installed, pushed_at=self._clock())
        log.info("plan_installed", charger=plan.charger_id, source=desired.source)
        return TargetOutcome(
            PlanDelivery(installed=replace(installed, confirmed=await self._confirmed(plan, installed)))
        )

    async def clear(self, plan: Plan) -> TargetOutcome:
        """Clear our profile, selected by its chargingProfileId alone."""
        held = plan.delivery.installed
        if held is None:
            return TargetOutcome(PlanDelivery())
        try:
            answer = await self._command(plan.charger_id, "ClearChargingProfile", {"id": held.profile_id})
        except CommandError as error:
            if _final(error):
                return self._refused(plan, DesiredPlan(source=NONE), _no(error))
            return self._not_sent(plan, error)
        status = str(answer.get("status"))
        # Unknown: it is not there, or not any more.
        if status not in {"Accepted", "Unknown"}:
            return self._refused(plan, DesiredPlan(source=NONE), f"The charger answers {status}")
        log.info("plan_cleared", charger=plan.charger_id)
        return TargetOutcome(PlanDelivery())

    # --- what it needs to know -------------------------------------------------------------------

    async def _ability(self, plan: Plan) -> ProfileLimits:
        """What the charger can do by its configuration, which is requested if it is not on record."""
        keys = [key_id(name) for name in plan_profile.PROFILE_KEYS]
        async with self._engine.connect() as db:
            rows = await device_state_views.configuration(db, plan.charger_id)
        if not any(row.key_id in keys for row in rows):
            try:
                await self._command(
                    plan.charger_id, "GetConfiguration", {"key": list(plan_profile.PROFILE_KEYS)}
                )
            except CommandError as error:
                if not _final(error):
                    raise
            async with self._engine.connect() as db:
                rows = await device_state_views.configuration(db, plan.charger_id)
        known = {row.key_id: row.value for row in rows if row.supported and row.value is not None}
        quirks = quirks_for(plan.vendor, plan.model, plan.firmware_version)
        return plan_profile.profile_limits(
            known, watts_only=quirks.force_power_profile, level_zero_only=quirks.stack_level_zero
        )

    async def _place(self, plan: Plan, able: ProfileLimits) -> ProfilePlace | None:
        async with self._engine.connect() as db:
            rows = await device_state_views.list_profiles(db, plan.charger_id)
        others = [ExistingProfile(row.id, row.connector_id, row.purpose, row.stack_level) for row in rows]
        return plan_profile.choose_place(
            others, plan.terms.connector_id, able, max_level=plan.terms.stack_level
        )

    def _drawn(
        self, plan: Plan, desired: DesiredPlan, able: ProfileLimits, place: ProfilePlace
    ) -> tuple[InstalledPlan, BuiltProfile]:
        terms, now = plan.terms, self._clock()
        assert desired.until is not None
        drawn = plan_profile.build_profile(
            desired.periods,
            now=now,
            until=desired.until,
            connector_id=terms.connector_id,
            place=place,
            limits=able,
            phases=terms.phases,
        )
        installed = InstalledPlan(
            source=desired.source,
            periods=desired.periods,
            until=desired.until,
            profile_id=place.profile_id,
            connector_id=terms.connector_id,
            stack_level=place.stack_level,
            unit=able.unit,
            phases=terms.phases,
            pushed_at=now,
            renew_at=drawn.renew_at,
        )
        return installed, drawn

    async def _problems(self, charger_id: str, drawn: BuiltProfile) -> list[str]:
        problems = [str(one) for one in check_request("SetChargingProfile", drawn.payload)]
        if not problems:
            async with self._engine.connect() as db:
                facts = await device_state_views.facts(db, charger_id, self._clock())
            problems = command_checks.find_problems("SetChargingProfile", drawn.payload, facts)
        return problems

    async def _confirmed(self, plan: Plan, installed: InstalledPlan) -> bool | None:
        """Whether the charger's composite schedule says the same as ours. None: it gives none."""
        connector_id = installed.connector_id or 1
        async with self._engine.connect() as db:
            lacking = {
                row.feature
                for row in await device_state_views.list_capabilities(db, plan.charger_id)
                if not row.supported
            }
        if "GetCompositeSchedule" in lacking:
            return None
        left_s = (installed.until - self._clock()).total_seconds()
        duration_s = max(min(round(left_s), _READ_BACK_S), 60)
        asked = {
            "connectorId": connector_id,
            "duration": duration_s,
            "chargingRateUnit": installed.unit,
        }
        try:
            answer = await self._command(plan.charger_id, "GetCompositeSchedule", asked)
        except CommandError:
            return None
        reported = answer.get("chargingSchedule")
        if not isinstance(reported, dict) or reported.get("chargingRateUnit") != installed.unit:
            return None
        begin = parse_time(answer.get("scheduleStart")) or self._clock()
        async with self._engine.connect() as db:
            expected = await device_state_views.expected_schedule(
                db, plan.charger_id, connector_id, begin, duration_s, installed.unit
            )
        agrees = schedules_agree(
            expected, as_objects(reported.get("chargingSchedulePeriod")), slack_s=_SLACK_S
        )
        if not agrees:
            log.warning("plan_not_confirmed", charger=plan.charger_id)
        return agrees

    # --- what has become of it -------------------------------------------------------------------

    async def _command(self, charger_id: str, action: str, payload: dict[str, Any]) -> Mapping[str, Any]:
        return await self._send(
            charger_id,
            Command(action=action, payload=payload, timeout_s=self._timeout_s, requested_by=REQUESTED_BY),
        )

    def _refused(self, plan: Plan, desired: DesiredPlan, why: str) -> TargetOutcome:
        log.warning("plan_refused", charger=plan.charger_id, reason=why)
        return TargetOutcome(
            PlanDelivery(
                installed=plan.delivery.installed, problem=why, refused=desired, refused_at=self._clock()
            )
        )

    def _not_sent(self, plan: Plan, error: CommandError) -> TargetOutcome:
        return TargetOutcome(PlanDelivery(installed=plan.delivery.installed, problem=str(error)), again=True)


def _final(error: CommandError) -> bool:
    """Whether the charger refused and would refuse again."""
    return isinstance(error, ChargerRefused | NotSupported) and not isinstance(error, ChargerTimeout)


def _no(error: CommandError) -> str:
    if isinstance(error, ChargerRefused) and error.code in {"NotImplemented", "NotSupported"}:
        return _REFUSALS["NotSupported"]
    return f"The charger answers {error}"
