"""Retained topics: told when something has changed, and once in a heartbeat."""

from datetime import UTC, datetime, timedelta
from typing import Any

from msgspec import Struct

from csms.errors import BrokerAway
from csms.plans.retained import Retained


class Content(Struct):
    value: int
    time: int = 0


class Broker:
    def __init__(self) -> None:
        self.told: list[tuple[str, bytes]] = []
        self.away = False

    async def publish(self, topic: str, payload: bytes, **_: Any) -> None:
        if self.away:
            raise BrokerAway("away")
        self.told.append((topic, payload))


async def test_the_same_is_told_once_in_a_heartbeat() -> None:
    broker, now = Broker(), datetime(2026, 11, 21, tzinfo=UTC)
    clock = {"now": now}
    retained = Retained(broker, 60, lambda: clock["now"])  # type: ignore[arg-type]
    await retained.put("t", Content(1))
    await retained.put("t", Content(1))
    await retained.put("t", Content(1, time=5), {"value": 1, "time": 0})  # nothing but time has passed
    assert broker.told == [("t", b'{"value":1,"time":0}')]
    await retained.put("t", Content(2))
    await retained.put("other", Content(2))
    assert len(broker.told) == 3
    clock["now"] += timedelta(seconds=60)
    await retained.put("t", Content(2))
    assert len(broker.told) == 4
    retained.forget("t")
    await retained.put("t", Content(2))
    assert len(broker.told) == 5


async def test_what_the_broker_did_not_take_is_told_when_it_is_back() -> None:
    broker, now = Broker(), datetime(2026, 11, 21, tzinfo=UTC)
    retained = Retained(broker, 60, lambda: now)  # type: ignore[arg-type]
    await retained.put("t", Content(1))
    broker.away = True
    await retained.put("t", Content(2))
    assert not await retained.take_back("u")
    broker.away = False
    await retained.put("t", Content(2))
    assert await retained.take_back("t")
    assert broker.told[1:] == [("t", b'{"value":2,"time":0}'), ("t", b"")]
