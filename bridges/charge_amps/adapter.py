"""The Charge Amps bridge: monitors the charge points of an account, performs commands, manages schedules."""

import asyncio
import re
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, Final
from uuid import uuid4

import structlog

from bridges.charge_amps.api_client import utc_now
from bridges.charge_amps.cloud import ChargeAmpsCloud, CloudChargePoint, CloudError, CloudUnavailable
from bridges.charge_amps.config import ChargeAmpsConfig
from bridges.charge_amps.discovery import EntityDiscovery
from bridges.charge_amps.monitor import Monitor, backoff_s
from bridges.charge_amps.plan_store import PlanStore, plan_topic
from bridges.charge_amps.schedule_sync import SyncState
from bridges.charge_amps.scheduled_connector import ScheduledConnector
from bridges.charge_amps.session_accounting import RemoteStart
from bridges.charge_amps.web_api import WebApiCloud
from csms.adapter import AdapterHost, Command
from csms.core.identity import identity_problem
from csms.errors import ChargerOffline, ChargerRefused, ChargerTimeout, CommandError, NotSupported
from csms.plans.sources import sources, taken
from csms.scheduling.price_table import PriceTable

log = structlog.get_logger()
_TRIGGERS: Final = {"StatusNotification", "MeterValues", "Heartbeat"}
_RFID: Final = re.compile(r"(?:[0-9A-Fa-f]{2}){4,10}")


class ChargeAmpsAdapter:
    """Implements `csms.adapter.Adapter`. `cloud` and `schedules` may be the same. `schedules` None: there are none."""

    def __init__(
        self,
        config: ChargeAmpsConfig,
        cloud: ChargeAmpsCloud,
        schedules: WebApiCloud | None,
        clock: Callable[[], datetime] = utc_now,
    ) -> None:
        self.monitors: dict[str, Monitor] = {}
        self.connectors: dict[tuple[str, int], ScheduledConnector] = {}
        self._config = config
        self._cloud = cloud
        self._schedules = schedules
        self._clock = clock
        self._prices = PriceTable(config.currency)

    # --- life ------------------------------------------------------------------------------------

    async def run(self, node: AdapterHost) -> None:
        plans = PlanStore(node)
        try:
            async with asyncio.TaskGroup() as tasks:
                stored = tasks.create_task(plans.load())
                tasks.create_task(self._discover(node, tasks, plans, stored))
                if self._config.mode == "standalone":
                    take = taken(self._prices, self._clock, self._update_plans)
                    for source in sources(self._config.prices, self._prices, self._clock):
                        tasks.create_task(source.follow(node, take))
        finally:
            await self._cloud.close()
            if self._schedules is not None:
                await self._schedules.close()

    async def _discover(
        self,
        node: AdapterHost,
        tasks: asyncio.TaskGroup,
        plans: PlanStore,
        stored: "asyncio.Task[dict[str, SyncState]]",
    ) -> None:
        """Monitor the charge points of the account, also those that are added later."""
        failures = 0
        intervals = self._config.intervals
        while True:
            try:
                points = await self._cloud.charge_points()
            except CloudError as error:
                log.warning("charge_points_not_listed", error=str(error))
                failures += 1
                wait_s = backoff_s(intervals, failures, error)
            else:
                failures, wait_s = 0, intervals.refresh_s
                for point in points:
                    if point.id not in self.monitors and self._is_selected(point):
                        self._add(node, tasks, plans, stored, point)
                if not self.monitors:
                    log.warning("no_charge_point_selected", account=[point.id for point in points])
            await asyncio.sleep(wait_s)

    def _is_selected(self, point: CloudChargePoint) -> bool:
        if self._config.charge_points and point.id not in self._config.charge_points:
            return False
        problem = identity_problem(point.id)
        if problem is not None:
            log.warning("charge_point_identity_refused", identity=point.id, reason=problem)
        return problem is None

    def _add(
        self,
        node: AdapterHost,
        tasks: asyncio.TaskGroup,
        plans: PlanStore,
        stored: "asyncio.Task[dict[str, SyncState]]",
        point: CloudChargePoint,
    ) -> None:
        primary = point.id == (self._config.primary or next(iter(self.monitors), point.id))
        monitor = Monitor(point, self._cloud, self._config, self, self._clock)
        self.monitors[point.id] = monitor
        monitor.on_poll = self._publish_connectors
        tasks.create_task(monitor.run(node), name="charge-amps monitor")
        if self._schedules is None:
            log.info("schedules_unavailable", charger=point.id, reason="the web API is not configured")
            return
        for connector_id in self._config.connectors:
            connector = ScheduledConnector(
                monitor,
                connector_id,
                primary=primary,
                cloud=self._cloud,
                schedules=self._schedules,
                config=self._config,
                prices=self._prices,
                node=node,
                plans=plans,
                clock=self._clock,
            )
            self.connectors[point.id, connector_id] = connector
            tasks.create_task(self._run_connector(connector, stored))
            if self._config.discovery is not None:
                discovery = EntityDiscovery(
                    node,
                    self._config.discovery,
                    monitor,
                    connector_id,
                    primary=primary,
                    unnumbered=primary and connector_id == self._config.connectors[0],
                )
                tasks.create_task(discovery.run())

    async def _run_connector(
        self, connector: ScheduledConnector, stored: "asyncio.Task[dict[str, SyncState]]"
    ) -> None:
        states = await asyncio.shield(stored)
        await connector.run(states.get(plan_topic(connector.monitor.charger_id, connector.connector_id)))

    async def _publish_connectors(self, monitor: Monitor) -> None:
        for (charger_id, _), connector in self.connectors.items():
            if charger_id == monitor.charger_id:
                await connector.publish()

    async def _update_plans(self) -> None:
        for connector in list(self.connectors.values()):
            await connector.update_plan()

    async def hang_up(self, charger_id: str, generation: int) -> None:
        monitor = self.monitors.get(charger_id)
        if monitor is not None:
            monitor.hang_up(generation)

    # --- commands --------------------------------------------------------------------------------

    async def perform(self, charger_id: str, command: Command) -> Mapping[str, Any]:
        monitor = self.monitors.get(charger_id)
        if monitor is None or not monitor.online:
            raise ChargerOffline(f"{charger_id} cannot be reached through Charge Amps' cloud now.")
        try:
            async with asyncio.timeout(command.timeout_s):
                return await self._perform(monitor, command)
        except TimeoutError:
            raise ChargerTimeout(
                f"Charge Amps' cloud did not answer within {command.timeout_s:g} s."
            ) from None
        except CloudUnavailable as error:
            kind = ChargerTimeout if error.maybe_done else ChargerOffline
            raise kind(f"Charge Amps' cloud: {error}") from None
        except CloudError as error:
            raise ChargerRefused("GenericError", str(error)) from None

    async def _perform(self, monitor: Monitor, command: Command) -> Mapping[str, Any]:
        payload = command.payload
        match command.action:
            case "RemoteStartTransaction":
                return _answer(done=await self._start(monitor, command))
            case "RemoteStopTransaction":
                return _answer(done=await self._stop(monitor, payload["transactionId"]))
            case "ChangeAvailability":
                return _answer(
                    done=await self._change_availability(monitor, payload["connectorId"], payload["type"])
                )
            case "Reset":
                await self._cloud.reboot(monitor.charger_id)
                return _answer(done=True)
            case "TriggerMessage":
                if payload["requestedMessage"] not in _TRIGGERS:
                    return {"status": "NotImplemented"}
                monitor.poll_now()
                return _answer(done=True)
            case "UnlockConnector":
                return {"status": "NotSupported"}
        raise NotSupported(
            f"{monitor.charger_id} is reached through Charge Amps' cloud: no {command.action}."
        )

    async def _start(self, monitor: Monitor, command: Command) -> bool:
        connector_id = command.payload.get("connectorId", self._config.connectors[0])
        accounting = monitor.accounting.get(connector_id)
        if accounting is None:
            return False
        id_tag = command.payload["idTag"]
        rfid = id_tag.upper() if _RFID.fullmatch(id_tag) else self._config.rfid
        if rfid is None:
            raise CommandError(
                f"Charge Amps starts for RFID cards only: {id_tag} is no card's number in hex, and CHARGE_AMPS_RFID is not set."
            )
        reference = command.id or uuid4().hex
        before = accounting.remote_start
        accounting.remote_start = RemoteStart(id_tag=id_tag, reference=reference, at=self._clock())
        started = await self._cloud.start(monitor.charger_id, connector_id, rfid, reference)
        if not started:
            accounting.remote_start = before
        monitor.poll_now()
        return started

    async def _stop(self, monitor: Monitor, transaction_id: int) -> bool:
        for connector_id, accounting in monitor.accounting.items():
            transaction = accounting.open_transaction
            if transaction is not None and transaction.transaction_id == transaction_id:
                stopped = await self._cloud.stop(monitor.charger_id, connector_id)
                if stopped:
                    accounting.remotely_stopped_id = transaction_id
                monitor.poll_now()
                return stopped
        return False

    async def _change_availability(self, monitor: Monitor, connector_id: int, kind: str) -> bool:
        """Set the mode: Off for out of service, Schedule for a connector with a schedule of the bridge, else On."""
        connector_ids = self._config.connectors if connector_id == 0 else (connector_id,)
        if any(one not in monitor.accounting for one in connector_ids):
            return False
        for one in connector_ids:
            connector = self.connectors.get((monitor.charger_id, one))
            if kind == "Inoperative":
                mode = "Off"
            else:
                mode = "Schedule" if connector is not None and connector.sync.active else "On"
            await self._cloud.set_mode(monitor.charger_id, one, mode)
            if connector is not None:
                connector.block(blocked=kind == "Inoperative")
        monitor.poll_now()
        return True


def _answer(*, done: bool) -> Mapping[str, Any]:
    return {"status": "Accepted" if done else "Rejected"}
