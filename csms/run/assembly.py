"""What every process with a node in it is made of: `csms serve`, and a bridge that runs by itself."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import structlog
from msgspec import Struct
from sqlalchemy.ext.asyncio import AsyncEngine

from csms.adapter import BrokerMessage
from csms.core.records import Event
from csms.db import admission, migrate, partitions, plans
from csms.db import charger_snapshot as rows
from csms.db.charger_snapshot import StateSnapshot
from csms.db.engine import create_engine, no_database
from csms.errors import BrokerAway, StartError
from csms.mqtt import homeassistant
from csms.mqtt.client.connection import MqttMessage
from csms.mqtt.client.errors import BrokerDisconnected, PublishRefused
from csms.mqtt.client.link import BrokerLink, prefixed
from csms.mqtt.client.supervised import PublishingLink
from csms.mqtt.config import BrokerAddress
from csms.mqtt.protocol import ProtocolStream
from csms.mqtt.relay import Relay
from csms.mqtt.state import StatePublisher, service_presence
from csms.node import maintenance
from csms.node.command_dispatcher import CommandDispatcher
from csms.node.frame_log import FrameLog
from csms.node.ledger import Ledger
from csms.node.node import Node
from csms.node.router import CommandRouter
from csms.run.config import link_config, policy, relay_config
from csms.scheduling.plan_view import PlanView
from csms.settings import Settings

log = structlog.get_logger()
_DATABASE_PATIENCE_S = 30.0


class Mqtt(Struct, frozen=True):
    """What goes to and from the broker."""

    link: BrokerLink
    commands: BrokerLink
    relay: Relay
    protocol: ProtocolStream | None
    state: StatePublisher | None

    def on_commit(self, events: list[Event]) -> None:
        self.relay.notify(events)
        if self.state is not None:
            self.state.notify(events)


class Parts(Struct, frozen=True, kw_only=True):
    """A node, started, and what it stands on. `watchers` are called with each charger that comes or goes."""

    engine: AsyncEngine
    ledger: Ledger
    router: CommandRouter
    delivery: CommandDispatcher
    node: Node
    mqtt: Mqtt | None
    watchers: list[Callable[[str], None]]


class Company:
    """Tasks that live and end together: the first failure is everybody's."""

    def __init__(self, stack: AsyncExitStack) -> None:
        self.failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._stack = stack

    async def start(self, work: Coroutine[Any, Any, None], name: str) -> None:
        """A task until the stack unwinds."""
        await self._stack.enter_async_context(self.task(work, name))

    @asynccontextmanager
    async def task(self, work: Coroutine[Any, Any, None], name: str) -> AsyncIterator["asyncio.Task[None]"]:
        """A task that lives as long as this context."""

        def ended(task: "asyncio.Task[None]") -> None:
            if not task.cancelled() and (error := task.exception()) is not None:
                log.error(
                    "a part failed", part=name, error=str(error) or type(error).__name__, exc_info=error
                )
                if not self.failed.done():
                    self.failed.set_exception(error)

        task = asyncio.create_task(work, name=name)
        task.add_done_callback(ended)
        try:
            yield task
        finally:
            task.cancel()
            await asyncio.wait({task})

    async def until(self, stop: asyncio.Event) -> None:
        """Wait for the order to stop or the first failure, whichever comes first."""
        stopping: asyncio.Future[Any] = asyncio.ensure_future(stop.wait())
        await asyncio.wait({stopping, self.failed}, return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()


async def assemble(
    settings: Settings,
    database_url: str,
    broker: BrokerAddress | None,
    stack: AsyncExitStack,
    company: Company,
) -> Parts:
    """Start a node: database, ledger, relay, commands. Nesting is the order of start and stop."""
    engine = create_engine(database_url, pool_size=6 + settings.outbox_lanes)
    stack.push_async_callback(engine.dispose)
    await _prepare_database(engine, database_url, embedded=settings.embedded_database)
    await admission.forget_connections(engine, settings.csms_node)
    await company.start(maintenance.run(engine, settings), "maintenance")

    mqtt = await _mqtt(settings, engine, broker, stack, company) if broker is not None else None
    ledger = Ledger(
        engine,
        policy(settings),
        relay=mqtt is not None or settings.events_outbox_always,
        on_commit=mqtt.on_commit if mqtt is not None else None,
    )
    await company.start(ledger.run(), "ledger")
    stack.push_async_callback(ledger.drain)
    frames = FrameLog(engine)
    await company.start(frames.run(), "frame log")
    stack.push_async_callback(frames.drain)

    router = CommandRouter(
        mqtt.commands if mqtt is not None else None,
        settings.csms_node,
        lambda charger_id: admission.holder(engine, charger_id),
        prefix=settings.mqtt_topic_prefix,
    )
    if mqtt is not None:
        await company.start(router.run(), "commands")
    delivery = CommandDispatcher(engine, settings.csms_node, router.send)
    watchers: list[Callable[[str], None]] = [delivery.presence]
    if mqtt is not None and mqtt.state is not None:
        watchers.append(mqtt.state.connection_changed)

    def presence(charger_id: str) -> None:
        for watch in watchers:
            watch(charger_id)

    node = Node(
        settings.csms_node,
        ledger,
        frames,
        router,
        admission.Admissions(engine),
        lambda charger_id: rows.charger_snapshot(engine, charger_id),
        lambda prefix: admission.registered(engine, prefix),
        link=_NodeLink(mqtt.link, settings.mqtt_topic_prefix) if mqtt is not None else None,
        on_frame=mqtt.protocol.put if mqtt is not None and mqtt.protocol is not None else None,
        on_presence=presence,
        show=lambda shown, only: _show(engine, shown, only),
    )
    await company.start(delivery.run(), "delivery")
    return Parts(
        engine=engine,
        ledger=ledger,
        router=router,
        delivery=delivery,
        node=node,
        mqtt=mqtt,
        watchers=watchers,
    )


async def _show(engine: AsyncEngine, shown: PlanView, only: Sequence[int]) -> bool:
    async with engine.begin() as db:
        return await plans.show(db, shown, only)


def database_address(engine: AsyncEngine) -> str:
    """The database's address without its password."""
    return engine.url.set(drivername="postgresql").render_as_string(hide_password=True)


# --- the way to the broker -------------------------------------------------------------------------------


class _NodeLink:
    """A Link as a node offers it to its adapters: topics below the prefix unless `bare`, plain bytes."""

    def __init__(self, link: BrokerLink, prefix: str) -> None:
        self._link = link
        self.prefix = prefix

    @property
    def connected(self) -> bool:
        return self._link.connected

    async def publish(
        self, topic: str, payload: bytes, *, retain: bool, expiry_s: int | None = None, bare: bool = False
    ) -> None:
        whole = topic if bare else prefixed(self.prefix, topic)
        message = MqttMessage(topic=whole, body=payload, retain=retain, expiry_s=expiry_s)
        try:
            await self._link.publish(message)
        except (PublishRefused, BrokerDisconnected) as error:
            raise BrokerAway(f"{topic} was not published: {error}") from error

    async def listen(self, topic: str, *, bare: bool = False) -> AsyncIterator[BrokerMessage]:
        prefix = "" if bare else self.prefix
        own = len(prefixed(prefix, ""))
        async for message in self._link.listen(prefixed(prefix, topic)):
            yield BrokerMessage(topic=message.topic[own:], body=message.body, retained=message.retain)


async def _mqtt(
    settings: Settings, engine: AsyncEngine, broker: BrokerAddress, stack: AsyncExitStack, company: Company
) -> Mqtt:
    prefix, node = settings.mqtt_topic_prefix, settings.csms_node
    link = BrokerLink(link_config(settings, broker), presence=service_presence(node, prefix))
    await company.start(link.run(), "mqtt link")
    # Of their own: what the relay does with its connection must not disturb commands.
    commands = BrokerLink(link_config(settings, broker, name="commands"))
    await company.start(commands.run(), "commands link")
    # What leaves in numbers goes another way (docs/decisions/0009).
    outward = PublishingLink(link_config(settings, broker, name="events"))
    await company.start(outward.run(), "events link")
    relay = Relay(engine, outward, relay_config(settings))
    await company.start(relay.run(), "relay")
    stack.push_async_callback(relay.drain)
    protocol = state = None
    if settings.mqtt_protocol_events_enabled:
        protocol = ProtocolStream(
            outward,
            prefix=prefix,
            qos=settings.mqtt_protocol_qos,
            mask_id_tags=settings.mqtt_protocol_mask_id_tags,
        )
        await company.start(protocol.run(), "protocol stream")
    if settings.mqtt_retain_state:
        state = await _state(settings, engine, outward, link)
        await company.start(state.run(), "state")
    return Mqtt(link, commands, relay, protocol, state)


async def _state(
    settings: Settings, engine: AsyncEngine, outward: PublishingLink, link: BrokerLink
) -> StatePublisher:
    """Retained state, and what Home Assistant is told of it if that is wanted."""
    prefix, node = settings.mqtt_topic_prefix, settings.csms_node
    if not settings.mqtt_homeassistant_discovery:
        return StatePublisher(engine, outward, node, prefix=prefix)
    discovery = settings.mqtt_homeassistant_prefix

    def described(snapshot: StateSnapshot) -> dict[str, dict[str, Any]]:
        return homeassistant.configs(
            snapshot, node=node, prefix=prefix, discovery=discovery, currency=settings.csms_currency
        )

    state = StatePublisher(engine, outward, node, prefix=prefix, discovery=described)

    def born(message: MqttMessage) -> None:
        if message.body == b"online" and not message.retain:
            state.publish_all()

    await link.subscribe(f"{discovery}/status", born)
    return state


# --- the database ----------------------------------------------------------------------------------------


async def _prepare_database(engine: AsyncEngine, url: str, *, embedded: bool) -> None:
    """Wait for it, see that its schema is ours (an embedded one is migrated here), make today's partitions."""
    current = await _current_revision(engine)
    head = migrate.head()
    if current != head:
        if not embedded:
            raise StartError(
                f"the database is at {current or 'nothing'}, this release needs {head}: run `csms migrate`."
            )
        await asyncio.to_thread(migrate.upgrade, url)
    async with engine.begin() as db:
        await partitions.ensure(db)


async def _current_revision(engine: AsyncEngine) -> str | None:
    deadline = time.monotonic() + _DATABASE_PATIENCE_S
    told = False
    while True:
        try:
            return await migrate.current(engine)
        except Exception as error:
            if time.monotonic() > deadline:
                raise no_database(error, database_address(engine)) from None
            if not told:
                log.warning("waiting for the database", error=str(error))
                told = True
            await asyncio.sleep(0.5)
