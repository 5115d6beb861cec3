"""The bridge: hears stations on the main broker, asks them how they are, and has them do what OCPP words ask."""

import asyncio
import contextlib
import random
from collections.abc import Coroutine, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import msgspec
import structlog
from msgspec.structs import replace
from prometheus_client import Counter, Gauge

from bridges.coin_op import notes
from bridges.coin_op import packet as wire
from bridges.coin_op.actions import (
    ReachabilityChange,
    SendHello,
    SendStop,
    StationAlarm,
    StationAnomaly,
    StationRules,
)
from bridges.coin_op.commands import Commands
from bridges.coin_op.live_status import LiveStatusPublisher
from bridges.coin_op.packet import MalformedPacket, StatusPacket
from bridges.coin_op.settings import CoinOpSettings
from bridges.coin_op.station_handler import StationHandler
from bridges.coin_op.station_tracker import StationTracker
from csms.adapter import AdapterHost, BrokerMessage, ChargerSnapshot, Command
from csms.core import reports
from csms.core.records import Frame
from csms.errors import BrokerAway, ChargerOffline

log = structlog.get_logger()
_PACKETS = Counter("coinop_packets_total", "Packets from stations.", ["result"])
_ODD = Counter("coinop_oddities_total", "What was odd in packets of known stations.", ["kind"])
_UNEXPECTED = Counter("coinop_unexpected_transition_total", "Changes of state that are not in the table.")
_ALARMS = Counter("coinop_alarms_total", "Where somebody should look.", ["kind"])
_STATIONS = Gauge("coinop_stations", "Stations known to this bridge.")

COMMAND_EXPIRY_S: Final = 10
_REGISTRY_S, _STRANGER_S, _TICK_S = 30.0, 30.0, 1.0
_MOST_BUFFERED = 100
_FAREWELL_S = 5.0
_LOOKING_UP, _TOGETHER = 4, 200
_MOST_STRANGERS = 10_000
_LOGGED_BYTES = 200


class CoinOpAdapter:
    """Implements `csms.adapter.Adapter`. One process should hear a broker's stations, not several."""

    def __init__(self, settings: CoinOpSettings) -> None:
        self.settings = settings
        self.lines: dict[str, StationHandler] = {}
        self.rules = StationRules(
            power_scale=settings.power_scale,
            energy_mode=settings.energy_mode,
            rated_power_w=settings.rated_power_w,
            answer_s=settings.answer_s,
            meter_interval_s=settings.meter_interval_s,
            probe_interval_s=settings.probe_interval_s,
            autostop=settings.autostop,
            max_debt=settings.max_debt,
        )
        self.terms = reports.RentalTerms(
            dynamic=settings.debit == "dynamic",
            min_balance=settings.min_balance,
            free_s=settings.free_seconds,
        )
        self._node: AdapterHost | None = None
        self._commands = Commands(self)
        self._live = LiveStatusPublisher(self)
        # Thousands that come at once must not take every connection to the database; who they are is asked together.
        self._looking_up = asyncio.Semaphore(_LOOKING_UP)
        self._meeting: dict[str, list[tuple[StatusPacket, bool]]] = {}
        self._strangers: dict[str, datetime] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._logged_at: datetime | None = None

    @property
    def node(self) -> AdapterHost:
        if self._node is None:
            raise ChargerOffline("The coin-op bridge is not running.")
        return self._node

    @staticmethod
    def now() -> datetime:
        return datetime.now(UTC)

    # --- Adapter ---------------------------------------------------------------------------------

    async def run(self, node: AdapterHost) -> None:
        self._node = node
        try:
            async with asyncio.TaskGroup() as group:
                # One subscription for all of a station's topics keeps their order. Not a shared one: that would
                # split one station's packets over members.
                group.create_task(self._listen("charger/#", self._on_message), name="stations")
                group.create_task(self._listen("rentals/+/watch", self._live.watched), name="watchers")
                group.create_task(self._registry(), name="registry")
                group.create_task(self._clock(), name="clock")
        finally:
            self._node = None
            for task in self._tasks:
                task.cancel()
            lines, self.lines = list(self.lines.values()), {}
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_FAREWELL_S):  # the database may be away
                    await asyncio.gather(
                        *self._tasks, *(line.close() for line in lines), return_exceptions=True
                    )

    async def perform(self, charger_id: str, command: Command) -> Mapping[str, Any]:
        line = self.lines.get(charger_id.removeprefix(self.settings.id_prefix))
        if line is None or self._node is None:
            raise ChargerOffline(f"{charger_id} is not known to the coin-op bridge.")
        return await self._commands.perform(line, command)

    async def hang_up(self, charger_id: str, generation: int) -> None:
        """An operator has turned it away, or another bridge hears it too: ask the books who may do what."""
        line = self.lines.get(charger_id.removeprefix(self.settings.id_prefix))
        if line is not None:
            await self.admit(line)

    async def admit(self, line: StationHandler) -> None:
        admission = await self.node.admission(line.charger_id)
        line.station.blocked = admission is None or admission.enrollment != "Accepted"

    # --- what is heard ---------------------------------------------------------------------------

    async def _listen(self, topic: str, handle: Any) -> None:
        heard = 0
        async for message in self.node.listen(topic):
            try:
                handle(message)
            except Exception:
                log.exception("message not handled", topic=message.topic)
            heard += 1
            if heard % 100 == 0:
                await asyncio.sleep(0)  # a backlog must not keep everybody else waiting

    def _on_message(self, message: BrokerMessage) -> None:
        """`charger/{id}/status` and its private twin `charger/{id}/{uid}/status`; `charger/{id}/commands`."""
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
        except MalformedPacket as error:
            _PACKETS.labels(error.kind).inc()
            self._log_rarely(station_id, error.kind, message.body)
            return
        _PACKETS.labels("retained" if message.retained else "taken").inc()
        line = self.lines.get(station_id)
        if line is not None:
            self._hear(line, packet, message)
        elif station_id in self._meeting:
            waiting = self._meeting[station_id]
            if len(waiting) < _MOST_BUFFERED:
                waiting.append((packet, message.retained))
        else:
            self._meeting[station_id] = [(packet, message.retained)]
            self.start(self._meet(station_id))

    def _hear(
        self,
        line: StationHandler,
        packet: StatusPacket,
        message: BrokerMessage | None,
        *,
        retained: bool = False,
    ) -> None:
        retained = message.retained if message is not None else retained
        now, before = self.now(), line.station.status
        self.do(line, line.station.hear(packet, now, retained=retained))
        if retained:
            return
        if message is not None and line.station.status != before:
            self._frame(line, packet.status, message.body, outgoing=False)
        line.heard(packet)
        self._live.heard(line, now)

    def _on_command(self, message: BrokerMessage, station_id: str) -> None:
        if message.retained:
            if message.body:
                _ALARMS.labels("retained_command").inc()
                log.error("a retained command was found and is cleared", topic=message.topic)
                self.start(self._clear(message.topic))
            return
        command, line = wire.parse_command(message.body), self.lines.get(station_id)
        if command is not None and line is not None:
            self.do(line, line.station.commanded(*command, self.now()))

    def _log_rarely(self, station_id: str, kind: str, body: bytes) -> None:
        now = self.now()
        if self._logged_at is None or now - self._logged_at > timedelta(seconds=10):
            self._logged_at = now
            log.warning("no status packet", station=station_id, kind=kind, body=body[:_LOGGED_BYTES])

    # --- what follows ----------------------------------------------------------------------------

    def do(self, line: StationHandler, acts: Any) -> None:
        for act in acts:
            match act:
                case SendHello():
                    self.start(self.hello(line, self.settings.service_uid))
                case SendStop():
                    self.start(self._commands.end(line))
                case StationAlarm():
                    _ALARMS.labels(act.kind).inc()
                    log.error("somebody should look", charger=line.charger_id, alarm=act.kind)
                case StationAnomaly(kind="unexpected_transition"):
                    _UNEXPECTED.inc()
                case StationAnomaly():
                    _ODD.labels(act.kind).inc()
                case reports.Start():
                    line.put(replace(act, terms=self.terms))
                case reports.Report() | ReachabilityChange():
                    line.put(act)

    def _owes(self, line: StationHandler, left: reports.BalanceLeft) -> None:
        self.do(line, line.station.owes(left))

    async def hello(self, line: StationHandler, uid: str) -> None:
        """Ask a station how it is; the answer goes to all. While the broker is away nobody is asked."""
        try:
            await self.tell(line, wire.HELLO, uid)
        except BrokerAway:
            return
        line.station.asked(self.now())

    async def tell(self, line: StationHandler, verb: str, uid: str) -> None:
        """Send a command once: never retained, gone from the broker in ten seconds. Raises BrokerAway."""
        body = wire.encode_command(verb, uid)
        await self.node.publish(
            f"charger/{line.station_id}/commands", body, retain=False, expiry_s=COMMAND_EXPIRY_S
        )
        self.do(line, line.station.commanded(verb, uid, self.now()))
        if uid != self.settings.service_uid:
            log.info("command", charger=line.charger_id, verb=verb, uid=uid)
            self._frame(line, verb, msgspec.json.encode({"uid": uid}), outgoing=True)

    async def _clear(self, topic: str) -> None:
        while not self.node.broker_connected:  # noqa: ASYNC110  # it is found while we are still subscribing
            await asyncio.sleep(0.1)
        try:
            await self.node.publish(topic, b"", retain=True)
        except BrokerAway as error:
            log.warning("a retained command was not cleared", topic=topic, error=str(error))

    def _frame(self, line: StationHandler, action: str, body: bytes, *, outgoing: bool) -> None:
        """For the log of frames, in OCPP's shape; packets only where the state changes."""
        at = self.now()
        try:
            payload = msgspec.Raw(body) if msgspec.json.decode(body) is not None else None
        except msgspec.DecodeError:
            payload = None
        name = f"{line.station_id}-{at.timestamp():.3f}"
        text = msgspec.json.encode(
            [2, name, action, payload if payload is not None else {"text": body.decode(errors="replace")}]
        )
        self.node.frame(
            Frame(
                charger_id=line.charger_id,
                at=at,
                outgoing=outgoing,
                kind="call",
                action=action,
                message_id=name,
                frame=text,
            )
        )

    def start(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # --- who is known ----------------------------------------------------------------------------

    async def _meet(self, station_id: str) -> None:
        """A station speaks for the first time: let it in if an operator knows it."""
        try:
            line = await self._line(station_id)
        except Exception as error:
            log.warning("station not looked up", station=station_id, error=str(error))
            line = None
        packets = self._meeting.pop(station_id, [])
        if line is None:
            return
        for packet, retained in packets:
            self._hear(line, packet, None, retained=retained)

    async def _line(self, station_id: str) -> StationHandler | None:
        """The station's line, made from what is on record; None for a stranger, who is looked up again later."""
        if station_id in self.lines:
            return self.lines[station_id]
        now = self.now()
        refused_at = self._strangers.get(station_id)
        if refused_at is not None and now - refused_at < timedelta(seconds=_STRANGER_S):
            _PACKETS.labels("stranger").inc()
            return None
        charger_id = f"{self.settings.id_prefix}{station_id}"
        admission = await self.node.admission(charger_id)
        if admission is None and not self.settings.open_enrollment:
            _PACKETS.labels("stranger").inc()
            if refused_at is None:
                log.warning("a station nobody has registered", station=station_id, register_as=charger_id)
            if len(self._strangers) >= _MOST_STRANGERS:
                self._strangers.clear()
            self._strangers[station_id] = now
            return None
        standing = ChargerSnapshot()
        if admission is not None:
            async with self._looking_up:
                standing = await self.node.snapshot(charger_id)
        if station_id in self.lines:
            return self.lines[station_id]
        blocked = admission is not None and admission.enrollment != "Accepted"
        # Soon after the start, but not all at once; later the intervals keep them apart.
        soon = random.uniform(0, min(len(self.lines) / 100, 60)) / self.rules.probe_interval_s
        station = StationTracker(charger_id, self.rules, self.now(), jitter=min(soon, 1), blocked=blocked)
        line = StationHandler(self.node, self, station, station_id, left=self._owes)
        running = standing.transactions[0] if standing.transactions else None
        connector = next((c for c in standing.connectors if c.connector_id == 1), None)
        station.resume(running, connector, notes.decode(standing.notes))
        line.transaction_id = None if running is None else running.id
        self.lines[station_id] = line
        _STATIONS.set(len(self.lines))
        return line

    async def _registry(self) -> None:
        """Stations that operators have registered are asked how they are, also those that never spoke."""
        while True:
            try:
                known = await self.node.registered(self.settings.id_prefix)
                ids = [charger_id.removeprefix(self.settings.id_prefix) for charger_id in known]
                new = [each for each in ids if wire.is_valid_station_id(each) and each not in self.lines]
                for station_id in new:
                    self._strangers.pop(station_id, None)
                for first in range(0, len(new), _TOGETHER):
                    await asyncio.gather(*map(self._line, new[first : first + _TOGETHER]))
            except Exception as error:
                log.warning("registry not read", error=str(error) or type(error).__name__)
            await asyncio.sleep(_REGISTRY_S)

    async def _clock(self) -> None:
        while True:
            await asyncio.sleep(_TICK_S)
            if not self.node.broker_connected:
                continue  # what we cannot hear is not silent
            now = self.now()
            for line in list(self.lines.values()):
                self.do(line, line.station.tick(now))
