"""Staying connected: connects, says when it stands, and comes back for as long as it runs."""

import asyncio
import contextlib
import random
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Generic, TypeVar

import structlog
from prometheus_client import Counter, Gauge

from csms.mqtt.client.connection import LinkConfig, MqttConnection, MqttMessage
from csms.mqtt.client.errors import BrokerDisconnected
from csms.mqtt.client.faults import connection_failure
from csms.mqtt.client.publisher import PublishCallback, Publisher

C = TypeVar("C", MqttConnection, Publisher)
log = structlog.get_logger()

_CONNECTED = Gauge("csms_mqtt_connected", "Whether the link to the broker stands.", ["link"])
_CONNECTIONS = Counter("csms_mqtt_connections_total", "Connections made to the broker.", ["link"])
_STABLE_S = 5.0


class ReconnectingLink(ABC, Generic[C]):
    """`run()` keeps the connection. Nothing is queued while there is none: publish raises Disconnected."""

    def __init__(self, config: LinkConfig) -> None:
        self.config = config
        self.last_error: str | None = "Not connected yet."
        self.connected_at: float | None = None
        self._connection: C | None = None
        self._up = asyncio.Event()
        self._on_connected: list[Callable[[], None]] = []

    @abstractmethod
    def _make(self) -> C:
        """A connection to open, once; it calls `_down` when it ends."""

    async def _greet(self, connection: C) -> None:
        """What must be said before others may use the connection."""

    async def _take_leave(self, connection: C) -> None:
        """What must be said before a clean end."""

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

    async def publish(self, message: MqttMessage) -> int:
        """Back once the broker has acknowledged: 0, or 0x10 when nobody has subscribed (MQTT 5).

        Raises Refused (reason code >= 0x80: an access list, a quota…) and Disconnected, the moment the
        connection ends; then nobody knows whether the broker has it. Never sent later by itself.
        """
        connection = self._connection
        if connection is None:
            raise BrokerDisconnected(self.last_error or "There is no connection to the broker.")
        return await connection.send(message)

    # --- the connection --------------------------------------------------------------------------

    async def run(self) -> None:
        """Stay connected until cancelled; then say goodbye."""
        failures = 0
        while True:
            began = time.monotonic()
            try:
                await self._live()
            except Exception as error:
                self._failed(error)
            finally:
                _CONNECTED.labels(self.config.name).set(0)
            # A broker that takes us in only to throw us out is not asked again at once either.
            failures = 0 if time.monotonic() - began > _STABLE_S else min(failures + 1, 20)
            delay_s = self.config.reconnect_min_s * 2 ** max(failures - 1, 0)
            await asyncio.sleep(min(delay_s, self.config.reconnect_max_s) * random.uniform(0.5, 1))

    async def _live(self) -> None:
        connection = self._make()
        await connection.open()
        try:
            await self._greet(connection)
            if not connection.lost.done():
                self._connection = connection
                self._announce()
            await asyncio.shield(connection.lost)
        except asyncio.CancelledError:
            if not connection.lost.done():
                with contextlib.suppress(TimeoutError):
                    await self._take_leave(connection)
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
        text = connection_failure(error, self.config.host, self.config.port, tls=self.config.tls)
        if text != self.last_error:
            log.warning("mqtt not connected", link=self.config.name, error=text)
        self.last_error = text


class PublishingLink(ReconnectingLink[Publisher]):
    """For what leaves in numbers: events, state, the protocol stream. It subscribes to nothing."""

    def _make(self) -> Publisher:
        return Publisher(self.config, self._down)

    def begin(self, message: MqttMessage, done: PublishCallback) -> None:
        """Publish without waiting: `done` gets the reason code, Refused or Disconnected, once, perhaps at once."""
        if self._connection is None:
            done(BrokerDisconnected(self.last_error or "There is no connection to the broker."))
        else:
            self._connection.begin(message, done)
