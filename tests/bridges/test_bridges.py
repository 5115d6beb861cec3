"""What every bridge stands on: the registry, a node of its own, messages of the main broker."""

import asyncio
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

import bridges
from csms import settings
from csms.adapter import AdapterHost, BrokerMessage, Command
from csms.cli.bridge import own_node
from csms.core import reports
from csms.errors import BrokerAway, NotSupported, SettingsError
from csms.run import app
from tests.e2e.conftest import NodeFactory
from tests.harness.servers import DatabaseFactory

CHARGER = "BR-1"


class Lamp:
    """An adapter of a charger that can do little: it says what it is told on a topic of the main broker."""

    def __init__(self) -> None:
        self.node: AdapterHost | None = None
        self.heard: asyncio.Queue[Any] = asyncio.Queue()

    async def run(self, node: AdapterHost) -> None:
        held = await node.record(reports.Connected(charger_id=CHARGER, node=node.name, protocol="lamp"))
        await node.hold(CHARGER, self)
        self.node = node
        try:
            await node.listen("lamps/+/said", self.heard.put)
        finally:
            await node.release(CHARGER, self)
            await node.record(
                reports.Disconnected(charger_id=CHARGER, node=node.name, generation=held.generation)
            )

    async def perform(self, charger_id: str, command: Command) -> Mapping[str, Any]:
        if command.action != "RemoteStopTransaction":
            raise NotSupported(f"A lamp has no {command.action}.")
        return {"status": "Accepted"}

    async def hang_up(self, charger_id: str, generation: int) -> None:
        pass


def test_an_unknown_bridge_is_refused_by_name() -> None:
    with pytest.raises(SettingsError, match="CSMS_BRIDGES='toaster' cannot be used"):
        bridges.create("toaster")


def test_a_bridge_process_is_a_node_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CSMS_NODE", raising=False)
    assert own_node(settings.load(_env_file=None), "lamp").csms_node.endswith("-lamp")
    monkeypatch.setenv("CSMS_NODE", "cellar")
    assert own_node(settings.load(_env_file=None), "lamp").csms_node == "cellar"


async def test_a_bridge_inside_a_node_makes_ordinary_transactions(start_node: NodeFactory) -> None:
    lamp = Lamp()
    node = await start_node(bridges=[lamp])
    await node.until(lambda: lamp.node)
    assert lamp.node is not None
    at = datetime.now(UTC)
    started = await lamp.node.record(
        reports.Start(charger_id=CHARGER, connector_id=1, id_tag="L", key="1", meter_wh=1000, at=at)
    )
    standing = await lamp.node.snapshot(CHARGER)
    assert [transaction.id for transaction in standing.transactions] == [started.transaction_id]
    await lamp.node.record(
        reports.Stop(charger_id=CHARGER, transaction_id=started.transaction_id, meter_wh=3000, at=at)
    )
    (cost,) = await node.until(lambda: node.of("session_cost", CHARGER))
    assert cost["payload"]["energyConsumed"] == 2.0
    charger = (await node.api.get(f"/api/v1/chargers/{CHARGER}")).json()
    assert (charger["protocol"], charger["online"]) == ("lamp", True)


async def test_a_bridge_process_performs_commands_of_the_central_system(
    start_node: NodeFactory, database_url: str, topic_prefix: str, tmp_path: Path
) -> None:
    node = await start_node()
    assert node.broker is not None
    lamp, stop = Lamp(), asyncio.Event()
    ready: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    own = settings.load(
        _env_file=None,
        database_url=database_url,
        csms_data_dir=tmp_path,
        csms_node="node-b",
        mqtt_enabled=True,
        mqtt_topic_prefix=topic_prefix,
        mqtt_client_id=topic_prefix.replace("/", "-"),
    )
    alone = asyncio.create_task(
        app.serve_bridge(own, database_url, node.broker, lamp, stop=stop, ready=ready.set_result)
    )
    try:
        async with asyncio.timeout(20):
            await ready
        await node.until(lambda: lamp.node)
        assert lamp.node is not None
        await node.until(lambda: lamp.node and lamp.node.broker_connected)
        stopped = await node.api.post(
            f"/api/v1/chargers/{CHARGER}/commands",
            json={"action": "RemoteStopTransaction", "payload": {"transactionId": 1}},
        )
        assert stopped.json()["response"] == {"status": "Accepted"}
        reset = await node.api.post(
            f"/api/v1/chargers/{CHARGER}/commands", json={"action": "Reset", "payload": {"type": "Soft"}}
        )
        assert reset.status_code == 501, reset.text
        assert "A lamp has no Reset" in reset.text

        await lamp.node.publish("lamps/7/said", b"on", retain=True)
        async with asyncio.timeout(10):
            message = await lamp.heard.get()
        assert (message.topic, message.body, message.retained) == ("lamps/7/said", b"on", False)
    finally:
        stop.set()
        await alone
    listed = (await node.api.get(f"/api/v1/chargers/{CHARGER}")).json()
    assert listed["online"] is False


async def test_a_retained_message_is_marked_and_publishing_without_a_broker_fails(
    start_node: NodeFactory,
) -> None:
    lamp = Lamp()
    node = await start_node(bridges=[lamp])
    await node.until(lambda: lamp.node and lamp.node.broker_connected)
    assert lamp.node is not None
    await lamp.node.publish("lamps/8/said", b"kept", retain=True)
    async with asyncio.timeout(10):
        await lamp.heard.get()  # so that what is heard below is not this one
    again: asyncio.Queue[BrokerMessage] = asyncio.Queue()
    listening = asyncio.create_task(lamp.node.listen("lamps/8/said", again.put))
    async with asyncio.timeout(10):
        message = await again.get()
    assert (message.body, message.retained) == (b"kept", True)
    listening.cancel()
    await lamp.node.publish("lamps/8/said", b"", retain=True)

    dark = Lamp()
    await start_node(mqtt=False, bridges=[dark], csms_node="node-dark")
    await node.until(lambda: dark.node)
    assert dark.node is not None
    assert dark.node.broker_connected is False
    with pytest.raises(BrokerAway, match="MQTT is off"):
        await dark.node.publish("lamps/9/said", b"x")


async def test_a_signed_message_is_taken_from_nodes_of_the_same_database_only(
    start_node: NodeFactory, databases: DatabaseFactory, template_database: str
) -> None:
    one, two, stranger = Lamp(), Lamp(), Lamp()
    await start_node(bridges=[one])
    await start_node(bridges=[two], csms_node="node-b", collect=False)
    other = await databases.create(template_database)
    try:
        elsewhere = await start_node(
            bridges=[stranger], csms_node="node-c", database_url=other, collect=False
        )
        await elsewhere.until(
            lambda: all(lamp.node and lamp.node.broker_connected for lamp in (one, two, stranger))
        )
        assert one.node is not None and two.node is not None and stranger.node is not None
        subscribed = asyncio.Event()
        heard: asyncio.Queue[BrokerMessage] = asyncio.Queue()
        listening = asyncio.create_task(
            one.node.listen("lamps/+/signed", heard.put, signed=True, subscribed=subscribed.set)
        )
        await subscribed.wait()
        await two.node.publish("lamps/9/signed", b'"unsigned"', retain=False)
        await stranger.node.publish("lamps/9/signed", b'"forged"', retain=False, expiry_s=5, signed=True)
        await two.node.publish("lamps/9/signed", b'{"on": true}', retain=False, expiry_s=5, signed=True)
        async with asyncio.timeout(10):
            message = await heard.get()
        assert (message.topic, message.body) == ("lamps/9/signed", b'{"on": true}')
        listening.cancel()
        elsewhere.stop.set()
        await elsewhere.task
    finally:
        await databases.drop(other)
