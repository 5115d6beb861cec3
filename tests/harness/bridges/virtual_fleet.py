"""Stations, the bridge and a fake store in one process on a virtual clock: no broker, no database, no waiting.

Commands reach the simulated stations and their packets the bridge through `VirtualFleet.publish`, as through a broker.
"""

import asyncio
from collections.abc import Callable
from contextlib import AbstractContextManager
from datetime import datetime, timedelta
from typing import Any, Self, cast

import msgspec

from bridges.coin_op import settings
from bridges.coin_op.adapter import CoinOpAdapter
from csms.adapter import Admission, BrokerMessage, ChargerSnapshot, Command, HandleMessage
from csms.aio import Part, Parts
from csms.core.device_state import BridgeNotes
from csms.errors import LedgerError
from csms.node.guarded_handler import guarded
from csms.simulate.coin_op import FakeStation
from tests.harness.bridges.coin_op_station import TARIFF
from tests.harness.fake_store import NOW, FakeStore
from tests.harness.waiting import until

PREFIX = "coinop-"


def loop_clock() -> datetime:
    """Return the event loop's time, as a time of day."""
    return NOW + timedelta(seconds=asyncio.get_running_loop().time())


class VirtualFleet:
    """Implements what the bridge uses of `csms.adapter.AdapterHost`. `commands`: what passed on the commands topics, with the second it passed."""

    name = "fleet"
    broker_connected = True
    topic_prefix = ""

    def __init__(self, *stations: FakeStation, **given: Any) -> None:
        self.desk = FakeStore(unknown_tags="accept", tariff=TARIFF)
        self.stations = {station.id: station for station in stations}
        self.settings = settings.load(
            _env_file=None, **{"require_account": False, "open_enrollment": True} | given
        )
        self.bridge = CoinOpAdapter(self.settings, clock=loop_clock)
        self.commands: list[tuple[float, str, str]] = []
        self.options: list[dict[str, Any]] = []
        self.heard: list[tuple[float, str, dict[str, Any]]] = []
        self.live: list[dict[str, Any]] = []
        self.enrollment: dict[str, str] = {}
        self.held: set[str] = set()
        self.database_away = self.dead = False
        self._listeners: list[tuple[str, asyncio.Queue[BrokerMessage]]] = []
        self._tasks: list[asyncio.Task[Any]] = []

    # --- time ------------------------------------------------------------------------------------

    @property
    def at(self) -> float:
        return asyncio.get_running_loop().time()

    async def until(self, condition: Callable[..., Any], within_s: float = 600) -> Any:
        return await until(condition, within_s, every_s=0.1)

    # --- what the bridge sees of a node --------------------------------------------------------------

    async def record(self, report: Any) -> Any:
        if self.dead:
            raise LedgerError("the bridge was killed")
        while self.database_away:
            await asyncio.sleep(0.5)
        self.desk.now = self.bridge.now()
        answer = self.desk.tell(report)
        if isinstance(answer, Exception):
            raise answer
        await asyncio.sleep(0)
        return answer

    def frame(self, frame: Any) -> None:
        pass

    async def admission(self, charger_id: str) -> Admission | None:
        enrollment = self.enrollment.get(charger_id)
        known = charger_id in self.desk.chargers
        if enrollment is None and not known:
            return None
        return Admission(charger_id=charger_id, enrollment=enrollment or "Accepted")

    async def registered(self, prefix: str) -> list[str]:
        return sorted(name for name in self.enrollment if name.startswith(prefix))

    async def snapshot(self, charger_id: str) -> ChargerSnapshot:
        notes = [row.notes for row in self.desk.recall(BridgeNotes) if row.charger_id == charger_id]
        return ChargerSnapshot(
            connectors=tuple(c for (of, _), c in self.desk.connectors.items() if of == charger_id),
            transactions=tuple(
                t for t in self.desk.transactions.values() if t.open and t.charger_id == charger_id
            ),
            notes=notes[0] if notes else {},
        )

    async def hold(self, charger_id: str, _adapter: Any) -> None:
        self.held.add(charger_id)

    async def release(self, charger_id: str, _adapter: Any) -> None:
        self.held.discard(charger_id)

    def part(self, name: str, event: str, **fields: Any) -> AbstractContextManager[Part]:
        return Parts().part(name, event, **fields)

    async def listen(
        self,
        topic: str,
        handle: HandleMessage,
        *,
        bare: bool = False,
        signed: bool = False,
        subscribed: Callable[[], None] | None = None,
    ) -> None:
        mine = (topic, asyncio.Queue[BrokerMessage]())
        self._listeners.append(mine)
        if subscribed is not None:
            subscribed()
        try:
            with self.part(f"messages on {topic}", "message_not_handled") as part:
                handle_guarded = guarded(handle, part)
                while True:
                    await handle_guarded(await mine[1].get())
        finally:
            self._listeners.remove(mine)

    async def publish(self, topic: str, payload: bytes, **options: Any) -> None:
        if topic.endswith("/commands") and payload:
            self.options.append(options)
        self.deliver(topic, payload)
        await asyncio.sleep(0)

    # --- the broker ------------------------------------------------------------------------------

    def deliver(self, topic: str, body: bytes, *, retained: bool = False) -> None:
        levels = topic.split("/")
        if levels[-1] == "commands":
            self.commands.append((round(self.at, 1), levels[1], body.decode()))
        elif levels[-1] == "live":
            self.live.append(msgspec.json.decode(body))
        for wanted, queue in self._listeners:
            if _matches(wanted.split("/"), levels):
                queue.put_nowait(BrokerMessage(topic=topic, body=body, retained=retained))
        station = self.stations.get(levels[1])
        if levels[-1] == "commands" and station is not None:
            station.obey(body, retained=retained)
            self._speak(station)

    def says(self, station_id: str, status: str, *, retained: bool = False, **fields: Any) -> None:
        """A packet of a station that is not simulated."""
        body = msgspec.json.encode({"status": status} | fields)
        self.deliver(f"charger/{station_id}/status", body, retained=retained)

    def _speak(self, station: FakeStation) -> None:
        said, station.said = station.said, []
        if station.behaviour.silent:
            return
        for status in said:
            body = station.payload(status)
            self.heard.append((round(self.at, 1), station.id, status))
            topics = [f"charger/{station.id}/status"]
            if station.behaviour.second_topic and station.uid is not None:
                topics.append(f"charger/{station.id}/{station.uid}/status")
            for topic in topics:
                for _ in range(0 if station.lost() else 2 if station.doubled() else 1):
                    self.deliver(topic, body)

    async def _live_on(self, station: FakeStation) -> None:
        station.said = [station.status()]
        self._speak(station)
        while True:
            await asyncio.sleep(1)
            station.second()
            self._speak(station)

    # --- life ------------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        self._tasks.append(asyncio.create_task(self.bridge.run(cast("Any", self))))
        await self.until(lambda: len(self._listeners) == 2)
        self._tasks += [asyncio.create_task(self._live_on(station)) for station in self.stations.values()]
        for station in self.stations.values():
            if not station.behaviour.silent:
                await self.until(lambda station=station: self.is_free(station.id))
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def kill_bridge(self) -> None:
        """It is gone without a word; another one starts on what is on record."""
        self.dead = True
        self._tasks[0].cancel()
        await asyncio.gather(self._tasks[0], return_exceptions=True)
        self.dead = False
        self.bridge = CoinOpAdapter(self.settings, clock=loop_clock)
        self._tasks[0] = asyncio.create_task(self.bridge.run(cast("Any", self)))
        await self.until(lambda: len(self._listeners) == 2)

    # --- what is asked for and what came of it ---------------------------------------------------------

    def is_free(self, station_id: str = "s1") -> bool:
        handler = self.bridge.stations.get(station_id)
        return (
            handler is not None and handler.tracker.status == "ready" and f"{PREFIX}{station_id}" in self.held
        )

    def handler(self, station_id: str = "s1") -> Any:
        return self.bridge.stations[station_id]

    async def ask(self, action: str, station_id: str = "s1", **payload: Any) -> Any:
        return await self.bridge.perform(f"{PREFIX}{station_id}", Command(action=action, payload=payload))

    async def rent(self, uid: str = "A", station_id: str = "s1") -> Any:
        return await self.ask("RemoteStartTransaction", station_id, idTag=uid, connectorId=1)

    async def stop(self, station_id: str = "s1") -> Any:
        handler = self.handler(station_id)
        await self.until(lambda: handler.transaction_id)
        return await self.ask("RemoteStopTransaction", station_id, transactionId=handler.transaction_id)

    def sent(self, verb: str, station_id: str = "s1") -> list[str]:
        """The uids with which a command passed."""
        return [
            text.partition(":")[2]
            for _, to, text in self.commands
            if to == station_id and text.startswith(f"{verb}:")
        ]

    def with_money(self, uid: str, balance_minor: int) -> None:
        self.desk.with_account(uid, balance_minor)

    @property
    def statuses(self) -> list[str]:
        return [payload["status"] for payload in self.desk.payloads("status_changed")]

    @property
    def transaction(self) -> Any:
        (only,) = self.desk.transactions.values()
        return only

    def behave(self, station_id: str, **changed: Any) -> None:
        station = self.stations[station_id]
        behaviour = {n: getattr(station.behaviour, n) for n in station.behaviour.__slots__} | changed
        station.behaviour = type(station.behaviour)(**behaviour)


def _matches(wanted: list[str], topic: list[str]) -> bool:
    if wanted[-1] == "#":
        return topic[: len(wanted) - 1] == wanted[:-1]
    return len(wanted) == len(topic) and all(w in {"+", t} for w, t in zip(wanted, topic, strict=True))
