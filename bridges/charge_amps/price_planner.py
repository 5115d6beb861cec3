"""Standalone mode: plan a connector's charging by prices, and apply the plan."""

import asyncio
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Final

import structlog

from bridges.charge_amps.cloud import CloudError
from bridges.charge_amps.config import ChargeAmpsConfig
from bridges.charge_amps.schedule_sync import ScheduleSync
from bridges.charge_amps.weekly_schedule import HorizonTooLong
from csms.scheduling.periods import ChargePeriod, remaining_periods
from csms.scheduling.plan_delivery import STANDALONE, DesiredPlan
from csms.scheduling.price_table import PriceTable
from csms.scheduling.selection import WAITING_FOR_PRICES, PricePlan, plan_by_price

log = structlog.get_logger()
DISABLED, ERROR, IDLE = "disabled", "error", "idle"
_RETRY_S: Final = (10.0, 30.0, 60.0, 300.0)


class PricePlanner:
    """The price plan of one connector. `update` may be called at any time."""

    def __init__(
        self, prices: PriceTable, sync: ScheduleSync, config: ChargeAmpsConfig, clock: Callable[[], datetime]
    ) -> None:
        self.plan: PricePlan | None = None
        self.state = IDLE
        self.message = ""
        self._prices = prices
        self._sync = sync
        self._config = config
        self._clock = clock
        self._failures = 0
        self._retry_at: datetime | None = None
        self._lock = asyncio.Lock()

    @property
    def threshold_active(self) -> bool:
        return self.plan is not None and self.plan.threshold_active

    async def update(self) -> bool:
        """Plan anew and apply the plan. Return whether anything has changed."""
        # New prices and the timer may call at the same time: the second call waits, and respects a failure of the first.
        async with self._lock:
            before = (self.state, self.message, self.plan, self._sync.state)
            await self._update(self._clock())
            return before != (self.state, self.message, self.plan, self._sync.state)

    async def _update(self, now: datetime) -> None:
        if not self._config.automation:
            self.plan = None
            if await self._apply((), now):
                self.state, self.message = DISABLED, "Automation is switched off"
            return
        if self._prices.problem is not None:
            self.state, self.message = ERROR, self._prices.problem
            return
        self.plan = found = plan_by_price(
            self._prices.slots,
            now=now,
            zone=self._config.zone,
            top_x=self._config.top_x,
            threshold=self._config.price_threshold,
            current_a=self._config.current_a,
        )
        # Without prices the schedule that is in place stays until it is over.
        if found.state == WAITING_FOR_PRICES or await self._apply(remaining_periods(found.periods, now), now):
            self.state, self.message = found.state, found.message

    async def _apply(self, periods: tuple[ChargePeriod, ...], now: datetime) -> bool:
        """Write or delete the schedule. Return False after a failure, which delays the next attempt."""
        sync = self._sync
        if sync.blocked or (not periods and not sync.active and sync.pending is None):
            return True
        if self._retry_at is not None and now < self._retry_at:
            return False
        try:
            await sync.apply(DesiredPlan(source=STANDALONE, periods=periods))
        except (CloudError, HorizonTooLong) as error:
            sync.pending = None  # the next update plans anew
            retry_s = _RETRY_S[min(self._failures, len(_RETRY_S) - 1)]
            self._failures += 1
            self._retry_at = now + timedelta(seconds=retry_s)
            self.state, self.message = ERROR, str(error)
            log.warning("plan_not_applied", error=str(error))
            return False
        self._failures, self._retry_at = 0, None
        return True
