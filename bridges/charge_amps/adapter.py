"""The bridge: watches an account's charge points, has them do what is asked, keeps their schedules."""

import asyncio
import random
import re
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any
from uuid import uuid4

import structlog

from bridges.charge_amps.api_client import utc_now as wall
from bridges.charge_amps.cloud import (
    ChargeAmpsCloud,
    CloudChargePoint,
    CloudError,
    CloudUnavailable,
    LoginRefused,
)
from bridges.charge_amps.config import ChargeAmpsConfig
from bridges.charge_amps.discovery import Discovery
from bridges.charge_amps.monitor import Monitor
from bridges.charge_amps.plan_store import PlanStore, plan_topic
from bridges.charge_amps.schedule_sync import SyncState
from bridges.charge_amps.scheduled_connector import ScheduledConnector
from bridges.charge_amps.session_accounting import RemoteStart
from csms.adapter import AdapterHost, Command
from csms.errors import ChargerOffline, ChargerRefused, ChargerTimeout, CommandError, NotSupported
from csms.plans.sources import PriceSource, follow, sources
from csms.scheduling.price_table import PriceTable

log = structlog.get_logger()
_TRIGGERS = {"StatusNotification", "MeterValues", "Heartbeat"}


class ChargeAmpsAdapter:
    """Implements `csms.adapter.Adapter`."""

    def __init__(
        self, config: ChargeAmpsConfig, cloud: ChargeAmpsCloud, clock: Callable[[], datetime] = wall
    ) -> None:
        self.monitors: dict[str, Monitor] = {}
        self.connectors: dict[tuple[str, int], ScheduledConnector] = {}
        self._config = config
        self._cloud = cloud
        self._clock = clock
        self._prices = PriceTable(config.currency)

    # --- life ------------------------------------------------------------------------------------

    async def run(self, node: AdapterHost) -> None:
        memory = PlanStore(node)
        remembered: asyncio.Future[dict[str, SyncState]] = asyncio.get_running_loop().create_future()
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._recall(memory, remembered))
                tasks.create_task(self._find(node, tasks, memory, remembered))
                if self._config.mode == "standalone":
                    for source in sources(self._config.prices, self._prices, self._clock):
                        tasks.create_task(self._read_prices(node, source))
        finally:
            remembered.cancel()
            await self._cloud.close()

    async def _recall(self, memory: PlanStore, remembered: "asyncio.Future[dict[str, SyncState]]") -> None:
        remembered.set_result(await memory.recall())

    async def _find(
        self,
        node: AdapterHost,
        tasks: asyncio.TaskGroup,
        memory: PlanStore,
        remembered: "asyncio.Future[dict[str, SyncState]]",
    ) -> None:
        """The account's charge points, now and those that come later."""
        failures = 0
        while True:
            pace = self._config.pace
            try:
                points = await self._cloud.charge_points()
            except CloudError as error:
                log.warning("charge points not listed", error=str(error))
                low, high = pace.backoff_s
                if isinstance(error, LoginRefused):
                    low = high
                wait_s = min(low * 2.0 ** min(failures, 10), high) * random.uniform(0.8, 1.2)
                failures += 1
            else:
                failures, wait_s = 0, pace.refresh_s
                for point in points:
                    if point.id not in self.monitors and self._wanted(point):
                        self._begin(node, tasks, memory, remembered, point)
                if not self.monitors:
                    log.warning("no charge point to watch", account=[point.id for point in points])
            await asyncio.sleep(wait_s)

    def _wanted(self, point: CloudChargePoint) -> bool:
        return not self._config.charge_points or point.id in self._config.charge_points

    def _begin(
        self,
        node: AdapterHost,
        tasks: asyncio.TaskGroup,
        memory: PlanStore,
        remembered: "asyncio.Future[dict[str, SyncState]]",
        point: CloudChargePoint,
    ) -> None:
        primary = self._config.primary or (next(iter(self.monitors), point.id))
        monitor = Monitor(point, self._cloud, self._config, self, self._clock)
        self.monitors[point.id] = monitor
        if not self._cloud.capabilities.schedules:
            log.info("no schedules: the web application's API is not configured", charger=point.id)
        else:
            for number in self._config.connectors:
                connector = ScheduledConnector(
                    monitor,
                    number,
                    primary=point.id == primary,
                    cloud=self._cloud,
                    config=self._config,
                    prices=self._prices,
                    node=node,
                    memory=memory,
                    clock=self._clock,
                )
                self.connectors[point.id, number] = connector
                tasks.create_task(self._schedule(connector, remembered))
                if self._config.discovery is not None:
                    entities = Discovery(
                        node,
                        self._config.discovery,
                        monitor,
                        number,
                        primary=point.id == primary,
                        bare=point.id == primary and number == self._config.connectors[0],
                    )
                    tasks.create_task(entities.run())
        monitor.on_poll = self._polled
        tasks.create_task(monitor.run(node))

    async def _schedule(
        self, connector: ScheduledConnector, remembered: "asyncio.Future[dict[str, SyncState]]"
    ) -> None:
        kept = (await asyncio.shield(remembered)).get(
            plan_topic(connector.monitor.charger_id, connector.number)
        )
        await connector.run(kept)

    async def _polled(self, monitor: Monitor) -> None:
        for (charger_id, _), connector in self.connectors.items():
            if charger_id == monitor.charger_id:
                await connector.publish()

    async def _read_prices(self, node: AdapterHost, source: PriceSource) -> None:
        async for _ in follow(source, node, self._prices, self._clock):
            for connector in list(self.connectors.values()):
                await connector.step()

    async def hang_up(self, charger_id: str, generation: int) -> None:
        monitor = self.monitors.get(charger_id)
        if monitor is not None:
            monitor.give_way(generation)

    # --- commands --------------------------------------------------------------------------------

    async def perform(self, charger_id: str, command: Command) -> Mapping[str, Any]:
        monitor = self.monitors.get(charger_id)
        if monitor is None or not monitor.online:
            raise ChargerOffline(f"{charger_id} cannot be reached through Charge Amps' cloud now.")
        try:
            async with asyncio.timeout(command.timeout_s):
                return await self._do(monitor, command)
        except TimeoutError:
            raise ChargerTimeout(
                f"Charge Amps' cloud did not answer within {command.timeout_s:g} s."
            ) from None
        except CloudUnavailable as away:
            kind = ChargerTimeout if away.done_perhaps else ChargerOffline
            raise kind(f"Charge Amps' cloud: {away}") from None
        except CloudError as error:
            raise ChargerRefused("GenericError", str(error)) from None

    async def _do(self, monitor: Monitor, command: Command) -> Mapping[str, Any]:
        payload, able = command.payload, self._cloud.capabilities
        match command.action:
            case "RemoteStartTransaction" if able.remote_start:
                return _answer(done=await self._start(monitor, command))
            case "RemoteStopTransaction" if able.remote_start:
                return _answer(done=await self._stop(monitor, payload["transactionId"]))
            case "ChangeAvailability" if able.modes:
                return _answer(done=await self._switch(monitor, payload["connectorId"], payload["type"]))
            case "Reset" if able.reboot:
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
        number = command.payload.get("connectorId", self._config.connectors[0])
        books = monitor.books.get(number)
        tag = command.payload["idTag"]
        rfid = tag.upper() if re.fullmatch(r"(?:[0-9A-Fa-f]{2}){4,10}", tag) else self._config.rfid
        if books is None:
            return False
        if rfid is None:
            raise CommandError(
                f"Charge Amps starts for RFID cards only: {tag} is no card's number in hex, and CHARGE_AMPS_RFID is not set."
            )
        reference = command.id or uuid4().hex
        before, books.own_start = (
            books.own_start,
            RemoteStart(id_tag=tag, reference=reference, at=self._clock()),
        )
        started = await self._cloud.start(monitor.charger_id, number, rfid, reference)
        if not started:
            books.own_start = before
        monitor.poll_now()
        return started

    async def _stop(self, monitor: Monitor, transaction_id: int) -> bool:
        for number, books in monitor.books.items():
            if books.running is not None and books.running.transaction_id == transaction_id:
                stopped = await self._cloud.stop(monitor.charger_id, number)
                if stopped:
                    books.own_stop_of = transaction_id
                monitor.poll_now()
                return stopped
        return False

    async def _switch(self, monitor: Monitor, number: int, kind: str) -> bool:
        """Out of service is mode Off; back is On, or Schedule where one of ours is."""
        numbers = self._config.connectors if number == 0 else (number,)
        if any(one not in monitor.books for one in numbers):
            return False
        for one in numbers:
            connector = self.connectors.get((monitor.charger_id, one))
            if kind == "Inoperative":
                mode = "Off"
            else:
                mode = "Schedule" if connector is not None and connector.keeper.active else "On"
            await self._cloud.set_mode(monitor.charger_id, one, mode)
            if connector is not None:
                connector.block(blocked=kind == "Inoperative")
        monitor.poll_now()
        return True


def _answer(*, done: bool) -> Mapping[str, Any]:
    return {"status": "Accepted" if done else "Rejected"}
