"""Retained topics that are told when something has changed, and everything once in a heartbeat: brokers forget."""

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import msgspec
from msgspec import Struct

from csms.adapter import AdapterHost
from csms.errors import BrokerAway


class Retained:
    """`put` publishes unless the same was told within `heartbeat_s`. While the broker is away nothing is."""

    def __init__(self, node: AdapterHost, heartbeat_s: float, clock: Callable[[], datetime]) -> None:
        self._node = node
        self._heartbeat = timedelta(seconds=heartbeat_s)
        self._clock = clock
        self._told: dict[str, tuple[Any, datetime]] = {}

    async def put(self, topic: str, content: Struct, apart: Any = None, *, always: bool = False) -> None:
        """`apart`: what of the content makes it another one (None: all of it)."""
        now, known = self._clock(), self._told.get(topic)
        apart = msgspec.to_builtins(content) if apart is None else apart
        if not always and known is not None and known[0] == apart and now - known[1] < self._heartbeat:
            return
        try:
            await self._node.publish(topic, msgspec.json.encode(content))
        except BrokerAway:
            self._told.pop(topic, None)
        else:
            self._told[topic] = (apart, now)

    def forget(self, topic: str) -> None:
        """Somebody else may tell it meanwhile."""
        self._told.pop(topic, None)

    async def take_back(self, topic: str) -> bool:
        """Delete it at the broker. False: the broker is away."""
        self._told.pop(topic, None)
        try:
            await self._node.publish(topic, b"")
        except BrokerAway:
            return False
        return True
