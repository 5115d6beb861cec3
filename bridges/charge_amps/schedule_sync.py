"""Keep one connector's weekly schedule as desired. What is reported as done has been read back."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta

import structlog
from msgspec import Struct
from msgspec.structs import replace

from bridges.charge_amps.cloud import ChargeAmpsCloud, CloudError, CloudUnavailable, StoredSchedule
from bridges.charge_amps.config import ChargeAmpsConfig
from bridges.charge_amps.web_api import WebApiCloud
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
    """The connector has a schedule that the bridge has not written, and may not replace."""


class SyncState(Struct, frozen=True, kw_only=True):
    """What the bridge has written for a connector, as it survives a restart in the retained topic `…/plan`.

    `source` none: the connector has no schedule of the bridge. `periods` was desired; `week` is the part of it that was
    written, under `schedule_id`, for the week from `start`. The last three fields are about HEMS commands.
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
    """The schedule of one connector.

    `apply` tries at once and raises if it fails; after a transient failure `maintain` tries again, a limited number of
    times. `save` stores `state`; `on_change` is called when `maintain` has changed it.
    """

    def __init__(
        self,
        cloud: ChargeAmpsCloud,
        schedules: WebApiCloud,
        config: ChargeAmpsConfig,
        charge_point_id: str,
        connector_id: int,
        *,
        clock: Callable[[], datetime],
        save: Callable[[SyncState], Awaitable[None]],
    ) -> None:
        self.state = SyncState(mode=config.mode)
        self.pending: DesiredPlan | None = None
        self.blocked = False
        self.on_change: Callable[[], Awaitable[None]] | None = None
        self._cloud = cloud
        self._schedules = schedules
        self._config = config
        self._charge_point_id = charge_point_id
        self._connector_id = connector_id
        self._clock = clock
        self._save = save
        self._lock = asyncio.Lock()
        self._failures = 0
        self._retry_at: datetime | None = None
        self._unconfirmed: WeeklySchedule | None = None
        self._checked_at: datetime | None = None

    @property
    def busy(self) -> bool:
        return self._lock.locked()

    @property
    def active(self) -> bool:
        return self.state.source != NONE

    # --- desired plans ---------------------------------------------------------------------------

    async def apply(self, desired: DesiredPlan) -> None:
        """Write the desired plan. Raises CloudError (it may be retried), HorizonTooLong (it cannot be written)."""
        async with self._lock:
            self.pending, self._failures = desired, 0
            await self._attempt(desired)

    async def note_command(self, result: str, error: str | None = None) -> None:
        """Note the result of a HEMS command."""
        await self._set_state(
            replace(self.state, last_command_at=self._clock(), last_command_result=result, error=error)
        )

    async def _note_result(self, *, error: str | None, result: str | None = None) -> None:
        """Note a later result of the last HEMS command (None: unchanged)."""
        result = result if result is not None else self.state.last_command_result
        await self._set_state(replace(self.state, error=error, last_command_result=result))

    async def maintain(self) -> None:
        """Retry a failed plan, or apply what time brings: an expiry, a new week, the end of the periods, a check."""
        if self.busy or self.blocked:
            return
        async with self._lock:
            before = self.state
            try:
                await self._maintain(self._clock())
            except (CloudError, HorizonTooLong) as error:
                log.warning(
                    "schedule_not_applied",
                    error=str(error),
                    charger=self._charge_point_id,
                    connector=self._connector_id,
                )
                if self.active or self.pending is not None:
                    result = "error" if self._config.mode == HEMS else None
                    await self._note_result(error=str(error), result=result)
        if self.state != before and self.on_change is not None:
            await self.on_change()

    async def _maintain(self, now: datetime) -> None:
        if self._retry_at is not None and now < self._retry_at:
            return
        state, desired = self.state, self.pending
        if desired is not None:
            await self._attempt(desired)
            await self._note_result(error=None, result=_hems_result(desired, self._config.mode))
        elif state.source != NONE:
            stale = state.start != week_start(now, self._config.zone)
            due = due_by_time(now, periods=state.periods, expires_at=state.expires_at, stale=stale)
            if due in {EXPIRED, OVER}:
                await self._attempt_until_done(DesiredPlan(source=state.source))
                if due == EXPIRED:
                    await self._note_result(error=None, result="expired")
            elif due == RENEW:
                await self._attempt_until_done(_desired(state))
            elif self._is_check_due(now):
                await self._check()

    def _is_check_due(self, now: datetime) -> bool:
        interval = timedelta(seconds=self._config.intervals.read_back_s)
        return self._checked_at is None or now - self._checked_at >= interval

    async def _check(self) -> None:
        """Read the schedule back: write it again if it is gone or altered, give it up if another one is there."""
        stored = await self._read()
        state = self.state
        if stored is None or (stored.id == state.schedule_id and not self._has_own_content(stored)):
            await self._attempt_until_done(_desired(state), force=True)
        elif not self._is_own(stored):
            await self._give_up()

    async def _give_up(self) -> None:
        log.warning("schedule_replaced_by_user", charger=self._charge_point_id, connector=self._connector_id)
        await self._set_state(_without_schedule(self.state, error="The schedule was replaced by another one"))

    # --- attempts --------------------------------------------------------------------------------

    async def _attempt(self, desired: DesiredPlan) -> None:
        """Try a pending plan once. It is dropped after a permanent failure, or after too many transient ones."""
        try:
            await self._write_or_delete(desired)
        except CloudUnavailable as error:
            retries_s = self._config.intervals.retry_s
            if self._failures >= len(retries_s):
                self.pending = self._retry_at = None
            else:
                wait_s = max(retries_s[self._failures], error.retry_after_s or 0)
                self._retry_at = self._clock() + timedelta(seconds=wait_s)
            self._failures += 1
            raise
        except Exception:
            self.pending = self._retry_at = None
            raise
        self.pending = self._retry_at = None

    async def _attempt_until_done(self, desired: DesiredPlan, *, force: bool = False) -> None:
        """Try a plan that must succeed in the end: it stays due, so `maintain` tries it again after a pause."""
        try:
            await self._write_or_delete(desired, force=force)
        except CloudError:
            self._failures += 1
            retries_s = self._config.intervals.retry_s
            wait_s = retries_s[min(self._failures, len(retries_s)) - 1]
            self._retry_at = self._clock() + timedelta(seconds=wait_s)
            raise
        self._failures, self._retry_at = 0, None

    async def _write_or_delete(self, desired: DesiredPlan, *, force: bool = False) -> None:
        if desired.periods:
            await self._write(desired, force=force)
        else:
            await self._delete()

    async def _write(self, desired: DesiredPlan, *, force: bool) -> None:
        now = self._clock()
        week = self._encode(desired.periods, now)
        if week.lost_s:
            log.warning(
                "week_end_not_encodable",
                lost_s=week.lost_s,
                charger=self._charge_point_id,
                connector=self._connector_id,
            )
        if not week.periods:
            raise CloudError("None of the periods can be written any more")
        state = replace(self.state, expires_at=desired.expires_at, source_id=desired.source_id, error=None)
        # Compared with what is left of the periods that were written: the end of one is no reason to write again.
        changed = (
            state.source != desired.source
            or state.start != week.start
            or self._encode(state.periods, now) != week
        )
        if force or changed:
            state = replace(
                state,
                source=desired.source,
                schedule_id=await self._put(week),
                start=week.start,
                week=week.periods,
                periods=desired.periods,
            )
        await self._set_state(state)

    def _encode(self, periods: tuple[ChargePeriod, ...], now: datetime) -> WeeklySchedule:
        return encode_week(periods, now=now, zone=self._config.zone, encoding=self._config.encoding)

    async def _set_state(self, state: SyncState) -> None:
        if state != self.state:
            self.state = state
            await self._save(state)

    async def _put(self, week: WeeklySchedule) -> str:
        """Write a schedule unless it is there already, and read it back. Return its id."""
        stored = await self._read()
        if stored is not None and stored.holds(week):
            self._unconfirmed = None
            return stored.id
        if stored is not None and stored.periods and not self._is_own(stored):
            if not self._config.take_over:
                if self.active:
                    await self._give_up()
                raise ForeignSchedule(
                    "The charger has a schedule of its user; CHARGE_AMPS_TAKE_OVER=true replaces it"
                )
            periods = [(period.from_s, period.to_s, period.current_a) for period in stored.periods]
            log.warning(
                "user_schedule_replaced",
                periods=periods,
                charger=self._charge_point_id,
                connector=self._connector_id,
            )
        self._unconfirmed = week
        try:
            await self._schedules.put_schedule(
                self._charge_point_id, self._connector_id, week, self._config.time_zone
            )
        except CloudUnavailable as error:
            if not error.maybe_done:
                self._unconfirmed = None
                raise
            log.info(
                "schedule_write_unconfirmed",
                error=str(error),
                charger=self._charge_point_id,
                connector=self._connector_id,
            )
        except CloudError:
            self._unconfirmed = None
            raise
        stored = await self._read()
        if stored is None or not stored.holds(week):
            raise CloudUnavailable("The schedule read back is not the one written")
        self._unconfirmed = None
        return stored.id

    async def _delete(self) -> None:
        """Delete the bridge's schedule, and set the mode, so that the connector does not wait for a schedule."""
        if not self.active and self._unconfirmed is None:
            return
        stored = await self._read()
        if stored is not None and (self._is_own(stored) or self._config.take_over):
            try:
                await self._schedules.delete_schedule(self._charge_point_id, self._connector_id)
            except CloudUnavailable as error:
                if not error.maybe_done:
                    raise
            if await self._read() is not None:
                raise CloudUnavailable("The schedule is still there")
            stored = None
        if stored is None and self._config.mode_after_clear != "keep":
            await self._cloud.set_mode(
                self._charge_point_id, self._connector_id, self._config.mode_after_clear.capitalize()
            )
        self._unconfirmed = None
        await self._set_state(_without_schedule(self.state, error=None))

    async def _read(self) -> StoredSchedule | None:
        stored = await self._schedules.schedule(self._charge_point_id, self._connector_id)
        self._checked_at = self._clock()
        return stored

    def _is_own(self, stored: StoredSchedule) -> bool:
        """Compare the id, or the content: the answer to a write may have been lost."""
        return stored.id == self.state.schedule_id or self._has_own_content(stored)

    def _has_own_content(self, stored: StoredSchedule) -> bool:
        if self._unconfirmed is not None and stored.holds(self._unconfirmed):
            return True
        return self.active and (stored.start, stored.periods) == (self.state.start, self.state.week)


def _desired(state: SyncState) -> DesiredPlan:
    return DesiredPlan(
        source=state.source, periods=state.periods, expires_at=state.expires_at, source_id=state.source_id
    )


def _hems_result(desired: DesiredPlan, mode: str) -> str | None:
    if mode != HEMS:
        return None
    return "success" if desired.periods else "cleared"


def _without_schedule(state: SyncState, *, error: str | None) -> SyncState:
    return SyncState(
        mode=state.mode,
        last_command_at=state.last_command_at,
        last_command_result=state.last_command_result,
        error=error,
    )
