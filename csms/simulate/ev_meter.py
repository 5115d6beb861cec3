"""Imitations of EV-Meter chargers behind their vendor's broker: they answer as the hardware does, with its faults.

It has an encoder of its own and imports nothing of the bridge that it is used to check.
"""

import asyncio
import base64
import contextlib
import json
import random
import struct
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace

import aiomqtt

from csms.aio import TaskSet
from csms.mqtt.client.aiomqtt_fixes import MqttClient
from csms.simulate.clock import SimulatedClock

COMMAND_TOPIC = "/BLEWIFI/Chargers/"
REPLY_TOPIC = "/BLEWIFI/users/"
UNPLUGGED, PLUGGED, WANTS = 1, 2, 3
CLOSED_1, CLOSED_3, READY = 2, 3, 7
NO_TIME = 2**64 - 1


@dataclass
class FakeChargerState:
    """The state of a charger. Energy in Wh; volts and amperes of L1 to L3."""

    mac: str
    ev: int = UNPLUGGED
    charging: int = READY
    total_wh: int = 1_000_000
    session_wh: int = 0
    volts: tuple[float, float, float] = (230.0, 230.25, 230.5)
    amperes: tuple[float, float, float] = (0.0, 0.0, 0.0)
    phases: int = 2  # 1 single, 2 three
    set_current: int = 16
    warnings: int = 0
    errors: int = 0
    start_ms: int = NO_TIME
    version: str = "7.10.3"
    ssid: str = "HOME-NETWORK"
    serial: int = 300_001
    peer: int = 400_001
    temperature: int = 0

    def plug(self) -> None:
        self.ev, self.charging = PLUGGED, READY

    def charge(self, wh: int, *, amperes: float = 16.0, fresh: bool = False) -> None:
        """Charge: `wh` has flowed since the last call, and energy flows now. `fresh`: the first of its session."""
        self.session_wh = wh if fresh else self.session_wh + wh
        self.total_wh += wh
        self.ev, self.charging = WANTS, CLOSED_3 if self.phases == 2 else CLOSED_1
        self.amperes = (amperes,) * 3 if self.phases == 2 else (amperes, 0.0, 0.0)

    def rest(self) -> None:
        """Stop charging: the vehicle is full."""
        self.ev, self.charging, self.amperes = PLUGGED, READY, (0.0, 0.0, 0.0)

    def unplug(self) -> None:
        self.ev, self.charging, self.amperes, self.start_ms = UNPLUGGED, READY, (0.0, 0.0, 0.0), NO_TIME


def encode(state: FakeChargerState) -> bytes:
    """Encode a WorkingInfo frame, as the hardware sends it."""
    version, ssid = state.version.encode(), state.ssid.encode()
    body = (
        struct.pack("<BBIH", 3, 1, state.serial, len(version))
        + version
        + struct.pack("<4B", state.ev, state.charging, state.warnings, state.errors)
        + struct.pack("<3H", *(round(volt * 4) for volt in state.volts))
        + struct.pack("<3H", *(round(ampere * 10) for ampere in state.amperes))
        + struct.pack(
            "<IIBBHI", state.session_wh, state.total_wh, state.phases, state.set_current, 49, 2**32 - 1
        )
        + struct.pack("<H", len(ssid))
        + ssid
        + struct.pack("<BB", 1, 1)
        + bytes.fromhex(state.mac)
        + bytes(2)
        + struct.pack("<QII3HBIIH", state.start_ms, 1, 25, 0, 0, 0, state.temperature, state.peer, 0, 0)
    )
    return struct.pack("<H", len(body)) + body


@dataclass
class AnswerFaults:
    """Faults of a charger's answers. `before`: frames that arrive ahead of its own."""

    silent: bool = False
    late_s: float = 0
    cut_to: int | None = None
    twice: bool = False
    wrapping: str = "bare"  # bare, base64, hex
    before: list[bytes] = field(default_factory=list)


@dataclass
class RequestLog:
    """The requests to a charger so far. `waiting`: how many are not answered yet."""

    times: list[float] = field(default_factory=list)
    waiting: int = 0
    most_waiting: int = 0


class FakeCharger:
    """One charger: `state` is what it reports, `live` changes that as time passes."""

    def __init__(
        self, state: FakeChargerState, *, live: Callable[[FakeChargerState], None] | None = None
    ) -> None:
        self.state = state
        self.faults = AnswerFaults()
        self.asked = RequestLog()
        self._live = live

    def answer(self) -> list[bytes]:
        if self._live is not None:
            self._live(self.state)
        faults = self.faults
        frame = encode(self.state)[: faults.cut_to]
        if faults.wrapping != "bare":
            text = frame.hex() if faults.wrapping == "hex" else base64.b64encode(frame).decode()
            frame = json.dumps({"payload_base64": text}).encode()
        return [*faults.before, frame] + ([frame] if faults.twice else [])


class FakeBackend:
    """All chargers of one account, on one broker. Messages other than requests to read are kept as violations."""

    def __init__(
        self,
        host: str,
        port: int,
        chargers: Iterable[FakeCharger],
        *,
        uuid: str,
        token: bytes,
        version: aiomqtt.ProtocolVersion = aiomqtt.ProtocolVersion.V311,
        username: str | None = None,
        password: str | None = None,
    ) -> None:
        self.chargers = {charger.state.mac: charger for charger in chargers}
        self.reply_topic = REPLY_TOPIC + uuid.encode().hex().upper()
        self.violations: list[str] = []
        self.connected = asyncio.Event()
        self._request = _request(uuid, token)
        self._client: MqttClient | None = None
        self._late = TaskSet()
        self._address = (host, port, version, username, password)

    async def run(self) -> None:
        """Answer until cancelled, through restarts of the broker."""
        try:
            while True:
                with contextlib.suppress(aiomqtt.MqttError, OSError):
                    host, port, version, username, password = self._address
                    async with MqttClient(
                        host, port, protocol=version, username=username, password=password
                    ) as client:
                        for mac in self.chargers:
                            await client.subscribe(COMMAND_TOPIC + mac, qos=1)
                        self._client = client
                        self.connected.set()
                        async for message in client.messages:
                            await self._on_request(str(message.topic), message.payload)
                self.connected.clear()
                self._client = None
                await asyncio.sleep(0.1)
        finally:
            await self._late.cancel()

    async def say(self, payload: bytes, *, retain: bool = False) -> None:
        """Publish an unrequested message on the account's reply topic."""
        assert self._client is not None
        await self._client.publish(self.reply_topic, payload, qos=1, retain=retain)

    async def _on_request(self, topic: str, payload: object) -> None:
        charger = self.chargers[topic.removeprefix(COMMAND_TOPIC)]
        if payload != self._request:
            self.violations.append("not the request to read")
            return
        asked = charger.asked
        asked.times.append(time.monotonic())
        if charger.faults.silent:
            return
        asked.waiting += 1
        asked.most_waiting = max(asked.most_waiting, asked.waiting)
        late_s = charger.faults.late_s
        if late_s:
            self._late.spawn(self._answer(charger, late_s), "late answer")
        else:
            await self._answer(charger, 0)

    async def _answer(self, charger: FakeCharger, late_s: float) -> None:
        if late_s:
            await asyncio.sleep(late_s)
        charger.asked.waiting -= 1
        with contextlib.suppress(aiomqtt.MqttError):
            for frame in charger.answer():
                if self._client is not None:
                    await self._client.publish(self.reply_topic, frame, qos=1)


def _request(uuid: str, token: bytes) -> bytes:
    return struct.pack("<H6xBH", 97, 7, 36) + uuid.encode("ascii") + struct.pack("<H", 48) + token + bytes(2)


# --- vehicles that come and go ---------------------------------------------------------------------------


class ChargerLife:
    """Drives a charger's state: vehicles come, wait, charge, are full, leave. Pure, with seeded random numbers."""

    def __init__(self, seed: int, clock: SimulatedClock) -> None:
        self._random = random.Random(seed)
        self._clock = clock
        self._phase = "idle"
        self._until_s = self._random.uniform(60, 900)
        self._at_s = 0.0
        self._amperes = 16.0
        self._owed_wh = 0.0

    def __call__(self, state: FakeChargerState) -> None:
        """Advance `state` to the clock's time."""
        now_s = self._clock.now_s()
        while self._at_s < now_s:
            step_s = min(self._until_s, now_s) - self._at_s
            if self._phase == "charging":
                self._flow(state, step_s)
            self._at_s += step_s
            if self._at_s >= self._until_s:
                self._next(state)
        if self._phase != "charging":
            state.amperes = (0.0, 0.0, 0.0)
            return
        wobble = self._random.uniform(-0.2, 0.2)
        shown = round(self._amperes + wobble, 1)
        state.amperes = (shown,) * 3 if state.phases == 2 else (shown, 0.0, 0.0)

    def _flow(self, state: FakeChargerState, step_s: float) -> None:
        legs = 3 if state.phases == 2 else 1
        self._owed_wh += legs * 230 * self._amperes * step_s / 3600
        whole = int(self._owed_wh)
        self._owed_wh -= whole
        state.total_wh += whole
        state.session_wh += whole

    def _next(self, state: FakeChargerState) -> None:
        chance = self._random
        if self._phase == "idle":
            self._phase, lasts_s = "plugged", chance.uniform(60, 180)
            state.plug()
        elif self._phase == "plugged":
            self._phase, lasts_s = "charging", chance.uniform(1200, 5400)
            self._amperes = chance.choice([8.0, 10.0, 13.0, 16.0])
            state.set_current = round(self._amperes)
            state.session_wh = 0
            state.start_ms = int(self._clock.at(self._at_s).timestamp() * 1000)
            state.ev, state.charging = WANTS, CLOSED_3 if state.phases == 2 else CLOSED_1
        elif self._phase == "charging":
            self._phase, lasts_s = "full", chance.uniform(120, 1200)
            state.rest()
        else:
            self._phase, lasts_s = "idle", chance.uniform(300, 1800)
            state.unplug()
        self._until_s = self._at_s + lasts_s


def fake_chargers(count: int, clock: SimulatedClock, *, seed: int = 0) -> list[FakeCharger]:
    """Return chargers that vehicles use. Their MAC addresses are made from their numbers."""
    blank = FakeChargerState(mac="")
    return [
        FakeCharger(
            replace(
                blank,
                mac=f"0200{seed:04X}{number:04X}",
                phases=2 if number % 2 else 1,
                volts=(230.0, 230.25, 230.5) if number % 2 else (232.75, 0.0, 0.0),
                total_wh=1_000_000 + 1_000 * number,
            ),
            live=ChargerLife(seed * 10_000 + number, clock),
        )
        for number in range(1, count + 1)
    ]
