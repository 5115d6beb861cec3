"""Start what every process with a node in it stands on: `csms serve`, and a bridge that runs by itself."""

import asyncio
from typing import Any

import structlog
from sqlalchemy.ext.asyncio import AsyncEngine

from csms.aio import FailureLog
from csms.db import admission, migrate, node_keys, partitions
from csms.db.charger_snapshot import StateSnapshot
from csms.db.engine import create_engine, no_database
from csms.mqtt import homeassistant
from csms.mqtt.client.link import BrokerLink
from csms.mqtt.client.message import MqttMessage
from csms.mqtt.client.publishing_link import PublishingLink
from csms.mqtt.config import BrokerAddress
from csms.mqtt.protocol import ProtocolStream
from csms.mqtt.relay import Relay
from csms.mqtt.state import service_presence
from csms.mqtt.state_publisher import StatePublisher
from csms.node import maintenance
from csms.node.broker import NodeBroker
from csms.node.frame_log import FrameLog
from csms.node.ledger import Ledger
from csms.node.node import Node
from csms.node.signed_messages import MessageKey
from csms.node.tasks import TaskStack
from csms.run.config import link_config, policy, relay_config
from csms.settings import Settings

log = structlog.get_logger()
_DATABASE_PATIENCE_S = 30.0


async def start_node(
    settings: Settings,
    database_url: str,
    address: BrokerAddress | None,
    tasks: TaskStack,
    *,
    away_limit_s: float = 10,
) -> Node:
    """Start a node: database, broker, ledger, commands. The order of the lines is the order of start and stop.

    Raises StartError.
    """
    engine = create_engine(database_url, pool_size=6 + settings.outbox_lanes)
    tasks.stack.push_async_callback(engine.dispose)
    await _prepare_database(engine, database_url, embedded=settings.embedded_database)
    await admission.mark_disconnected(engine, settings.csms_node)
    await tasks.keep(lambda: maintenance.run(engine, settings), "maintenance")

    broker = None if address is None else await _start_broker(settings, engine, address, tasks)
    ledger = Ledger(
        engine,
        policy(settings),
        relay=broker is not None or settings.events_outbox_always,
        on_commit=None if broker is None else broker.committed,
    )
    await tasks.start(ledger.run(), "ledger")
    tasks.stack.push_async_callback(ledger.drain)
    frames = FrameLog(engine)
    await tasks.keep(frames.run, "frame log")
    tasks.stack.push_async_callback(frames.drain)

    node = Node(
        settings.csms_node,
        engine,
        ledger,
        frames,
        broker=broker,
        away_limit_s=away_limit_s,
        parts=tasks.parts,
    )
    if broker is not None:
        await tasks.keep(node.router.run, "command router")
    await tasks.keep(node.dispatcher.run, "command dispatcher")
    return node


def database_address(engine: AsyncEngine) -> str:
    """The database's address without its password."""
    return engine.url.set(drivername="postgresql").render_as_string(hide_password=True)


# --- the broker ------------------------------------------------------------------------------------------


async def _start_broker(
    settings: Settings, engine: AsyncEngine, address: BrokerAddress, tasks: TaskStack
) -> NodeBroker:
    prefix, node = settings.mqtt_topic_prefix, settings.csms_node
    link = BrokerLink(link_config(settings, address), presence=service_presence(node, prefix))
    await tasks.keep(link.run, "mqtt link")
    commands = BrokerLink(link_config(settings, address, name="commands"))
    await tasks.keep(commands.run, "commands link")
    # Events go by a publisher of their own (docs/decisions/0009-hot-path.md).
    outward = PublishingLink(link_config(settings, address, name="events"))
    await tasks.keep(outward.run, "events link")
    relay = Relay(engine, outward, relay_config(settings))
    await tasks.keep(relay.run, "relay")
    tasks.stack.push_async_callback(relay.drain)
    protocol = state = None
    if settings.mqtt_protocol_events_enabled:
        protocol = ProtocolStream(
            outward,
            prefix=prefix,
            qos=settings.mqtt_protocol_qos,
            mask_id_tags=settings.mqtt_protocol_mask_id_tags,
        )
        await tasks.keep(protocol.run, "protocol stream")
    if settings.mqtt_retain_state:
        state = await _state_publisher(settings, engine, outward, link)
        await tasks.keep(state.run, "retained state")
    return NodeBroker(
        prefix=prefix,
        key=MessageKey(await node_keys.message_key(engine)),
        link=link,
        commands=commands,
        relay=relay,
        protocol=protocol,
        state=state,
    )


async def _state_publisher(
    settings: Settings, engine: AsyncEngine, outward: PublishingLink, link: BrokerLink
) -> StatePublisher:
    """Retained state, with Home Assistant's discovery where that is switched on."""
    prefix, node = settings.mqtt_topic_prefix, settings.csms_node
    if not settings.mqtt_homeassistant_discovery:
        return StatePublisher(engine, outward, node, prefix=prefix)
    discovery = settings.mqtt_homeassistant_prefix

    def described(snapshot: StateSnapshot) -> dict[str, dict[str, Any]]:
        return homeassistant.discovery_configs(
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
    """Wait for it, see that its schema is this release's (an embedded one is migrated here), make today's partitions."""
    current = await _current_revision(engine)
    if not embedded:
        migrate.check_revision(current)
    elif current != migrate.head():
        await asyncio.to_thread(migrate.upgrade, url)
    async with engine.begin() as db:
        await partitions.ensure(db)


async def _current_revision(engine: AsyncEngine) -> str | None:
    failures = FailureLog("database_awaited")
    try:
        async with asyncio.timeout(_DATABASE_PATIENCE_S):
            return await failures.until_done(lambda: migrate.current(engine), 0.5)
    except TimeoutError as error:
        raise no_database(failures.error or error, database_address(engine)) from None
