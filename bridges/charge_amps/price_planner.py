"""Standalone mode: prices in, a plan out, the plan on the charger."""

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
_PAUSES_S: Final = (10.0, 30.0, 60.0, 300.0)


class PricePlanner:
    """One connector's plan. `step` is safe to call at any time and as often as one likes."""

    def __init__(
        self,
        prices: PriceTable,
        keeper: ScheduleSync,
        config: ChargeAmpsConfig,
        clock: Callable[[], datetime],
    ) -> None:
        self.plan: PricePlan | None = None
        self.state = IDLE
        self.message = ""
        self._prices = prices
        self._keeper = keeper
        self._config = config
        self._clock = clock
        self._failures = 0
        self._not_before: datetime | None = None
        self._lock = asyncio.Lock()

    @property
    def threshold_active(self) -> bool:
        return self.plan is not None and self.plan.threshold_active

    async def step(self) -> bool:
        """Plan, and have the plan on the charger; whether anything of it has changed."""
        # Prices and the passing of time come at once: the second waits, and sees that the first has failed.
        async with self._lock:
            return await self._step()

    async def _step(self) -> bool:
        before = (self.state, self.message, self.plan, self._keeper.kept)
        now = self._clock()
        if not self._config.automation:
            self.plan = None
            if await self._have((), now):
                self.state, self.message = DISABLED, "Automation is switched off"
        elif self._prices.problem is not None:
            self.state, self.message = ERROR, self._prices.problem
        else:
            self.plan = found = plan_by_price(
                self._prices.slots,
                now=now,
                zone=self._config.zone,
                top_x=self._config.top_x,
                threshold=self._config.price_threshold,
                current_a=self._config.current_a,
            )
            left = remaining_periods(found.periods, now)
            # Without prices nothing new is known: what is on the charger stays until it is over.
            if found.state != WAITING_FOR_PRICES and not await self._have(left, now):
                return before != (self.state, self.message, self.plan, self._keeper.kept)
            self.state, self.message = found.state, found.message
        return before != (self.state, self.message, self.plan, self._keeper.kept)

    async def _have(self, periods: tuple[ChargePeriod, ...], now: datetime) -> bool:
        """Put or delete; False when it failed, and then it is tried again after a while."""
        keeper = self._keeper
        if keeper.blocked:
            return True
        if not periods and not keeper.active and keeper.pending is None:
            return True
        if self._not_before is not None and now < self._not_before:
            return False
        try:
            await keeper.want(DesiredPlan(source=STANDALONE, periods=periods))
        except (CloudError, HorizonTooLong) as error:
            keeper.pending = None  # the next step wants what is right then
            pause_s = _PAUSES_S[min(self._failures, len(_PAUSES_S) - 1)]
            self._failures += 1
            self._not_before = now + timedelta(seconds=pause_s)
            self.state, self.message = ERROR, str(error)
            log.warning("plan not on the charger", error=str(error))
            return False
        self._failures, self._not_before = 0, None
        return True
