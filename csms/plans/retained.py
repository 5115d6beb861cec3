"""Retained topics, published when their content changes and once in a heartbeat, since a broker may lose them."""

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import msgspec
from msgspec import Struct

from csms.adapter import AdapterHost
from csms.errors import BrokerAway


class Retained:
    """`put` publishes unless the same content was published within `heartbeat_s`. While the broker is away nothing is."""

    def __init__(self, node: AdapterHost, heartbeat_s: float, clock: Callable[[], datetime]) -> None:
        self._node = node
        self._heartbeat = timedelta(seconds=heartbeat_s)
        self._clock = clock
        self._published: dict[str, tuple[Any, datetime]] = {}

    async def put(self, topic: str, content: Struct, apart: Any = None) -> None:
        """`apart`: the part of the content whose change counts (None: all of it)."""
        now, known = self._clock(), self._published.get(topic)
        apart = msgspec.to_builtins(content) if apart is None else apart
        if known is not None and known[0] == apart and now - known[1] < self._heartbeat:
            return
        try:
            await self._node.publish(topic, msgspec.json.encode(content))
        except BrokerAway:
            self._published.pop(topic, None)
        else:
            self._published[topic] = (apart, now)

    def forget(self, topic: str) -> None:
        """Publish it again the next time: another node may have published it meanwhile."""
        self._published.pop(topic, None)

    async def take_back(self, topic: str) -> bool:
        """Delete it at the broker. False: the broker is away."""
        self._published.pop(topic, None)
        try:
            await self._node.publish(topic, b"")
        except BrokerAway:
            return False
        return True
