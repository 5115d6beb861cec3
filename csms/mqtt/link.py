"""One supervised link to the broker: connects, subscribes, publishes, and comes back for as long as it runs."""

import asyncio
import contextlib
import random
import time
import uuid
from collections import deque
from collections.abc import AsyncIterator, Callable

import structlog
from paho.mqtt.client import topic_matches_sub
from prometheus_client import Counter, Gauge

from csms.mqtt.connection import Connection, LinkConfig, Message
from csms.mqtt.errors import Disconnected, Refused
from csms.mqtt.faults import sentence

__all__ = ["Disconnected", "Link", "LinkConfig", "Message", "Refused", "prefixed"]

Handler = Callable[[Message], None]
Presence = Callable[[str, bool], Message]
log = structlog.get_logger()

_CONNECTED = Gauge("csms_mqtt_connected", "Whether the link to the broker stands.", ["link"])
_CONNECTIONS = Counter("csms_mqtt_connections_total", "Connections made to the broker.", ["link"])
_DROPPED = Counter("csms_mqtt_received_dropped_total", "Messages a slow reader did not get.", ["topic"])
_STABLE_S = 5.0
_FAREWELL_S = 1.0


def prefixed(prefix: str, topic: str) -> str:
    """A topic below the installation's prefix (MQTT_TOPIC_PREFIX; empty: none)."""
    return f"{prefix}/{topic}" if prefix else topic


class Link:
    """`run()` keeps the connection. Nothing is queued while there is none: publish raises Disconnected.

    `presence(session, online)` gives the retained message that says whether we are there: published as
    online after each connect, as offline before a clean end, and left with the broker as our last will.
    `session` names the connection, because a will may come after the next connection's online.
    """

    def __init__(self, config: LinkConfig, *, presence: Presence | None = None) -> None:
        self.config = config
        self.last_error: str | None = "Not connected yet."
        self.connected_at: float | None = None
        self._presence = presence
        self._connection: Connection | None = None
        self._up = asyncio.Event()
        self._handlers: dict[str, list[Handler]] = {}
        self._qos: dict[str, int] = {}
        self._on_connected: list[Callable[[], None]] = []

    # --- state -----------------------------------------------------------------------------------

    @property
    def connected(self) -> bool:
        return self._up.is_set()

    @property
    def congested(self) -> bool:
        """Whether the broker takes less than we send; worth a pause at QoS 0."""
        return self._connection is not None and self._connection.congested

    async def wait_connected(self) -> None:
        await self._up.wait()

    def on_connected(self, callback: Callable[[], None]) -> None:
        """Have something called after each connect, when the subscriptions stand. It must not block."""
        self._on_connected.append(callback)

    # --- talking ---------------------------------------------------------------------------------

    async def publish(self, message: Message) -> int:
        """Back once the broker has acknowledged: 0, or 0x10 when nobody has subscribed (MQTT 5).

        Raises Refused (reason code >= 0x80: an access list, a quota…) and Disconnected, the moment the
        connection ends; then nobody knows whether the broker has it. Never sent later by itself.
        """
        connection = self._connection
        if connection is None:
            raise Disconnected(self.last_error or "There is no connection to the broker.")
        return await connection.send(message)

    async def subscribe(self, topic: str, handler: Handler, *, qos: int = 1) -> None:
        """Have `handler` called with each message, now and after every reconnect. It must not block.

        Without a connection this only takes note. Raises Refused when the broker does not allow it.
        """
        self._handlers.setdefault(topic, []).append(handler)
        self._qos[topic] = max(qos, self._qos.get(topic, 0))
        if self._connection is not None:
            with contextlib.suppress(Disconnected):
                await self._connection.subscribed(topic, self._qos[topic])

    async def unsubscribe(self, topic: str, handler: Handler) -> None:
        handlers = self._handlers.get(topic, [])
        if handler in handlers:
            handlers.remove(handler)
        if not handlers and self._handlers.pop(topic, None) is not None:
            del self._qos[topic]
            if self._connection is not None:
                with contextlib.suppress(Disconnected):
                    await self._connection.ask(self._connection.unsubscribe(topic))

    async def listen(self, topic: str, *, qos: int = 1, max_waiting: int = 10_000) -> AsyncIterator[Message]:
        """Messages on a topic. A reader that falls `max_waiting` behind loses the oldest, and that is counted."""
        waiting: deque[Message] = deque()
        arrived = asyncio.Event()

        def keep(message: Message) -> None:
            if len(waiting) >= max_waiting:
                waiting.popleft()
                _DROPPED.labels(topic).inc()
            waiting.append(message)
            arrived.set()

        try:
            await self.subscribe(topic, keep, qos=qos)
            while True:
                await arrived.wait()
                while waiting:
                    yield waiting.popleft()
                arrived.clear()
        finally:
            await self.unsubscribe(topic, keep)

    # --- the connection --------------------------------------------------------------------------

    async def run(self) -> None:
        """Stay connected until cancelled; then say goodbye."""
        config, delay_s = self.config, self.config.reconnect_min_s
        while True:
            began = time.monotonic()
            try:
                await self._live()
            except Exception as error:
                self._failed(error)
            finally:
                _CONNECTED.labels(config.name).set(0)
            # A broker that takes us in only to throw us out is not asked again at once either.
            if time.monotonic() - began > _STABLE_S:
                delay_s = config.reconnect_min_s
            await asyncio.sleep(delay_s * random.uniform(0.5, 1))
            delay_s = min(delay_s * 2, config.reconnect_max_s)

    async def _live(self) -> None:
        session = uuid.uuid4().hex
        presence = self._presence
        will = presence(session, False) if presence is not None else None
        connection = Connection(self.config, self._dispatch, self._down, will)
        await connection.open()
        try:
            if presence is not None:
                await self._tell(connection, presence(session, True))
            standing: dict[str, int] = {}
            while missing := [item for item in self._qos.items() if item not in standing.items()]:
                for topic, qos in missing:
                    await self._subscribe_again(connection, topic, qos)
                    standing[topic] = qos
            if not connection.lost.done():
                self._connection = connection
                self._announce()
            await asyncio.shield(connection.lost)
        except asyncio.CancelledError:
            if presence is not None and not connection.lost.done():
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(_FAREWELL_S):
                        await self._tell(connection, presence(session, False))
            raise
        finally:
            self._down()
            await connection.close()

    def _announce(self) -> None:
        self.last_error = None
        self.connected_at = time.time()
        self._up.set()
        _CONNECTED.labels(self.config.name).set(1)
        _CONNECTIONS.labels(self.config.name).inc()
        log.info("mqtt connected", link=self.config.name, host=self.config.host, port=self.config.port)
        for callback in self._on_connected:
            try:
                callback()
            except Exception:
                log.exception("mqtt callback failed")

    def _down(self) -> None:
        """At once, so that nobody who learns of the loss finds us still up."""
        self._connection = None
        self._up.clear()
        if self.last_error is None:
            self.last_error = "The connection to the MQTT broker ended."

    def _failed(self, error: Exception) -> None:
        text = sentence(error, self.config.host, self.config.port, tls=self.config.tls)
        if text != self.last_error:
            log.warning("mqtt not connected", link=self.config.name, error=text)
        self.last_error = text

    async def _subscribe_again(self, connection: Connection, topic: str, qos: int) -> None:
        try:
            await connection.subscribed(topic, qos)
        except Refused as error:
            log.error("mqtt subscription refused", topic=self.config.topic_shown(topic), error=str(error))

    async def _tell(self, connection: Connection, message: Message) -> None:
        try:
            await connection.send(message)
        except (Refused, Disconnected) as error:
            log.warning("mqtt presence not published", topic=message.topic, error=str(error))

    def _dispatch(self, message: Message) -> None:
        for topic, handlers in list(self._handlers.items()):
            if not _matches(topic, message.topic):
                continue
            for handler in list(handlers):
                try:
                    handler(message)
                except Exception:
                    log.exception("mqtt message not handled", topic=self.config.topic_shown(message.topic))


def _matches(subscription: str, topic: str) -> bool:
    if subscription == topic:
        return True
    if subscription.startswith("$share/"):
        subscription = subscription.split("/", 2)[2]
    return topic_matches_sub(subscription, topic)
