"""A connection that only publishes, many messages at a time: the same port as `Connection`, a tenth of its cost.

aiomqtt over paho takes 40 to 100 µs of CPU for a publish and its acknowledgement, more than all the rest that a
meter reading costs; this takes some 5 (docs/decisions/0009). What it owes for that is the same care: reason codes,
MQTT 5 properties and limits, an end that everybody who waits hears of at once, and nothing kept for the next
connection. Subscriptions and commands stay with aiomqtt.
"""

import asyncio
import contextlib
import socket
from collections import deque
from collections.abc import Callable
from typing import Any

import aiomqtt
from aiomqtt.exceptions import MqttConnectError
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.reasoncodes import ReasonCode

from csms.mqtt.client import packets
from csms.mqtt.client.connection import (
    PACKET_TOO_LARGE,
    QUICK_ACK,
    TOPIC_NAME_INVALID,
    LinkConfig,
    MqttMessage,
    tls_context,
)
from csms.mqtt.client.errors import BrokerDisconnected, PublishRefused
from csms.mqtt.client.faults import closed_before_connack

# Reason code (0, or 0x10: nobody listens), or why not.
PublishOutcome = int | BrokerDisconnected | PublishRefused
PublishCallback = Callable[[PublishOutcome], None]
_WIDEST = 65_535
# What a 3.1.1 broker says in its CONNACK, as MQTT 5 would.
_RETURN_CODES = {1: 0x84, 2: 0x85, 3: 0x88, 4: 0x86, 5: 0x87}
_BUFFER = 256 * 1024
_FAREWELL_S = 1.0
_CROWD = 1000
_GATHER_S = 0.002
_FINAL = frozenset({packets.PUBACK, packets.PUBCOMP})


class _InFlight:
    """A publish the broker has not acknowledged."""

    __slots__ = ("done", "due")

    def __init__(self, due: float, done: PublishCallback) -> None:
        self.due = due
        self.done = done


class Publisher(asyncio.Protocol):
    """`lost` is done when the connection is, and `ended` is called at once. Neither callback may block."""

    def __init__(
        self,
        config: LinkConfig,
        ended: Callable[[], None] = lambda: None,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self.lost: asyncio.Future[None] = self._loop.create_future()
        self._paused = False
        self._config = config
        self._five = config.version == "5"
        self._ended = ended
        self._transport: Any = None
        self._accepted: asyncio.Future[None] = self._loop.create_future()
        self._rest = b""
        self._window = config.max_inflight
        self._largest = 256 * 1024 * 1024
        self._highest_qos = 2
        self._flying: dict[int, _InFlight] = {}
        self._waiting: deque[tuple[MqttMessage, bytes, PublishCallback]] = deque()
        self._next_id = 0
        self._out: list[bytes] = []
        self._flushed_at = 0.0
        self._watch: asyncio.TimerHandle | None = None
        self._alive: asyncio.TimerHandle | None = None
        self._keepalive_s = config.keepalive_s
        self._heard = True
        self._topics: dict[str, bytes] = {}

    # --- life ------------------------------------------------------------------------------------

    async def open(self) -> None:
        """Connect. Raises MqttError, OSError or TimeoutError; then nothing is left behind."""
        config = self._config
        try:
            async with asyncio.timeout(config.connect_timeout_s):
                context = await asyncio.to_thread(tls_context, config) if config.tls else None
                await self._loop.create_connection(
                    lambda: self,
                    config.host,
                    config.port,
                    ssl=context,
                    server_hostname=config.host if config.tls else None,
                )
                self._write(
                    packets.connect(
                        config.identifier,
                        five=self._five,
                        keepalive_s=config.keepalive_s,
                        username=config.username,
                        password=config.password,
                    )
                )
                await self._accepted
        except BaseException:
            self._end(None)
            raise
        self._alive = self._loop.call_later(self._keepalive_s / 2, self._keep_alive)

    async def close(self) -> None:
        """Say goodbye, or just clear up when the connection is gone already."""
        if not self.lost.done() and self._transport is not None:
            self._write(packets.GOODBYE)
            self._flush()
            self._transport.close()
            with contextlib.suppress(TimeoutError, aiomqtt.MqttError):
                async with asyncio.timeout(_FAREWELL_S):
                    await asyncio.shield(self.lost)
        self._end(None)

    def drop(self, reason: str) -> None:
        """Give the connection up."""
        self._end(aiomqtt.MqttError(reason))

    def _end(self, error: Exception | None) -> None:
        for timer in (self._watch, self._alive):
            if timer is not None:
                timer.cancel()
        if self._transport is not None:
            self._transport.abort()
        if not self._accepted.done():
            self._accepted.set_exception(error or aiomqtt.MqttError("given up"))
            self._accepted.exception()  # `open` may have been cancelled
        if self.lost.done():
            return
        if error is None:
            self.lost.set_result(None)
        else:
            self.lost.set_exception(error)
            self.lost.exception()  # it may be of interest to nobody
        self._ended()
        flying, self._flying = self._flying, {}
        waiting, self._waiting = self._waiting, deque()
        gone = BrokerDisconnected("The connection ended before the broker's answer.")
        for one in flying.values():
            one.done(gone)
        for _, _, done in waiting:
            done(gone)

    # --- outgoing --------------------------------------------------------------------------------

    async def send(self, message: MqttMessage) -> int:
        """Publish; back with the reason code (0, or 0x10: nobody listens) once the broker has acknowledged.

        At QoS 0 back when handed to the socket. Raises Refused, or Disconnected as soon as the connection ends.
        """
        answer: asyncio.Future[int] = self._loop.create_future()

        def done(outcome: PublishOutcome) -> None:
            if answer.done():
                return
            if isinstance(outcome, int):
                answer.set_result(outcome)
            else:
                answer.set_exception(outcome)

        self.begin(message, done)
        return answer.result() if answer.done() else await answer

    def begin(self, message: MqttMessage, done: PublishCallback) -> None:
        """Publish without waiting: `done` is called once, perhaps at once, and must not block or raise."""
        if self.lost.done():
            done(BrokerDisconnected("The connection has ended."))
            return
        try:
            topic = self._topic(message.topic)
            properties = self._properties(message)
        except ValueError as error:
            done(PublishRefused(TOPIC_NAME_INVALID, str(error)))
            return
        if len(topic) + len(properties) + len(message.body) + 16 > self._largest:
            done(PublishRefused(PACKET_TOO_LARGE, f"Packet larger than the broker's {self._largest} bytes"))
        elif message.qos == 0 or self._highest_qos == 0:
            self._publish(message, topic, properties, 0)
            done(0)
        elif len(self._flying) < self._window and not self._waiting:
            self._fly(message, topic, properties, done)
        else:
            self._waiting.append((message, properties, done))

    def _fly(self, message: MqttMessage, topic: bytes, properties: bytes, done: PublishCallback) -> None:
        number = self._next_id
        while True:
            number = number % _WIDEST + 1
            if number not in self._flying:
                break
        self._next_id = number
        due = self._loop.time() + self._config.publish_timeout_s
        self._flying[number] = _InFlight(due, done)
        self._publish(message, topic, properties, number)
        if self._watch is None:
            self._watch = self._loop.call_at(due, self._overdue)

    def _publish(self, message: MqttMessage, topic: bytes, properties: bytes, number: int) -> None:
        self._write(
            packets.publish(
                topic,
                message.body,
                qos=min(message.qos, self._highest_qos),
                retain=message.retain,
                packet_id=number,
                properties=properties if self._five else None,
            )
        )

    @property
    def congested(self) -> bool:
        """Whether the broker takes less than we send."""
        return self._paused or len(self._waiting) > _CROWD

    def _topic(self, topic: str) -> bytes:
        known = self._topics.get(topic)
        if known is None:
            if not topic or any(sign in topic for sign in "+#\0"):
                raise ValueError("A topic to publish to is not empty and has no wildcards")
            if len(self._topics) >= 20_000:
                self._topics.clear()
            known = self._topics[topic] = packets.text(topic)
        return known

    def _properties(self, message: MqttMessage) -> bytes:
        if not self._five:
            return b""
        if message.properties is not None:
            return message.properties
        return packets.publish_properties(
            expiry_s=message.expiry_s, content_type=message.content_type, user=message.user
        )

    def _write(self, packet: bytes) -> None:
        """What is written in one turn of the loop goes out in one piece, and no sooner than a moment after the last
        piece: a system call that wakes the broker costs more than a packet, and a quiet line waits for nothing."""
        if not self._out:
            wait_s = self._flushed_at + _GATHER_S - self._loop.time()
            if wait_s > 0:
                self._loop.call_later(wait_s, self._flush)
            else:
                self._loop.call_soon(self._flush)
        self._out.append(packet)

    def _flush(self) -> None:
        out, self._out = self._out, []
        self._flushed_at = self._loop.time()
        if out and self._transport is not None and not self._transport.is_closing():
            self._transport.write(b"".join(out))

    # --- time ------------------------------------------------------------------------------------

    def _overdue(self) -> None:
        """The oldest flies first: only its time is watched."""
        self._watch = None
        oldest = next(iter(self._flying.values()), None)
        if oldest is None:
            return
        if oldest.due <= self._loop.time():
            self.drop("timed out waiting for an acknowledgement")
        else:
            self._watch = self._loop.call_at(oldest.due, self._overdue)

    def _keep_alive(self) -> None:
        """Twice within the keepalive: ask, and if nothing at all was heard since the last asking, give up."""
        if not self._heard:
            self.drop("timed out: the broker has gone silent")
            return
        self._heard = False
        self._write(packets.PINGREQ)
        self._alive = self._loop.call_later(self._keepalive_s / 2, self._keep_alive)

    # --- the socket ------------------------------------------------------------------------------

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        transport.set_write_buffer_limits(high=_BUFFER)
        if self.lost.done():
            transport.abort()

    def pause_writing(self) -> None:
        self._paused = True

    def resume_writing(self) -> None:
        self._paused = False

    def connection_lost(self, error: Exception | None) -> None:
        self._fail(error or aiomqtt.MqttCodeError(_reason(PacketTypes.DISCONNECT, 0x80)))

    def _fail(self, error: Exception) -> None:
        if not self._accepted.done() and (_wordless(error) or not isinstance(error, aiomqtt.MqttError)):
            config = self._config
            certificate = config.tls_cert_file is not None
            error = aiomqtt.MqttError(
                closed_before_connack(version=config.version, tls=config.tls, certificate=certificate)
            )
        self._end(error)

    def data_received(self, data: bytes) -> None:
        self._heard = True
        self._quick_ack()
        try:
            came, self._rest = packets.split(self._rest + data if self._rest else data)
            for packet in came:
                self._receive(packet)
        except packets.MalformedPacket as error:
            self.drop(f"what it says is no MQTT: {error}")
        else:
            while self._waiting and len(self._flying) < self._window:
                message, properties, done = self._waiting.popleft()
                self._fly(message, self._topic(message.topic), properties, done)

    def _receive(self, packet: packets.MqttPacket) -> None:
        kind = packet.kind
        if kind in _FINAL:
            number = packets.acknowledgement(packet)
            self._settled(number.packet_id, number.reason)
        elif kind == packets.PUBREC:
            received = packets.acknowledgement(packet)
            if received.reason >= 0x80:
                self._settled(received.packet_id, received.reason)
            elif received.packet_id in self._flying:
                self._write(packets.release(received.packet_id))
        elif kind == packets.CONNACK:
            self._connected(packet)
        elif kind == packets.DISCONNECT:
            self._fail(
                aiomqtt.MqttCodeError(_reason(PacketTypes.DISCONNECT, packets.disconnect_reason(packet)))
            )
        elif kind != packets.PINGRESP:
            raise packets.MalformedPacket(f"a packet of type {kind} that nobody asked for")

    def _settled(self, number: int, reason: int) -> None:
        flying = self._flying.pop(number, None)
        if flying is None:
            return
        if reason >= 0x80:
            flying.done(PublishRefused(reason, _reason(PacketTypes.PUBACK, reason).getName()))
        else:
            flying.done(reason)

    def _connected(self, packet: packets.MqttPacket) -> None:
        code, limits = packets.connack(packet, five=self._five)
        if self._accepted.done():
            raise packets.MalformedPacket("a second CONNACK")
        if code:
            code = code if self._five else _RETURN_CODES.get(code, 0x80)
            self._accepted.set_exception(MqttConnectError(_reason(PacketTypes.CONNACK, code)))
            return
        self._window = min(self._window, limits.get(packets.RECEIVE_MAXIMUM, _WIDEST))
        self._largest = limits.get(packets.MAXIMUM_PACKET_SIZE, self._largest)
        self._highest_qos = limits.get(packets.MAXIMUM_QOS, 2)
        self._keepalive_s = limits.get(packets.SERVER_KEEP_ALIVE, self._keepalive_s) or self._keepalive_s
        self._accepted.set_result(None)

    def _quick_ack(self) -> None:
        """See `Connection`: Mosquitto holds its next packet back until the kernel has acknowledged the last one."""
        if QUICK_ACK is not None:
            with contextlib.suppress(OSError, AttributeError):
                self._transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, QUICK_ACK, 1)


def _reason(kind: int, code: int) -> ReasonCode:
    try:
        return ReasonCode(kind, identifier=code)
    except (KeyError, AssertionError):
        return ReasonCode(kind, identifier=0x80)


def _wordless(error: Exception) -> bool:
    code = getattr(error, "rc", None)
    return isinstance(code, ReasonCode) and code.value == 0x80
