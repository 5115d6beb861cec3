"""Handle one station: send its commands, carry out its tracker's actions, record its reports in order."""

import asyncio
from collections import deque
from collections.abc import Callable, Iterable
from datetime import datetime
from typing import Any, Final

import msgspec
import structlog
from msgspec.structs import replace
from prometheus_client import Counter

from bridges.coin_op import packet as wire
from bridges.coin_op.actions import (
    ReachabilityChange,
    SendHello,
    SendStop,
    StationAction,
    StationAlarm,
    StationAnomaly,
)
from bridges.coin_op.packet import StatusPacket
from bridges.coin_op.settings import CoinOpSettings
from bridges.coin_op.station_tracker import StationTracker
from csms.adapter import Adapter, AdapterHost
from csms.aio import TaskSet
from csms.core import reports
from csms.core.command_queue import COIN_OP_PROTOCOL
from csms.core.records import Frame
from csms.errors import BrokerAway, LedgerError
from csms.outside import UnusableDocument, read_json

log = structlog.get_logger()
_DROPPED = Counter("coinop_reports_dropped_total", "Statuses and readings given up while Postgres was away.")
_ANOMALIES = Counter("coinop_oddities_total", "Anomalies in the packets of known stations.", ["kind"])
_UNEXPECTED = Counter("coinop_unexpected_transition_total", "Changes of state that are not in the table.")
ALARMS = Counter("coinop_alarms_total", "Conditions that an operator must look at.", ["kind"])

COMMAND_EXPIRY_S: Final = 10
_MAX_PENDING: Final = 500
_CONNECTS_A_MINUTE: Final = 5

_Recordable = reports.Report[Any] | ReachabilityChange


class StationHandler:
    """One station of the bridge.

    `pending_connect` is the renter and the outcome of the `connect` in progress, `pending_stop` the outcome of the
    `stop` in progress, `connect_times` when the last `connect` commands were
    sent, `pending_reports` what waits to be recorded.
    """

    def __init__(
        self,
        tracker: StationTracker,
        station_id: str,
        node: AdapterHost,
        adapter: Adapter,
        *,
        settings: CoinOpSettings,
        terms: reports.RentalTerms,
        clock: Callable[[], datetime],
    ) -> None:
        self.tracker = tracker
        self.station_id = station_id
        self.charger_id = tracker.charger_id
        self.node = node
        self.settings = settings
        self.terms = terms
        self.now = clock
        self.transaction_id: int | None = None
        self.pending_connect: tuple[str, asyncio.Future[str]] | None = None
        self.pending_stop: asyncio.Future[bool] | None = None
        self.connect_times: deque[datetime] = deque(maxlen=_CONNECTS_A_MINUTE)
        self._adapter = adapter
        self.generation: int | None = None
        self.pending_reports: deque[_Recordable] = deque()
        self._waiters: list[tuple[Callable[[StatusPacket], bool], asyncio.Future[StatusPacket]]] = []
        self._writing = False
        self.tasks = TaskSet()  # they end with the handler

    # --- packets and commands --------------------------------------------------------------------

    def receive(self, packet: StatusPacket, *, retained: bool = False, body: bytes | None = None) -> None:
        """Apply a packet and wake those who wait for it. `body` is logged as a frame if the state has changed."""
        before = self.tracker.status
        self.apply(self.tracker.receive(packet, self.now(), retained=retained))
        if retained:
            return
        if body is not None and self.tracker.status != before:
            self._log_frame(packet.status, body, outgoing=False)
        for matches, future in list(self._waiters):
            if not future.done() and matches(packet):
                future.set_result(packet)

    async def wait_for(
        self, matches: Callable[[StatusPacket], bool], timeout_s: float
    ) -> StatusPacket | None:
        """Return the next packet that matches, or None after `timeout_s`."""
        future: asyncio.Future[StatusPacket] = asyncio.get_running_loop().create_future()
        waiter = (matches, future)
        self._waiters.append(waiter)
        try:
            async with asyncio.timeout(timeout_s):
                return await future
        except TimeoutError:
            return None
        finally:
            self._waiters.remove(waiter)

    async def hello(self, uid: str | None = None) -> None:
        """Send a hello, by default with the bridge's own uid. Without a broker none is sent."""
        try:
            await self.send(wire.HELLO, uid or self.settings.service_uid)
        except BrokerAway:
            return
        self.tracker.hello_sent(self.now())

    async def send(self, verb: str, uid: str) -> None:
        """Send a command once: not retained, and with an expiry at the broker. Raises BrokerAway."""
        body = wire.encode_command(verb, uid)
        await self.node.publish(
            f"charger/{self.station_id}/commands", body, retain=False, expiry_s=COMMAND_EXPIRY_S
        )
        self.command_seen(verb, uid)
        if uid != self.settings.service_uid:
            log.info("station_command_sent", charger=self.charger_id, verb=verb, uid=uid)
            self._log_frame(verb, msgspec.json.encode({"uid": uid}), outgoing=True)

    def command_seen(self, verb: str, uid: str) -> None:
        """Apply a command that was published for the station, by this bridge or by an app."""
        self.apply(self.tracker.command_seen(verb, uid, self.now()))

    async def stop_rental(self, uid: str) -> bool:
        """Send one `stop`, even for several callers at the same time. Return whether the station has stopped."""
        if self.pending_stop is None:
            self.pending_stop = asyncio.ensure_future(self._stop_rental(uid))
        pending = self.pending_stop
        try:
            return await asyncio.shield(pending)
        finally:
            if self.pending_stop is pending and pending.done():
                self.pending_stop = None

    async def _stop_rental(self, uid: str) -> bool:
        ended = asyncio.ensure_future(
            self.wait_for(lambda packet: packet.status in {wire.DONE, wire.READY}, self.settings.answer_s)
        )
        try:
            await self.send(wire.STOP, uid)
        except BrokerAway as error:
            log.warning(
                "station_command_unconfirmed", charger=self.charger_id, verb=wire.STOP, error=str(error)
            )
        return await ended is not None

    async def _stop_for_debt(self) -> None:
        """End the rental of a renter whose debt has reached the operator's limit (COINOP_AUTOSTOP)."""
        rental = self.tracker.rental
        if rental is not None:
            log.warning("rental_stopped_for_debt", charger=self.charger_id, uid=rental.uid)
            await self.stop_rental(rental.uid)

    async def reload_enrollment(self) -> None:
        """Ask the node whether an operator admits the station."""
        admission = await self.node.admission(self.charger_id)
        self.tracker.blocked = admission is None or admission.enrollment != "Accepted"

    def _log_frame(self, action: str, body: bytes, *, outgoing: bool) -> None:
        """Add a packet or a command to the frame log, in the shape of an OCPP CALL."""
        at = self.now()
        try:
            payload: Any = msgspec.Raw(body) if read_json(body) is not None else None
        except UnusableDocument:
            payload = None
        message_id = f"{self.station_id}-{at.timestamp():.3f}"
        if payload is None:
            payload = {"text": body.decode(errors="replace")}
        self.node.frame(
            Frame(
                charger_id=self.charger_id,
                at=at,
                outgoing=outgoing,
                kind="call",
                action=action,
                message_id=message_id,
                frame=msgspec.json.encode([2, message_id, action, payload]),
            )
        )

    # --- actions ---------------------------------------------------------------------------------

    def tick(self) -> None:
        self.apply(self.tracker.tick(self.now()))

    def apply(self, actions: Iterable[StationAction]) -> None:
        """Carry out what the tracker has decided."""
        for action in actions:
            match action:
                case SendHello():
                    self.tasks.spawn(self.hello(), "hello")
                case SendStop():
                    self.tasks.spawn(self._stop_for_debt(), "stop for debt")
                case StationAlarm():
                    ALARMS.labels(action.kind).inc()
                    log.error("station_alarm_raised", charger=self.charger_id, alarm=action.kind)
                case StationAnomaly(kind="unexpected_transition"):
                    _UNEXPECTED.inc()
                case StationAnomaly():
                    _ANOMALIES.labels(action.kind).inc()
                case reports.Start():
                    self._enqueue(replace(action, terms=self.terms))
                case reports.Report() | ReachabilityChange():
                    self._enqueue(action)

    # --- records ---------------------------------------------------------------------------------

    def _enqueue(self, item: _Recordable) -> None:
        """Record after everything that was enqueued before. A newer reading replaces one that still waits."""
        pending = self.pending_reports
        if isinstance(item, reports.Meter) and len(pending) > 1 and isinstance(pending[-1], reports.Meter):
            pending.pop()
        if len(pending) >= _MAX_PENDING and isinstance(item, reports.Meter | reports.Status | reports.Noted):
            _DROPPED.inc()
            return
        pending.append(item)
        if not self._writing:
            self._writing = True
            self.tasks.spawn(self._write(), f"records of {self.charger_id}")

    async def _write(self) -> None:
        try:
            while self.pending_reports:
                item = self.pending_reports[0]
                try:
                    await self._record(item)
                except LedgerError as error:
                    log.error("report_refused", charger=self.charger_id, error=str(error))
                self.pending_reports.popleft()
        finally:
            self._writing = False

    async def _record(self, item: _Recordable) -> None:
        match item:
            case ReachabilityChange(online=True):
                held = await self.node.record(
                    reports.Connected(
                        charger_id=self.charger_id, node=self.node.name, protocol=COIN_OP_PROTOCOL
                    )
                )
                self.generation = held.generation
                self.tracker.blocked = held.enrollment != "Accepted"
                await self.node.hold(self.charger_id, self._adapter)
            case ReachabilityChange():
                await self._release()
            case reports.Start():
                started = await self.node.record(item)
                self.transaction_id = started.transaction_id
            case reports.Meter():
                left = await self.node.record(replace(item, transaction_id=self.transaction_id))
                if left is not None:
                    self.apply(self.tracker.balance_changed(left))
            case reports.Stop():
                await self.node.record(replace(item, transaction_id=self.transaction_id))
                self.transaction_id = None
            case _:
                await self.node.record(item)

    async def _release(self) -> None:
        generation, self.generation = self.generation, None
        if generation is None:
            return
        await self.node.release(self.charger_id, self._adapter)
        await self.node.record(
            reports.Disconnected(charger_id=self.charger_id, node=self.node.name, generation=generation)
        )

    async def close(self) -> None:
        """Stop: reports that still wait are given up, and the charger is released."""
        await self.tasks.cancel()
        await self._release()
