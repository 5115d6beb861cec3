"""The controller of a simulated charge point: what its connectors share, and what it reports of itself.

It boots, sends heartbeats and statuses, authorizes drivers and delivers transaction messages.
"""

import asyncio
import hashlib
import random
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from ocpp.v16 import call

from csms.aio import TaskSet
from csms.simulate.battery_and_meter import AC_22, Outlet
from csms.simulate.clock import SimulatedClock, event_within, lead_s, ocpp_time
from csms.simulate.configuration import SimulatedConfiguration
from csms.simulate.connection import ANSWER_ERRORS, CONNECTION_ERRORS, SimulatedConnection
from csms.simulate.delivery import TransactionDelivery
from csms.simulate.line import SimulatedLine
from csms.simulate.profiles import InstalledProfiles
from csms.simulate.records import ChargerEvent, Counters
from csms.simulate.tags import KnownTags

_BOOT_RETRY_S = 10.0
MAX_ID_TAG = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class ChargePointOptions:
    """How a simulated charge point behaves.

    The physical world (charging, sampling, drivers) follows `clock`, at `speed` simulated seconds a real second. The
    protocol's timers (heartbeat, answers, retries, reconnects) follow real time. `connectors` are alike (`outlet`).
    `idle_s` and `charge_s` are ranges in simulated seconds. With `automatic=False` no driver comes unless the central
    system starts a transaction. `password` turns on HTTP Basic authentication; bytes are sent as they are.
    `same_message_id` makes a retry carry the message id of the first attempt. `boot_on_reconnect` boots after every
    reconnect, as many charge points do though OCPP-J advises against it. `validate` checks every message against the
    OCPP schemas, at some cost. `configuration` sets keys in advance, unchecked.
    """

    connectors: int = 1
    password: str | bytes | None = None
    seed: int | str = 0
    speed: float = 1.0
    clock: SimulatedClock | None = None
    tags: Sequence[str] = ("SIMTAG",)
    outlet: Outlet = AC_22
    idle_s: tuple[float, float] = (120.0, 900.0)
    charge_s: tuple[float, float] | None = None
    automatic: bool = True
    call_timeout_s: float = 30.0
    reconnect_s: tuple[float, float] = (0.2, 5.0)
    reboot_s: float = 1.0
    same_message_id: bool = False
    boot_on_reconnect: bool = False
    validate: bool = True
    configuration: Mapping[str, str] | None = None
    on_event: Callable[[ChargerEvent], None] | None = None

    def __post_init__(self) -> None:
        if self.connectors < 1:
            raise ValueError("a charge point has at least one connector")
        if any(not 1 <= len(tag) <= MAX_ID_TAG for tag in self.tags):
            raise ValueError(f"an idTag has 1 to {MAX_ID_TAG} characters")


class ChargePointController:
    """State and services that connectors, handlers and maintenance use.

    `statuses` has the status of each connector; connector 0 is the charge point as a whole. `tasks` run until it ends.
    """

    def __init__(self, identity: str, url: str, options: ChargePointOptions) -> None:
        self.identity = identity
        self.options = options
        self.password = options.password
        self.clock = options.clock or SimulatedClock(options.speed, lead_s(options.speed))
        self.configuration = SimulatedConfiguration(options.connectors, options.configuration)
        self.profiles = InstalledProfiles()
        self.tags = KnownTags()
        self.counters = Counters()
        self.registration: str | None = None
        self.firmware_version = "1.0.0"
        self.firmware_status = self.diagnostics_status = "Idle"
        self.finishing = self.rebooting = False
        self.statuses = dict.fromkeys(range(options.connectors + 1), "Available")
        self.line = SimulatedLine(
            f"{url.rstrip('/')}/{quote(identity, safe='')}",
            credentials=self._credentials,
            ping_s=lambda: self.configuration.number("WebSocketPingInterval"),
            tell=self.tell,
            counters=self.counters,
            reconnect_s=options.reconnect_s,
            rng=random.Random(f"{options.seed}/{identity}/line"),
        )
        self.delivery = TransactionDelivery(self.counters, self.tell, same_message_id=options.same_message_id)
        self._apply_retry_policy()
        # The identity may be longer than OCPP allows for a serial number.
        self._serial = hashlib.sha256(identity.encode()).hexdigest()[:12].upper()
        self._commissioned = False
        self._reported: dict[int, str] = {}
        self._reports: deque[tuple[int, str, str]] = deque()
        self._report_added = asyncio.Event()
        self._heartbeat_changed = asyncio.Event()
        self._boot_requested = asyncio.Event()
        self._listeners: list[Callable[[], None]] = []
        self.tasks = TaskSet()

    # --- state -----------------------------------------------------------------------------------

    @property
    def connected(self) -> bool:
        return self.line.connection is not None

    @property
    def operative(self) -> bool:
        return self.statuses[0] == "Available"

    @property
    def in_service(self) -> bool:
        """Whether it serves drivers: once accepted it does so without a connection too."""
        return self._commissioned and self.operative and not self.rebooting

    @property
    def undelivered(self) -> int:
        """Transaction messages that wait for an answer."""
        return self.delivery.waiting

    @property
    def settled(self) -> bool:
        """Whether all messages are delivered; status reports count only while there is a connection."""
        return not (self.undelivered or self.rebooting or (self.connected and self._reports))

    def on_change(self, listener: Callable[[], None]) -> None:
        """Have `listener` called after a change that a connector may wait for."""
        self._listeners.append(listener)

    def changed(self) -> None:
        for listener in self._listeners:
            listener()

    def set_operative(self, operative: bool) -> None:
        self.statuses[0] = "Available" if operative else "Unavailable"
        self._report(0)
        self.changed()

    def configuration_changed(self, key: str) -> None:
        self._apply_retry_policy()
        if key.lower() == "heartbeatinterval":
            self._heartbeat_changed.set()
        elif key.lower() == "authorizationkey" and self.configuration.text("AuthorizationKey"):
            self.password = bytes.fromhex(self.configuration.text("AuthorizationKey"))
            self.tasks.spawn(self.line.hang_up(), "reconnect")

    def _apply_retry_policy(self) -> None:
        self.delivery.set_policy(
            int(self.configuration.number("TransactionMessageAttempts")),
            self.configuration.number("TransactionMessageRetryInterval"),
        )

    def _credentials(self) -> bytes | None:
        if self.password is None:
            return None
        secret = self.password if isinstance(self.password, bytes) else self.password.encode()
        return self.identity.encode() + b":" + secret

    def tell(self, kind: str, detail: str = "", connector_id: int | None = None) -> None:
        if self.options.on_event:
            self.options.on_event(ChargerEvent(self.identity, kind, detail, connector_id))

    # --- one connection --------------------------------------------------------------------------

    async def converse(self, connection: SimulatedConnection) -> None:
        """Boot if necessary, then send statuses, heartbeats and transaction messages until the connection ends."""
        self._reports.clear()
        if self.registration != "Accepted" or self.options.boot_on_reconnect:
            await self._boot(connection)
        for number, status in self.statuses.items():
            if self._reported.get(number) != status:
                self._report(number)
        try:
            async with asyncio.TaskGroup() as loops:
                loops.create_task(self._send_reports(connection))
                loops.create_task(self.delivery.send(connection))
                loops.create_task(self._send_heartbeats(connection))
        except* CONNECTION_ERRORS:
            pass

    async def _send(self, connection: SimulatedConnection, payload: Any) -> bool:
        """Whether the call was answered. Raises only when the connection ends."""
        try:
            await connection.ask(payload)
        except ANSWER_ERRORS:
            return False
        return True

    def boot_again(self) -> None:
        """Send BootNotification now, as TriggerMessage asks for."""
        if self.registration != "Accepted":
            self._boot_requested.set()
        elif self.line.connection:
            self.tasks.spawn(self._boot_once(self.line.connection), "boot")

    async def _boot_once(self, connection: SimulatedConnection) -> None:
        try:
            await self._notify_boot(connection)
        except CONNECTION_ERRORS:
            return

    async def _boot(self, connection: SimulatedConnection) -> None:
        while True:
            self._boot_requested.clear()
            wait_s = await self._notify_boot(connection)
            if self.registration == "Accepted":
                return
            await event_within(self._boot_requested, wait_s)

    async def _notify_boot(self, connection: SimulatedConnection) -> float:
        """Send BootNotification. Returns the seconds to wait before the next attempt, if this one was not accepted."""
        boot = call.BootNotification(
            charge_point_model=f"Simulator {self.options.outlet.name}"[:20],
            charge_point_vendor="csms",
            charge_point_serial_number=self._serial,
            charge_box_serial_number=self._serial,
            firmware_version=self.firmware_version,
            meter_type="Simulated",
        )
        try:
            answer = await connection.ask(boot)
        except ANSWER_ERRORS:
            return _BOOT_RETRY_S
        self.registration = str(answer.status)
        if self.registration == "Accepted":
            self.counters.boots += 1
            self._commissioned = True
            self._reported.clear()
            if answer.interval > 0:
                self.configuration.change("HeartbeatInterval", str(answer.interval))
                self._heartbeat_changed.set()
            self.changed()
        self.tell("booted", self.registration)
        return float(answer.interval) if answer.interval > 0 else _BOOT_RETRY_S

    async def _send_heartbeats(self, connection: SimulatedConnection) -> None:
        while True:
            self._heartbeat_changed.clear()
            interval_s = self.configuration.number("HeartbeatInterval")
            if not await event_within(self._heartbeat_changed, interval_s or None):
                await self._send(connection, call.Heartbeat())

    # --- statuses --------------------------------------------------------------------------------

    def show(self, connector_id: int, status: str) -> None:
        """Set a connector's status, and report it if it has changed."""
        if status != self.statuses[connector_id]:
            self.statuses[connector_id] = status
            self.tell("status", status, connector_id)
            self._report(connector_id)

    def _report(self, connector_id: int) -> None:
        # Without a connection no report is kept: after the reconnect the status of that moment is sent.
        if self.connected and self.registration == "Accepted":
            self._reports.append((connector_id, self.statuses[connector_id], self.now()))
            self._report_added.set()

    async def _send_reports(self, connection: SimulatedConnection) -> None:
        while True:
            self._report_added.clear()
            while self._reports:
                number, status, at = self._reports[0]
                # No retry: the next status supersedes this one.
                if await self._send(connection, call.StatusNotification(number, "NoError", status, at)):
                    self._reported[number] = status
                self._reports.popleft()
            await self._report_added.wait()

    def now(self) -> str:
        """The simulated time as OCPP's dateTime."""
        return ocpp_time(self.clock.at(self.clock.now_s()))

    # --- drivers ---------------------------------------------------------------------------------

    async def authorized(self, id_tag: str) -> bool:
        """Whether a driver may charge: by Authorize, or without a connection by the local list and cache."""
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
