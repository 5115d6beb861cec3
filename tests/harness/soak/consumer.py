"""A consumer as a billing system would write it: paho, QoS 1, a session that the broker keeps, acknowledged last."""

import asyncio
import threading
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from paho.mqtt.client import Client, MQTTMessage
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from tests.harness.waiting import until

_WAIT_S = 10.0


class Consumer:
    """`messages` holds (topic below the prefix, body) in order of arrival; a message is acknowledged when it is in.

    paho runs in a thread of its own and comes back by itself when the broker was away.
    """

    def __init__(self, host: str, port: int, prefix: str, name: str) -> None:
        self.messages: list[tuple[str, bytes]] = []
        self.sessions_lost = 0
        self.absences = 0
        self._address = host, port
        self._prefix = prefix
        self._up = threading.Event()
        self._known = False
        self._name = name
        self._client: Client | None = None

    def arrive(self) -> None:
        """Connect and subscribe; back when both are done. Again after `leave`: the broker still has the session."""
        self._up.clear()
        properties = Properties(PacketTypes.CONNECT)
        properties.SessionExpiryInterval = 86_400
        # A new one each time: paho does not clear up what an earlier loop had.
        client = self._client = Client(
            CallbackAPIVersion.VERSION2, client_id=self._name, protocol=MQTTProtocolVersion.MQTTv5
        )
        client.on_connect = self._on_connect
        client.on_subscribe = self._on_subscribe
        client.on_message = self._on_message
        client.reconnect_delay_set(0.05, 0.2)  # type: ignore[arg-type]  # fractions work
        client.connect(*self._address, clean_start=False, properties=properties)
        client.loop_start()
        if not self._up.wait(_WAIT_S):
            raise TimeoutError("the consumer was not let in")

    def leave(self) -> None:
        """Go; what is published meanwhile waits at the broker."""
        client, self._client = self._client, None
        if client is not None:
            client.disconnect()
            client.loop_stop()

    @asynccontextmanager
    async def restless(self, every_s: float = 4.0, away_s: float = 1.0) -> AsyncIterator[None]:
        """Now and then it goes for a while; at the end it is there."""

        async def come_and_go() -> None:
            while True:
                await asyncio.sleep(every_s)
                try:
                    await asyncio.to_thread(self.leave)
                    await asyncio.sleep(away_s)
                finally:
                    self.absences += 1
                    self.arrive()

        going = asyncio.create_task(come_and_go())
        try:
            yield
        finally:
            going.cancel()
            await asyncio.gather(going, return_exceptions=True)

    async def back(self) -> None:
        """Wait until the broker has us again."""
        await until(lambda: self._client is not None and self._client.is_connected(), _WAIT_S)

    async def has(self, count: int, patience_s: float) -> None:
        """Wait until so many different messages are there, or none has come for a while."""
        seen, deadline = -1, 0.0
        while len(set(self.messages)) < count:
            if len(self.messages) > seen:
                seen, deadline = len(self.messages), time.monotonic() + patience_s
            elif time.monotonic() > deadline:
                return
            await asyncio.sleep(0.1)

    def _on_connect(self, client: Client, _data: Any, flags: Any, reason: Any, _properties: Any) -> None:
        if reason.is_failure:
            return
        if flags.session_present:
            self._up.set()
            return
        self.sessions_lost += self._known
        self._known = True
        kinds = ("transactions", "connectors", "billing")
        client.subscribe([(f"{self._prefix}/csms/{kind}/+/+", 1) for kind in kinds])

    def _on_subscribe(self, *_: Any) -> None:
        self._up.set()

    def _on_message(self, _client: Client, _data: Any, message: MQTTMessage) -> None:
        self.messages.append((message.topic.removeprefix(f"{self._prefix}/"), bytes(message.payload)))
