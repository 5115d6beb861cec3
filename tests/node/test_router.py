"""Commands to chargers on other nodes, over real brokers, and every way they can fail."""

import asyncio

import pytest

from csms.adapter import Command
from csms.errors import (
    ChargerOffline,
    ChargerRefused,
    ChargerTimeout,
    CommandError,
    InvalidCommand,
    NotSupported,
    UnknownCharger,
)
from csms.mqtt.client.link import BrokerLink
from csms.mqtt.client.message import MqttMessage
from csms.node import signed_messages
from csms.node.router import CommandRouter
from csms.node.signed_messages import MessageKey
from tests.harness.waiting import until
from tests.mqtt.conftest import config, connected, pause, running

KEY = MessageKey(b"the key of one database")
RESET = Command(action="Reset", payload={"type": "Soft"}, timeout_s=5)


class Charger:
    """An adapter whose one charger answers, or fails, as told."""

    def __init__(self, answer=None) -> None:
        self.answer = {"status": "Accepted"} if answer is None else answer
        self.performed: list[tuple[str, Command]] = []
        self.hung_up: list[tuple[str, int]] = []
        self.delay_s = 0.0

    async def perform(self, charger_id, command):
        self.performed.append((charger_id, command))
        await asyncio.sleep(self.delay_s)
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer

    async def hang_up(self, charger_id, generation):
        self.hung_up.append((charger_id, generation))

    async def run(self, node):
        raise NotImplementedError


class Nodes:
    """Two nodes with a link each, and the directory that says who holds what."""

    def __init__(self, broker, prefix: str, version: str = "5", *, margin_s: float = 2.0) -> None:
        self.prefix = prefix
        self.holders: dict[str, str] = {}
        self.links = [BrokerLink(config(broker, version)) for _ in range(2)]
        self.a, self.b = (
            CommandRouter(link, node, self._holder, key=KEY, prefix=prefix, margin_s=margin_s)
            for link, node in zip(self.links, ("a", "b"), strict=True)
        )

    async def _holder(self, charger_id):
        if charger_id == "UNKNOWN":
            raise UnknownCharger("There is no charger UNKNOWN.")
        return self.holders.get(charger_id)

    async def __aenter__(self):
        from contextlib import AsyncExitStack

        self._stack = AsyncExitStack()
        for link, router in zip(self.links, (self.a, self.b), strict=True):
            await self._stack.enter_async_context(connected(link, router.run()))
        await until(lambda: all(len(link._handlers) == 3 for link in self.links))
        for link in self.links:
            # The broker has read the subscriptions when it acknowledges what was sent after them.
            await link.publish(MqttMessage(topic=f"{self.prefix}/subscribed", body=b""))
        return self

    async def __aexit__(self, *error):
        await self._stack.aclose()


@pytest.mark.parametrize("version", ["5", "3.1.1"])
async def test_a_command_from_node_b_to_a_charger_on_node_a(broker, topic_prefix, version):
    charger = Charger({"status": "Accepted", "n": 1})
    async with Nodes(broker, topic_prefix, version) as nodes:
        nodes.a.hold("CP1", charger)
        nodes.holders["CP1"] = "a"
        assert await nodes.b.send("CP1", RESET) == {"status": "Accepted", "n": 1}
        assert await nodes.a.send("CP1", RESET) == {"status": "Accepted", "n": 1}
    assert charger.performed == [("CP1", RESET), ("CP1", RESET)]


@pytest.mark.parametrize(
    "error",
    [
        ChargerRefused("NotImplemented", "not here", {"a": [1]}),
        ChargerTimeout("CP1 did not answer"),
        ChargerOffline("CP1 has just gone"),
        NotSupported("a bridge's charger has no Reset"),
        InvalidCommand(["type: missing", "x: not allowed"]),
        UnknownCharger("who?"),
        CommandError("something else"),
    ],
)
async def test_every_error_comes_back_as_itself(broker, topic_prefix, error):
    async with Nodes(broker, topic_prefix) as nodes:
        nodes.a.hold("CP1", Charger(error))
        nodes.holders["CP1"] = "a"
        with pytest.raises(CommandError) as raised:
            await nodes.b.send("CP1", RESET)
    assert type(raised.value) is type(error)
    assert str(raised.value) == str(error)
    if isinstance(error, ChargerRefused):
        assert isinstance(raised.value, ChargerRefused)
        assert (raised.value.code, raised.value.description, raised.value.details) == (
            "NotImplemented",
            "not here",
            {"a": [1]},
        )
    if isinstance(error, InvalidCommand):
        assert isinstance(raised.value, InvalidCommand)
        assert raised.value.problems == error.problems


async def test_a_bug_on_the_other_node_is_a_command_error(broker, topic_prefix):
    async with Nodes(broker, topic_prefix) as nodes:
        nodes.a.hold("CP1", Charger(ZeroDivisionError("secret detail")))
        nodes.holders["CP1"] = "a"
        with pytest.raises(CommandError, match="Reset failed on node a"):
            await nodes.b.send("CP1", RESET)


async def test_nobody_holds_it(broker, topic_prefix):
    async with Nodes(broker, topic_prefix) as nodes:
        for holder in (None, "b", "dead-node"):
            nodes.holders["CP1"] = holder
            began = asyncio.get_running_loop().time()
            if holder == "dead-node":
                # The embedded broker does not say that there is no subscriber; Mosquitto does (next test).
                with pytest.raises((ChargerOffline, ChargerTimeout)):
                    await nodes.b.send("CP1", Command(action="Reset", payload={}, timeout_s=0.1))
            else:
                with pytest.raises(ChargerOffline):
                    await nodes.b.send("CP1", RESET)
                assert asyncio.get_running_loop().time() - began < 4
        nodes.holders["CP1"] = "a"  # the database has not heard yet that it is gone
        with pytest.raises(ChargerOffline):
            await nodes.b.send("CP1", RESET)
        with pytest.raises(UnknownCharger):
            await nodes.b.send("UNKNOWN", RESET)


async def test_a_dead_node_is_noticed_at_once_by_mqtt_5(mosquitto):
    async with Nodes(mosquitto(), "") as nodes:
        nodes.holders["CP1"] = "dead-node"
        with pytest.raises(ChargerOffline, match="dead-node"):
            await nodes.b.send("CP1", Command(action="Reset", payload={}, timeout_s=30))


async def test_without_mqtt_only_local_chargers(broker):
    charger = Charger()

    async def holder(_):
        return "a"

    router = CommandRouter(None, "b", holder, key=KEY)
    router.hold("CP1", charger)
    async with running(router.run()):
        assert await router.send("CP1", RESET) == {"status": "Accepted"}
        with pytest.raises(ChargerOffline, match="without MQTT"):
            await router.send("CP2", RESET)
        await router.hang_up("b", "CP1", 4)
        await router.hang_up("a", "CP1", 4)
    assert charger.hung_up == [("CP1", 4)]


async def test_a_broker_that_is_away(mosquitto):
    server = mosquitto()
    async with Nodes(server, "") as nodes:
        nodes.holders["CP1"] = "a"
        server.kill()
        await until(lambda: not nodes.links[1].connected)
        with pytest.raises(ChargerOffline, match="cannot be reached"):
            await nodes.b.send("CP1", RESET)


async def test_a_connection_lost_on_the_way_leaves_the_outcome_unknown(mosquitto):
    server = mosquitto()
    async with Nodes(server, "") as nodes:
        nodes.holders["CP1"] = "a"
        pause(server)
        sending = asyncio.create_task(nodes.b.send("CP1", RESET))
        await until(lambda: nodes.b._waiting)
        server.kill()
        with pytest.raises(ChargerTimeout):
            await sending


async def test_a_charger_that_does_not_answer(broker, topic_prefix):
    charger = Charger()
    charger.delay_s = 30
    async with Nodes(broker, topic_prefix, margin_s=0.1) as nodes:
        nodes.a.hold("CP1", charger)
        nodes.holders["CP1"] = "a"
        with pytest.raises(ChargerTimeout):
            await nodes.b.send("CP1", Command(action="Reset", payload={}, timeout_s=0.2))


async def test_what_is_too_long_is_an_error_on_either_way(broker, topic_prefix, monkeypatch):
    monkeypatch.setattr(signed_messages, "MAX_MESSAGE_BYTES", 2000)
    charger = Charger({"status": "x" * 2000})
    async with Nodes(broker, topic_prefix) as nodes:
        nodes.a.hold("CP1", charger)
        nodes.holders["CP1"] = "a"
        with pytest.raises(CommandError, match="Reset cannot be sent to a: .* at most 2000"):
            await nodes.b.send("CP1", Command(action="Reset", payload={"x": "x" * 2000}, timeout_s=5))
        assert not charger.performed
        with pytest.raises(CommandError, match="answer of CP1 cannot be sent from a"):
            await nodes.b.send("CP1", RESET)
    assert charger.performed == [("CP1", RESET)]


async def test_the_previous_holder_is_told_to_hang_up(broker, topic_prefix):
    old, new = Charger(), Charger()
    async with Nodes(broker, topic_prefix) as nodes:
        nodes.a.hold("CP1", old)
        nodes.b.hold("CP1", new)
        await nodes.b.hang_up("a", "CP1", 7)
        await until(lambda: old.hung_up)
        await nodes.b.hang_up("a", "CP2", 7)  # not there: nothing happens
    assert (old.hung_up, new.hung_up) == ([("CP1", 7)], [])


async def test_only_the_holding_adapter_releases():
    async def holder(_):
        return None

    one, other = Charger(), Charger()
    router = CommandRouter(None, "a", holder, key=KEY)
    router.hold("CP1", one)
    router.hold("CP1", other)
    router.release("CP1", one)
    assert router.holds("CP1")
    router.release("CP1", other)
    assert not router.holds("CP1")
