"""A simulated OCPP 1.6-J charge point: boots, reports, and keeps its sessions through any outage."""

import asyncio
import hashlib
import random
from collections import deque
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any
from urllib.parse import quote

from ocpp.v16 import call

from csms.simulate.clock import SimulatedClock, event_within, lead_s, ocpp_time
from csms.simulate.configuration import Configuration
from csms.simulate.connector import SimulatedConnector
from csms.simulate.curves import AC_22, Outlet
from csms.simulate.delivery import Delivery
from csms.simulate.line import GONE, REFUSED, Line
from csms.simulate.link import Link
from csms.simulate.plan import SessionPlanner
from csms.simulate.profiles import ChargingProfiles
from csms.simulate.records import BelievedTransaction, ChargerEvent, Counters
from csms.simulate.tags import KnownTags

_BOOT_RETRY_S = 10.0
MAX_ID_TAG = 20


class SimulatedChargePoint:
    """`await run()` plays its life; `transactions` and `counters` say what it believes happened.

    The physical world (charging, sampling, drivers) follows `clock`, at `speed` simulated seconds a real one;
    the protocol's timers (heartbeat, answers, retries, reconnects) follow the wall. `url` is the central
    system's address without the identity, which is appended percent-encoded. `password` turns on Basic auth;
    bytes go on the wire as they are. `connectors` are alike (`outlet`). `idle_s` and `charge_s` are ranges in
    simulated seconds. With `automatic=False` no driver comes unless the central system starts a transaction.
    `same_message_id` makes retries carry the first attempt's message id. `boot_on_reconnect` boots after every
    reconnect, as many charge points do though OCPP-J advises against it. `validate` checks every message
    against the OCPP schemas, at some cost. `configuration` sets keys ahead of time, unchecked.
    """

    def __init__(
        self,
        identity: str,
        url: str,
        *,
        connectors: int = 1,
        password: str | bytes | None = None,
        seed: int | str = 0,
        speed: float = 1.0,
        clock: SimulatedClock | None = None,
        tags: Sequence[str] = ("SIMTAG",),
        outlet: Outlet = AC_22,
        idle_s: tuple[float, float] = (120.0, 900.0),
        charge_s: tuple[float, float] | None = None,
        automatic: bool = True,
        call_timeout_s: float = 30.0,
        reconnect_s: tuple[float, float] = (0.2, 5.0),
        reboot_s: float = 1.0,
        same_message_id: bool = False,
        boot_on_reconnect: bool = False,
        validate: bool = True,
        configuration: Mapping[str, str] | None = None,
        on_event: Callable[[ChargerEvent], None] | None = None,
    ) -> None:
        if connectors < 1:
            raise ValueError("a charge point has at least one connector")
        if any(not 1 <= len(tag) <= MAX_ID_TAG for tag in tags):
            raise ValueError(f"an idTag has 1 to {MAX_ID_TAG} characters")
        self.identity = identity
        self.password = password
        self.call_timeout_s = call_timeout_s
        self.reboot_s = reboot_s
        self.automatic = automatic
        self.clock = clock or SimulatedClock(speed, lead_s(speed))
        self.configuration = Configuration(connectors, configuration)
        self.profiles = ChargingProfiles()
        self.tags = KnownTags()
        self.counters = Counters()
        self.registration: str | None = None
        self.firmware_version = "1.0.0"
        self.firmware_status = self.diagnostics_status = "Idle"
        self.finishing = self.rebooting = False
        self.connectors = {
            number: SimulatedConnector(
                self,
                number,
                outlet,
                SessionPlanner(f"{seed}/{identity}/{number}", tags, outlet, idle_s, charge_s),
                f"{seed}/{identity}/{number}/meter",
            )
            for number in range(1, connectors + 1)
        }
        self.line = Line(
            f"{url.rstrip('/')}/{quote(identity, safe='')}",
            credentials=self._credentials,
            ping_s=lambda: self.configuration.number("WebSocketPingInterval"),
            new_link=lambda connection: Link(self, connection),
            speak=self._speak,
            tell=self.tell,
            counters=self.counters,
            reconnect_s=reconnect_s,
            validate=validate,
            rng=random.Random(f"{seed}/{identity}/line"),
        )
        self._model = f"Simulator {outlet.name}"[:20]
        # The identity may be longer than a serial number may be.
        self._serial = hashlib.sha256(identity.encode()).hexdigest()[:12].upper()
        self._boot_on_reconnect = boot_on_reconnect
        self._on_event = on_event
        self.delivery = Delivery(
            self.line, self.counters, self.tell, self._start_answered, same_message_id=same_message_id
        )
        self._apply_retry_policy()
        self._operative = True
        self._commissioned = False
        self._reported: dict[int, str] = {}
        self._statuses: deque[tuple[int, str, str]] = deque()
        self._tasks: set[asyncio.Task[None]] = set()
        self._status_moved = asyncio.Event()
        self._heartbeat_moved = asyncio.Event()
        self._boot_asked = asyncio.Event()

    # What it looks like from outside

    @property
    def connected(self) -> bool:
        return self.line.link is not None

    @property
    def in_service(self) -> bool:
        """Once accepted, a charge point serves drivers whether or not the line is up."""
        return self._commissioned and self._operative and not self.rebooting

    @property
    def undelivered(self) -> int:
        """Transaction messages that still wait for an answer."""
        return self.delivery.waiting

    @property
    def transactions(self) -> list[BelievedTransaction]:
        """Every transaction it has begun, oldest first."""
        return self.delivery.transactions

    @property
    def energy_wh(self) -> int:
        """Energy delivered in all transactions, the running ones included."""
        total = sum(transaction.energy_wh or 0 for transaction in self.transactions)
        for connector in self.connectors.values():
            if connector.transaction:
                total += connector.register_wh - connector.transaction.meter_start_wh
        return total

    def tell(self, kind: str, detail: str = "", connector_id: int | None = None) -> None:
        if self._on_event:
            self._on_event(ChargerEvent(self.identity, kind, detail, connector_id))

    # Life

    async def run(self, sessions: int | None = None) -> None:
        """Until every connector has had `sessions` (None: no end) or `finish` was called, and everything is
        delivered. Cancelling it closes the socket at once."""
        line = asyncio.create_task(self.line.hold())
        lives = asyncio.gather(*(connector.run(sessions) for connector in self.connectors.values()))
        try:
            ends: set[asyncio.Future[Any]] = {line, lives}
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
            while not line.done() and (not lives.done() or self._unsaid()):
                await asyncio.wait({line}, timeout=0.02)
            if line.done():
                line.result()  # it never ends by itself: a fault to be heard
            lives.result()
        finally:
            self.delivery.close()
            left = {line, *self._tasks}
            for task in left:
                task.cancel()
            lives.cancel()
            await asyncio.gather(*left, lives, return_exceptions=True)

    def _unsaid(self) -> bool:
        return bool(self.undelivered or self.rebooting or (self.connected and self._statuses))

    def finish(self, reason: str = "Local") -> None:
        """Ends running sessions and starts no more; `run` returns when everything is delivered."""
        self.finishing = True
        for connector in self.connectors.values():
            connector.stop(reason)
        self.nudge_all()

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Runs `work` beside everything else, no longer than `run`."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def nudge_all(self) -> None:
        for connector in self.connectors.values():
            connector.nudge()

    def _credentials(self) -> bytes | None:
        if self.password is None:
            return None
        secret = self.password if isinstance(self.password, bytes) else self.password.encode()
        return self.identity.encode() + b":" + secret

    async def _speak(self, link: Link) -> None:
        """Its own part of one connection, until that ends."""
        self._statuses.clear()
        if self.registration != "Accepted" or self._boot_on_reconnect:
            await self._boot(link)
        for number, status in self._shown().items():
            if self._reported.get(number) != status:
                self._report(number, status)
        try:
            async with asyncio.TaskGroup() as loops:
                loops.create_task(self._send_statuses(link))
                loops.create_task(self.delivery.send(link))
                loops.create_task(self._send_heartbeats(link))
        except* GONE:
            pass

    # Boot and heartbeat

    async def _boot(self, link: Link) -> None:
        while True:
            self._boot_asked.clear()
            wait_s = await self._notify_boot(link)
            if self.registration == "Accepted":
                return
            await event_within(self._boot_asked, wait_s)

    async def _notify_boot(self, link: Link) -> float:
        """Seconds to wait before the next try, should this one not have been accepted."""
        boot = call.BootNotification(
            charge_point_model=self._model,
            charge_point_vendor="csms",
            charge_point_serial_number=self._serial,
            charge_box_serial_number=self._serial,
            firmware_version=self.firmware_version,
            meter_type="Simulated",
        )
        try:
            answer = await self.line.call(link, boot)
        except REFUSED:
            return _BOOT_RETRY_S
        self.registration = str(answer.status)
        if self.registration == "Accepted":
            self.counters.boots += 1
            self._commissioned = True
            self._reported.clear()
            if answer.interval > 0:
                self.configuration.change("HeartbeatInterval", str(answer.interval))
                self._heartbeat_moved.set()
            self.nudge_all()
        self.tell("booted", self.registration)
        return float(answer.interval) if answer.interval > 0 else _BOOT_RETRY_S

    async def _send_heartbeats(self, link: Link) -> None:
        while True:
            self._heartbeat_moved.clear()
            interval_s = self.configuration.number("HeartbeatInterval")
            if not await event_within(self._heartbeat_moved, interval_s or None):
                await self._say(link, call.Heartbeat())

    async def _say(self, link: Link, payload: Any) -> bool:
        """Whether it was answered; only the end of the connection is an error here."""
        try:
            await self.line.call(link, payload)
        except REFUSED:
            return False
        return True

    # Status

    def _shown(self) -> dict[int, str]:
        own = "Available" if self._operative else "Unavailable"
        return {0: own, **{number: connector.status for number, connector in self.connectors.items()}}

    def status_changed(self, connector: SimulatedConnector) -> None:
        self.tell("status", connector.status, connector.connector_id)
        self._report(connector.connector_id, connector.status)

    def _report(self, connector_id: int, status: str) -> None:
        # Offline none is kept: after the reconnect it reports what stands then, if that is news.
        if self.connected and self.registration == "Accepted":
            self._statuses.append((connector_id, status, self._now()))
            self._status_moved.set()

    async def _send_statuses(self, link: Link) -> None:
        while True:
            self._status_moved.clear()
            while self._statuses:
                number, status, at = self._statuses[0]
                # A status is worth no retry: the next one says more.
                if await self._say(link, call.StatusNotification(number, "NoError", status, at)):
                    self._reported[number] = status
                self._statuses.popleft()
            await self._status_moved.wait()

    def _now(self) -> str:
        return ocpp_time(self.clock.at(self.clock.now_s()))

    # Drivers

    async def authorized(self, id_tag: str) -> bool:
        """Whether a driver may charge: asked of the central system; offline, of what is known here."""
        local = self.tags.status(
            id_tag,
            self.clock.at(self.clock.now_s()),
            use_list=self.configuration.flag("LocalAuthListEnabled"),
            use_cache=self.configuration.flag("AuthorizationCacheEnabled"),
        )
        if local == "Accepted" and self.configuration.flag("LocalPreAuthorize"):
            return True
        answer = await self.line.attempt(call.Authorize(id_tag)) if self.registration == "Accepted" else None
        if answer is not None:
            self.tags.remember(id_tag, answer.id_tag_info)
            return bool(answer.id_tag_info["status"] == "Accepted")
        if local is None:
            return self.configuration.flag("AllowOfflineTxForUnknownId")
        return local == "Accepted" and self.configuration.flag("LocalAuthorizeOffline")

    def _start_answered(self, transaction: BelievedTransaction) -> None:
        if transaction.id_tag_info:
            self.tags.remember(transaction.id_tag, transaction.id_tag_info)
        self.connectors[transaction.connector_id].start_answered(transaction)

    # What the central system asked for

    def _apply_retry_policy(self) -> None:
        self.delivery.set_policy(
            int(self.configuration.number("TransactionMessageAttempts")),
            self.configuration.number("TransactionMessageRetryInterval"),
        )

    def set_operative(self, operative: bool) -> None:
        self._operative = operative
        self._report(0, self._shown()[0])
        self.nudge_all()

    def configuration_changed(self, key: str) -> None:
        self._apply_retry_policy()
        if key.lower() == "heartbeatinterval":
            self._heartbeat_moved.set()
        elif key.lower() == "authorizationkey" and self.configuration.text("AuthorizationKey"):
            self.password = bytes.fromhex(self.configuration.text("AuthorizationKey"))
            self.spawn(self.line.hang_up())

    def triggered(self, requested: str, connector_id: int | None) -> None:
        """Sends what TriggerMessage asked for; `connector_id` None means all of them."""
        link = self.line.link
        numbers = [0, *self.connectors] if connector_id is None else [connector_id]
        wanted: list[Any] = []
        if requested == "BootNotification":
            if self.registration != "Accepted":
                self._boot_asked.set()
            elif link:
                self.spawn(self._boot_again(link))
        elif requested == "Heartbeat":
            wanted = [call.Heartbeat()]
        elif requested == "StatusNotification":
            wanted = [
                call.StatusNotification(one, "NoError", self._shown()[one], self._now()) for one in numbers
            ]
        elif requested == "FirmwareStatusNotification":
            wanted = [call.FirmwareStatusNotification(self.firmware_status)]
        elif requested == "DiagnosticsStatusNotification":
            wanted = [call.DiagnosticsStatusNotification(self.diagnostics_status)]
        elif requested == "MeterValues":
            for connector in (self.connectors[one] for one in numbers if one):
                value = connector.triggered_meter_value()
                if connector.transaction:
                    self.delivery.sampled(connector.transaction, value)
                else:
                    wanted.append(call.MeterValues(connector.connector_id, [value]))
        if wanted:
            self.spawn(self._send_each(wanted))

    async def _boot_again(self, link: Link) -> None:
        try:
            await self._notify_boot(link)
        except GONE:
            return

    async def _send_each(self, payloads: list[Any]) -> None:
        for payload in payloads:
            await self.line.attempt(payload)
