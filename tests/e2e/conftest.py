"""A whole node in the test's own loop: real Postgres, real broker, real sockets."""

import asyncio
import contextlib
import dataclasses
import json
import secrets
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiomqtt
import asyncpg
import httpx
import pytest
import uvloop

from csms import settings
from csms.adapter import Adapter
from csms.mqtt.client.aiomqtt_fixes import MqttClient
from csms.mqtt.config import BrokerAddress
from csms.ocpp.connection import DEFAULT_TIMINGS, ServerTimings
from csms.run import app
from tests.harness.event_schemas import breach
from tests.harness.servers import unused_port
from tests.harness.waiting import until

EVENTS = {"transactions", "connectors", "billing", "chargepoints", "errors"}
TOKEN = "test-token-with-every-right"


@dataclass(kw_only=True)
class Collected:
    """What a consumer has seen."""

    events: list[dict[str, Any]] = field(default_factory=list)
    bodies: list[tuple[str, bytes]] = field(default_factory=list)
    retained: list[bool] = field(default_factory=list)
    protocol: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    breaches: list[str] = field(default_factory=list)


@dataclass
class Node(Collected):
    """A running node and how to reach it."""

    running: app.Running
    database_url: str
    prefix: str
    broker: BrokerAddress | None
    api: httpx.AsyncClient
    stop: asyncio.Event
    task: "asyncio.Task[None]"
    reader: Any = None
    reading: asyncio.Lock = field(default_factory=asyncio.Lock)
    login: dict[str, Any] = field(default_factory=dict)
    name: str = "CP1"  # of the charger that the test is about

    @property
    def ocpp(self) -> str:
        return self.running.ocpp

    @property
    def url(self) -> str:
        return f"/api/v1/chargers/{self.name}"

    async def fetch(self, query: str, *args: Any) -> list[Any]:
        """Rows of the node's database, over a connection that is kept."""
        async with self.reading:
            if self.reader is None or self.reader.is_closed():
                self.reader = await asyncpg.connect(self.database_url)
            try:
                return [dict(row) for row in await self.reader.fetch(query, *args)]
            except (OSError, asyncpg.InterfaceError, asyncpg.OperatorInterventionError):
                self.reader.terminate()
                raise

    async def put_down(self) -> None:
        if self.reader is not None:
            await self.reader.close(timeout=5)

    async def until(self, condition: Callable[..., Any], timeout_s: float = 10) -> Any:
        """Poll until the condition holds. A failure names the events that were seen."""

        def seen() -> str:
            kinds = [f"{e['clientId']} {e['eventType']}" for e in self.events]
            return f"events seen: {kinds}"

        return await until(condition, timeout_s, what=seen)

    def of(self, kind: str, charger: str | None = None) -> list[dict[str, Any]]:
        return [e for e in self.events if e["eventType"] == kind and charger in (None, e["clientId"])]


async def _collect(
    node: Collected, broker: BrokerAddress, prefix: str, login: dict[str, Any], subscribed: asyncio.Event
) -> None:
    """Collect what a consumer sees: every topic below the test's prefix, in order of arrival."""
    version = aiomqtt.ProtocolVersion.V5 if broker.version == "5" else aiomqtt.ProtocolVersion.V311
    async with MqttClient(broker.host, broker.port, protocol=version, **login) as client:
        await client.subscribe(f"{prefix}/#", qos=1)
        subscribed.set()
        async for message in client.messages:
            topic = str(message.topic).removeprefix(f"{prefix}/")
            body = bytes(message.payload) if isinstance(message.payload, bytes | bytearray) else b""
            ours = topic.startswith(("csms/", "ocpp/")) and not topic.startswith("csms/nodes/")
            if ours and (broken := breach(topic, body)) is not None:
                node.breaches.append(broken)
            if topic.startswith("ocpp/"):
                node.protocol.append((topic, json.loads(body)))
            elif topic.split("/")[1] in EVENTS and topic.count("/") == 3:
                node.bodies.append((topic, body))
                node.retained.append(message.retain)
                node.events.append(json.loads(body))


NodeFactory = Callable[..., Awaitable[Node]]


@contextlib.asynccontextmanager
async def nodes(
    database_url: str, broker: Any, topic_prefix: str, data_dir: Path
) -> AsyncIterator[NodeFactory]:
    """Starts nodes on one database and one broker; all are stopped at the end."""
    async with contextlib.AsyncExitStack() as stack:

        async def start(
            *,
            mqtt: bool = True,
            bridges: Sequence[Adapter] = (),
            away_limit_s: float = 10,
            ocpp_timings: ServerTimings = DEFAULT_TIMINGS,
            **overrides: Any,
        ) -> Node:
            chosen = settings.load(
                _env_file=None,
                **{
                    "database_url": database_url,
                    "csms_data_dir": data_dir,
                    "csms_ocpp_host": "127.0.0.1",
                    "csms_ocpp_port": unused_port(),
                    "csms_http_port": unused_port(),
                    "csms_enrollment": "open",
                    "csms_unknown_tags": "accept",
                    "csms_admin_token": TOKEN,
                    "csms_node": "node-a",
                    "mqtt_enabled": mqtt,
                    "mqtt_topic_prefix": topic_prefix,
                    # All workers share the broker, and two clients of one name throw each other out.
                    "mqtt_client_id": topic_prefix.replace("/", "-"),
                    "outbox_lanes": 1,
                    "mqtt_reconnect_min_s": 0.05,
                    "mqtt_reconnect_max_s": 0.5,
                    **overrides,
                },
            )
            url = str(chosen.database_url)
            address = BrokerAddress(broker.host, broker.port_v5, "5", "mqtt://test") if mqtt else None
            if "broker_address" in overrides:
                address = overrides["broker_address"]
            collected, login = Collected(), overrides.get("login", {})
            if address is not None and overrides.get("collect", True):
                # Before the node: a bridge may publish at once.
                subscribed = asyncio.Event()
                collector = asyncio.create_task(
                    _collect(collected, address, topic_prefix, login, subscribed), name="collector"
                )
                stack.push_async_callback(_cancelled, collector)
                await until(lambda: subscribed.is_set() or collector.done(), 10, what="the collector")
                if collector.done():
                    collector.result()
            ready: asyncio.Future[app.Running] = asyncio.get_running_loop().create_future()
            stop = asyncio.Event()
            ports = app.bind(chosen)
            task = asyncio.create_task(
                app.serve(
                    chosen,
                    url,
                    address,
                    ports,
                    stop=stop,
                    ready=ready.set_result,
                    bridges=bridges,
                    away_limit_s=away_limit_s,
                    ocpp_timings=ocpp_timings,
                ),
                name="node",
            )
            waited: list[asyncio.Future[Any]] = [task, ready]
            await asyncio.wait(waited, return_when=asyncio.FIRST_COMPLETED, timeout=20)
            if task.done():
                task.result()
            running = ready.result()
            node = Node(
                running,
                url,
                topic_prefix,
                address,
                client(running),
                stop,
                task,
                login=login,
                **vars(collected),
            )
            stack.push_async_callback(_stopped, node)
            return node

        yield start


@pytest.fixture
async def start_node(
    database_url: str, broker: Any, topic_prefix: str, tmp_path: Path
) -> AsyncIterator[NodeFactory]:
    """Start nodes on this test's database and broker; all are stopped at its end."""
    async with nodes(database_url, broker, topic_prefix, tmp_path) as start:
        yield start


@pytest.fixture(scope="module")
async def shared_node(
    databases: Any, template_database: str, broker: Any, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Node]:
    """One node for all tests of a module that keep to charger ids of their own."""
    directory = tmp_path_factory.mktemp("node")
    async with node_for_many(databases, template_database, broker, directory) as node:
        yield node


@pytest.fixture
async def shared(shared_node: Node) -> AsyncIterator[Node]:
    """The module's node, with a charger name of its own."""
    own = dataclasses.replace(
        shared_node, name=f"CP-{secrets.token_hex(4)}", reader=None, reading=asyncio.Lock()
    )
    yield own
    await own.put_down()


@contextlib.asynccontextmanager
async def node_for_many(
    databases: Any, template_database: str, broker: Any, data_dir: Path, **settings: Any
) -> AsyncIterator[Node]:
    """A node on a database of its own. It lives in a thread, so that its tasks are not taken for what a test has
    left behind."""
    url = await databases.create(template_database)
    ready: Future[tuple[Node, Callable[[], object]]] = Future()

    async def run() -> None:
        done, loop = asyncio.Event(), asyncio.get_running_loop()
        prefix = f"test/shared-{secrets.token_hex(6)}"
        try:
            async with nodes(url, broker, prefix, data_dir) as start:
                ready.set_result((await start(**settings), lambda: loop.call_soon_threadsafe(done.set)))
                await done.wait()
        except Exception as error:
            if ready.done():
                raise
            ready.set_exception(error)

    thread = threading.Thread(target=uvloop.run, args=(run(),), name="shared node", daemon=True)
    thread.start()
    node, leave = await asyncio.wrap_future(ready)
    try:
        async with client(node.running) as api:
            own = dataclasses.replace(node, api=api, reading=asyncio.Lock())
            yield own
            await own.put_down()
    finally:
        leave()
        await asyncio.to_thread(thread.join, 30)
        await databases.drop(url)
    if thread.is_alive():
        waiting = [str(task) for task in asyncio.all_tasks(node.task.get_loop())]
        pytest.fail(f"the shared node does not stop; it waits for {waiting}", pytrace=False)


def client(running: app.Running) -> httpx.AsyncClient:
    return httpx.AsyncClient(
        base_url=running.http,
        headers={"Authorization": f"Bearer {TOKEN}"},
        timeout=20,
        verify=False,  # plain HTTP: 20 ms of loading CAs saved
    )


@pytest.fixture
async def node(start_node: NodeFactory) -> Node:
    return await start_node()


async def _stopped(node: Node) -> None:
    node.stop.set()
    await node.put_down()
    await node.api.aclose()
    await asyncio.wait({node.task}, timeout=20)
    assert not node.breaches, f"{len(node.breaches)} messages break the contract: {node.breaches[:3]}"


async def _cancelled(task: "asyncio.Task[None]") -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
