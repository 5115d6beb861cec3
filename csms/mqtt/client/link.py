"""The link that subscribes: commands and replies between nodes, topics that adapters listen to, presence."""

import asyncio
import contextlib
import uuid
from collections import deque
from collections.abc import AsyncIterator, Callable
from functools import lru_cache

import structlog
from paho.mqtt.client import topic_matches_sub
from prometheus_client import Counter

from csms.aio import FailureLog
from csms.mqtt.client.config import LinkConfig
from csms.mqtt.client.connection import MqttConnection
from csms.mqtt.client.errors import BrokerDisconnected, PublishRefused
from csms.mqtt.client.message import MqttMessage
from csms.mqtt.client.reconnecting import ReconnectingLink

MessageHandler = Callable[[MqttMessage], None]
PresenceMessage = Callable[[str, bool], MqttMessage]
log = structlog.get_logger()

_DROPPED = Counter("csms_mqtt_received_dropped_total", "Messages a slow reader did not get.", ["topic"])
_GOODBYE_S = 1.0
_MAX_MESSAGE_BYTES = 4_000_000
_MAX_WAITING_BYTES = 16_000_000


def prefixed(prefix: str, topic: str) -> str:
    """Return the topic below MQTT_TOPIC_PREFIX; an empty prefix changes nothing."""
    return f"{prefix}/{topic}" if prefix else topic


class BrokerLink(ReconnectingLink[MqttConnection]):
    """Subscriptions are made again after each reconnect.

    `presence(session, online)` returns the retained message that says whether this node is connected. It is published as
    online after each connect, as offline before a clean end, and left with the broker as last will. `session` names the
    connection, because a will may be published after the next connection's online.
    """

    def __init__(self, config: LinkConfig, *, presence: PresenceMessage | None = None) -> None:
        super().__init__(config)
        self._presence = presence
        self._session = ""
        self._handlers: dict[str, list[MessageHandler]] = {}
        self._failures: dict[str, FailureLog] = {}

    async def subscribe(self, topic: str, handler: MessageHandler) -> None:
        """Have `handler` called with each message, also after a reconnect. It must not block.

        Without a connection the subscription is made with the next one. Raises PublishRefused when the broker does not
        allow it.
        """
        self._handlers.setdefault(topic, []).append(handler)
        shown = self.config.loggable_topic(topic)
        self._failures.setdefault(topic, FailureLog("mqtt_message_handler_failed", topic=shown))
        if self._connection is not None:
            with contextlib.suppress(BrokerDisconnected):
                await self._connection.checked_subscribe(topic)

    async def unsubscribe(self, topic: str, handler: MessageHandler) -> None:
        handlers = self._handlers.get(topic, [])
        if handler in handlers:
            handlers.remove(handler)
        if not handlers and self._handlers.pop(topic, None) is not None and self._connection is not None:
            with contextlib.suppress(BrokerDisconnected):
                await self._connection.ask(self._connection.unsubscribe(topic))

    async def listen(
        self,
        topic: str,
        *,
        max_waiting: int = 10_000,
        subscribed: Callable[[], None] | None = None,
    ) -> AsyncIterator[MqttMessage]:
        """Yield the messages on a topic. A reader that falls `max_waiting` messages, or 16 MB, behind loses the oldest.

        They are counted. A message of more than 4 MB is dropped.

        `subscribed` is called when `subscribe` has returned.
        """
        waiting: deque[MqttMessage] = deque()
        waiting_bytes = 0
        arrived = asyncio.Event()

        def keep(message: MqttMessage) -> None:
            nonlocal waiting_bytes
            if len(message.body) > _MAX_MESSAGE_BYTES:
                _DROPPED.labels(topic).inc()
                return
            waiting.append(message)
            waiting_bytes += len(message.body)
            while len(waiting) > max_waiting or waiting_bytes > _MAX_WAITING_BYTES:
                waiting_bytes -= len(waiting.popleft().body)
                _DROPPED.labels(topic).inc()
            arrived.set()

        try:
            await self.subscribe(topic, keep)
            if subscribed is not None:
                subscribed()
            while True:
                await arrived.wait()
                while waiting:
                    message = waiting.popleft()
                    waiting_bytes -= len(message.body)
                    yield message
                arrived.clear()
        finally:
            await self.unsubscribe(topic, keep)

    # --- the connection --------------------------------------------------------------------------

    def _make(self) -> MqttConnection:
        self._session = uuid.uuid4().hex
        will = self._presence(self._session, False) if self._presence is not None else None
        return MqttConnection(self.config, self._dispatch, self._down, will)

    async def _greet(self, connection: MqttConnection) -> None:
        await self._publish_presence(connection, online=True)
        subscribed: set[str] = set()
        # Subscriptions may be added while these are made.
        while missing := [topic for topic in self._handlers if topic not in subscribed]:
            for topic in missing:
                await self._subscribe_again(connection, topic)
            subscribed.update(missing)

    async def _take_leave(self, connection: MqttConnection) -> None:
        async with asyncio.timeout(_GOODBYE_S):
            await self._publish_presence(connection, online=False)

    async def _subscribe_again(self, connection: MqttConnection, topic: str) -> None:
        try:
            await connection.checked_subscribe(topic)
        except PublishRefused as error:
            log.error("mqtt_subscription_refused", topic=self.config.loggable_topic(topic), error=str(error))

    async def _publish_presence(self, connection: MqttConnection, *, online: bool) -> None:
        if self._presence is None:
            return
        message = self._presence(self._session, online)
        try:
            await connection.send(message)
        except (PublishRefused, BrokerDisconnected) as error:
            log.warning("mqtt_presence_not_published", topic=message.topic, error=str(error))

    def _dispatch(self, message: MqttMessage) -> None:
        for subscription, handlers in list(self._handlers.items()):
            if not _matches(subscription, message.topic):
                continue
            for handler in list(handlers):
                with self._failures[subscription]:
                    handler(message)


@lru_cache(maxsize=1 << 16)  # a charger publishes often on one topic
def _matches(subscription: str, topic: str) -> bool:
    if subscription == topic:
        return True
    if subscription.startswith("$share/"):
        subscription = subscription.split("/", 2)[2]
    return topic_matches_sub(subscription, topic)
