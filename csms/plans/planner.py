"""Plans this node's OCPP chargers, again whenever prices, HEMS wishes or connections change."""

import asyncio
import contextlib
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import structlog
from msgspec import Struct
from sqlalchemy.ext.asyncio import AsyncEngine

from csms.adapter import AdapterHost, BrokerMessage, SendCommand
from csms.aio import FailureLog, TaskSet
from csms.core.tariffs import zone_exists
from csms.db import charger_snapshot as rows
from csms.db import plans
from csms.db.driver import driver_connection
from csms.db.plans import Plan
from csms.mqtt import plans as plan_topics
from csms.plans import hems
from csms.plans.retained import Retained
from csms.plans.sources import PriceInput, sources, taken
from csms.plans.target import ProfileTarget
from csms.scheduling.hems import without_measurements
from csms.scheduling.plan_decision import PlanDecision, decide_plan, view_plan
from csms.scheduling.plan_delivery import HEMS, IN_PLACE, NOTHING, PUSH, decide_push, delivery_state
from csms.scheduling.plan_view import PlanView
from csms.scheduling.price_table import PriceTable
from csms.scheduling.selection import PlanCache

log = structlog.get_logger()


class PlannerPace(Struct, frozen=True, kw_only=True):
    """Seconds. `settle_s`: how long after a connection its charger may still be booting, looked at every `soon_s`.

    `pauses_s`: the pause after the first failed delivery to a charger, the second and so on; the last one repeats.
    """

    tick_s: float = 5.0
    soon_s: float = 0.3
    heartbeat_s: float = 60.0
    settle_s: float = 2.0
    max_concurrent: int = 20
    pauses_s: tuple[float, ...] = (10.0, 30.0, 60.0, 300.0)
    command_timeout_s: float = 30.0


class Planner:
    """One per node; it acts for the chargers whose last connection was with this node.

    `zone`: the clock of chargers without a time zone of their own. `currency`: of prices and of their limit.
    `mqtt`: whether there is a broker at all.
    """

    def __init__(
        self,
        engine: AsyncEngine,
        node: AdapterHost,
        send: SendCommand,
        prices: PriceInput,
        *,
        currency: str,
        zone: str = "UTC",
        mqtt: bool = True,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
        pace: PlannerPace | None = None,
    ) -> None:
        self._engine = engine
        self._node = node
        self._input = prices
        self._prices = PriceTable(currency)
        self._zone = zone
        self._clock = clock
        self._pace = pace = pace or PlannerPace()
        self._target = ProfileTarget(engine, send, clock, timeout_s=pace.command_timeout_s)
        self._mqtt = mqtt
        self._states = Retained(node, pace.heartbeat_s * 10, clock)
        self._statuses = Retained(node, pace.heartbeat_s, clock)
        self._awake = asyncio.Event()
        self._busy: set[str] = set()  # the chargers to which a plan is being delivered
        self._tasks = TaskSet()
        self._retries: dict[
            str, tuple[int, datetime]
        ] = {}  # failed deliveries in a row, and when the next is due
        self._choices = PlanCache()
        self._shown: dict[str, PlanView] = {}
        self._seen: dict[str, object] = {}

    def nudge(self) -> None:
        """Plan now: something has changed."""
        self._awake.set()

    async def run(self) -> None:
        """Until cancelled. While the database is away nothing is planned anew."""
        try:
            async with asyncio.TaskGroup() as tasks:
                take = taken(self._prices, self._clock, self._prices_changed)
                for source in sources(self._input, self._prices, self._clock):
                    tasks.create_task(source.follow(self._node, take))
                tasks.create_task(self._node.listen(hems.COMMANDS, self._hems_command))
                tasks.create_task(self._plan_forever())
        finally:
            await self._tasks.cancel()

    # --- what comes in ---------------------------------------------------------------------------

    async def _prices_changed(self) -> None:
        self.nudge()

    async def _hems_command(self, message: BrokerMessage) -> None:
        """Every node receives it and applies it in the same way."""

        def change(plan: Plan) -> Any:
            return hems.apply_command(message, plan, zone=self._zone_of(plan), now=self._clock())

        async with self._engine.begin() as db:
            changed = await plans.change_hems(db, hems.addressed(message.topic), change)
        if changed is not None:
            self.nudge()

    # --- the round -------------------------------------------------------------------------------

    async def _plan_forever(self) -> None:
        failures = FailureLog("planning_paused")
        while True:
            self._awake.clear()
            pause_s = self._pace.tick_s
            with failures:
                if await self._plan_all():
                    pause_s = self._pace.soon_s
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause_s):
                    await self._awake.wait()

    async def _plan_all(self) -> bool:
        """Plan every charger of this node once. True: one of them has only just connected."""
        # The outcome for these may not be in their rows yet when the rows are read.
        under_way = set(self._busy)
        async with self._engine.connect() as db:
            found = await plans.list_of_node(db, self._node.name)
        failed: Exception | None = None
        for plan in found:
            await asyncio.sleep(0)  # there may be many plans: let other tasks run
            if plan.charger_id not in under_way:
                try:
                    await self._plan_one(plan)
                except Exception as error:  # one bad plan must not stop the others
                    failed = error
        if failed is not None:
            raise failed
        await self._publish_hems_status(
            [plan for plan in found if plan.terms.mode == HEMS and not plan.removed]
        )
        for charger_id in self._shown.keys() - {plan.charger_id for plan in found}:
            # Removed, or planned by another node now.
            del self._shown[charger_id]
            self._seen.pop(charger_id, None)
            self._states.forget(plan_topics.topic(charger_id))
            self._statuses.forget(hems.status_topic(charger_id))
        return any(self._booting(plan, self._clock()) for plan in found)

    async def _plan_one(self, plan: Plan) -> None:
        now = self._clock()
        look = self._outlook(plan, now)
        due = self._due(plan, look, now)
        if due != NOTHING and len(self._busy) < self._pace.max_concurrent:
            self._busy.add(plan.charger_id)
            self._tasks.spawn(self._act(plan, look, due), f"plan of {plan.charger_id}")
        if plan.removed and plan.delivery.installed is None:
            await self._forget(plan)
            return
        await self._settle(plan, look, now)
        await self._show(plan, look, now)

    def _zone_of(self, plan: Plan) -> ZoneInfo:
        return ZoneInfo(plan.time_zone if plan.time_zone and zone_exists(plan.time_zone) else self._zone)

    def _outlook(self, plan: Plan, now: datetime) -> PlanDecision:
        return decide_plan(
            plan.terms,
            prices=self._prices.slots,
            problem=self._prices.problem,
            request=plan.hems,
            delivery=plan.delivery,
            zone=self._zone_of(plan),
            now=now,
            removed=plan.removed,
            cache=self._choices,
        )

    def _due(self, plan: Plan, look: PlanDecision, now: datetime) -> str:
        if not plan.online or plan.enrollment != "Accepted":
            self._retries.pop(plan.charger_id, None)
            return NOTHING
        _, due_at = self._retries.get(plan.charger_id, (0, now))
        if self._booting(plan, now) or now < due_at:
            return NOTHING
        return decide_push(
            look.desired,
            plan.delivery,
            now=now,
            connector_id=plan.terms.connector_id,
            phases=plan.terms.phases,
            connected_at=plan.connected_at,
            booted_at=plan.booted_at,
            lost=plan.lost,
        )

    def _booting(self, plan: Plan, now: datetime) -> bool:
        """Whether the charger has connected just now, so that a BootNotification may follow."""
        since = plan.connected_at
        if not plan.online or since is None or now - since >= timedelta(seconds=self._pace.settle_s):
            return False
        return plan.booted_at is None or plan.booted_at < since

    async def _act(self, plan: Plan, look: PlanDecision, due: str) -> None:
        charger_id = plan.charger_id
        try:
            if due == PUSH:
                outcome = await self._target.put(plan, look.desired)
            else:
                outcome = await self._target.clear(plan)
            async with self._engine.begin() as db:
                await plans.put_delivery(db, charger_id, outcome.delivery)
            again = outcome.again
        except Exception as error:
            log.error("plan_not_delivered", charger=charger_id, error=repr(error), exc_info=error)
            again = True
        failures, _ = self._retries.pop(charger_id, (0, None))
        if again:
            pauses_s = self._pace.pauses_s
            pause = timedelta(seconds=pauses_s[min(failures, len(pauses_s) - 1)])
            self._retries[charger_id] = (failures + 1, self._clock() + pause)
        self._busy.remove(charger_id)
        self.nudge()

    # --- what is published ----------------------------------------------------------------------------

    async def _settle(self, plan: Plan, look: PlanDecision, now: datetime) -> None:
        """Record that a command of the HEMS has been carried out, or cannot be."""
        if plan.terms.mode != HEMS or plan.charger_id in self._busy:
            return
        in_place = delivery_state(look.desired, plan.delivery, now=now, online=plan.online) == IN_PLACE

        def change(locked: Plan) -> Any:
            changed = hems.settle_wish(locked.hems, locked, in_place=in_place, now=now)
            # Another command has arrived meanwhile: the next run settles that one.
            return changed if locked.hems == plan.hems and changed != locked.hems else None

        if hems.settle_wish(plan.hems, plan, in_place=in_place, now=now) != plan.hems:
            async with self._engine.begin() as db:
                await plans.change_hems(db, plan.charger_id, change)
            self.nudge()

    async def _show(self, plan: Plan, look: PlanDecision, now: datetime) -> None:
        zone, before = self._zone_of(plan), self._shown.get(plan.charger_id)
        word = delivery_state(look.desired, plan.delivery, now=now, online=plan.online)
        seen = (plan.terms, plan.delivery, plan.online, look, zone, word)
        if before is None or self._seen.get(plan.charger_id) != seen:
            shown = await self._view_of(plan, look, zone, now)
            self._seen[plan.charger_id] = seen
        else:
            shown = before
        await self._states.put(plan_topics.topic(plan.charger_id), plan_topics.plan_state(shown, now))
        if plan.terms.mode != HEMS and (before is None or before.mode == HEMS):
            await self._statuses.take_back(hems.status_topic(plan.charger_id))

    async def _view_of(self, plan: Plan, look: PlanDecision, zone: ZoneInfo, now: datetime) -> PlanView:
        shown = view_plan(
            plan.charger_id,
            plan.terms,
            look,
            plan.delivery,
            prices=self._prices.slots,
            currency=self._prices.currency,
            zone=zone.key,
            online=plan.online,
            now=now,
        )
        if self._shown.get(plan.charger_id) != shown:
            async with self._engine.begin() as db:
                await plans.put_view(db, shown, [shown.connector_id])
            self._shown[plan.charger_id] = shown
        return shown

    async def _publish_hems_status(self, found: list[Plan]) -> None:
        if not found:
            return
        async with self._engine.connect() as db:
            driver = await driver_connection(db)
            snapshots = await rows.snapshots(driver, [plan.charger_id for plan in found])
        known, now = {one.state.charger_id: one for one in snapshots}, self._clock()
        for plan in found:
            status = hems.status(plan, known.get(plan.charger_id), now=now)
            await self._statuses.put(hems.status_topic(plan.charger_id), status, without_measurements(status))

    async def _forget(self, plan: Plan) -> None:
        """Drop a removed plan: its profile is off the charger, its retained topics are cleared."""
        gone = await self._states.take_back(plan_topics.topic(plan.charger_id))
        gone = await self._statuses.take_back(hems.status_topic(plan.charger_id)) and gone
        if gone or not self._mqtt:
            async with self._engine.begin() as db:
                await plans.forget(db, plan.charger_id)
            self._shown.pop(plan.charger_id, None)
            self._seen.pop(plan.charger_id, None)
            self.nudge()
