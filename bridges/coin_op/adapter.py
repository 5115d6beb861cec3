"""The coin-op bridge: receives what stations publish on the main broker, and performs OCPP commands for them."""

import asyncio
import contextlib
import random
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import structlog
from prometheus_client import Counter, Gauge

from bridges.coin_op import commands, notes
from bridges.coin_op import packet as wire
from bridges.coin_op.live_status import LiveStatusPublisher
from bridges.coin_op.packet import MalformedStatus, StatusPacket
from bridges.coin_op.settings import CoinOpSettings
from bridges.coin_op.station_handler import ALARMS, StationHandler
from bridges.coin_op.station_tracker import StationTracker
from csms.adapter import AdapterHost, BrokerMessage, ChargerSnapshot, Command
from csms.aio import TaskSet, cause
from csms.core import reports
from csms.errors import BrokerAway, ChargerOffline

log = structlog.get_logger()
_PACKETS = Counter("coinop_packets_total", "Packets from stations.", ["result"])
_STATIONS = Gauge("coinop_stations", "Stations known to this bridge.")

_REGISTRY_INTERVAL_S, _UNREGISTERED_FOR_S, _TICK_S = 30.0, 30.0, 1.0
_MAX_BUFFERED_PACKETS: Final = 100
_CLOSE_TIMEOUT_S: Final = 5.0
_PARALLEL_SNAPSHOTS, _PARALLEL_LOOKUPS = 4, 200
_MAX_UNREGISTERED: Final = 10_000
_LOG_INTERVAL, _LOGGED_BYTES = timedelta(seconds=10), 200


class CoinOpAdapter:
    """Implements `csms.adapter.Adapter`. Run one for a broker: a second one would record every station twice."""

    def __init__(
        self, settings: CoinOpSettings, *, clock: Callable[[], datetime] = lambda: datetime.now(UTC)
    ) -> None:
        self.settings = settings
        self.stations: dict[str, StationHandler] = {}
        self.now = clock
        self._terms = reports.RentalTerms(
            dynamic=settings.debit == "dynamic",
            min_balance=settings.min_balance,
            free_s=settings.free_seconds,
        )
        self._node: AdapterHost | None = None
        self._live_status: dict[str, LiveStatusPublisher] = {}
        # Thousands of stations that are looked up at once must not take every connection to the database.
        self._snapshots = asyncio.Semaphore(_PARALLEL_SNAPSHOTS)
        self._buffered: dict[
            str, list[tuple[StatusPacket, bool]]
        ] = {}  # of stations that are being looked up
        self._unregistered: dict[str, datetime] = {}
        self._tasks = TaskSet()
        self._logged_at: datetime | None = None

    @property
    def node(self) -> AdapterHost:
        if self._node is None:
            raise ChargerOffline("The coin-op bridge is not running.")
        return self._node

    # --- Adapter ---------------------------------------------------------------------------------

    async def run(self, node: AdapterHost) -> None:
        self._node = node
        try:
            async with asyncio.TaskGroup() as group:
                # One subscription for all topics of a station keeps their order. Not a shared subscription: that
                # would split the packets of one station over its members.
                group.create_task(node.listen("charger/#", self._on_message), name="stations")
                watched = node.listen("rentals/+/watch", self._on_watch, signed=True)
                group.create_task(watched, name="watch requests")
                group.create_task(self._poll_registry(), name="registry")
                group.create_task(self._tick(), name="clock")
        finally:
            self._node = None
            stations, self.stations = list(self.stations.values()), {}
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_CLOSE_TIMEOUT_S):  # the database may be unreachable
                    closing = [station.close() for station in stations]
                    await asyncio.gather(self._tasks.cancel(), *closing, return_exceptions=True)

    async def perform(self, charger_id: str, command: Command) -> Mapping[str, Any]:
        station = self._station(charger_id)
        if station is None:
            raise ChargerOffline(f"{charger_id} is not known to the coin-op bridge.")
        return await commands.perform(station, command)

    async def hang_up(self, charger_id: str, generation: int) -> None:
        """Another bridge has connected the station, or an operator has changed its enrollment: ask for the latter."""
        station = self._station(charger_id)
        if station is not None:
            await station.reload_enrollment()

    def _station(self, charger_id: str) -> StationHandler | None:
        return self.stations.get(charger_id.removeprefix(self.settings.id_prefix))

    # --- messages --------------------------------------------------------------------------------

    def _on_message(self, message: BrokerMessage) -> None:
        """Sort `charger/{id}/status`, its private copy `charger/{id}/{uid}/status`, and `charger/{id}/commands`."""
        levels = message.topic.split("/")
        if levels[-1] == "status" and len(levels) in {3, 4}:
            self._on_status(message, levels[1])
        elif levels[-1] == "commands" and len(levels) == 3:
            self._on_command(message, levels[1])

    def _on_status(self, message: BrokerMessage, station_id: str) -> None:
        if not wire.is_valid_station_id(station_id):
            _PACKETS.labels("bad_id").inc()
            return
        if message.retained and not message.body:
            return
        try:
            packet = wire.parse_status(message.body)
        except MalformedStatus as error:
            _PACKETS.labels(error.kind).inc()
            self._log_malformed(station_id, error.kind, message.body)
            return
        _PACKETS.labels("retained" if message.retained else "taken").inc()
        station = self.stations.get(station_id)
        if station is not None:
            self.deliver(station, packet, retained=message.retained, body=message.body)
        elif station_id in self._buffered:
            if len(self._buffered[station_id]) < _MAX_BUFFERED_PACKETS:
                self._buffered[station_id].append((packet, message.retained))
        else:
            self._buffered[station_id] = [(packet, message.retained)]
            self._tasks.spawn(self._admit(station_id), f"look up {station_id}")

    def deliver(
        self, station: StationHandler, packet: StatusPacket, *, retained: bool, body: bytes | None = None
    ) -> None:
        """Hand a packet to its station. `body`: as it came; None for a packet that was buffered."""
        station.receive(packet, retained=retained, body=body)
        if not retained:
            self._live_status[station.station_id].publish()

    def _on_watch(self, message: BrokerMessage) -> None:
        station_id = message.topic.split("/")[1].removeprefix(self.settings.id_prefix)
        if station_id in self.stations and not message.retained:
            self._live_status[station_id].watch(message.body)

    def _on_command(self, message: BrokerMessage, station_id: str) -> None:
        if message.retained:
            if message.body:
                ALARMS.labels("retained_command").inc()
                log.error("retained_command_found", topic=message.topic)
                self._tasks.spawn(self._clear(message.topic), "retained command")
            return
        command, station = wire.parse_command(message.body), self.stations.get(station_id)
        if command is not None and station is not None:
            station.command_seen(*command)

    async def _clear(self, topic: str) -> None:
        """Delete a retained message. It is found while the subscriptions are being made, so wait for those."""
        node = self.node
        while not node.broker_connected:  # noqa: ASYNC110
            await asyncio.sleep(0.1)
        try:
            await node.publish(topic, b"", retain=True)
        except BrokerAway as error:
            log.warning("retained_command_not_cleared", topic=topic, error=str(error))

    def _log_malformed(self, station_id: str, kind: str, body: bytes) -> None:
        now = self.now()
        if self._logged_at is None or now - self._logged_at > _LOG_INTERVAL:
            self._logged_at = now
            log.warning("malformed_station_packet", station=station_id, kind=kind, body=body[:_LOGGED_BYTES])

    # --- registered stations ---------------------------------------------------------------------

    async def _admit(self, station_id: str) -> None:
        """Look up a station at its first packet, then apply the packets that have come since."""
        try:
            station = await self._look_up(station_id)
        except Exception as error:
            log.warning("station_lookup_failed", station=station_id, error=str(error))
            station = None
        packets = self._buffered.pop(station_id, [])
        if station is None:
            return
        for packet, retained in packets:
            self.deliver(station, packet, retained=retained)

    async def _look_up(self, station_id: str) -> StationHandler | None:
        """Return the handler of a station, made from what is on record.

        None: the station is not registered; it is looked up again after `_UNREGISTERED_FOR_S`.
        """
        if station_id in self.stations:
            return self.stations[station_id]
        now, node = self.now(), self.node
        refused_at = self._unregistered.get(station_id)
        if refused_at is not None and now - refused_at < timedelta(seconds=_UNREGISTERED_FOR_S):
            _PACKETS.labels("stranger").inc()
            return None
        charger_id = f"{self.settings.id_prefix}{station_id}"
        admission = await node.admission(charger_id)
        if admission is None and not self.settings.open_enrollment:
            _PACKETS.labels("stranger").inc()
            if refused_at is None:
                log.warning("unregistered_station_seen", station=station_id, register_as=charger_id)
            if len(self._unregistered) >= _MAX_UNREGISTERED:
                self._unregistered.clear()
            self._unregistered[station_id] = now
            return None
        snapshot = ChargerSnapshot()
        if admission is not None:
            async with self._snapshots:
                snapshot = await node.snapshot(charger_id)
        if station_id not in self.stations:
            blocked = admission is not None and admission.enrollment != "Accepted"
            self._add(station_id, charger_id, snapshot, blocked=blocked)
        return self.stations[station_id]

    def _add(self, station_id: str, charger_id: str, snapshot: ChargerSnapshot, *, blocked: bool) -> None:
        # The first hellos go out soon after the start, but spread; later the intervals keep them apart.
        spread_s = random.uniform(0, min(len(self.stations) / 100, 60))
        jitter = min(spread_s / self.settings.probe_interval_s, 1)
        tracker = StationTracker(charger_id, self.settings, self.now(), jitter=jitter, blocked=blocked)
        transaction = snapshot.transactions[0] if snapshot.transactions else None
        connector = next((one for one in snapshot.connectors if one.connector_id == 1), None)
        tracker.resume(transaction, connector, notes.decode(snapshot.notes))
        station = StationHandler(
            tracker, station_id, self.node, self, settings=self.settings, terms=self._terms, clock=self.now
        )
        station.transaction_id = None if transaction is None else transaction.id
        self._live_status[station_id] = LiveStatusPublisher(station)
        self.stations[station_id] = station
        _STATIONS.set(len(self.stations))

    async def _poll_registry(self) -> None:
        """Look up registered stations, so that those which have sent nothing yet get a hello too."""
        while True:
            try:
                registered = await self.node.registered(self.settings.id_prefix)
                ids = [charger_id.removeprefix(self.settings.id_prefix) for charger_id in registered]
                new = [one for one in ids if wire.is_valid_station_id(one) and one not in self.stations]
                for station_id in new:
                    self._unregistered.pop(station_id, None)
                for first in range(0, len(new), _PARALLEL_LOOKUPS):
                    await asyncio.gather(*map(self._look_up, new[first : first + _PARALLEL_LOOKUPS]))
            except Exception as error:
                log.warning("station_registry_not_read", error=cause(error))
            await asyncio.sleep(_REGISTRY_INTERVAL_S)

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(_TICK_S)
            if not self.node.broker_connected:
                continue  # without the broker a silent station proves nothing
            for station in list(self.stations.values()):
                station.tick()
