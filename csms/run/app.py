"""The whole central system, and a bridge by itself. Parts stop in the reverse order of their start."""

import asyncio
import socket
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack
from datetime import UTC, datetime, time
from functools import partial

import structlog
from msgspec import Struct

from csms.adapter import Adapter
from csms.mqtt.config import BrokerAddress
from csms.node import deferred_bookings, reconciler
from csms.node.node import Node
from csms.node.tasks import TaskStack
from csms.ocpp import data_transfer
from csms.ocpp.connection import DEFAULT_TIMINGS, ServerTimings
from csms.ocpp.listeners import TlsListener
from csms.ocpp.server import OcppServer
from csms.plans.planner import Planner
from csms.rental import payments
from csms.run import data_dir
from csms.run.config import policy, price_input
from csms.run.http import http
from csms.run.node import database_address, start_node
from csms.run.security import Secured, organization, secure
from csms.run.sockets import listening
from csms.security.renewal import Renewal
from csms.service.audit_process import AuditJob, AuditStep, audited_beside
from csms.service.context import ServiceContext
from csms.service.nightly_audit import NightlyAudit
from csms.settings import Settings

log = structlog.get_logger()


class Running(Struct, frozen=True, kw_only=True):
    """Where a running csms can be reached."""

    ocpp: str
    ocpp_tls: str | None = None
    http: str
    mqtt: str
    database: str
    admin_token: str
    token_is_new: bool
    token_file: str | None


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
    away_limit_s: float = 10,
    ocpp_timings: ServerTimings = DEFAULT_TIMINGS,
) -> None:
    """Run one node until `stop` is set or its ledger or a listener fails (then that exception is raised).

    Chargers are kept outside once Postgres has been away for `away_limit_s`.
    """
    async with AsyncExitStack() as stack:
        tasks = TaskStack(stack)
        node = await start_node(settings, database_url, broker, tasks, away_limit_s=away_limit_s)
        if settings.csms_infer_stop_after_s:
            patience_s = settings.csms_infer_stop_after_s
            await tasks.keep(
                lambda: reconciler.run(node.engine, node.ledger.record, patience_s), "reconciler"
            )
        await tasks.keep(lambda: deferred_bookings.run(node.engine, node.ledger.record), "deferred bookings")
        data_transfer.REGISTRY.load_entry_points()

        secured = secure(settings, node.engine)
        renewal = Renewal(
            node.engine,
            node.name,
            node.send,
            days_before=settings.csms_certificate_renew_days,
            kept_days=settings.csms_security_event_retention_days,
            authority=secured.authority,
            organization=organization(settings),
            server_directory=secured.server_directory,
        )
        renewal.renew_server_certificates(datetime.now(UTC))
        await tasks.keep(renewal.run, "renewal")

        planner = Planner(
            node.engine,
            node,
            node.send,
            price_input(settings),
            currency=settings.csms_prices_currency or settings.csms_currency,
            zone=settings.csms_time_zone,
            mqtt=node.broker is not None,
        )
        node.watch(lambda _charger_id: planner.nudge())
        await tasks.keep(planner.run, "planner")
        if settings.csms_audit_at is not None:
            audit = _nightly_audit(settings, settings.csms_audit_at, node, database_url)
            await tasks.keep(audit.run, "audit")

        token, new = _admin_token(settings)
        context = ServiceContext(
            node=node,
            admin_token=token,
            planner=planner,
            authority=secured.authority,
            wrong_tokens_per_minute=settings.csms_http_login_failures_per_minute,
        )
        provider = payments.load_provider(settings.csms_rental_payments)
        await stack.enter_async_context(
            http(
                context,
                ports.http,
                tasks,
                trusted_proxies=settings.csms_trusted_proxies,
                provider=provider,
            )
        )

        server = OcppServer(
            sock=ports.ocpp,
            max_frame_bytes=settings.csms_ocpp_max_frame_bytes,
            accepted_frame_bytes=settings.csms_ocpp_max_accepted_frame_bytes,
            ping_interval_s=settings.csms_ocpp_ping_interval_s,
            silence_s=settings.csms_ocpp_silence_s,
            calls_after_s=settings.csms_ocpp_calls_after_s,
            enrollment=settings.csms_enrollment,
            tls=_tls_listener(ports, secured),
            security=secured.stations,
            rules=secured.rules,
            timings=ocpp_timings,
        )
        await tasks.start(server.run(node), type(server).__name__)
        for bridge in bridges:
            await tasks.keep(partial(bridge.run, node), type(bridge).__name__)
        await server.listening.wait()
        ready(
            Running(
                ocpp=f"ws://{_address(ports.ocpp)}/",
                ocpp_tls=f"wss://{_address(ports.ocpp_tls)}/" if ports.ocpp_tls is not None else None,
                http=f"http://{_address(ports.http)}/",
                mqtt=broker.url if broker is not None else "off",
                database=database_address(node.engine),
                admin_token=token,
                token_is_new=new,
                token_file=_admin_token_file(settings),
            )
        )
        await tasks.until(stop)
        log.info("node_stopping")
    if tasks.failed.done():
        tasks.failed.result()


async def serve_bridge(
    settings: Settings,
    database_url: str,
    broker: BrokerAddress | None,
    adapter: Adapter,
    *,
    stop: asyncio.Event,
    ready: Callable[[str], None],
) -> None:
    """Run one bridge in a node of its own, without OCPP and HTTP, until `stop` is set or its ledger fails.

    `ready` gets the database's address.
    """
    async with AsyncExitStack() as stack:
        tasks = TaskStack(stack)
        node = await start_node(settings, database_url, broker, tasks)
        await tasks.keep(partial(adapter.run, node), type(adapter).__name__)
        ready(database_address(node.engine))
        await tasks.until(stop)
        log.info("node_stopping")
    if tasks.failed.done():
        tasks.failed.result()


def _nightly_audit(settings: Settings, at: time, node: Node, database_url: str) -> NightlyAudit:
    def audit(ids: Sequence[int]) -> AsyncIterator[AuditStep]:
        return audited_beside(AuditJob(database_url=database_url, policy=policy(settings), ids=ids))

    return NightlyAudit(node.engine, node.name, audit, at=at, zone=settings.csms_time_zone)


def _tls_listener(ports: Ports, secured: Secured) -> TlsListener | None:
    if ports.ocpp_tls is None or secured.tls is None:
        return None
    return TlsListener(sock=ports.ocpp_tls, context=secured.tls.context, watch=secured.tls.watch)


def _admin_token(settings: Settings) -> tuple[str, bool]:
    if settings.csms_admin_token is not None:
        return settings.csms_admin_token.get_secret_value(), False
    return data_dir.admin_token(data_dir.data_dir(settings.csms_data_dir))


def _admin_token_file(settings: Settings) -> str | None:
    """The file of the generated token; None: the operator has set one."""
    given = settings.csms_admin_token is not None
    return None if given else str(data_dir.admin_token_file(settings.csms_data_dir))


def _address(sock: socket.socket) -> str:
    host, port = sock.getsockname()[:2]
    shown = {"0.0.0.0": "localhost", "127.0.0.1": "localhost", "::": "localhost"}.get(host, host)
    return f"[{shown}]:{port}" if ":" in shown else f"{shown}:{port}"
