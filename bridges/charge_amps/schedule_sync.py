"""Keeps one connector's schedule on the charger as it is wanted, and claims nothing that was not seen to be so."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta

import structlog
from msgspec import Struct
from msgspec.structs import replace

from bridges.charge_amps.cloud import ChargeAmpsCloud, CloudError, CloudUnavailable, StoredSchedule
from bridges.charge_amps.config import ChargeAmpsConfig
from bridges.charge_amps.weekly_schedule import (
    HorizonTooLong,
    WeeklyPeriod,
    WeeklySchedule,
    encode_week,
    week_start,
)
from csms.scheduling.periods import ChargePeriod
from csms.scheduling.plan_delivery import EXPIRED, HEMS, NONE, OVER, RENEW, DesiredPlan, due_by_time

log = structlog.get_logger()


class ForeignSchedule(CloudError):
    """Somebody else's schedule is there, and nobody has told us to replace it."""


class SyncState(Struct, frozen=True, kw_only=True):
    """What is ours on a connector, as it survives a restart: the retained topic `…/plan`.

    `source` none: nothing of ours is there. `periods` is what was asked for, `week` what of it was written, under
    `schedule_id`, for the week that begins at `start`. The last three are about HEMS commands.
    """

    mode: str
    source: str = NONE
    schedule_id: str | None = None
    start: datetime | None = None
    week: tuple[WeeklyPeriod, ...] = ()
    periods: tuple[ChargePeriod, ...] = ()
    expires_at: datetime | None = None
    source_id: str | None = None
    last_command_at: datetime | None = None
    last_command_result: str | None = None
    error: str | None = None


class ScheduleSync:
    """`want` tries at once and says how it went; what failed for a passing reason is tried again by `tend`, a
    bounded number of times. `remember` stores `kept`; `changed` is called when `tend` has changed something.
    """

    def __init__(
        self,
        cloud: ChargeAmpsCloud,
        config: ChargeAmpsConfig,
        charge_point_id: str,
        connector_id: int,
        *,
        clock: Callable[[], datetime],
        remember: Callable[[SyncState], Awaitable[None]],
    ) -> None:
        self.kept = SyncState(mode=config.mode)
        self.pending: DesiredPlan | None = None
        self.blocked = False
        self.changed: Callable[[], Awaitable[None]] | None = None
        self._cloud = cloud
        self._config = config
        self._charge_point_id = charge_point_id
        self._connector_id = connector_id
        self._clock = clock
        self._remember = remember
        self._lock = asyncio.Lock()
        self._attempts = 0
        self._next_at: datetime | None = None
        self._unsure: WeeklySchedule | None = None
        self._read_at: datetime | None = None

    @property
    def busy(self) -> bool:
        return self._lock.locked()

    @property
    def active(self) -> bool:
        return self.kept.source != NONE

    # --- asking ----------------------------------------------------------------------------------

    async def want(self, wanted: DesiredPlan) -> None:
        """Have it so. Raises CloudError when it is not (perhaps: not yet), HorizonTooLong when it cannot be."""
        async with self._lock:
            self.pending, self._attempts = wanted, 0
            await self._attempt(wanted)

    async def command(self, result: str, error: str | None = None) -> None:
        """Note how a HEMS command ended."""
        await self._keep(
            replace(self.kept, last_command_at=self._clock(), last_command_result=result, error=error)
        )

    async def noted(self, *, error: str | None, result: str | None = None) -> None:
        """Note what has become of it since."""
        result = result if result is not None else self.kept.last_command_result
        await self._keep(replace(self.kept, error=error, last_command_result=result))

    async def tend(self) -> None:
        """What time brings: an expiry, a new week, periods that are over, another try, a look at what is there."""
        if self.busy or self.blocked:
            return
        async with self._lock:
            before = self.kept
            try:
                await self._tend(self._clock())
            except (CloudError, HorizonTooLong) as error:
                log.warning(
                    "schedule not as wanted",
                    charger=self._charge_point_id,
                    connector=self._connector_id,
                    error=str(error),
                )
                if self.active or self.pending is not None:
                    await self.noted(error=str(error), result="error" if self._config.mode == HEMS else None)
        if self.kept != before and self.changed is not None:
            await self.changed()

    async def _tend(self, now: datetime) -> None:
        if self._next_at is not None and now < self._next_at:
            return
        kept = self.kept
        if self.pending is not None:
            wanted = self.pending
            await self._attempt(wanted)
            await self.noted(error=None, result=_result(wanted, self._config.mode))
        elif kept.source != NONE:
            stale = kept.start != week_start(now, self._config.zone)
            due = due_by_time(now, periods=kept.periods, expires_at=kept.expires_at, stale=stale)
            if due in {EXPIRED, OVER}:
                await self._again(DesiredPlan(source=kept.source))
                if due == EXPIRED:
                    await self.noted(error=None, result="expired")
            elif due == RENEW:
                await self._again(_of(kept))
            elif self._due(now):
                await self._look(now)

    def _due(self, now: datetime) -> bool:
        return self._read_at is None or now - self._read_at >= timedelta(
            seconds=self._config.pace.read_back_s
        )

    async def _look(self, now: datetime) -> None:
        """Whether what we wrote is still there."""
        stored = await self._read()
        kept = self.kept
        if stored is None or (stored.id == kept.schedule_id and not self._ours_in(stored)):
            await self._again(_of(kept), force=True)
        elif not self._ours(stored):
            await self._lose("The schedule was replaced by somebody else")

    async def _lose(self, why: str) -> None:
        log.warning(why, charger=self._charge_point_id, connector=self._connector_id)
        await self._keep(_without(self.kept, error=why))

    # --- doing -----------------------------------------------------------------------------------

    async def _attempt(self, wanted: DesiredPlan) -> None:
        """One try of what is pending. What cannot pass, or has been tried often enough, is given up."""
        try:
            await self._do(wanted)
        except CloudUnavailable as away:
            retries = self._config.pace.retry_s
            if self._attempts >= len(retries):
                self.pending = self._next_at = None
            else:
                wait_s = max(retries[self._attempts], away.retry_after_s or 0)
                self._next_at = self._clock() + timedelta(seconds=wait_s)
            self._attempts += 1
            raise
        except Exception:
            self.pending = self._next_at = None
            raise
        self.pending = self._next_at = None

    async def _again(self, wanted: DesiredPlan, *, force: bool = False) -> None:
        """What must be so sooner or later: tried until it is."""
        try:
            await self._do(wanted, force=force)
        except CloudError:
            self._attempts += 1
            pauses = self._config.pace.retry_s
            self._next_at = self._clock() + timedelta(seconds=pauses[min(self._attempts, len(pauses)) - 1])
            raise
        self._attempts, self._next_at = 0, None

    async def _do(self, wanted: DesiredPlan, *, force: bool = False) -> None:
        if wanted.periods:
            await self._put(wanted, force=force)
        else:
            await self._delete()

    async def _put(self, wanted: DesiredPlan, *, force: bool) -> None:
        now = self._clock()
        week = encode_week(wanted.periods, now=now, zone=self._config.zone, encoding=self._config.encoding)
        kept = self.kept
        if week.lost_s:
            log.warning("the last hour of this week cannot be written", lost_s=week.lost_s)
        if not week.periods:
            raise CloudError("None of the periods can be written any more")
        kept = replace(kept, expires_at=wanted.expires_at, source_id=wanted.source_id, error=None)
        if force or kept.source != wanted.source or kept.start != week.start or self._left(kept, now) != week:
            kept = replace(
                kept,
                source=wanted.source,
                schedule_id=await self._written(week),
                start=week.start,
                week=week.periods,
                periods=wanted.periods,
            )
        await self._keep(kept)

    def _left(self, kept: SyncState, now: datetime) -> WeeklySchedule:
        """What is left of what was written: a period that is over is no reason to write again."""
        return encode_week(kept.periods, now=now, zone=self._config.zone, encoding=self._config.encoding)

    async def _keep(self, kept: SyncState) -> None:
        if kept != self.kept:
            self.kept = kept
            await self._remember(kept)

    async def _written(self, week: WeeklySchedule) -> str:
        """Put it unless it is there already, and see that it is there. Its id."""
        stored = await self._read()
        if stored is not None and stored.holds(week):
            self._unsure = None
            return stored.id
        if stored is not None and stored.periods and not self._ours(stored):
            if not self._config.take_over:
                if self.active:
                    await self._lose("The schedule was replaced by somebody else")
                raise ForeignSchedule("A schedule of the user's own is on the charger")
            log.warning(
                "the user's own schedule is replaced",
                charger=self._charge_point_id,
                connector=self._connector_id,
                replaced=[(period.from_s, period.to_s, period.current_a) for period in stored.periods],
            )
        self._unsure = week
        try:
            await self._cloud.put_schedule(
                self._charge_point_id, self._connector_id, week, self._config.time_zone
            )
        except CloudUnavailable as away:
            if not away.done_perhaps:
                self._unsure = None
                raise
            log.info("not known whether the schedule was taken", error=str(away))
        except CloudError:
            self._unsure = None
            raise
        stored = await self._read()
        if stored is None or not stored.holds(week):
            raise CloudUnavailable("The schedule read back is not the one written")
        self._unsure = None
        return stored.id

    async def _delete(self) -> None:
        """Delete what is ours, and see that the connector does not wait for a schedule that is gone."""
        if self.kept.source == NONE and self._unsure is None:
            return
        stored = await self._read()
        if stored is not None and (self._ours(stored) or self._config.take_over):
            try:
                await self._cloud.delete_schedule(self._charge_point_id, self._connector_id)
            except CloudUnavailable as away:
                if not away.done_perhaps:
                    raise
            if await self._read() is not None:
                raise CloudUnavailable("The schedule is still there")
            stored = None
        if stored is None and self._config.mode_after_clear != "keep":
            await self._cloud.set_mode(
                self._charge_point_id, self._connector_id, self._config.mode_after_clear.capitalize()
            )
        self._unsure = None
        await self._keep(_without(self.kept, error=None))

    async def _read(self) -> StoredSchedule | None:
        stored = await self._cloud.schedule(self._charge_point_id, self._connector_id)
        self._read_at = self._clock()
        return stored

    def _ours(self, stored: StoredSchedule) -> bool:
        """By its id, or by what it says: an answer may have been lost on its way."""
        known = self.kept.schedule_id is not None and stored.id == self.kept.schedule_id
        return known or self._ours_in(stored)

    def _ours_in(self, stored: StoredSchedule) -> bool:
        if self._unsure is not None and stored.holds(self._unsure):
            return True
        return self.active and (stored.start, stored.periods) == (self.kept.start, self.kept.week)


def _of(kept: SyncState) -> DesiredPlan:
    return DesiredPlan(
        source=kept.source, periods=kept.periods, expires_at=kept.expires_at, source_id=kept.source_id
    )


def _result(wanted: DesiredPlan, mode: str) -> str | None:
    if mode != HEMS:
        return None
    return "success" if wanted.periods else "cleared"


def _without(kept: SyncState, *, error: str | None) -> SyncState:
    """Nothing of ours is there."""
    return SyncState(
        mode=kept.mode,
        last_command_at=kept.last_command_at,
        last_command_result=kept.last_command_result,
        error=error,
    )
