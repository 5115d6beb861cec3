"""A connection that only publishes, many messages at a time. It has the interface of `MqttConnection`.

aiomqtt over paho takes 40 to 100 µs of CPU for a publish and its acknowledgement, more than all the rest of a meter
reading takes; this takes about 5 (docs/decisions/0009). As `MqttConnection` does, it heeds reason codes and the broker's
MQTT 5 properties and limits, fails all waiting publishes as soon as the connection ends, and keeps nothing for the next
connection. Subscriptions and commands use `MqttConnection`.
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
from csms.mqtt.client.config import LinkConfig
from csms.mqtt.client.connection import MAX_PACKET_BYTES, PACKET_TOO_LARGE, QUICK_ACK, TOPIC_NAME_INVALID
from csms.mqtt.client.errors import BrokerDisconnected, PublishRefused
from csms.mqtt.client.faults import closed_before_connack
from csms.mqtt.client.message import MqttMessage

# The reason code (0, or 0x10: no subscriber), or why the message was not published.
PublishOutcome = int | BrokerDisconnected | PublishRefused
PublishCallback = Callable[[PublishOutcome], None]
_MAX_PACKET_ID = 65_535
# The return codes of a 3.1.1 CONNACK as MQTT 5 reason codes.
_RETURN_CODES = {1: 0x84, 2: 0x85, 3: 0x88, 4: 0x86, 5: 0x87}
_BUFFER_BYTES = 256 * 1024
_GOODBYE_S = 1.0
_CONGESTED_FROM = 1000  # messages that wait for the send window
_CACHED_TOPICS = 20_000
_GATHER_S = 0.002
_FINAL = frozenset({packets.PUBACK, packets.PUBCOMP})


class _InFlight:
    """A publish that the broker has not acknowledged. `due`: when it is given up, in loop time."""

    __slots__ = ("done", "due")

    def __init__(self, due: float, done: PublishCallback) -> None:
        self.due = due
        self.done = done


class Publisher(asyncio.Protocol):
    """Publishes. `ended` is called as soon as the connection ends and must not block; `lost` is done from then on."""

    def __init__(
        self,
        config: LinkConfig,
        ended: Callable[[], None] = lambda: None,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self.lost: asyncio.Future[None] = self._loop.create_future()
        self._paused = False
        self._config = config
        self._v5 = config.version == "5"
        self._ended = ended
        self._transport: Any = None
        self._accepted: asyncio.Future[None] = self._loop.create_future()
        self._rest = b""
        self._window = config.max_inflight
        self._largest = MAX_PACKET_BYTES
        self._highest_qos = 2
        self._in_flight: dict[int, _InFlight] = {}
        self._waiting: deque[tuple[MqttMessage, bytes, PublishCallback]] = deque()
        self._last_id = 0
        self._unwritten: list[bytes] = []
        self._flushed_at = 0.0
        self._ack_timer: asyncio.TimerHandle | None = None
        self._ping_timer: asyncio.TimerHandle | None = None
        self._keepalive_s = config.keepalive_s
        self._received_any = True
        self._topics: dict[str, bytes] = {}

    # --- opening and closing ---------------------------------------------------------------------

    async def open(self) -> None:
        """Connect. Raises MqttError, OSError or TimeoutError, after releasing everything."""
        config = self._config
        try:
            async with asyncio.timeout(config.connect_timeout_s):
                context = await asyncio.to_thread(config.tls_context) if config.tls else None
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
                        v5=self._v5,
                        keepalive_s=config.keepalive_s,
                        username=config.username,
                        password=config.password,
                    )
                )
                await self._accepted
        except BaseException:
            self._end(None)
            raise
        self._ping_timer = self._loop.call_later(self._keepalive_s / 2, self._keep_alive)

    async def close(self) -> None:
        """Disconnect, or only release resources when the connection has ended."""
        if not self.lost.done() and self._transport is not None:
            self._write(packets.DISCONNECT_PACKET)
            self._flush()
            self._transport.close()
            with contextlib.suppress(TimeoutError, aiomqtt.MqttError):
                async with asyncio.timeout(_GOODBYE_S):
                    await asyncio.shield(self.lost)
        self._end(None)

    def drop(self, reason: str) -> None:
        """End the connection without a goodbye."""
        self._end(aiomqtt.MqttError(reason))

    def _end(self, error: Exception | None) -> None:
        for timer in (self._ack_timer, self._ping_timer):
            if timer is not None:
                timer.cancel()
        if self._transport is not None:
            self._transport.abort()
        if not self._accepted.done():
            self._accepted.set_exception(error or aiomqtt.MqttError("given up"))
            self._accepted.exception()  # mark it as retrieved: `open` may have been cancelled
        if self.lost.done():
            return
        if error is None:
            self.lost.set_result(None)
        else:
            self.lost.set_exception(error)
            self.lost.exception()  # mark it as retrieved: it may not be awaited
        self._ended()
        in_flight, self._in_flight = self._in_flight, {}
        waiting, self._waiting = self._waiting, deque()
        disconnected = BrokerDisconnected("The connection ended before the broker's answer.")
        for publish in in_flight.values():
            publish.done(disconnected)
        for _, _, done in waiting:
            done(disconnected)

    # --- outgoing --------------------------------------------------------------------------------

    async def send(self, message: MqttMessage) -> int:
        """Publish. Returns the broker's reason code: 0, or 0x10 when there is no subscriber.

        At QoS 0 it returns 0 once the message is handed to the socket. Raises PublishRefused, or BrokerDisconnected as
        soon as the connection ends.
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
        """Publish without waiting. `done` is called once, perhaps before this returns; it must not block or raise."""
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
        elif len(self._in_flight) < self._window and not self._waiting:
            self._send(message, topic, properties, done)
        else:
            self._waiting.append((message, properties, done))

    def _send(self, message: MqttMessage, topic: bytes, properties: bytes, done: PublishCallback) -> None:
        packet_id = self._last_id % _MAX_PACKET_ID + 1
        while packet_id in self._in_flight:
            packet_id = packet_id % _MAX_PACKET_ID + 1
        self._last_id = packet_id
        due = self._loop.time() + self._config.publish_timeout_s
        self._in_flight[packet_id] = _InFlight(due, done)
        self._publish(message, topic, properties, packet_id)
        if self._ack_timer is None:
            self._ack_timer = self._loop.call_at(due, self._overdue)

    def _publish(self, message: MqttMessage, topic: bytes, properties: bytes, packet_id: int) -> None:
        self._write(
            packets.publish(
                topic,
                message.body,
                qos=min(message.qos, self._highest_qos),
                retain=message.retain,
                packet_id=packet_id,
                properties=properties if self._v5 else None,
            )
        )

    @property
    def congested(self) -> bool:
        """Whether the broker accepts less than is sent."""
        return self._paused or len(self._waiting) > _CONGESTED_FROM

    def _topic(self, topic: str) -> bytes:
        known = self._topics.get(topic)
        if known is None:
            if not topic or any(sign in topic for sign in "+#\0"):
                raise ValueError("A topic to publish to has at least one character and no wildcards")
            if len(self._topics) >= _CACHED_TOPICS:
                self._topics.clear()
            known = self._topics[topic] = packets.text(topic)
        return known

    def _properties(self, message: MqttMessage) -> bytes:
        if not self._v5:
            return b""
        if message.properties is not None:
            return message.properties
        return packets.publish_properties(
            expiry_s=message.expiry_s, content_type=message.content_type, user=message.user
        )

    def _write(self, packet: bytes) -> None:
        """Write soon: together with what else is written in this turn of the loop, and at most once in _GATHER_S.

        A system call that wakes the broker costs more than a packet. The first packet after a pause does not wait.
        """
        if not self._unwritten:
            wait_s = self._flushed_at + _GATHER_S - self._loop.time()
            if wait_s > 0:
                self._loop.call_later(wait_s, self._flush)
            else:
                self._loop.call_soon(self._flush)
        self._unwritten.append(packet)

    def _flush(self) -> None:
        packets_, self._unwritten = self._unwritten, []
        self._flushed_at = self._loop.time()
        if packets_ and self._transport is not None and not self._transport.is_closing():
            self._transport.write(b"".join(packets_))

    # --- time ------------------------------------------------------------------------------------

    def _overdue(self) -> None:
        """Drop the connection if the oldest publish is overdue. The timer follows the oldest one only."""
        self._ack_timer = None
        oldest = next(iter(self._in_flight.values()), None)
        if oldest is None:
            return
        if oldest.due <= self._loop.time():
            self.drop("timed out waiting for an acknowledgement")
        else:
            self._ack_timer = self._loop.call_at(oldest.due, self._overdue)

    def _keep_alive(self) -> None:
        """Ping twice within the keepalive interval. Drop the connection if nothing was received since the last ping."""
        if not self._received_any:
            self.drop("timed out: the broker sent nothing for a keepalive interval")
            return
        self._received_any = False
        self._write(packets.PINGREQ)
        self._ping_timer = self._loop.call_later(self._keepalive_s / 2, self._keep_alive)

    # --- the socket ------------------------------------------------------------------------------

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        transport.set_write_buffer_limits(high=_BUFFER_BYTES)
        if self.lost.done():
            transport.abort()

    def pause_writing(self) -> None:
        self._paused = True

    def resume_writing(self) -> None:
        self._paused = False

    def connection_lost(self, error: Exception | None) -> None:
        self._fail(error or aiomqtt.MqttCodeError(_reason(PacketTypes.DISCONNECT, 0x80)))

    def _fail(self, error: Exception) -> None:
        if not self._accepted.done() and (_has_no_reason(error) or not isinstance(error, aiomqtt.MqttError)):
            config = self._config
            certificate = config.tls_cert_file is not None
            error = aiomqtt.MqttError(
                closed_before_connack(version=config.version, tls=config.tls, certificate=certificate)
            )
        self._end(error)

    def data_received(self, data: bytes) -> None:
        self._received_any = True
        self._quick_ack()
        try:
            received, self._rest = packets.split(self._rest + data if self._rest else data)
            for packet in received:
                self._receive(packet)
        except packets.MqttDecodeError as error:
            self.drop(f"what it sends is not MQTT: {error}")
        else:
            while self._waiting and len(self._in_flight) < self._window:
                message, properties, done = self._waiting.popleft()
                self._send(message, self._topic(message.topic), properties, done)

    def _receive(self, packet: packets.MqttPacket) -> None:
        kind = packet.kind
        if kind in _FINAL:
            final = packets.acknowledgement(packet)
            self._acknowledged(final.packet_id, final.reason)
        elif kind == packets.PUBREC:
            received = packets.acknowledgement(packet)
            if received.reason >= 0x80:
                self._acknowledged(received.packet_id, received.reason)
            elif received.packet_id in self._in_flight:
                self._write(packets.release(received.packet_id))
        elif kind == packets.CONNACK:
            self._connected(packet)
        elif kind == packets.DISCONNECT:
            self._fail(
                aiomqtt.MqttCodeError(_reason(PacketTypes.DISCONNECT, packets.disconnect_reason(packet)))
            )
        elif kind != packets.PINGRESP:
            raise packets.MqttDecodeError(f"a packet of type {kind}, which a publisher does not expect")

    def _acknowledged(self, packet_id: int, reason: int) -> None:
        publish = self._in_flight.pop(packet_id, None)
        if publish is None:
            return
        if reason >= 0x80:
            publish.done(PublishRefused(reason, _reason(PacketTypes.PUBACK, reason).getName()))
        else:
            publish.done(reason)

    def _connected(self, packet: packets.MqttPacket) -> None:
        code, limits = packets.connack(packet, v5=self._v5)
        if self._accepted.done():
            raise packets.MqttDecodeError("a second CONNACK")
        if code:
            code = code if self._v5 else _RETURN_CODES.get(code, 0x80)
            self._accepted.set_exception(MqttConnectError(_reason(PacketTypes.CONNACK, code)))
            return
        self._window = min(self._window, limits.get(packets.RECEIVE_MAXIMUM, _MAX_PACKET_ID))
        self._largest = limits.get(packets.MAXIMUM_PACKET_SIZE, self._largest)
        self._highest_qos = limits.get(packets.MAXIMUM_QOS, 2)
        self._keepalive_s = limits.get(packets.SERVER_KEEP_ALIVE, self._keepalive_s) or self._keepalive_s
        self._accepted.set_result(None)

    def _quick_ack(self) -> None:
        """Have the kernel acknowledge at once what was read; see `MqttConnection`."""
        if QUICK_ACK is not None:
            with contextlib.suppress(OSError, AttributeError):
                self._transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, QUICK_ACK, 1)


def _reason(kind: int, code: int) -> ReasonCode:
    try:
        return ReasonCode(kind, identifier=code)
    except (KeyError, AssertionError):
        return ReasonCode(kind, identifier=0x80)


def _has_no_reason(error: Exception) -> bool:
    code = getattr(error, "rc", None)
    return isinstance(code, ReasonCode) and code.value == 0x80
