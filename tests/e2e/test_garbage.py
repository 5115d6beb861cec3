"""Garbage on everything that a running program reads from outside.

The test finds the subscriptions and the HTTP requests of the program by itself: a bridge, a feed or a subscription that is
added later is tried without a change here.
"""

import asyncio
import contextlib
import gzip
import itertools
import json
from collections.abc import AsyncIterator
from functools import partial
from typing import Any

import aiomqtt
import httpx
import pytest

import bridges
from bridges.charge_amps import demo as charge_amps
from bridges.charge_amps.config import ChargeAmpsConfig
from csms.mqtt.client.connection import MqttConnection
from csms.mqtt.config import BrokerAddress
from csms.plans.sources import AddressPrices
from csms.simulate.clock import SimulatedClock
from tests.harness.charge_points.raw import RawChargePoint
from tests.mqtt.conftest import POLITE

PRICES = "prices/attributes"
GARBAGE = (
    b"",
    b"\x00" * 40,
    b"\xff\xfe\xfd",
    b"[" * 2000,
    b'{"a":' * 3000,
    b"[" * 2000 + b"]" * 2000,
    b'{"price_curve": [{"start": ' + b"9" * 5000 + b', "price": 1}]}',
    b"NaN",
    b'{"value": 1e999}',
    b"null",
    b"true",
    b"7",
    b'"text"',
    b"{}",
    b"[]",
    b'[null, 1, "a", [], {}]',
    b'{"status": [], "id": {}, "uid": 5, "periods": "all", "price_curve": {"a": 1}, "current": "\\ud800"}',
    b'{"periods": [{"start": "9999-12-31T23:59:59-14:00", "end": "0001-01-01T00:00:00+14:00", "max_current": 6}]}',
    b'{"status": "active", "time": 1e308, "energy": -1e308, "uid": "' + b"u" * 5000 + b'"}',
    b'{"truncated": [1, 2',
    b"[" + b"1," * 200_000 + b"1]",
    b'"' + b"x" * 1_500_000 + b'"',
    b'<!DOCTYPE a [<!ENTITY b "' + b"c" * 100 + b'">]><a>&b;</a>',
    '<!DOCTYPE a [<!ENTITY b "c">]><a>&b;</a>'.encode("utf-16"),
    b"<Publication><TimeSeries><Period><resolution>PT"
    + b"9" * 20
    + b"M</resolution></Period></TimeSeries></Publication>",
    b"<a>" * 20_000,
    bytes(range(256)),
)


@pytest.fixture
def subscriptions(monkeypatch: pytest.MonkeyPatch) -> set[tuple[int, str]]:
    """(port of the broker, topic) of every subscription that the program makes."""
    found = set()
    subscribe = MqttConnection.checked_subscribe

    async def noted(self: MqttConnection, topic: str) -> None:
        found.add((self._config.port, topic))
        await subscribe(self, topic)

    monkeypatch.setattr(MqttConnection, "checked_subscribe", noted)
    return found


class BadServers:
    """Between the program and the servers that it asks: once `bad`, every second answer is garbage."""

    def __init__(self) -> None:
        self.bad = False
        self.spared: set[int | None] = set()  # ports: the program's own HTTP
        self.asked: dict[str, int] = {}
        self._bodies = itertools.cycle(GARBAGE)

    def answer(self, request: httpx.Request) -> httpx.Response | None:
        if request.url.port in self.spared:
            return None
        url = f"{request.url.host}{request.url.path}"
        number = self.asked[url] = self.asked.get(url, 0) + 1
        if request.url.host == "127.0.0.1" and (not self.bad or number % 2):
            return None
        if number % 7 == 0:
            packed = gzip.compress(b" " * 10_000_000)
            return httpx.Response(200, headers={"Content-Encoding": "gzip"}, content=packed)
        return httpx.Response(200 if number % 5 else 500, content=next(self._bodies))


@pytest.fixture
def servers(monkeypatch: pytest.MonkeyPatch) -> BadServers:
    """No request of the program leaves this machine."""
    bad_servers = BadServers()
    really_ask = httpx.AsyncHTTPTransport.handle_async_request

    async def answer(transport: httpx.AsyncHTTPTransport, request: httpx.Request) -> httpx.Response:
        return bad_servers.answer(request) or await really_ask(transport, request)

    monkeypatch.setattr(httpx.AsyncHTTPTransport, "handle_async_request", answer)
    monkeypatch.setattr(AddressPrices, "pause_s", lambda _: 0.1)
    return bad_servers


def topics_of(subscription: str) -> list[str]:
    """Topics that the subscription matches: with identities and words that the program knows, and a strange one."""
    levels = subscription.split("/")

    def filled(identity: str, last: str) -> str:
        words = [last if at == len(levels) - 1 else identity for at in range(len(levels))]
        return "/".join(
            word if level in {"+", "#"} else level for level, word in zip(levels, words, strict=True)
        )

    ends = ("set", "clear", "status", "commands", "x\ufffd")
    return list(dict.fromkeys(filled(identity, end) for identity in ("CP1", "demo-1") for end in ends))


async def publish_garbage(port: int, topics: list[str]) -> None:
    """All of it on the first topics, and one of each kind in turn on the others; what is large on the first topic only."""
    async with aiomqtt.Client("127.0.0.1", port, protocol=aiomqtt.ProtocolVersion.V311) as client:
        for number, body in enumerate(GARBAGE):
            for topic in [*topics[:2], topics[number % len(topics)]] if len(body) < 100_000 else topics[:1]:
                await client.publish(topic, body, qos=1, retain=number % 3 == 0)
        for topic in topics:
            await client.publish(topic, b'{"a":' * 3000, qos=1, retain=True)


async def charged(ocpp: str, identity: str) -> int:
    """A session from its start to its end: the id of its transaction."""
    point = await RawChargePoint.dial(ocpp, identity)
    try:
        begun = {"connectorId": 1, "idTag": "T", "meterStart": 0, "timestamp": "2026-11-01T10:00:00Z"}
        number: int = (await point.ask("StartTransaction", begun))["transactionId"]
        ended = {"transactionId": number, "meterStop": 5000, "timestamp": "2026-11-01T11:00:00Z"}
        await point.ask("StopTransaction", ended)
        return number
    finally:
        await point.close()


@contextlib.asynccontextmanager
async def whole_program(start_node: Any, server: Any, **more: Any) -> AsyncIterator[Any]:
    """A node with every bridge, price feeds by topic and by HTTP, a HEMS, Home Assistant and the rental pages."""
    address = BrokerAddress(server.host, server.port, "3.1.1", "mqtt://test")
    demos = [bridges.create_demo(name, address, SimulatedClock(60)) for name in bridges.BRIDGES]
    simulators = [asyncio.create_task(simulator) for _, simulator in demos]
    try:
        yield await start_node(
            bridges=[adapter for adapter, _ in demos],
            broker_address=address,
            mqtt_topic_prefix="",
            mqtt_homeassistant_discovery=True,
            csms_prices_topic=PRICES,
            csms_prices_url="http://prices.invalid/{date}",
            **more,
        )
    finally:
        for simulator in simulators:
            simulator.cancel()
        await asyncio.gather(*simulators, return_exceptions=True)


@pytest.mark.timeout(120)
async def test_garbage_on_every_subscription_and_feed_stops_nothing(
    start_node: Any,
    mosquitto: Any,
    subscriptions: set[tuple[int, str]],
    servers: BadServers,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    broker = mosquitto(POLITE)

    async def flooded(node: Any, identity: str, *last: str) -> int:
        """Garbage everywhere, and a session meanwhile: its transaction. `last`: the subscriptions that come last."""
        for begin in last:
            await node.until(lambda begin=begin: any(t.startswith(begin) for _, t in subscriptions), 30)
        assert {PRICES, "hems/ocpp/+/schedule/+", "rentals/+/live"} <= {t for _, t in subscriptions}
        servers.spared.add(httpx.URL(node.running.http).port)
        servers.asked.clear()
        servers.bad = True
        for port, topic in sorted(subscriptions):
            await publish_garbage(port, topics_of(topic))
        transaction = await charged(node.ocpp, identity)
        await node.until(lambda: sum(servers.asked.values()) > 2 * len(GARBAGE), 30)

        async def named() -> bool:
            return {f"messages on {PRICES}", "prices"} <= await failing(node)

        await node.until(named)
        assert not {"ledger", "database", "mqtt", "outbox"} & await failing(node)
        assert not node.task.done()
        return transaction

    async with whole_program(start_node, broker) as node:
        first = await flooded(
            node, "CP1", "csms/nodes/node-a/", "charger/#", "/BLEWIFI", "demo/energy_prices"
        )
        # What was bad is forgotten once a good message has come.
        good = {"start": "2026-12-01T00:00:00Z", "end": "2026-12-01T01:00:00Z", "price": 0.2}
        async with aiomqtt.Client("127.0.0.1", broker.port) as client:
            await client.publish(PRICES, json.dumps({"price_curve": [good]}), qos=1)

        async def forgotten() -> bool:
            return f"messages on {PRICES}" not in await failing(node)

        await node.until(forgotten)
        node.stop.set()
        await node.task
    # The garbage that is retained comes at the next start, in which the schedules are those of a HEMS.
    subscriptions.clear()
    servers.bad = False
    by_hems = partial(ChargeAmpsConfig, mode="hems", discovery="homeassistant")
    monkeypatch.setattr(charge_amps, "ChargeAmpsConfig", by_hems)
    async with whole_program(start_node, broker, csms_node="node-b") as node:
        second = await flooded(node, "CP2", "csms/nodes/node-b/", "hems/charge-amps", "homeassistant/status")
        await node.until(lambda: _published(node, first, second))


async def failing(node: Any) -> set[str]:
    """The names of the checks that are not in order."""
    checks = (await node.api.get("/health/ready")).json()["checks"]
    return {check["name"] for check in checks if check["state"] != "ok"}


async def _published(node: Any, *transactions: int) -> bool:
    told = await node.fetch(
        "SELECT e.transaction_id FROM events e WHERE event_type = 'session_cost' AND NOT EXISTS"
        " (SELECT FROM outbox o WHERE o.charger_id = e.charger_id AND o.seq = e.seq)"
    )
    return set(transactions) <= {row["transaction_id"] for row in told}
