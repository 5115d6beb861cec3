"""A connection that is opened again whenever it ends."""

import asyncio
import contextlib
import random
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Generic, TypeVar

import structlog
from prometheus_client import Counter, Gauge

from csms.mqtt.client.config import LinkConfig
from csms.mqtt.client.connection import MqttConnection
from csms.mqtt.client.errors import BrokerDisconnected
from csms.mqtt.client.faults import connection_failure
from csms.mqtt.client.message import MqttMessage
from csms.mqtt.client.publisher import Publisher

C = TypeVar("C", MqttConnection, Publisher)
log = structlog.get_logger()

_CONNECTED = Gauge("csms_mqtt_connected", "Whether the link to the broker stands.", ["link"])
_CONNECTIONS = Counter("csms_mqtt_connections_total", "Connections made to the broker.", ["link"])
_STABLE_S = 5.0


class ReconnectingLink(ABC, Generic[C]):
    """`run()` keeps a connection. Nothing is queued without one: `publish` raises BrokerDisconnected."""

    def __init__(self, config: LinkConfig) -> None:
        self.config = config
        self.last_error: str | None = "Not connected yet."
        self.connected_at: float | None = None
        self._connection: C | None = None
        self._up = asyncio.Event()
        self._on_connected: list[Callable[[], None]] = []

    @abstractmethod
    def _make(self) -> C:
        """Return a connection to be opened once; it calls `_down` when it ends."""

    async def _greet(self, connection: C) -> None:
        """Send what has to come first on a new connection."""

    async def _take_leave(self, connection: C) -> None:
        """Send what has to come last before a clean end."""

    # --- state -----------------------------------------------------------------------------------

    @property
    def connected(self) -> bool:
        return self._up.is_set()

    @property
    def congested(self) -> bool:
        """Whether the broker accepts less than is sent; at QoS 0 the sender should pause."""
        return self._connection is not None and self._connection.congested

    async def wait_connected(self) -> None:
        await self._up.wait()

    def on_connected(self, callback: Callable[[], None]) -> None:
        """Have `callback` called after each connect, when the subscriptions are made. It must not block."""
        self._on_connected.append(callback)

    async def publish(self, message: MqttMessage) -> int:
        """Publish, and wait for the acknowledgement. Returns 0, or 0x10 when there is no subscriber (MQTT 5).

        Raises PublishRefused (reason code >= 0x80: an access list, a quota …), and BrokerDisconnected as soon as the
        connection ends, when it is unknown whether the broker has the message. It is not sent again later.
        """
        connection = self._connection
        if connection is None:
            raise BrokerDisconnected(self.last_error or "There is no connection to the broker.")
        return await connection.send(message)

    # --- the connection --------------------------------------------------------------------------

    async def run(self) -> None:
        """Stay connected until cancelled, then disconnect cleanly."""
        failures = 0
        while True:
            began = time.monotonic()
            try:
                await self._live()
            except Exception as error:
                self._failed(error)
            finally:
                _CONNECTED.labels(self.config.name).set(0)
            # A broker that accepts connections only to close them is not asked again at once either.
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
        log.info("mqtt_connected", link=self.config.name, host=self.config.host, port=self.config.port)
        for callback in self._on_connected:
            try:
                callback()
            except Exception:
                log.exception("mqtt_connect_callback_failed", link=self.config.name)

    def _down(self) -> None:
        """Called at once, so that `connected` is false before any waiting publish learns of the end."""
        self._connection = None
        self._up.clear()
        if self.last_error is None:
            self.last_error = "The connection to the MQTT broker ended."

    def _failed(self, error: Exception) -> None:
        text = connection_failure(error, self.config.host, self.config.port, tls=self.config.tls)
        if text != self.last_error:
            log.warning("mqtt_not_connected", link=self.config.name, error=text)
        self.last_error = text
