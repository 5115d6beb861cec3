"""One connection to a broker, from CONNECT to its end. It is not used again.

aiomqtt 2.5 runs paho on asyncio. It drops the reason code of a PUBACK, leaves publishes waiting when the connection
breaks, and queues incoming messages without a bound, so those three are done here. A client that connects again would
send what is left in paho's queue, so each connection has a new client.
"""

import asyncio
import contextlib
import logging
import socket
import ssl
import struct
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any, TypeVar

import aiomqtt
import structlog
from paho.mqtt import MQTTException
from paho.mqtt.client import MQTTMessage
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from csms.mqtt.client.aiomqtt_fixes import MqttClient
from csms.mqtt.client.config import LinkConfig
from csms.mqtt.client.errors import BrokerDisconnected, PublishRefused
from csms.mqtt.client.faults import closed_before_connack
from csms.mqtt.client.message import MqttMessage

T = TypeVar("T")
log = structlog.get_logger()
# What paho logs ends the connection, which the link logs once.
_silent = logging.getLogger("csms.mqtt.paho")
_silent.setLevel(logging.CRITICAL)

_NO_DELAY = ((socket.IPPROTO_TCP, socket.TCP_NODELAY, 1),)
PACKET_TOO_LARGE, TOPIC_NAME_INVALID = 0x95, 0x90
QUICK_ACK: int | None = getattr(socket, "TCP_QUICKACK", None)  # Linux
MAX_PACKET_BYTES = 256 * 1024 * 1024  # MQTT 5, 2.1.4: the largest remaining length
_CONGESTED_FROM = 50  # packets that wait for the socket
_HEADROOM_BYTES = 1024  # roughly a packet's topic and properties
_GOODBYE_S = 2


class MqttConnection(MqttClient):
    """Publishes and subscribes. `deliver` gets each incoming message; `ended` is called as soon as the connection ends.

    `lost` is done from then on. Neither callback may block.
    """

    def __init__(
        self,
        config: LinkConfig,
        deliver: Callable[[MqttMessage], None],
        ended: Callable[[], None] = lambda: None,
        will: MqttMessage | None = None,
    ) -> None:
        super().__init__(
            config.host,
            config.port,
            username=config.username,
            password=config.password,
            identifier=config.identifier,
            protocol=aiomqtt.ProtocolVersion.V5 if config.version == "5" else aiomqtt.ProtocolVersion.V311,
            will=None if will is None else aiomqtt.Will(will.topic, will.body, will.qos, will.retain),
            timeout=config.connect_timeout_s,
            keepalive=config.keepalive_s,
            max_inflight_messages=config.max_inflight,
            socket_options=_NO_DELAY,
            logger=_silent,
        )
        self.pending_calls_threshold = 10_000
        self.lost: asyncio.Future[None] = self._loop.create_future()
        self._config = config
        self._deliver = deliver
        self._ended = ended
        self._acks: dict[int, asyncio.Future[int]] = {}
        self._v5 = config.version == "5"
        self._max_body = MAX_PACKET_BYTES
        self._client.connect_timeout = config.connect_timeout_s
        if self._v5:
            self._handle_pubrec = self._client._handle_pubrec  # noqa: SLF001
            self._client._handle_pubrec = self._on_pubrec  # type: ignore[method-assign]  # noqa: SLF001

    # --- opening and closing ---------------------------------------------------------------------

    async def open(self) -> None:
        """Connect. Raises MqttError or OSError, after releasing everything."""
        try:
            if self._config.tls:
                context = await asyncio.to_thread(self._config.tls_context)
                self._client.tls_set_context(context)
                # paho's own method leaves the socket open when the handshake fails.
                self._client._ssl_wrap_socket = partial(_handshake, context, self._config)  # type: ignore[method-assign]  # noqa: SLF001
            # paho connects in a thread, which cannot be interrupted: a cancelled open waits for it.
            connecting = asyncio.ensure_future(self.__aenter__())
            try:
                await asyncio.shield(connecting)
            except asyncio.CancelledError:
                with contextlib.suppress(Exception):
                    await connecting
                raise
        except BaseException:
            await self._abandon()
            raise
        self._disconnected.add_done_callback(self._on_lost)

    async def close(self) -> None:
        """Disconnect, so that no last will is sent; or only release resources when the connection has ended."""
        self.timeout = _GOODBYE_S
        with contextlib.suppress(aiomqtt.MqttError):
            await self.__aexit__(None, None, None)
        await self._abandon()

    def drop(self, reason: str) -> None:
        """End the connection without a goodbye."""
        if not self._disconnected.done():
            self._disconnected.set_exception(aiomqtt.MqttError(reason))
            self._on_lost(self._disconnected)

    async def _abandon(self) -> None:
        self._client._sock_close()  # noqa: SLF001
        if not self._disconnected.done():
            self._disconnected.set_result(None)
        if not self.lost.done():
            self._on_lost(self._disconnected)
        if self._misc_task is not None:
            self._misc_task.cancel()
            await asyncio.wait([self._misc_task])

    def _on_lost(self, disconnected: "asyncio.Future[None]") -> None:
        error = None if disconnected.cancelled() else disconnected.exception()
        if self.lost.done():
            return
        self._ended()
        if error is None:
            self.lost.set_result(None)
        else:
            self.lost.set_exception(error)
            self.lost.exception()  # mark it as retrieved: it may not be awaited
        acks, self._acks = self._acks, {}
        for ack in acks.values():
            if not ack.done():
                ack.set_exception(BrokerDisconnected("The connection ended before the broker's answer."))

    # --- outgoing --------------------------------------------------------------------------------

    async def send(self, message: MqttMessage) -> int:
        """Publish. Returns the broker's reason code: 0, or 0x10 when there is no subscriber.

        At QoS 0 it returns 0 once the message is handed to the socket. Raises PublishRefused, or BrokerDisconnected as
        soon as the connection ends.
        """
        if self.lost.done():
            raise BrokerDisconnected("The connection has ended.")
        if not message.topic:
            raise PublishRefused(TOPIC_NAME_INVALID, "Empty topic")
        if len(message.body) > self._max_body:
            raise PublishRefused(PACKET_TOO_LARGE, f"Packet larger than the broker's {self._max_body} bytes")
        try:
            properties = publish_properties(message) if self._v5 else None
            info = self._client.publish(
                message.topic, message.body, message.qos, message.retain, properties=properties
            )
        except (ValueError, struct.error, MQTTException) as error:
            raise PublishRefused(TOPIC_NAME_INVALID, str(error)) from None
        if info.rc != 0:
            raise BrokerDisconnected(f"The message could not be sent (paho: {info.rc!s}).")
        if message.qos == 0:
            return 0
        ack: asyncio.Future[int] = self._loop.create_future()
        self._acks[info.mid] = ack
        try:
            async with asyncio.timeout(self._config.publish_timeout_s):
                return await ack
        except TimeoutError:
            # The message would stay in paho's queue and be sent after later ones, hence a new connection.
            self.drop("timed out waiting for an acknowledgement")
            raise BrokerDisconnected("The broker did not acknowledge in time.") from None
        finally:
            self._acks.pop(info.mid, None)

    @property
    def congested(self) -> bool:
        """Whether the socket accepts less than is sent."""
        return len(self._client._out_packet) > _CONGESTED_FROM  # noqa: SLF001

    async def ask(self, call: Coroutine[Any, Any, T]) -> T:
        """Await one of aiomqtt's calls, until the connection ends at the latest. Raises BrokerDisconnected."""
        task = asyncio.ensure_future(call)
        try:
            watched: list[asyncio.Future[Any]] = [task, self.lost]
            await asyncio.wait(watched, return_when=asyncio.FIRST_COMPLETED)
            if not task.done():
                raise BrokerDisconnected("The connection ended before the broker's answer.")
            return task.result()
        except aiomqtt.MqttError as error:
            raise BrokerDisconnected(str(error)) from None
        finally:
            task.cancel()

    async def checked_subscribe(self, topic: str) -> None:
        """Subscribe at QoS 1. Raises PublishRefused when the broker does not allow it."""
        codes = await self.ask(self.subscribe(topic, 1))
        for code in codes:
            value = code.value if isinstance(code, ReasonCode) else code
            if value >= 0x80:
                raise PublishRefused(value, str(code))

    # --- paho's callbacks ------------------------------------------------------------------------

    def _on_connect(
        self, client: Any, userdata: Any, flags: Any, reason_code: ReasonCode, properties: Any = None
    ) -> None:
        # Neither paho nor aiomqtt heeds the limits that an MQTT 5 broker sends.
        if (window := getattr(properties, "ReceiveMaximum", None)) is not None:
            client._max_inflight_messages = min(window, self._config.max_inflight)  # noqa: SLF001
        if (size := getattr(properties, "MaximumPacketSize", None)) is not None:
            self._max_body = max(size - _HEADROOM_BYTES, 0)
        super()._on_connect(client, userdata, flags, reason_code, properties)

    def _on_disconnect(
        self, client: Any, userdata: Any, flags: Any, reason_code: ReasonCode, properties: Any = None
    ) -> None:
        if not self._connected.done():
            # Without this aiomqtt waits for the CONNACK until its timeout.
            self._connected.set_exception(
                aiomqtt.MqttError(
                    closed_before_connack(
                        version=self._config.version,
                        tls=self._config.tls,
                        certificate=self._config.tls_cert_file is not None,
                    )
                )
            )
        super()._on_disconnect(client, userdata, flags, reason_code, properties)
        if self._disconnected.done():
            self._on_lost(self._disconnected)

    def _on_pubrec(self) -> Any:
        """Handle a PUBREC. paho sends PUBREL after a refusal too, at which brokers close the connection."""
        packet = self._client._in_packet["packet"]  # noqa: SLF001
        if len(packet) < 3 or packet[2] < 0x80:
            return self._handle_pubrec()
        reason = ReasonCode(PacketTypes.PUBREC, identifier=packet[2])
        mid = int.from_bytes(packet[:2], "big")
        with self._client._out_message_mutex:  # noqa: SLF001
            properties = Properties(PacketTypes.PUBREC)  # type: ignore[no-untyped-call]
            return self._client._do_on_publish(mid, reason, properties)  # noqa: SLF001

    def _quick_ack(self) -> None:
        """Have the kernel acknowledge at once what was read.

        A broker without TCP_NODELAY (Mosquitto's default) holds its next packet back until the acknowledgement, which
        the kernel may delay by 40 ms. The option does not last, so it is set after each packet.
        """
        sock = self._client.socket()
        if QUICK_ACK is not None and isinstance(sock, socket.socket):
            with contextlib.suppress(OSError):
                sock.setsockopt(socket.IPPROTO_TCP, QUICK_ACK, 1)

    def _broken(self, error: Exception) -> None:
        self.drop(str(error))

    def _on_publish(
        self, client: Any, userdata: Any, mid: int, reason_code: ReasonCode, properties: Any
    ) -> None:
        self._quick_ack()
        ack = self._acks.get(mid)
        if ack is None or ack.done():
            return
        if reason_code.value >= 0x80:
            ack.set_exception(PublishRefused(reason_code.value, reason_code.getName()))
        else:
            ack.set_result(reason_code.value)

    def _on_message(self, client: Any, userdata: Any, message: MQTTMessage) -> None:
        self._quick_ack()
        # An exception here would end the connection, so no published message may cause one.
        try:
            properties = message.properties
            self._deliver(
                MqttMessage(
                    topic=message.topic,
                    body=bytes(message.payload),
                    qos=message.qos,
                    retain=message.retain,
                    content_type=getattr(properties, "ContentType", None),
                    user=getattr(properties, "UserProperty", ()),
                )
            )
        except Exception:
            topic = self._config.loggable_topic(repr(getattr(message, "_topic", b"")))
            log.exception("mqtt_message_not_read", topic=topic)


def publish_properties(message: MqttMessage) -> Properties | None:
    """Return the MQTT 5 properties of a PUBLISH; None when there are none."""
    if message.expiry_s is None and message.content_type is None and not message.user:
        return None
    properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
    if message.content_type is not None:
        properties.ContentType = message.content_type
        if message.content_type.endswith("json"):
            properties.PayloadFormatIndicator = 1
    if message.expiry_s is not None:
        properties.MessageExpiryInterval = message.expiry_s
    if message.user:
        properties.UserProperty = list(message.user)
    return properties


def _handshake(context: ssl.SSLContext, config: LinkConfig, sock: socket.socket) -> ssl.SSLSocket:
    wrapped = context.wrap_socket(sock, server_hostname=config.host, do_handshake_on_connect=False)
    try:
        wrapped.settimeout(config.connect_timeout_s)
        wrapped.do_handshake()
    except BaseException:
        wrapped.close()
        raise
    return wrapped
