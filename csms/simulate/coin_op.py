"""Imitations of coin-op stations: three text commands in, JSON status out, over MQTT 3.1.1 at QoS 0.

Written from the vendor's description of the stations, independently of the bridge, so that each checks the other.
"""

import asyncio
import contextlib
import json
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import aiomqtt

from csms.mqtt.client.aiomqtt_fixes import MqttClient

WINDOW_S = 600
_SLOW_EVERY_S = 30
_INIT_S = 3
_PAUSE_S = 30.0
_VOLTS, _FREQUENCY = 231.4, 50.0
_RENTED = {"busy", "charging", "completed"}


def protocol(version: str) -> aiomqtt.ProtocolVersion:
    """Return the protocol version: stations speak 3.1.1, and some brokers have another port for 5."""
    return aiomqtt.ProtocolVersion.V5 if version == "5" else aiomqtt.ProtocolVersion.V311


@dataclass(frozen=True, slots=True, kw_only=True)
class StationBehaviour:
    """How a station, its meter and its connection behave, in seconds of the station's time."""

    energy: str = "session"  # or cumulative
    power_scale: float = 1.0  # 0.1: power on the wire in tenths of a watt
    power_w: float = 2210.0
    plug_s: float = 40.0
    charge_s: float = 3600.0
    unplug_s: float = 20.0
    nan_rate: float = 0.0
    loss: float = 0.0
    double: float = 0.0
    reboot_at_s: float | None = None
    forgets: bool = False  # a reboot loses the session
    silent: bool = False
    second_topic: bool = False
    last_will: bool = False


@dataclass(slots=True, kw_only=True)
class FakeStation:
    """One station: `obey` handles a command, `second` lets a second pass; its status messages are added to `said`."""

    id: str
    behaviour: StationBehaviour = field(default_factory=StationBehaviour)
    seed: int = 0
    state: str = "init"
    uid: str | None = None
    time: int = 0
    counter_wh: float = 0.0
    doors_closed: bool = True
    out_active: bool = False
    said: list[dict[str, Any]] = field(default_factory=list)
    doors_opened: int = 0
    clock: float = 0.0
    _entered: float = 0.0
    _command_at: float = 0.0
    _told_at: float = 0.0
    _dropped: str | None = None
    _rebooted: bool = False
    _chance: random.Random = field(default_factory=random.Random)

    def __post_init__(self) -> None:
        self._chance = random.Random(f"{self.seed}/{self.id}")
        if self.behaviour.energy == "cumulative":
            self.counter_wh = float(self._chance.randrange(1000, 90_000))

    # --- commands --------------------------------------------------------------------------------

    def obey(self, body: bytes, *, retained: bool = False) -> None:
        """Handle a message on the station's commands topic. Retained, foreign and unknown commands are ignored."""
        if retained:
            return
        try:
            verb, colon, uid = body.decode().rstrip("\r\n").partition(":")
        except UnicodeDecodeError:
            return
        if not colon or not uid or ":" in uid:
            return
        if self.uid is not None and uid == self.uid and verb in {"hello", "connect", "stop"}:
            self._command_at = self.clock
        if verb == "hello":
            self._say()
        elif verb == "connect" and self.state == "ready":
            self._open_for(uid)
        elif verb == "stop" and self.state in _RENTED and uid == self.uid:
            self._open_door()
            self.out_active = False
            self._enter("done")

    def _open_for(self, uid: str) -> None:
        self.uid, self.time, self._command_at = uid, 0, self.clock
        if self.behaviour.energy == "session":
            self.counter_wh = 0.0
        self._open_door()
        self.out_active = True
        self._enter("busy")

    def _open_door(self) -> None:
        self.doors_closed = False
        self.doors_opened += 1

    # --- time ------------------------------------------------------------------------------------

    def second(self) -> None:
        """Let one second of the station's time pass."""
        self.clock += 1
        in_state_s = self.clock - self._entered
        if self.state == "init" and in_state_s >= _INIT_S:
            self._after_init()
            return
        if self.state in _RENTED:
            self.time += 1
            if self.state == "charging":
                self.counter_wh += self.behaviour.power_w / 3600
            if self._reboots():
                return
            self._charge()
            if self.state in _RENTED and self.clock > self._told_at and self._due():
                self._say()
        elif self.state == "done" and in_state_s >= self.behaviour.unplug_s:
            self.doors_closed, self.uid = True, None
            self._enter("ready")

    def _charge(self) -> None:
        if self.state == "busy" and self.time >= self.behaviour.plug_s:
            # A vehicle draws current, and the door is closed.
            self.doors_closed = True
            self._enter("charging")
        elif self.state == "charging" and self.time >= self.behaviour.plug_s + self.behaviour.charge_s:
            self._enter("completed")

    def _reboots(self) -> bool:
        at = self.behaviour.reboot_at_s
        if at is None or self._rebooted or self.time < at:
            return False
        self._rebooted = True
        self._dropped = None if self.behaviour.forgets else self.state
        self._enter("init")
        return True

    def _after_init(self) -> None:
        if self._dropped is not None:
            state, self._dropped = self._dropped, None
            self.time += _INIT_S
            self._enter(state)
            return
        self.uid, self.out_active, self.doors_closed = None, False, True
        self._enter("ready")

    def _due(self) -> bool:
        if self.clock - self._command_at < WINDOW_S:
            return True
        return self.clock - self._told_at >= _SLOW_EVERY_S

    # --- status ----------------------------------------------------------------------------------

    def _enter(self, state: str) -> None:
        self.state, self._entered = state, self.clock
        self._say()

    def _say(self) -> None:
        self._told_at = self.clock
        self.said.append(self.status())

    def status(self) -> dict[str, Any]:
        if self.state in {"init", "ready"}:
            return {
                "status": self.state,
                "doors_closed": self.doors_closed,
                "out_active": self.out_active,
            }
        drawing = self.state == "charging"
        power_w = self.behaviour.power_w if drawing else 0.0
        pf = 99 if drawing else 0
        milliamperes = round(power_w / (_VOLTS * 0.99) * 1000)
        return {
            "status": self.state,
            "uid": self.uid,
            "time": self.time,
            "voltage": _VOLTS,
            "current": milliamperes,
            "power": round(power_w / self.behaviour.power_scale, 1),
            "energy": int(self.counter_wh),
            "frequency": _FREQUENCY,
            "pf": pf,
        }

    def payload(self, status: dict[str, Any]) -> bytes:
        """Encode a status as the station's printf does: a meter that cannot be read gives a bare nan."""
        if "power" in status and self._chance.random() < self.behaviour.nan_rate:
            spoilt = self._chance.choice(("voltage", "current", "power", "pf"))
            status = status | {spoilt: float("nan")}
        return json.dumps(status).replace("NaN", "nan").encode()

    def lost(self) -> bool:
        return self._chance.random() < self.behaviour.loss

    def doubled(self) -> bool:
        return self._chance.random() < self.behaviour.double


class FakeStationFleet:
    """Stations connected to a broker, at `speed` of their seconds per real second. `run()` until cancelled."""

    def __init__(
        self,
        host: str,
        port: int,
        stations: Sequence[FakeStation],
        *,
        speed: float = 1.0,
        prefix: str = "",
        version: str = "3.1.1",
        username: str | None = None,
        password: str | None = None,
    ) -> None:
        self.stations = {station.id: station for station in stations}
        self.connected = 0
        self.published = 0
        self._host, self._port = host, port
        self._speed = speed
        self._prefix = f"{prefix}/" if prefix else ""
        self._version = protocol(version)
        self._username, self._password = username, password
        self._clients: dict[str, MqttClient] = {}

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            for station in self.stations.values():
                group.create_task(self._line(station), name=f"line {station.id}")
                group.create_task(self._clock(station), name=f"clock {station.id}")

    async def _clock(self, station: FakeStation) -> None:
        began, passed = time.monotonic(), 0
        while True:
            passed += 1
            await asyncio.sleep(max(began + passed / self._speed - time.monotonic(), 0))
            station.second()
            await self._deliver(station)
            _raise_if_cancelled()

    async def _line(self, station: FakeStation) -> None:
        """Keep a station connected: subscribe, publish its status, handle commands."""
        while True:
            with contextlib.suppress(aiomqtt.MqttError):
                async with self._client(station) as client:
                    await client.subscribe(f"{self._prefix}charger/{station.id}/commands", qos=1)
                    self._clients[station.id] = client
                    self.connected += 1
                    station.said = [station.status()]
                    try:
                        await self._deliver(station)
                        async for message in client.messages:
                            if isinstance(message.payload, bytes | bytearray):
                                station.obey(bytes(message.payload), retained=message.retain)
                                await self._deliver(station)
                                _raise_if_cancelled()
                    finally:
                        self.connected -= 1
                        self._clients.pop(station.id, None)
            _raise_if_cancelled()
            await asyncio.sleep(0.2)

    def _client(self, station: FakeStation) -> MqttClient:
        will = None
        if station.behaviour.last_will:
            will = aiomqtt.Will(
                f"{self._prefix}charger/{station.id}/availability", b"offline", 0, retain=True
            )
        return MqttClient(
            self._host,
            self._port,
            identifier=f"sim-{station.id}-{random.getrandbits(32):08x}",
            protocol=self._version,
            will=will,
            username=self._username,
            password=self._password,
        )

    async def _deliver(self, station: FakeStation) -> None:
        client = self._clients.get(station.id)
        said, station.said = station.said, []
        if client is None or station.behaviour.silent:
            return
        for status in said:
            body = station.payload(status)
            topics = [f"charger/{station.id}/status"]
            if station.behaviour.second_topic and station.uid is not None:
                topics.append(f"charger/{station.id}/{station.uid}/status")
            for topic in topics:
                for _ in range(0 if station.lost() else 2 if station.doubled() else 1):
                    with contextlib.suppress(aiomqtt.MqttError):
                        await client.publish(f"{self._prefix}{topic}", body, qos=0)
                        self.published += 1


def _raise_if_cancelled() -> None:
    """Raise a cancellation that was lost.

    A client whose disconnect fails raises its own error instead of the cancellation, and Python 3.11's wait_for swallows it
    when the publish ends at the same moment.
    """
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError


class RenterApp:
    """A renter's app as the vendor describes it: it connects to the broker itself."""

    def __init__(self, host: str, port: int, uid: str, *, version: str = "3.1.1") -> None:
        self._host, self._port, self._uid = host, port, uid
        self._version = protocol(version)

    async def rent(self, station_id: str, stay_s: float) -> None:
        """Send hello, then connect when the station is free, then stop after `stay_s` real seconds."""
        topic = f"charger/{station_id}"
        async with MqttClient(self._host, self._port, protocol=self._version) as client:
            await client.subscribe(f"{topic}/status", qos=1)
            await client.publish(f"{topic}/commands", f"hello:{self._uid}", qos=1)
            async for message in client.messages:
                assert isinstance(message.payload, bytes | bytearray)
                status = json.loads(message.payload.replace(b"nan", b"null"))
                if not message.retain and status["status"] == "ready":
                    break
                if status.get("uid") not in {None, self._uid}:
                    return
            await client.publish(f"{topic}/commands", f"connect:{self._uid}", qos=1)
            await asyncio.sleep(stay_s)
            await client.publish(f"{topic}/commands", f"stop:{self._uid}", qos=1)


async def rent_for_ever(
    host: str,
    port: int,
    station_ids: Sequence[str],
    *,
    stay_s: float = 120,
    version: str = "3.1.1",
) -> None:
    """Have renters use each station one after another, until cancelled."""

    async def visits(station_id: str, number: int) -> None:
        visit = 0
        while True:
            await asyncio.sleep(_PAUSE_S * (0.2 if visit == 0 else 1) + number)
            visit += 1
            with contextlib.suppress(aiomqtt.MqttError, TimeoutError):
                async with asyncio.timeout(stay_s + 30):
                    guest = RenterApp(host, port, f"guest-{number}-{visit}", version=version)
                    await guest.rent(station_id, stay_s)
            _raise_if_cancelled()

    async with asyncio.TaskGroup() as group:
        for number, station_id in enumerate(station_ids):
            group.create_task(visits(station_id, number))
