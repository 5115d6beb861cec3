"""A connector whose schedule the bridge manages: its sync, its planner or its HEMS, and what is published of it."""

import asyncio
from collections.abc import Callable
from datetime import datetime

import structlog
from msgspec import Struct

from bridges.charge_amps import hems
from bridges.charge_amps.cloud import ChargeAmpsCloud, CloudError, PolledConnector
from bridges.charge_amps.config import ChargeAmpsConfig
from bridges.charge_amps.monitor import Monitor
from bridges.charge_amps.plan_store import PlanStore, plan_topic, state_topic
from bridges.charge_amps.price_planner import ERROR, IDLE, PricePlanner
from bridges.charge_amps.schedule_sync import ScheduleSync, SyncState
from bridges.charge_amps.web_api import WebApiCloud
from csms.adapter import AdapterHost, BrokerMessage
from csms.plans.retained import Retained
from csms.scheduling.hems import HemsStatus, hems_state, iso_time, without_measurements
from csms.scheduling.periods import current_or_next, remaining_periods
from csms.scheduling.plan_delivery import AWAY, HEMS, IN_PLACE, NOT_DESIRED, PENDING, STANDALONE, DesiredPlan
from csms.scheduling.plan_view import PlanView, with_prices
from csms.scheduling.price_table import PriceTable

log = structlog.get_logger()


class HomeAssistantState(Struct, frozen=True, kw_only=True):
    """The retained topic `charge-amps/{charge point}/{connector}/state`, from which Home Assistant's entities read."""

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
    """`run` first removes what another operation mode has left behind, then follows the configured one."""

    def __init__(
        self,
        monitor: Monitor,
        connector_id: int,
        *,
        primary: bool,
        cloud: ChargeAmpsCloud,
        schedules: WebApiCloud,
        config: ChargeAmpsConfig,
        prices: PriceTable,
        node: AdapterHost,
        plans: PlanStore,
        clock: Callable[[], datetime],
    ) -> None:
        self.monitor = monitor
        self.connector_id = connector_id
        self._config = config
        self._node = node
        self._plans = plans
        self._clock = clock
        self._plan_topic = plan_topic(monitor.charger_id, connector_id)
        self._state_topic = state_topic(monitor.charger_id, connector_id)
        name = hems.topic_name(monitor.charger_id, connector_id, primary=primary)
        self._hems_topic = f"hems/charge-amps/{name}"
        self.sync = ScheduleSync(
            cloud,
            schedules,
            config,
            monitor.charger_id,
            connector_id,
            clock=clock,
            save=lambda state: plans.save(self._plan_topic, state),
        )
        self.sync.on_change = self.publish
        self.planner = PricePlanner(prices, self.sync, config, clock)
        self._ready = False
        self._prices = prices
        self._stored_view: PlanView | None = None
        self._retained = Retained(node, config.intervals.heartbeat_s, clock)
        self._publishing = asyncio.Lock()
        self._listening = asyncio.Event()  # to the HEMS

    # --- life ------------------------------------------------------------------------------------

    async def run(self, stored: SyncState | None) -> None:
        """Go on from the stored state until cancelled."""
        await self._restore(stored)
        await self.publish()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._maintain())
            if self._config.mode == HEMS:
                topic = f"{self._hems_topic}/schedule/+"
                tasks.create_task(self._node.listen(topic, self._on_command, subscribed=self._listening.set))
                tasks.create_task(self._publish_when_listening())

    async def _restore(self, stored: SyncState | None) -> None:
        """Take over the stored state. After a change of mode, delete the schedule of the old mode before anything else."""
        mode = self._config.mode
        if stored is not None:
            self.sync.state = stored
        if stored is not None and stored.mode != mode:
            log.info("operation_mode_changed", charger=self.monitor.charger_id, mode=mode)
            if mode != HEMS and not await self._retained.take_back(f"{self._hems_topic}/status"):
                log.warning("hems_status_not_removed", charger=self.monitor.charger_id)
            while True:
                try:
                    await self.sync.apply(DesiredPlan(source=mode))
                    break
                except CloudError as error:
                    log.warning("old_schedule_not_deleted", charger=self.monitor.charger_id, error=str(error))
                await asyncio.sleep(self._config.intervals.retry_s[0])
        if stored is None or stored.mode != mode:
            self.sync.state = SyncState(mode=mode)
            await self._plans.save(self._plan_topic, self.sync.state)
        self._ready = True

    async def _maintain(self) -> None:
        while not self.monitor.given_up:
            await self._plans.flush()
            await self.sync.maintain()
            await self.update_plan()
            await self.publish()
            await asyncio.sleep(self._config.intervals.tend_s)

    async def update_plan(self) -> None:
        """Plan anew in standalone mode, since prices or the time have changed."""
        active = self._ready and not self.monitor.given_up and self._config.mode == STANDALONE
        if active and await self.planner.update():
            await self.publish()

    async def _on_command(self, message: BrokerMessage) -> None:
        if self.monitor.given_up:
            return
        if await hems.apply_command(message, self.sync, self._config, self._clock()):
            await self.publish()

    async def _publish_when_listening(self) -> None:
        """Tell the HEMS that the connector is ready, now that its commands arrive here."""
        await self._listening.wait()
        await self.publish()

    def block(self, *, blocked: bool) -> None:
        """Write no schedule while an operator has taken the connector out of service: it would be in service again."""
        self.sync.blocked = blocked

    # --- what is published -----------------------------------------------------------------------

    async def publish(self) -> None:
        """Publish what has changed, and everything once in a heartbeat.

        Each HEMS command changes the status, by its time: its result is published once, by the first caller that
        finds it noted, be that the listener, `maintain` or the monitor. Both topics come from one moment, and one call publishes after the other: a subscriber that sees a new HEMS
        status finds the same news in the state, and no topic goes back to an older content.
        """
        async with self._publishing:
            await self._store_view()
            state = self.state()
            status = self.hems_status() if self._config.mode == HEMS else None
            command_at = self.sync.state.last_command_at
            await self._retained.put(self._state_topic, state)
            if status is not None:
                # The status has the time of the last command in whole seconds only.
                apart = (without_measurements(status), command_at)
                await self._retained.put(f"{self._hems_topic}/status", status, apart)

    async def _store_view(self) -> None:
        """Store the plan view for the console and the REST interface if it has changed."""
        view = self.plan_view()
        if view == self._stored_view:
            return
        try:
            if await self._node.show_plan(view, self._config.connectors):
                self._stored_view = view
        except Exception as error:
            # The database is unreachable: the next call tries again.
            log.warning("plan_view_not_stored", charger=self.monitor.charger_id, error=str(error))

    def plan_view(self) -> PlanView:
        """Return what an operator is shown of the plan. A plan that waits for the cloud is pending."""
        sync, config, plan = self.sync.state, self._config, self.planner.plan
        state, message = self._schedule_status()
        pending, standalone = self.sync.pending, config.mode == STANDALONE
        if standalone:
            periods = remaining_periods(plan.periods, self._clock()) if plan is not None else ()
        else:
            periods = pending.periods if pending is not None else sync.periods
        problem = self._problem()
        if self.sync.active and pending is None and problem is None:
            delivery = IN_PLACE
        elif not periods:
            delivery = NOT_DESIRED
        else:
            delivery = PENDING if self.monitor.online else AWAY
        view = PlanView(
            charger_id=self.monitor.charger_id,
            connector_id=self.connector_id,
            mode=config.mode,
            state=state,
            message=message,
            delivery=delivery,
            problem=problem,
            source=sync.source,
            zone=config.time_zone,
            currency=config.currency if standalone else None,
            max_price=config.price_threshold if standalone else None,
            periods=periods,
            running=sync.periods,
            expires_at=sync.expires_at,
            source_id=sync.source_id,
        )
        return with_prices(view, plan, self._prices.slots)

    @property
    def _polled(self) -> PolledConnector:
        """The connector as polled; without values while the charger is offline."""
        polled = self.monitor.connectors.get(self.connector_id) if self.monitor.online else None
        return polled if polled is not None else PolledConnector(connector_id=self.connector_id)

    def hems_status(self) -> HemsStatus:
        """Return the status for the HEMS. Unknown values are null."""
        sync, now, power_w = self.sync.state, self._clock(), self._polled.power_w
        accounting = self.monitor.accounting.get(self.connector_id)
        status = accounting.last_status if accounting is not None else None
        charger_state = hems_state(status, online=self.monitor.online)
        period = current_or_next(sync.periods, now)
        ready = self._ready and self._listening.is_set() and not self.sync.busy and not self.sync.blocked
        command_at = iso_time(sync.last_command_at)
        return HemsStatus(
            state=charger_state,
            charger_state=charger_state,
            ready_for_schedule=ready and charger_state not in {"error", "offline"},
            schedule_source=sync.source,
            schedule_active=self.sync.active,
            next_period_start=iso_time(period.start) if period is not None else None,
            next_period_end=iso_time(period.end) if period is not None else None,
            current_power_kw=None if power_w is None else power_w / 1000,
            session_energy_kwh=accounting.session_energy_kwh if accounting is not None else None,
            current_schedule_id=sync.schedule_id,
            last_hems_command_at=command_at,
            last_command_at=command_at,
            last_command_result=sync.last_command_result,
            error=sync.error,
            charge_point_id=self.monitor.charger_id,
            connector_id=self.connector_id,
            source_id=sync.source_id,
            expires_at=iso_time(sync.expires_at),
            timestamp=iso_time(now) or "",
        )

    def state(self) -> HomeAssistantState:
        sync, plan, hems_mode = self.sync.state, self.planner.plan, self._config.mode == HEMS
        accounting, polled = self.monitor.accounting.get(self.connector_id), self._polled
        currents = [phase.current_a for phase in polled.phases if phase.current_a is not None]
        voltages = [phase.voltage_v for phase in polled.phases if phase.voltage_v is not None]
        choice = next((one for one in plan.choices if one.slots), None) if plan is not None else None
        period = current_or_next(sync.periods, self._clock())
        status, message = self._schedule_status()
        return HomeAssistantState(
            operation_mode=self._config.mode,
            online=self.monitor.online,
            charger_status=accounting.last_status if accounting is not None else None,
            connector_mode=polled.mode,
            error_code=polled.error_code,
            power_kw=polled.power_w / 1000 if polled.power_w is not None else None,
            voltage=float(max(voltages)) if voltages else None,
            current=float(max(currents)) if currents else None,
            energy_kwh=accounting.register_wh / 1000 if accounting is not None else None,
            session_energy_kwh=accounting.session_energy_kwh if accounting is not None else None,
            schedule_source=sync.source,
            schedule_status=status,
            message=message,
            plan_date=plan.plan_day.isoformat() if plan is not None and plan.plan_day else None,
            slots=len(choice.slots) if choice is not None else 0,
            price_levels=len(choice.levels) if choice is not None else 0,
            slots_excluded=sum(one.excluded for one in plan.choices) if plan is not None else 0,
            tomorrow_message=plan.choices[1].message if plan is not None and plan.choices[1].slots else None,
            price_threshold_active=not hems_mode and self.planner.threshold_active,
            next_charge_start=iso_time(period.start) if period is not None else None,
            next_charge_end=iso_time(period.end) if period is not None else None,
            schedule_error=self._problem(),
            hems_last_command=iso_time(sync.last_command_at) if hems_mode else None,
            hems_last_command_result=sync.last_command_result if hems_mode else None,
        )

    def _problem(self) -> str | None:
        return self.sync.state.error if self.planner.state != ERROR else self.planner.message

    def _schedule_status(self) -> tuple[str, str]:
        if self._config.mode == STANDALONE:
            return self.planner.state, self.planner.message
        sync = self.sync.state
        if sync.error is not None:
            return ERROR, sync.error
        if sync.source == HEMS:
            return "scheduled", f"{len(sync.periods)} periods"
        return IDLE, ""
