"""The only place that builds things. Nesting is the order of start and stop: what is entered last stops first."""

import asyncio
import contextlib
import socket
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import structlog
import uvicorn
from msgspec import Struct
from sqlalchemy.ext.asyncio import AsyncEngine

from csms import credentials, maintenance, reconciler
from csms.adapter import EVERY_GENERATION, Adapter
from csms.api.app import create_app
from csms.api.deps import Api
from csms.api.health import Check, HealthReport
from csms.console.app import create_console
from csms.core.records import Event
from csms.db import admission, migrate, partitions
from csms.db.engine import create_engine
from csms.delivery import Delivery
from csms.embedding import BrokerAddress
from csms.errors import StartError
from csms.ledger import Ledger
from csms.mqtt.commands import CommandRouter
from csms.mqtt.connection import Message
from csms.mqtt.link import Link, prefixed
from csms.mqtt.protocol import ProtocolStream
from csms.mqtt.relay import Relay
from csms.mqtt.state import StatePublisher, service_presence
from csms.node import LocalNode
from csms.ocpp import data_transfer
from csms.ocpp.listeners import TlsListener
from csms.ocpp.outbound import check_request
from csms.ocpp.server import OcppServer
from csms.security.renewal import Renewal
from csms.security.wiring import Secured, organization, secure
from csms.settings import Settings
from csms.sockets import listening
from csms.wiring import link_config, policy, relay_config

log = structlog.get_logger()
_DATABASE_PATIENCE_S = 30.0


class Running(Struct, frozen=True, kw_only=True):
    """Where a running csms can be reached."""

    ocpp: str
    ocpp_tls: str | None = None
    http: str
    mqtt: str
    database: str
    admin_token: str
    token_is_new: bool


class Ports(Struct, frozen=True, kw_only=True):
    """The listening sockets, bound before the loop runs."""

    ocpp: socket.socket
    http: socket.socket
    ocpp_tls: socket.socket | None = None


def bind(settings: Settings, *, or_next: bool = False) -> Ports:
    """Take the ports. Raises StartError when one is taken (`or_next`: take the next free one instead)."""
    return Ports(
        ocpp=listening(
            settings.csms_ocpp_host,
            settings.csms_ocpp_port,
            what="charge points (OCPP)",
            variable="CSMS_OCPP",
            or_next=or_next,
        ),
        http=listening(
            settings.csms_http_host,
            settings.csms_http_port,
            what="API and console (HTTP)",
            variable="CSMS_HTTP",
            or_next=or_next,
        ),
        ocpp_tls=None
        if settings.csms_ocpp_tls_port is None
        else listening(
            settings.csms_ocpp_host,
            settings.csms_ocpp_tls_port,
            what="charge points (OCPP over TLS)",
            variable="CSMS_OCPP_TLS",
            or_next=or_next,
        ),
    )


async def serve(
    settings: Settings,
    database_url: str,
    broker: BrokerAddress | None,
    ports: Ports,
    *,
    stop: asyncio.Event,
    ready: Callable[[Running], None],
    bridges: Sequence[Adapter] = (),
) -> None:
    """Run one node until `stop` is set or a part of it fails for good (then that exception is raised)."""
    failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    async with AsyncExitStack() as stack:

        async def start(work: Coroutine[Any, Any, None], name: str) -> None:
            await stack.enter_async_context(_owned(work, name, failed))

        engine = create_engine(database_url, pool_size=5 + settings.outbox_lanes)
        stack.push_async_callback(engine.dispose)
        await _prepare_database(engine, database_url, embedded=settings.embedded_database)
        await admission.forget_connections(engine, settings.csms_node)
        await start(maintenance.run(engine, settings), "maintenance")

        mqtt = await _mqtt(settings, engine, broker, stack, start) if broker is not None else None
        ledger = Ledger(
            engine,
            policy(settings),
            relay=mqtt is not None or settings.events_outbox_always,
            on_commit=mqtt.on_commit if mqtt is not None else None,
        )
        await start(ledger.run(), "ledger")
        stack.push_async_callback(ledger.drain)
        if settings.csms_infer_stop_after_s:
            await start(reconciler.run(engine, ledger.record, settings.csms_infer_stop_after_s), "reconciler")

        router = CommandRouter(
            mqtt.commands if mqtt is not None else None,
            settings.csms_node,
            lambda charger_id: admission.holder(engine, charger_id),
            prefix=settings.mqtt_topic_prefix,
        )
        if mqtt is not None:
            await start(router.run(), "commands")
        data_transfer.REGISTRY.load_entry_points()
        delivery = Delivery(engine, settings.csms_node, router.send)

        def presence(charger_id: str) -> None:
            delivery.presence(charger_id)
            if mqtt is not None and mqtt.state is not None:
                mqtt.state.connection_changed(charger_id)

        node = LocalNode(
            settings.csms_node,
            ledger,
            router,
            lambda charger_id: admission.admission(engine, charger_id),
            link=_NodeLink(mqtt.link, settings.mqtt_topic_prefix) if mqtt is not None else None,
            on_frame=mqtt.protocol.put if mqtt is not None and mqtt.protocol is not None else None,
            on_presence=presence,
        )
        await start(delivery.run(), "delivery")

        secured = secure(settings, engine)
        renewal = Renewal(
            engine,
            settings.csms_node,
            router.send,
            days_before=settings.csms_certificate_renew_days,
            kept_days=settings.csms_security_event_retention_days,
            authority=secured.authority,
            organization=organization(settings),
            server_directory=secured.server_directory,
        )
        renewal.renew_server_certificates(datetime.now(UTC))
        await start(renewal.run(), "renewal")

        async def hang_up(charger_id: str) -> None:
            held_by = await admission.holder(engine, charger_id)
            if held_by is not None:
                await router.hang_up(held_by, charger_id, EVERY_GENERATION)

        token, new = _admin_token(settings)
        api = Api(
            engine=engine,
            send=router.send,
            check_command=lambda action, payload: [
                str(problem) for problem in check_request(action, payload)
            ],
            admin_token=token,
            hang_up=hang_up,
            authority=secured.authority,
            health=lambda: _health(ledger, mqtt),
            queued=delivery.nudge,
        )
        await stack.enter_async_context(_http(api, ports.http, failed))

        server = OcppServer(
            sock=ports.ocpp,
            max_frame_bytes=settings.csms_ocpp_max_frame_bytes,
            ping_interval_s=settings.csms_ocpp_ping_interval_s,
            silence_s=settings.csms_ocpp_silence_s,
            calls_after_s=settings.csms_ocpp_calls_after_s,
            enrollment=settings.csms_enrollment,
            tls=_tls_listener(ports, secured),
            security=secured.stations,
            rules=secured.rules,
        )
        for adapter in (server, *bridges):
            await start(adapter.run(node), type(adapter).__name__)
        await server.listening.wait()
        ready(
            Running(
                ocpp=f"ws://{_address(ports.ocpp)}/",
                ocpp_tls=f"wss://{_address(ports.ocpp_tls)}/" if ports.ocpp_tls is not None else None,
                http=f"http://{_address(ports.http)}/",
                mqtt=broker.url if broker is not None else "off",
                database=create_url_text(engine),
                admin_token=token,
                token_is_new=new,
            )
        )
        stopping: asyncio.Future[Any] = asyncio.ensure_future(stop.wait())
        await asyncio.wait({stopping, failed}, return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        log.info("stopping")
    if failed.done():
        failed.result()


def create_url_text(engine: AsyncEngine) -> str:
    """The database's address without its password."""
    return engine.url.set(drivername="postgresql").render_as_string(hide_password=True)


# --- the way to the broker -------------------------------------------------------------------------------


class _Mqtt(Struct, frozen=True):
    link: Link
    commands: Link
    relay: Relay
    protocol: ProtocolStream | None
    state: StatePublisher | None

    def on_commit(self, events: list[Event]) -> None:
        self.relay.notify(events)
        if self.state is not None:
            self.state.notify(events)


class _NodeLink:
    """A Link as a node offers it to its adapters: topics below the prefix, plain bytes."""

    def __init__(self, link: Link, prefix: str) -> None:
        self._link = link
        self._prefix = prefix

    async def publish(self, topic: str, payload: bytes, *, retain: bool) -> None:
        await self._link.publish(Message(topic=prefixed(self._prefix, topic), body=payload, retain=retain))

    async def listen(self, topic: str) -> AsyncIterator[bytes]:
        async for message in self._link.listen(prefixed(self._prefix, topic)):
            yield message.body


async def _mqtt(
    settings: Settings,
    engine: AsyncEngine,
    broker: BrokerAddress,
    stack: AsyncExitStack,
    start: Callable[[Coroutine[Any, Any, None], str], Any],
) -> _Mqtt:
    prefix, node = settings.mqtt_topic_prefix, settings.csms_node
    link = Link(link_config(settings, broker), presence=service_presence(node, prefix))
    await start(link.run(), "mqtt link")
    # Of their own: what the relay does with its connection must not disturb commands.
    commands = Link(link_config(settings, broker, name="commands"))
    await start(commands.run(), "commands link")
    relay = Relay(engine, link, relay_config(settings))
    await start(relay.run(), "relay")
    stack.push_async_callback(relay.drain)
    protocol = state = None
    if settings.mqtt_protocol_events_enabled:
        protocol = ProtocolStream(
            link,
            prefix=prefix,
            qos=settings.mqtt_protocol_qos,
            mask_id_tags=settings.mqtt_protocol_mask_id_tags,
        )
        await start(protocol.run(), "protocol stream")
    if settings.mqtt_retain_state:
        state = StatePublisher(engine, link, node, prefix=prefix)
        await start(state.run(), "state")
    return _Mqtt(link, commands, relay, protocol, state)


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
                where = create_url_text(engine)
                raise StartError(
                    f"{where} does not answer ({error}): is it running, is DATABASE_URL right?"
                ) from None
            if not told:
                log.warning("waiting for the database", error=str(error))
                told = True
            await asyncio.sleep(0.5)


# --- HTTP ------------------------------------------------------------------------------------------------


class _Http(uvicorn.Server):
    """uvicorn in our loop; signals are the command's business."""

    @contextlib.contextmanager
    def capture_signals(self) -> Any:
        yield


@asynccontextmanager
async def _http(api: Api, sock: socket.socket, failed: "asyncio.Future[None]") -> AsyncIterator[None]:
    config = uvicorn.Config(
        create_app(api, console=create_console(api)),
        log_config=None,
        access_log=False,
        lifespan="off",
        timeout_graceful_shutdown=3,
        server_header=False,
    )
    server = _Http(config)
    async with _owned(server.serve(sockets=[sock]), "http", failed) as task:
        try:
            yield
        finally:
            api.closing.set()
            server.should_exit = True
            await asyncio.wait({task}, timeout=5)


def _tls_listener(ports: Ports, secured: Secured) -> TlsListener | None:
    if ports.ocpp_tls is None or secured.tls is None:
        return None
    return TlsListener(sock=ports.ocpp_tls, context=secured.tls.context, watch=secured.tls.watch)


# --- small things ----------------------------------------------------------------------------------------


@asynccontextmanager
async def _owned(
    work: Coroutine[Any, Any, None], name: str, failed: "asyncio.Future[None]"
) -> AsyncIterator["asyncio.Task[None]"]:
    """A task that lives as long as this context; its failure is the program's."""

    def ended(task: "asyncio.Task[None]") -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("a part failed", part=name, error=str(error) or type(error).__name__, exc_info=error)
            if not failed.done():
                failed.set_exception(error)

    task = asyncio.create_task(work, name=name)
    task.add_done_callback(ended)
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.wait({task})


def _health(ledger: Ledger, mqtt: _Mqtt | None) -> HealthReport:
    away_s = ledger.away_s()
    checks = [
        Check(
            name="ledger",
            state="failing" if away_s > 10 else "degraded",
            detail=f"Postgres has been away for {away_s:.0f} s; reports wait.",
        )
        if away_s
        else Check(name="ledger", detail="Reports are made durable.")
    ]
    if mqtt is not None:
        relay = mqtt.relay.health()
        checks.append(
            Check(name="mqtt", detail="Connected.")
            if relay.connected
            else Check(name="mqtt", state="degraded", detail=relay.problem or "Not connected.")
        )
        if relay.connected and not mqtt.commands.connected:
            why = mqtt.commands.last_error or "Not connected."
            checks.append(
                Check(
                    name="commands",
                    state="degraded",
                    detail=f"Commands to chargers of other nodes wait: {why}",
                )
            )
        late = f"{relay.pending} events wait, the oldest for {relay.oldest_age_s:.0f} s."
        if relay.dead:
            late += f" {relay.dead} are parked, as the broker refuses them: see `csms events parked`, mend the cause, then `csms events revive`."
        checks.append(
            Check(name="outbox", state="degraded" if relay.lagging or relay.dead else "ok", detail=late)
        )
    return HealthReport(tuple(checks))


def _admin_token(settings: Settings) -> tuple[str, bool]:
    if settings.csms_admin_token is not None:
        return settings.csms_admin_token.get_secret_value(), False
    return credentials.admin_token(credentials.data_dir(settings.csms_data_dir))


def _address(sock: socket.socket) -> str:
    host, port = sock.getsockname()[:2]
    shown = {"0.0.0.0": "localhost", "127.0.0.1": "localhost", "::": "localhost"}.get(host, host)
    return f"[{shown}]:{port}" if ":" in shown else f"{shown}:{port}"
