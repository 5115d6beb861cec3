"""One connector that is scheduled: its keeper, its planner or its HEMS, and what is published of it."""

import asyncio
from collections.abc import Callable
from datetime import datetime

import structlog
from msgspec import Struct

from bridges.charge_amps import hems
from bridges.charge_amps.cloud import ChargeAmpsCloud, CloudError
from bridges.charge_amps.config import ChargeAmpsConfig
from bridges.charge_amps.monitor import Monitor
from bridges.charge_amps.plan_store import PlanStore, plan_topic, state_topic
from bridges.charge_amps.price_planner import ERROR, IDLE, PricePlanner
from bridges.charge_amps.schedule_sync import ScheduleSync, SyncState
from csms.adapter import AdapterHost
from csms.plans.retained import Retained
from csms.scheduling.hems import HemsStatus, iso_time, without_measurements
from csms.scheduling.periods import current_or_next, remaining_periods
from csms.scheduling.plan_delivery import AWAY, HEMS, IN_PLACE, NOT_DESIRED, PENDING, STANDALONE, DesiredPlan
from csms.scheduling.plan_view import PlanView, with_prices
from csms.scheduling.price_table import PriceTable

log = structlog.get_logger()


class HomeAssistantState(Struct, frozen=True, kw_only=True):
    """`charge-amps/{charge point}/{connector}/state`, retained: what Home Assistant's entities are made of."""

    operation_mode: str
    online: bool
    charger_status: str | None
    connector_mode: str | None
    error_code: str | None
    power_kw: float | None
    voltage: float | None
    current: float | None
    energy_kwh: float | None
    session_energy_kwh: float | None
    schedule_source: str
    schedule_status: str
    message: str
    plan_date: str | None
    slots: int
    price_levels: int
    slots_excluded: int
    tomorrow_message: str | None
    price_threshold_active: bool
    next_charge_start: str | None
    next_charge_end: str | None
    schedule_error: str | None
    hems_last_command: str | None
    hems_last_command_result: str | None


class ScheduledConnector:
    """`run` ends what another mode has left behind, then follows the one that is configured."""

    def __init__(
        self,
        monitor: Monitor,
        number: int,
        *,
        primary: bool,
        cloud: ChargeAmpsCloud,
        config: ChargeAmpsConfig,
        prices: PriceTable,
        node: AdapterHost,
        memory: PlanStore,
        clock: Callable[[], datetime],
    ) -> None:
        self.monitor = monitor
        self.number = number
        self._config = config
        self._node = node
        self._memory = memory
        self._clock = clock
        self._plan_topic = plan_topic(monitor.charger_id, number)
        self._state_topic = state_topic(monitor.charger_id, number)
        name = hems.topic_name(monitor.charger_id, number, primary=primary)
        self._hems_topic = f"hems/charge-amps/{name}"
        self.keeper = ScheduleSync(
            cloud,
            config,
            monitor.charger_id,
            number,
            clock=clock,
            remember=lambda kept: memory.remember(self._plan_topic, kept),
        )
        self.keeper.changed = self.publish
        self.planner = PricePlanner(prices, self.keeper, config, clock)
        self.switched = False
        self._prices = prices
        self._shown: PlanView | None = None
        self._retained = Retained(node, config.pace.heartbeat_s, clock)

    # --- life ------------------------------------------------------------------------------------

    async def run(self, remembered: SyncState | None) -> None:
        await self._switch(remembered)
        await self.publish()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._tend())
            if self._config.mode == HEMS:
                tasks.create_task(self._listen())

    async def _switch(self, remembered: SyncState | None) -> None:
        """Nothing else is done before what an earlier mode has put there is gone."""
        if remembered is not None:
            self.keeper.kept = remembered
        if remembered is not None and remembered.mode != self._config.mode:
            log.info("mode switched", charger=self.monitor.charger_id, to=self._config.mode)
            if self._config.mode != HEMS:
                await self._forget_hems()
            while True:
                try:
                    await self.keeper.want(DesiredPlan(source=self._config.mode))
                    break
                except CloudError as error:
                    log.warning("schedule of the other mode not deleted yet", error=str(error))
                await asyncio.sleep(self._config.pace.retry_s[0])
        if remembered is None or remembered.mode != self._config.mode:
            self.keeper.kept = SyncState(mode=self._config.mode)
            await self._memory.remember(self._plan_topic, self.keeper.kept)
        self.switched = True

    async def _forget_hems(self) -> None:
        if not await self._retained.take_back(f"{self._hems_topic}/status"):
            log.warning("HEMS status not taken back", charger=self.monitor.charger_id)

    async def _tend(self) -> None:
        while not self.monitor.passive:
            await self._memory.flush()
            await self.keeper.tend()
            if self._config.mode == STANDALONE:
                await self.step()
            await self.publish()
            await asyncio.sleep(self._config.pace.tend_s)

    async def step(self) -> None:
        """Plan anew: prices have come, or time has passed."""
        mine = self.switched and not self.monitor.passive
        if mine and self._config.mode == STANDALONE and await self.planner.step():
            await self.publish()

    async def _listen(self) -> None:
        async for heard in self._node.listen(f"{self._hems_topic}/schedule/+"):
            if self.monitor.passive:
                return
            try:
                if await hems.apply_command(heard, self.keeper, self._config, self._clock()):
                    await self.publish(always=True)
            except Exception as error:
                # The next message may be a better one.
                log.error("HEMS command failed", topic=heard.topic, error=repr(error), exc_info=error)

    def block(self, *, blocked: bool) -> None:
        """An operator has taken the connector out of service: a schedule would put it back."""
        self.keeper.blocked = blocked

    # --- what is told ----------------------------------------------------------------------------

    async def publish(self, *, always: bool = False) -> None:
        """What has changed, and everything once in a heartbeat."""
        await self._show()
        state = self.state()
        await self._retained.put(self._state_topic, state, always=always)
        if self._config.mode == HEMS:
            status = self.hems_status()
            apart = without_measurements(status)
            await self._retained.put(f"{self._hems_topic}/status", status, apart, always=always)

    async def _show(self) -> None:
        """For the console and the REST interface, when it is another than before."""
        shown = self.shown()
        if shown == self._shown:
            return
        try:
            if await self._node.show_plan(shown, self._config.connectors):
                self._shown = shown
        except Exception as error:
            # The database is away: it is tried with the next look.
            log.warning("plan not shown", charger=self.monitor.charger_id, error=str(error))

    def shown(self) -> PlanView:
        """What people see of it. A plan that waits for the cloud is pending, whoever is to blame."""
        kept, config, planner = self.keeper.kept, self._config, self.planner
        state, message = self._schedule_status()
        pending, plan = self.keeper.pending, planner.plan
        if config.mode == STANDALONE:
            periods = remaining_periods(plan.periods, self._clock()) if plan is not None else ()
        else:
            periods = pending.periods if pending is not None else kept.periods
        problem = kept.error if planner.state != ERROR else planner.message
        if self.keeper.active and pending is None and problem is None:
            delivery = IN_PLACE
        elif not periods:
            delivery = NOT_DESIRED
        else:
            delivery = PENDING if self.monitor.online else AWAY
        shown = PlanView(
            charger_id=self.monitor.charger_id,
            connector_id=self.number,
            mode=config.mode,
            state=state,
            message=message,
            delivery=delivery,
            problem=problem,
            source=kept.source,
            zone=config.time_zone,
            currency=config.currency if config.mode == STANDALONE else None,
            max_price=config.price_threshold if config.mode == STANDALONE else None,
            periods=periods,
            running=kept.periods,
            expires_at=kept.expires_at,
            source_id=kept.source_id,
        )
        return with_prices(shown, plan, self._prices.slots)

    def hems_status(self) -> HemsStatus:
        return hems.status(
            charge_point_id=self.monitor.charger_id,
            connector_id=self.number,
            online=self.monitor.online,
            ready=self.switched and not self.keeper.busy and not self.keeper.blocked,
            books=self.monitor.books.get(self.number),
            view=self.monitor.views.get(self.number),
            kept=self.keeper.kept,
            now=self._clock(),
        )

    def state(self) -> HomeAssistantState:
        monitor, kept, now = self.monitor, self.keeper.kept, self._clock()
        books, view = monitor.books.get(self.number), monitor.views.get(self.number)
        running = books.running if books is not None else None
        plan = self.planner.plan
        choice = next((one for one in plan.choices if one.slots), None) if plan is not None else None
        period = current_or_next(kept.periods, now)
        seen = view if monitor.online else None
        status, message = self._schedule_status()
        currents = [phase.current_a for phase in seen.phases if phase.current_a is not None] if seen else []
        voltages = [phase.voltage_v for phase in seen.phases if phase.voltage_v is not None] if seen else []
        return HomeAssistantState(
            operation_mode=self._config.mode,
            online=monitor.online,
            charger_status=books.last_status if books is not None else None,
            connector_mode=seen.mode if seen is not None else None,
            error_code=seen.error_code if seen is not None else None,
            power_kw=seen.power_w / 1000 if seen is not None and seen.power_w is not None else None,
            voltage=float(max(voltages)) if voltages else None,
            current=float(max(currents)) if currents else None,
            energy_kwh=books.register_wh / 1000 if books is not None else None,
            session_energy_kwh=(books.register_wh - running.meter_start_wh) / 1000
            if books is not None and running is not None
            else None,
            schedule_source=kept.source,
            schedule_status=status,
            message=message,
            plan_date=plan.plan_day.isoformat() if plan is not None and plan.plan_day else None,
            slots=len(choice.slots) if choice is not None else 0,
            price_levels=len(choice.levels) if choice is not None else 0,
            slots_excluded=sum(one.excluded for one in plan.choices) if plan is not None else 0,
            tomorrow_message=plan.choices[1].message if plan is not None and plan.choices[1].slots else None,
            price_threshold_active=self._config.mode == STANDALONE and self.planner.threshold_active,
            next_charge_start=iso_time(period.start) if period is not None else None,
            next_charge_end=iso_time(period.end) if period is not None else None,
            schedule_error=kept.error if self.planner.state != ERROR else self.planner.message,
            hems_last_command=iso_time(kept.last_command_at) if self._config.mode == HEMS else None,
            hems_last_command_result=kept.last_command_result if self._config.mode == HEMS else None,
        )

    def _schedule_status(self) -> tuple[str, str]:
        if self._config.mode == STANDALONE:
            return self.planner.state, self.planner.message
        kept = self.keeper.kept
        if kept.error is not None:
            return ERROR, kept.error
        if kept.source == HEMS:
            return "scheduled", f"{len(kept.periods)} periods"
        return IDLE, ""
